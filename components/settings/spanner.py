"""The source database's capacity, place, schema owner, access and backups."""

from dataclasses import dataclass
from typing import Self

from components.settings.reader import Reader


@dataclass(frozen=True, kw_only=True)
class SpannerSettings:
    """`key_regions`: every region of a multi-region instance config, for each needs its own key.

    `max_processing_units` 0: no autoscaling. `metadata_processing_units` 0: no separate instance for metadata.
    """

    instance_config: str
    edition: str
    processing_units: int
    max_processing_units: int
    metadata_processing_units: int
    version_retention: str
    schema_owner: str
    schema_contexts: tuple[str, ...]
    access: str
    backup_cron: str
    backup_days: int
    key_regions: tuple[str, ...]
    single_region_reason: str

    @classmethod
    def read(cls, read: Reader) -> Self:
        return cls(
            instance_config=read.text("spannerInstanceConfig", r"[a-z][a-z0-9-]+", "an instance config, such as nam3"),
            edition=read.text(
                "spannerEdition",
                "STANDARD|ENTERPRISE|ENTERPRISE_PLUS",
                "STANDARD, ENTERPRISE (autoscaling, incremental backups) or ENTERPRISE_PLUS (several regions)",
            ),
            processing_units=_units(read, "spannerProcessingUnits", 100),
            max_processing_units=_units(read, "spannerMaxProcessingUnits", 0),
            metadata_processing_units=_units(read, "metadataProcessingUnits", 0),
            version_retention=read.text(
                "spannerVersionRetention", r"([1-9]|1\d|2[0-4])h|[1-7]d", "1h to 24h or 1d to 7d"
            ),
            schema_owner=read.text("schemaOwner", "pulumi|liquibase", "pulumi or liquibase"),
            schema_contexts=read.texts("schemaContexts", r"[a-z]+", "names of Liquibase contexts"),
            access=read.text("spannerAccess", "databaseRoles|fineGrained", "databaseRoles or fineGrained"),
            backup_cron=read.text("spannerBackupCron", r"\S+( \S+){4}", "five fields of cron, in UTC"),
            backup_days=read.integer("spannerBackupDays", 0, 366),
            key_regions=read.texts("spannerKeyRegions", r"[a-z]+-[a-z]+\d+", "regions, such as us-central1"),
            single_region_reason=read.text("singleRegionReason", r".*", "text"),
        )

    @property
    def multi_region(self) -> bool:
        return not self.instance_config.startswith(("regional-", "emulator-"))

    @property
    def fine_grained(self) -> bool:
        """Whether services and job act as database roles."""
        return self.access == "fineGrained"

    @property
    def incremental_backups(self) -> bool:
        """Whether a backup holds what changed since the one before it: sold in every edition but the smallest."""
        return self.edition != "STANDARD"

    def relations(self, read: Reader, region: str, customer_managed_keys: bool) -> None:
        config = self.instance_config
        if config.startswith("regional-") and config != f"regional-{region}":
            read.refuse("spannerInstanceConfig", f"regional-{region}, where the stack is, or multi-region", config)
        if self.multi_region and customer_managed_keys and region not in self.key_regions:
            rule = f"every region of {config}, which `gcloud spanner instance-configs describe` lists; {region} is one"
            read.refuse("spannerKeyRegions", rule, ", ".join(self.key_regions))
        if read.stack == "prod" and not (self.multi_region or self.single_region_reason):
            rule = "multi-region in prod, such as nam3; or say in singleRegionReason why one region is enough"
            read.refuse("spannerInstanceConfig", rule, config)
        self._capacity(read)
        self._access(read)

    def _capacity(self, read: Reader) -> None:
        most = self.max_processing_units
        if most and not (1000 <= self.processing_units <= most <= 10 * self.processing_units):
            rule = "0, or 1 to 10 times spannerProcessingUnits, which is then at least 1000"
            read.refuse("spannerMaxProcessingUnits", rule, str(most))
        if self.multi_region and self.edition != "ENTERPRISE_PLUS":
            read.refuse("spannerEdition", f"ENTERPRISE_PLUS for {self.instance_config}", self.edition)
        elif most and self.edition == "STANDARD":
            read.refuse("spannerEdition", "ENTERPRISE or ENTERPRISE_PLUS with autoscaling", self.edition)

    def _access(self, read: Reader) -> None:
        if self.fine_grained and self.schema_owner == "pulumi" and "cloud" not in self.schema_contexts:
            rule = "with cloud among them where spannerAccess is fineGrained: its changesets make the database roles"
            read.refuse("schemaContexts", rule, ", ".join(self.schema_contexts))
        if read.stack == "prod":
            if not self.fine_grained:
                rule = "fineGrained in prod: roles/spanner.databaseUser may change the schema"
                read.refuse("spannerAccess", rule, self.access)
            if self.backup_days < 7:
                read.refuse("spannerBackupDays", "at least 7 in prod", str(self.backup_days))


def _units(read: Reader, key: str, low: int) -> int:
    units = read.integer(key, low, 10_000_000)
    if units % (100 if units < 1000 else 1000):
        read.refuse(key, "a multiple of 100 below 1000, of 1000 from there", str(units))
    return units
