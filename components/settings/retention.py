"""How long logs, the access log, backups and memory profiles are kept."""

from dataclasses import dataclass
from typing import Self

from components.settings.reader import Reader


@dataclass(frozen=True, kw_only=True)
class RetentionSettings:
    """`backup_location`: a second region for copies of the exports; empty for no copies.

    `unaudited`: members whose reads and writes of data are not logged, since they are the data's own way.
    """

    log_days: int
    access_log_days: int
    backup_days: int
    backup_location: str
    memory_profile_days: int
    unaudited: tuple[str, ...]

    @classmethod
    def read(cls, read: Reader) -> Self:
        return cls(
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

    def relations(self, read: Reader, region: str, warehouse: str) -> None:
        """Copies are of use where the first ones are not."""
        if self.backup_location and self.backup_location in (region, warehouse):
            read.refuse("backupLocation", "another region than the stack's and its warehouse's", self.backup_location)
