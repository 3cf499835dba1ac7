"""The source database's capacity, place and schema owner."""

from dataclasses import dataclass
from typing import Self

from components.settings.reader import Reader


@dataclass(frozen=True, kw_only=True)
class SpannerSettings:
    """`key_regions`: every region of a multi-region instance config, for each needs a key of its own."""

    instance_config: str
    processing_units: int
    version_retention: str
    schema_owner: str
    schema_contexts: tuple[str, ...]
    key_regions: tuple[str, ...]
    single_region_reason: str

    @classmethod
    def read(cls, read: Reader) -> Self:
        units = read.integer("spannerProcessingUnits", 100, 10_000_000)
        if units % (100 if units < 1000 else 1000):
            read.refuse("spannerProcessingUnits", "a multiple of 100 below 1000, of 1000 from there", str(units))
        return cls(
            instance_config=read.text("spannerInstanceConfig", r"[a-z][a-z0-9-]+", "an instance config, such as nam3"),
            processing_units=units,
            version_retention=read.text(
                "spannerVersionRetention", r"([1-9]|1\d|2[0-4])h|[1-7]d", "1h to 24h or 1d to 7d"
            ),
            schema_owner=read.text("schemaOwner", "pulumi|liquibase", "pulumi or liquibase"),
            schema_contexts=read.texts("schemaContexts", r"[a-z]+", "names of Liquibase contexts"),
            key_regions=read.texts("spannerKeyRegions", r"[a-z]+-[a-z]+\d+", "regions, such as us-central1"),
            single_region_reason=read.text("singleRegionReason", r".*", "text"),
        )

    @property
    def multi_region(self) -> bool:
        return not self.instance_config.startswith(("regional-", "emulator-"))

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
