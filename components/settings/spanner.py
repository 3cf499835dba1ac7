"""The source database: one of the stack's, with capacity, place, access and backups; or where that of others is."""

from dataclasses import dataclass
from typing import Self

from components import naming
from components.settings.reader import Reader
from contract.attached import EXISTING
from contract.dialects import GOOGLE_SQL, POSTGRESQL


@dataclass(frozen=True, kw_only=True)
class SpannerSettings:
    """`key_regions`: every region of a multi-region instance config, for each needs its own key.

    `max_processing_units` 0: no autoscaling. `metadata_processing_units` 0: no separate instance for metadata.
    `project`, `instance`, `database` and `metadata_instance` are of a database that others own; else empty.
    """

    project: str
    instance: str
    database: str
    metadata_instance: str

    dialect: str
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
            project=read.text("spannerProject", r"|[a-z][a-z0-9-]{4,28}[a-z0-9]", "empty or a Google Cloud project id"),
            instance=read.text("spannerInstance", r"|[a-z][a-z0-9-]{1,63}", "empty or an instance id"),
            database=read.text("spannerDatabase", r"|[a-z][a-z0-9_-]{1,29}", "empty or a database id"),
            metadata_instance=read.text("metadataInstance", r"|[a-z][a-z0-9-]{1,63}", "empty or an instance id"),
            dialect=read.text(
                "spannerDialect", f"{GOOGLE_SQL}|{POSTGRESQL}", f"{GOOGLE_SQL} or {POSTGRESQL}, which a database keeps"
            ),
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
            schema_owner=read.text(
                "schemaOwner",
                f"pulumi|liquibase|{EXISTING}",
                f"pulumi, liquibase, or {EXISTING} (a database that others own; nothing of it is made or changed)",
            ),
            schema_contexts=read.texts("schemaContexts", r"[a-z]+", "names of Liquibase contexts"),
            access=read.text("spannerAccess", "databaseRoles|fineGrained", "databaseRoles or fineGrained"),
            backup_cron=read.text("spannerBackupCron", r"\S+( \S+){4}", "five fields of cron, in UTC"),
            backup_days=read.integer("spannerBackupDays", 0, 366),
            key_regions=read.texts("spannerKeyRegions", r"[a-z]+-[a-z]+\d+", "regions, such as us-central1"),
            single_region_reason=read.text("singleRegionReason", r".*", "text"),
        )

    @property
    def multi_region(self) -> bool:
        """Of the instance that the stack makes for its source."""
        return not self.existing and not self.instance_config.startswith(("regional-", "emulator-"))

    @property
    def existing(self) -> bool:
        """Whether others own the database."""
        return self.schema_owner == EXISTING

    @property
    def roles(self) -> bool:
        """Whether the accounts act as database roles. The emulator has none, so one that others own is read without."""
        return "cloud" in self.schema_contexts if self.existing else self.access == "fineGrained"

    @property
    def incremental_backups(self) -> bool:
        """Whether a backup holds what changed since the one before it: sold in every edition but the smallest."""
        return self.edition != "STANDARD"

    def relations(self, read: Reader, region: str, customer_managed_keys: bool, names: naming.Names) -> None:
        if self.metadata_processing_units and len(names.prefix) > naming.LONGEST_PREFIX_OF_METADATA:
            rule = (
                f"at most {naming.LONGEST_PREFIX_OF_METADATA} characters where the stack makes an instance for its "
                f"metadata, {naming.METADATA_INSTANCE}: an instance's name has 30; or name one in metadataInstance"
            )
            read.refuse("prefix", rule, names.prefix)
        if self.existing:
            self._attached(read, names)
            return
        for key, value in (
            ("spannerProject", self.project),
            ("spannerInstance", self.instance),
            ("spannerDatabase", self.database),
            ("metadataInstance", self.metadata_instance),
        ):
            if value:
                read.refuse(key, f"empty, unless schemaOwner is {EXISTING}: the stack makes its database", value)
        if self.dialect == POSTGRESQL and self.schema_owner == "liquibase":
            rule = f"pulumi where spannerDialect is {POSTGRESQL}: Liquibase runs GoogleSQL alone on Spanner"
            read.refuse("schemaOwner", rule, self.schema_owner)
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

    def _attached(self, read: Reader, names: naming.Names) -> None:
        """A database that others own, and somewhere else for the audit's own metadata."""
        for key, value in (("spannerInstance", self.instance), ("spannerDatabase", self.database)):
            if not value:
                read.refuse(key, f"set where schemaOwner is {EXISTING}: the name of what is there", value)
        if bool(self.metadata_instance) == bool(self.metadata_processing_units):
            rule = f"100 at least for a separate instance, or 0 with metadataInstance, under {EXISTING}"
            read.refuse("metadataProcessingUnits", rule, str(self.metadata_processing_units))
        if self.database == names.of(naming.METADATA_DATABASE) and self.metadata_instance == self.instance:
            read.refuse("spannerDatabase", "another than the audit's own database of that name", self.database)

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
        if self.roles and self.schema_owner == "pulumi" and "cloud" not in self.schema_contexts:
            rule = "with cloud among them where spannerAccess is fineGrained: its changesets make the database roles"
            read.refuse("schemaContexts", rule, ", ".join(self.schema_contexts))
        if read.stack == "prod":
            if not self.roles:
                rule = "fineGrained in prod: roles/spanner.databaseUser may change the schema"
                read.refuse("spannerAccess", rule, self.access)
            if self.backup_days < 7:
                read.refuse("spannerBackupDays", "at least 7 in prod", str(self.backup_days))


def _units(read: Reader, key: str, low: int) -> int:
    units = read.integer(key, low, 10_000_000)
    if units % (100 if units < 1000 else 1000):
        read.refuse(key, "a multiple of 100 below 1000, of 1000 from there", str(units))
    return units
