"""The source: Spanner instance, audit database with its change streams, and the pipeline's metadata database."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pulumi
from pulumi_gcp import spanner

from components import naming
from components.settings import Settings
from contract import schema


class SchemaOwnerError(ValueError):
    """The owner of a living stack's schema was changed in its config; the message says the way out."""


@dataclass(frozen=True, kw_only=True)
class SourceDatabaseArgs:
    """`application` and `pipeline`: the members that write payments and that read their changes."""

    settings: Settings
    application: pulumi.Input[str]
    pipeline: pulumi.Input[str]


class SourceDatabase(pulumi.ComponentResource):
    """Database `audit-db` with the tables and change streams of the Liquibase changelog. Outputs are names."""

    instance: pulumi.Output[str]
    database: pulumi.Output[str]
    metadata_database: pulumi.Output[str]

    def __init__(self, name: str, args: SourceDatabaseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("SourceDatabase"), name, {}, opts)
        self._args, self._settings = args, args.settings
        instance = self._instance()
        database = self._audit_database(instance)
        metadata = self._database(naming.METADATA_DATABASE, instance, schema.statements(schema.METADATA_DB))
        self._access(database, "application", "databaseUser", args.application)
        self._access(database, "pipeline", "databaseReader", args.pipeline)
        self._access(metadata, "pipeline", "databaseUser", args.pipeline)
        self.instance = instance.name
        self.database = database.name
        self.metadata_database = metadata.name
        self.register_outputs(
            {"instance": self.instance, "database": self.database, "metadata_database": self.metadata_database}
        )

    def _instance(self) -> spanner.Instance:
        settings = self._settings.spanner
        return spanner.Instance(
            naming.INSTANCE,
            name=naming.INSTANCE,
            display_name=naming.INSTANCE,
            config=settings.instance_config,
            # Several regions are sold in this edition alone.
            edition="ENTERPRISE_PLUS" if settings.multi_region else None,
            processing_units=settings.processing_units,
            force_destroy=False,
            opts=pulumi.ResourceOptions(parent=self, protect=self._settings.protect),
        )

    def _audit_database(self, instance: spanner.Instance) -> spanner.Database:
        """The source database. Liquibase's is made empty, and Pulumi then leaves its schema alone."""
        settings = self._settings.spanner
        owner = self._schema_owner()
        if settings.schema_owner == "liquibase":
            return self._database(naming.AUDIT_DATABASE, instance, [], ignore=["ddls"])
        statements = schema.statements(contexts=frozenset(settings.schema_contexts))
        # The statements wait for the owner's check: Pulumi must not run what Liquibase has run.
        return self._database(naming.AUDIT_DATABASE, instance, owner.apply(lambda _: statements))

    def _schema_owner(self) -> pulumi.Output[str]:
        """The owner that the stack was made with, kept in its state. SchemaOwnerError when config says another."""
        configured = self._settings.spanner.schema_owner
        stash = pulumi.Stash("schema-owner", input=configured, opts=pulumi.ResourceOptions(parent=self))
        return pulumi.Output.all(stash.output, stash.urn).apply(partial(_same_owner, configured))

    def _database(
        self,
        name: str,
        instance: spanner.Instance,
        statements: pulumi.Input[Sequence[str]],
        *,
        ignore: list[str] | None = None,
    ) -> spanner.Database:
        """`ddls` is append-only: changing an earlier statement plans a replacement, which protection stops."""
        protect = self._settings.protect
        return spanner.Database(
            name,
            name=name,
            instance=instance.name,
            ddls=statements,
            version_retention_period=self._settings.spanner.version_retention,
            deletion_protection=protect,
            enable_drop_protection=protect,
            opts=pulumi.ResourceOptions(parent=self, protect=protect, ignore_changes=ignore),
        )

    def _access(self, database: spanner.Database, who: str, role: str, member: pulumi.Input[str]) -> None:
        spanner.DatabaseIAMMember(
            f"{database._name}-{who}",
            instance=database.instance,
            database=database.name,
            role=f"roles/spanner.{role}",
            member=member,
            opts=pulumi.ResourceOptions(parent=self),
        )


def _same_owner(configured: str, stashed: Sequence[str]) -> str:
    made_with, urn = stashed
    if configured == made_with:
        return configured
    way = (
        "run `liquibase changelog-sync`, which marks the statements as run, then "
        f"`pulumi up --replace '{urn}'` with the new value."
        if configured == "liquibase"
        else "keep Liquibase: the provider cannot adopt statements that it did not run."
    )
    raise SchemaOwnerError(
        f"schemaOwner must stay {made_with!r}, which this stack was made with, got {configured!r}. "
        f"Set it back in Pulumi.<stack>.yaml; to hand the schema over, {way}"
    )
