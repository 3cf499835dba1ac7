"""The warehouse's place, its merge and its readers."""

from dataclasses import dataclass
from typing import Final, Self

from components.settings.reader import Reader

_MEMBER: Final = r"(group|user|serviceAccount):[^@\s]+@[^@\s]+"


@dataclass(frozen=True, kw_only=True)
class WarehouseSettings:
    location: str
    merge_minutes: int
    readers: tuple[str, ...]

    @classmethod
    def read(cls, read: Reader) -> Self:
        place = (r"US|EU|[a-z]+-[a-z]+\d+", "a BigQuery location, such as us-central1")
        return cls(
            location=read.text("warehouseLocation", *place),
            merge_minutes=read.integer("mergeMinutes", 5, 60),
            readers=read.texts("readers", _MEMBER, "members such as group:support-staff@example.com, never everyone"),
        )

    def relations(self, read: Reader, region: str) -> None:
        """Data is where the stack is: in its region, or the multi-region that has it."""
        around = {"us": "US", "europe": "EU"}.get(region.partition("-")[0])
        if self.location not in (region, around):
            places = " or ".join(place for place in (region, around) if place)
            read.refuse("warehouseLocation", f"{places}, where the stack is", self.location)
