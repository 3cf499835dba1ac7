"""How long logs, the access log, backups and memory profiles are kept."""

from dataclasses import dataclass
from typing import Final, Self

from components.settings.reader import Reader

_BUCKET: Final = (
    r"|projects/[^/]+/locations/[^/]+/buckets/[A-Za-z0-9_.-]+",
    "empty or projects/P/locations/L/buckets/B",
)


@dataclass(frozen=True, kw_only=True)
class RetentionSettings:
    """`backup_location`: a second region for copies of the exports; empty for no copies.

    `log_bucket` is one that others own, empty where the stack makes its own, which keeps logs for `log_days`.
    `unaudited`: members whose reads and writes of data are not logged, since they are the data's own way.
    """

    log_bucket: str
    log_days: int
    access_log_days: int
    backup_days: int
    backup_location: str
    memory_profile_days: int
    unaudited: tuple[str, ...]

    @classmethod
    def read(cls, read: Reader) -> Self:
        return cls(
            log_bucket=read.text("logBucket", *_BUCKET),
            log_days=read.integer("logRetentionDays", 30, 3650),
            access_log_days=read.integer("accessLogDays", 30, 3650),
            backup_days=read.integer("backupRetentionDays", 7, 3650),
            backup_location=read.text(
                "backupLocation", r"|[a-z]+-[a-z]+\d+", "empty, or a region other than the stack's, such as us-west1"
            ),
            memory_profile_days=read.integer("memoryProfileDays", 1, 30),
            unaudited=read.texts(
                "auditLogExemptions",
                r"application-sa|dataflow-sa|probe-sa|validation-sa|backup-sa",
                "accounts of the stack: application-sa, dataflow-sa, probe-sa, validation-sa, backup-sa",
            ),
        )

    def relations(self, read: Reader, region: str, warehouse: str, project_wide: bool) -> None:
        """Copies are of use where the first ones are not."""
        if self.unaudited and not project_wide:
            rule = "empty where projectWide is false: the stack that has it true says which accesses are logged"
            read.refuse("auditLogExemptions", rule, ", ".join(self.unaudited))
        if self.backup_location and self.backup_location in (region, warehouse):
            read.refuse("backupLocation", "another region than the stack's and its warehouse's", self.backup_location)
