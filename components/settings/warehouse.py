"""The warehouse's place, its merge and its readers."""

from dataclasses import dataclass
from typing import Final, Self

from components.settings.reader import Reader
from contract.watched import WatchedTables

_MEMBERS: Final = (
    r"(group|user|serviceAccount):[^@\s]+@[^@\s]+",
    "members such as group:support-staff@example.com, never everyone",
)


@dataclass(frozen=True, kw_only=True)
class WarehouseSettings:
    """`existing` are datasets of others, in the stack's project. `partition_days` 0: no change is ever deleted. Without
    `personal_data_readers` nothing is hidden from readers."""

    location: str
    existing: tuple[str, ...]
    merge_minutes: int
    lookup_minutes: int
    readers: tuple[str, ...]
    personal_data_readers: tuple[str, ...]
    card_searchers: tuple[str, ...]
    partition_days: int
    looker_template: str

    @classmethod
    def read(cls, read: Reader) -> Self:
        place = (r"US|EU|[a-z]+-[a-z]+\d+", "a BigQuery location, such as us-central1")
        return cls(
            location=read.text("warehouseLocation", *place),
            existing=read.texts("existingDatasets", r"[A-Za-z0-9_]{1,1024}", "names of datasets"),
            merge_minutes=read.integer("mergeMinutes", 5, 10_080),
            lookup_minutes=read.integer("lookupMinutes", 5, 60),
            readers=read.texts("readers", *_MEMBERS),
            personal_data_readers=read.texts("personalDataReaders", *_MEMBERS),
            card_searchers=read.texts("cardSearchers", *_MEMBERS),
            partition_days=read.integer("partitionExpirationDays", 0, 36_500),
            looker_template=read.text(
                "lookerTemplate", r"|[\w-]{10,64}", "empty or a report's id, the part of its address after /reporting/"
            ),
        )

    def relations(self, read: Reader, region: str, watched: WatchedTables) -> None:
        """Data is where the stack is: in its region, or the multi-region that has it."""
        changelogs = sorted({table.dataset for table in watched.tables})
        if wrong := sorted(set(self.existing) - set(changelogs)):
            rule = (
                f"datasets of changelogs, as the tables file names them ({', '.join(changelogs)}): of those of the "
                "views, the access log and the backups the stack alone says who reads and deletes what is in them"
            )
            read.refuse("existingDatasets", rule, ", ".join(wrong))
        around = {"us": "US", "europe": "EU"}.get(region.partition("-")[0])
        if self.location not in (region, around):
            places = " or ".join(place for place in (region, around) if place)
            read.refuse("warehouseLocation", f"{places}, where the stack is", self.location)
        people = [m for m in self.personal_data_readers if not m.startswith("serviceAccount:")]
        if strangers := [member for member in people if member not in self.readers]:
            read.refuse("personalDataReaders", "members of readers, or service accounts", ", ".join(strangers))
        if 0 < self.partition_days < 30:
            rule = "0 (never) or at least 30: views and merge look back a week, and dead letters come late"
            read.refuse("partitionExpirationDays", rule, str(self.partition_days))
