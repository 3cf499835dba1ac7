"""Runs inputs through decode, mask and encode, as the job does, and counts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from contract import tables
from contract.changes import Change, StepError
from pipeline.failures import dead_letter
from pipeline.sink import rows
from pipeline.transforms.decode import decode
from pipeline.transforms.keys import MaskingKeys
from pipeline.transforms.mask import Masker
from tests.fuzz import harmless, hidden
from tests.shipped import PAYMENTS, WATCHED

BATCH = 100
KEYS = MaskingKeys({"v1": bytes(range(32))})
_CODES = ("code", "expiry", "holder", "pin")


@dataclass
class Outcome:
    """What was counted. `leaks` and `changed` are (kind, seed) of inputs: never their values."""

    inputs: int = 0
    dead_letters: int = 0
    leaks: list[tuple[str, str]] = field(default_factory=list)
    changed: list[tuple[str, str]] = field(default_factory=list)
    crashes: list[tuple[str, str]] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        self.inputs += other.inputs
        self.dead_letters += other.dead_letters
        self.leaks += other.leaks
        self.changed += other.changed
        self.crashes += other.crashes

    @property
    def numbers_out(self) -> int:
        return len(self.leaks) - self.codes_out

    @property
    def codes_out(self) -> int:
        return sum(kind.startswith(_CODES) for kind, _ in self.leaks)

    def by_kind(self) -> Counter[str]:
        return Counter(kind for kind, _ in (*self.changed, *self.leaks, *self.crashes))


def run_hidden(seeds: Iterable[str]) -> Outcome:
    """Hides something for each seed, and checks whether it can be read in the rows or the dead letters."""
    outcome = Outcome()
    masker = Masker(KEYS, WATCHED, new_columns="scan")
    pending: list[tuple[str, hidden.Case, Change]] = []
    for seed in seeds:
        case = hidden.case(seed)
        outcome.inputs += 1
        try:
            change = decode(case.record, 0)
            masker.mask(change)
        except StepError as error:
            outcome.dead_letters += 1
            _check(outcome, seed, case, [str(error), *_texts(_as_dict(dead_letter(change.coordinates, "Mask", error)))])
            continue
        except Exception:
            outcome.crashes.append((case.kind, seed))
            continue
        pending.append((seed, case, change))
        if len(pending) == BATCH:
            _encode(pending, outcome)
            pending.clear()
    _encode(pending, outcome)
    return outcome


def run_harmless(seeds: Iterable[str]) -> Outcome:
    """Counts the harmless values that do not come out as they went in."""
    outcome = Outcome()
    masker = Masker(KEYS, WATCHED, new_columns="scan")
    for seed in seeds:
        value = harmless.value(seed)
        outcome.inputs += 1
        try:
            change = decode(value.record, 0)
            masker.mask(change)
        except StepError:
            outcome.dead_letters += 1
            outcome.changed.append((value.kind, seed))
            continue
        except Exception:
            outcome.crashes.append((value.kind, seed))
            continue
        if change.new[value.column] != value.value or change.card_tokens:
            outcome.changed.append((value.kind, seed))
    return outcome


def _encode(pending: list[tuple[str, hidden.Case, Change]], outcome: Outcome) -> None:
    if not pending:
        return
    batch, failed = rows.encode([change for _, _, change in pending], PAYMENTS)
    letters = {id(change): error for change, error in failed}
    sent = iter(batch.to_pylist() if batch is not None else [])
    for seed, case, change in pending:
        texts = [*_texts(change.keys), *_texts(change.new), *_texts(change.old)]
        if id(change) in letters:
            outcome.dead_letters += 1
            letter = dead_letter(change.coordinates, "EncodeRows", letters[id(change)], change)
            texts += _texts(_as_dict(letter))
        else:
            row = next(sent)
            texts += _texts({name: row[name] for name in row if not name.startswith("_metadata")})
            texts += _texts([row[tables.EXACT_VALUES] or "", row[tables.OLD_VALUES] or ""])
        _check(outcome, seed, case, texts)


def _check(outcome: Outcome, seed: str, case: hidden.Case, texts: list[str]) -> None:
    if hidden.leaks(case, list(dict.fromkeys(texts))):
        outcome.leaks.append((case.kind, seed))


def _as_dict(letter: Any) -> dict[str, Any]:
    change = letter.change or {}
    return {"message": letter.message, "change": {name: change.get(name) for name in ("keys", "new", "old")}}


def _texts(value: Any) -> list[str]:
    """All that is written in a value: an array also as a whole."""
    match value:
        case None | bool():
            return []
        case bytes():
            return [value.decode("latin-1"), value.hex(), value.replace(b"\0", b"").decode("latin-1")]
        case dict():
            return [text for name, each in value.items() for text in (name, *_texts(each))]
        case list():
            return [
                json.dumps([v for v in value if isinstance(v, str | int | float)]),
                *(t for v in value for t in _texts(v)),
            ]
        case float():
            return [f"{value:.1f}"]
    return [str(value)]


Runner = Callable[[Iterable[str]], Outcome]
RUNNERS: dict[str, Runner] = {"hidden": run_hidden, "harmless": run_harmless}
