"""The price list: what one unit of a SKU costs at a place, and who has seen that figure where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import yaml

from contract.errors import AuditError

LIST: Final = Path(__file__).with_name("prices.yaml")
_KEYS: Final = {"unit", "page", "seen", "seen_at", "free", "places", "everywhere"}


class PriceError(AuditError, LookupError):
    """A price is not known, or the price file is not one; the message says the remedy."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """Dollars for one `unit`. `seen` is empty where nobody has read the figure on `page`."""

    sku: str
    dollars: float
    unit: str
    page: str
    seen: str
    free: float


@dataclass(frozen=True, kw_only=True)
class Prices:
    """A price list of one date."""

    as_of: str
    _skus: Mapping[str, Mapping[str, Any]]
    _pages: Mapping[str, str]

    @classmethod
    def load(cls, over: Path | None = None) -> Self:
        """The list in `delivery/prices.yaml`, with the values of another file over it. Raises PriceError."""
        ours = cls._read(LIST)
        return ours.with_(over) if over else ours

    def with_(self, file: Path) -> Self:
        """This list, with the figures of a file over it: of a SKU, the places that it names and what else it says."""
        theirs = self._read(file)
        skus = dict(self._skus)
        for sku, given in theirs._skus.items():
            price = dict(given)
            mine = skus.get(sku, {})
            if "seen" in price and "places" in price:
                # Who has seen these has not seen the others.
                price.setdefault("seen_at", list(price["places"]))
            skus[sku] = {**mine, **price, "places": {**mine.get("places", {}), **price.get("places", {})}}
        return replace(self, as_of=theirs.as_of, _skus=skus, _pages={**self._pages, **theirs._pages})

    @classmethod
    def _read(cls, file: Path) -> Self:
        try:
            content = yaml.safe_load(file.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise PriceError(f"{file} cannot be read as YAML ({type(error).__name__}). See {LIST.name}.") from None
        if not (isinstance(content, dict) and isinstance(content.get("skus"), dict) and content.get("as_of")):
            raise PriceError(f"{file} must have as_of, a date, and skus. See {LIST.name}.")
        for sku, price in content["skus"].items():
            if unknown := sorted(set(price) - _KEYS):
                raise PriceError(f"{file}: {sku} must have only {', '.join(sorted(_KEYS))}, got {', '.join(unknown)}.")
        return cls(as_of=str(content["as_of"]), _skus=content["skus"], _pages=content.get("pages", {}))

    @property
    def skus(self) -> frozenset[str]:
        return frozenset(self._skus)

    def of(self, sku: str, place: str) -> Price:
        """The price of a SKU at a place. Raises PriceError with what to write where."""
        price = self._skus.get(sku, {})
        places = price.get("places", {})
        dollars = places.get(place, price.get("everywhere"))
        if dollars is None:
            known = f"there are {', '.join(sorted(places))}" if places else "there is none"
            raise PriceError(
                f"no price of {sku} at {place}: {known}. Look it up and pass --prices FILE with\n"
                f"as_of: <the day>\nskus:\n  {sku}:\n"
                f"    seen: <where>\n    seen_at: [{place}]\n    places: {{{place}: <dollars>}}"
            )
        return Price(
            sku=sku,
            dollars=float(dollars),
            unit=price["unit"],
            page=self._pages.get(price.get("page", ""), price.get("page", "")),
            seen=price.get("seen", "") if place in price.get("seen_at", [place]) else "",
            free=float(price.get("free", 0)),
        )
