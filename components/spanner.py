"""The source: Spanner instance, audit database with its change streams, and the pipeline's metadata database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pulumi
from pulumi_gcp import spanner

from components import naming
from components.identity import Identity
from components.kms import Keys
from components.settings import Settings, SpannerSettings
from contract import schema
from contract.dialects import GOOGLE_SQL
from contract.errors import AuditError


class SchemaOwnerError(AuditError, ValueError):
    """The owner of a living stack's schema was changed in its config; the message says the remedy."""


@dataclass(frozen=True, kw_only=True)
class SourceDatabaseArgs:
    settings: Settings
    accounts: Identity
    keys: Keys


class SourceDatabase(pulumi.ComponentResource):
    """Database `audit-db` with the tables and change streams of the Liquibase changelog; or the name of a database that
    others own, of which nothing is a resource here. And the metadata database. Outputs are names.

    `reader_role` is the database role that the pipeline reads with; empty, it reads with its IAM role.
    """

    project: str
    instance: pulumi.Output[str]
    database: pulumi.Output[str]
    metadata_instance: pulumi.Output[str]
    metadata_database: pulumi.Output[str]
    reader_role: str

    def __init__(self, name: str, args: SourceDatabaseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("SourceDatabase"), name, {}, opts)
        self._args, self._settings = args, args.settings
        settings = self._settings.spanner
        self.project = settings.project or self._settings.project
        if settings.existing:
            self._schema_owner()
            self.instance = pulumi.Output.from_input(settings.instance)
            self.database = pulumi.Output.from_input(settings.database)
            home = self._metadata_instance()
        else:
            instance = self._instance()
            database = self._audit_database(instance)
            home = self._metadata_instance() or instance
            self._backups(database)
            self._audit_access(database)
            self.instance, self.database = instance.name, database.name
        self.metadata_instance = home.name if home else pulumi.Output.from_input(settings.metadata_instance)
        metadata = self._metadata_database(self.metadata_instance)
        self._metadata_access(metadata)
        self.metadata_database = metadata.name
        self.reader_role = schema.READER_ROLE if settings.roles else ""
        self.register_outputs(
            {"instance": self.instance, "database": self.database, "metadata_database": self.metadata_database}
        )

    def _instance(self) -> spanner.Instance:
        settings = self._settings.spanner
        capacity = (
            {"autoscaling_config": _autoscaling(settings)}
            if settings.max_processing_units
            else {"processing_units": settings.processing_units}
        )
        return self._spanner_instance(naming.INSTANCE, settings.instance_config, settings.edition, capacity)

    def _metadata_instance(self) -> spanner.Instance | None:
        """A separate instance, in the job's region: then the stream and its position share no capacity."""
        units = self._settings.spanner.metadata_processing_units
        if not units:
            return None
        place = f"regional-{self._settings.region}"
        return self._spanner_instance(naming.METADATA_INSTANCE, place, "STANDARD", {"processing_units": units})

    def _spanner_instance(self, name: str, config: str, edition: str, capacity: Mapping[str, Any]) -> spanner.Instance:
        protect = self._settings.protect
        return spanner.Instance(
            name,
            name=self._settings.names.of(name),
            display_name=self._settings.names.of(name),
            config=config,
            edition=edition,
            # The schedule below is the one that makes backups.
            default_backup_schedule_type="NONE",
            # Its backups go with it where that is allowed; otherwise they keep it.
            force_destroy=not protect,
            **capacity,
            opts=pulumi.ResourceOptions(parent=self, protect=protect),
        )

    def _audit_database(self, instance: spanner.Instance) -> spanner.Database:
        """The source database. Liquibase's is made empty, and Pulumi then leaves its schema alone."""
        settings = self._settings.spanner
        owner = self._schema_owner()
        if settings.schema_owner == "liquibase":
            return self._database(
                naming.AUDIT_DATABASE, instance.name, [], self._encryption(), dialect=settings.dialect, ignore=["ddls"]
            )
        contexts = frozenset(settings.schema_contexts)
        statements = schema.statements(self._settings.watched.source_changelog, contexts=contexts)
        # The statements wait for the owner's check: Pulumi must not run what Liquibase has run.
        checked = owner.apply(lambda _: statements)
        return self._database(
            naming.AUDIT_DATABASE, instance.name, checked, self._encryption(), dialect=settings.dialect
        )

    def _metadata_database(self, instance: pulumi.Output[str]) -> spanner.Database:
        own = bool(self._settings.spanner.metadata_processing_units or self._settings.spanner.existing)
        encryption = _encryption([self._args.keys.spanner]) if own else self._encryption()
        contexts = frozenset(self._settings.spanner.schema_contexts)
        statements = schema.statements(schema.METADATA_DB, contexts=contexts)
        return self._database(naming.METADATA_DATABASE, instance, statements, encryption)

    def _encryption(self) -> spanner.DatabaseEncryptionConfigArgsDict | None:
        """The key of the instance's region or, of a multi-region instance, one in each of its regions."""
        return _encryption(self._args.keys.spanner_replicas or [self._args.keys.spanner])

    def _schema_owner(self) -> pulumi.Output[str]:
        """The owner that the stack was made with, kept in its state. SchemaOwnerError when config says another."""
        configured = self._settings.spanner.schema_owner
        stash = pulumi.Stash("schema-owner", input=configured, opts=pulumi.ResourceOptions(parent=self))
        return pulumi.Output.all(stash.output, stash.urn).apply(partial(_same_owner, configured))

    def _database(
        self,
        name: str,
        instance: pulumi.Input[str],
        statements: pulumi.Input[Sequence[str]],
        encryption: spanner.DatabaseEncryptionConfigArgsDict | None,
        *,
        dialect: str = GOOGLE_SQL,
        ignore: list[str] | None = None,
    ) -> spanner.Database:
        """`ddls` is append-only: changing an earlier statement plans a replacement, which protection stops."""
        protect = self._settings.protect
        return spanner.Database(
            name,
            name=self._settings.names.of(name),
            instance=instance,
            database_dialect=dialect,
            ddls=statements,
            encryption_config=encryption,
            version_retention_period=self._settings.spanner.version_retention,
            deletion_protection=protect,
            enable_drop_protection=protect,
            opts=pulumi.ResourceOptions(parent=self, protect=protect, ignore_changes=ignore),
        )

    def _backups(self, database: spanner.Database) -> None:
        """Incremental where the edition has that: a full one is a copy of the database, paid for all its retention."""
        settings = self._settings.spanner
        if not settings.backup_days:
            return
        incremental: Mapping[str, Any] = {"incremental_backup_spec": {}}
        full: Mapping[str, Any] = {"full_backup_spec": {}}
        spanner.BackupSchedule(
            naming.BACKUPS,
            name=self._settings.names.of(naming.BACKUPS),
            instance=database.instance,
            database=database.name,
            retention_duration=f"{settings.backup_days * 24 * 3600}s",
            spec={"cron_spec": {"text": settings.backup_cron}},
            **(incremental if settings.incremental_backups else full),
            encryption_config={"encryption_type": "USE_DATABASE_ENCRYPTION"},
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _audit_access(self, database: spanner.Database) -> None:
        """Fine-grained: nobody can change the schema; the job sees the change streams and no table, the probe also what
        says that a payment is stuck. Data Boost takes a role of Google's, which reads all of the database."""
        accounts, boost = self._args.accounts, self._settings.replay.data_boost
        if self._settings.pipeline.image:
            # Of Google's roles each with getDdl reads the rows too.
            ddl = naming.role(naming.DDL_READER, self._settings.project)
            self._access(database, "schema", ddl, accounts.schema.member)
        if self._settings.spanner.roles:
            self._database_role(database, "application", schema.WRITER_ROLE, accounts.application.member)
            self._database_role(database, "pipeline", schema.READER_ROLE, accounts.pipeline.member)
            self._database_role(database, "probe", schema.PROBE_ROLE, accounts.probe.member)
            self._database_role(database, "validation", schema.VALIDATION_ROLE, accounts.validation.member)
            if boost:
                self._access(database, "validation-boost", "databaseReaderWithDataBoost", accounts.validation.member)
            return
        self._access(database, "application", "databaseUser", accounts.application.member)
        self._access(database, "pipeline", "databaseReader", accounts.pipeline.member)
        self._access(database, "probe", "databaseReader", accounts.probe.member)
        reader = "databaseReaderWithDataBoost" if boost else "databaseReader"
        self._access(database, "validation", reader, accounts.validation.member)

    def _metadata_access(self, metadata: spanner.Database) -> None:
        """The job keeps its position there, the probe its totals, backups their records, operations their runs; replay,
        validation and console who asked for what.

        Who is on call reads it: no payment is in it. They and the console submit replays, by a role for that; who may
        have a customer erased records that by another one.
        """
        accounts = self._args.accounts
        users = {
            "pipeline": accounts.pipeline,
            "probe": accounts.probe,
            "validation": accounts.validation,
            "erasure": accounts.erasure,
            "backup": accounts.backup,
        }
        if self._settings.pipeline.image:
            users |= {"launcher": accounts.launcher, "schema": accounts.schema}
            users |= {"dead-letters": accounts.dead_letters, "retry": accounts.retry}
        for who, account in users.items():
            self._access(metadata, who, "databaseUser", account.member)
        for person in self._settings.identity.on_call:
            self._access(metadata, person, "databaseReader", person)
            self._submits(metadata, f"{person}-submits", person, schema.SUBMITTER_ROLE)
        if self._settings.console.image:
            self._submits(metadata, "console", accounts.console.member, schema.SUBMITTER_ROLE)
        for person in self._settings.identity.erasers:
            self._submits(metadata, f"{person}-erases", person, schema.ERASER_ROLE)

    def _submits(self, metadata: spanner.Database, who: str, member: pulumi.Input[str], role: str) -> None:
        """Lets a member record replays or erasures; the roles are of changesets for the cloud."""
        if "cloud" in self._settings.spanner.schema_contexts:
            self._database_role(metadata, who, role, member)

    def _database_role(
        self, database: spanner.Database, who: str, database_role: str, member: pulumi.Input[str]
    ) -> None:
        """Lets a member act as one database role, and as nothing else."""
        self._access(database, who, "fineGrainedAccessUser", member)
        self._access(
            database,
            f"{who}-as-{database_role}",
            "databaseRoleUser",
            member,
            condition={
                "title": database_role,
                "expression": naming.database_role(database_role),
            },
        )

    def _access(
        self,
        database: spanner.Database,
        who: str,
        role: str,
        member: pulumi.Input[str],
        *,
        condition: spanner.DatabaseIAMMemberConditionArgsDict | None = None,
    ) -> None:
        spanner.DatabaseIAMMember(
            f"{database._name}-{who}",
            instance=database.instance,
            database=database.name,
            role=role if "/" in role else f"roles/spanner.{role}",
            member=member,
            condition=condition,
            opts=pulumi.ResourceOptions(parent=self),
        )


def _autoscaling(settings: SpannerSettings) -> spanner.InstanceAutoscalingConfigArgsDict:
    """Between the stack's two numbers; the targets are those that Google recommends."""
    return {
        "autoscaling_limits": {
            "min_processing_units": settings.processing_units,
            "max_processing_units": settings.max_processing_units,
        },
        # What is left over takes the load of a zone or, of a multi-region instance, of a region that fails.
        "autoscaling_targets": {
            "high_priority_cpu_utilization_percent": 45 if settings.multi_region else 65,
            "storage_utilization_percent": 85,
        },
    }


def _encryption(keys: Sequence[pulumi.Input[str] | None]) -> spanner.DatabaseEncryptionConfigArgsDict | None:
    given = [key for key in keys if key is not None]
    if not given:
        return None
    return {"kms_key_name": given[0]} if len(given) == 1 else {"kms_key_names": given}


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
