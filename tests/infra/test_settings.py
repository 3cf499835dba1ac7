"""Config is refused with its rule, its value and the remedy, everything that is wrong at once."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from components.config import ROOT, StackFileError, stack_config
from components.settings import Settings, SettingsError, declared
from components.settings.reader import Reader
from contract import options, schema
from contract.options import STACK_OPTIONS
from graph.resources import IMAGE
from pipeline.jobs.settings import SettingsError as LaunchError
from pipeline.jobs.settings import parse as parse_launch
from tests.infra.graphs import graph_of
from tests.shipped import REQUIRED_OPTIONS

STACKS = ("dev", "staging", "prod", "local")
DECLARED = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
PYTHON_TYPES = {"string": str, "integer": int, "boolean": bool, "array": list}


def parse(stack: str = "dev", **changed: Any) -> Settings:
    values = {**stack_config(stack), "image": IMAGE, **changed}
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items() if v is not None}
    return Settings.parse(stack, texts.get)


def refusal(stack: str = "dev", **changed: Any) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        parse(stack, **changed)
    return str(refused.value).splitlines()[1:]


def _problems(**changed: Any) -> list[str]:
    try:
        parse(**changed)
    except SettingsError as error:
        return str(error).splitlines()[1:]
    return []


@pytest.mark.parametrize("stack", STACKS)
def test_the_stack_s_own_config_is_accepted(stack: str) -> None:
    assert parse(stack).stack == stack


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("project", "Payment_Audit", "a Google Cloud project id"),
        ("region", "Iowa", "a region, such as us-central1"),
        ("deletionProtection", "yes", "true or false"),
        ("spannerInstanceConfig", "Regional!", "an instance config, such as nam3"),
        ("spannerProcessingUnits", 50, "a whole number from 100 to 10000000"),
        ("spannerProcessingUnits", 150, "a multiple of 100 below 1000, of 1000 from there"),
        ("spannerProcessingUnits", 1100, "a multiple of 100 below 1000, of 1000 from there"),
        ("spannerProcessingUnits", "many", "a whole number from 100 to 10000000"),
        ("spannerVersionRetention", "8d", "1h to 24h or 1d to 7d"),
        ("spannerVersionRetention", "25h", "1h to 24h or 1d to 7d"),
        ("spannerDialect", "MYSQL", "GOOGLE_STANDARD_SQL or POSTGRESQL, which a database keeps"),
        ("schemaOwner", "terraform", "pulumi, liquibase, or existing"),
        ("schemaContexts", ["Cloud!"], "a list of names of Liquibase contexts"),
        ("schemaContexts", "cloud", "a list of names of Liquibase contexts"),
        ("warehouseLocation", "Mars", "a BigQuery location, such as us-central1"),
        ("mergeMinutes", 1, "a whole number from 5 to 10080"),
        ("readers", ["allUsers"], "a list of members such as group:support-staff@example.com, never everyone"),
        ("readers", ["support-staff@example.com"], "a list of members such as group:support-staff@example.com"),
        ("personalDataReaders", ["allUsers"], "a list of members such as group:support-staff@example.com"),
        ("cardSearchers", ["allUsers"], "a list of members such as group:support-staff@example.com"),
        ("partitionExpirationDays", 7, "0 (never) or at least 30"),
        ("spannerEdition", "FREE", "STANDARD, ENTERPRISE (autoscaling, incremental backups) or ENTERPRISE_PLUS"),
        ("spannerMaxProcessingUnits", 150, "a multiple of 100 below 1000, of 1000 from there"),
        ("metadataProcessingUnits", 50, "a multiple of 100 below 1000, of 1000 from there"),
        ("spannerAccess", "everything", "databaseRoles or fineGrained"),
        ("spannerBackupCron", "daily", "five fields of cron, in UTC"),
        ("spannerBackupDays", 367, "a whole number from 0 to 366"),
        ("image", "us-central1-docker.pkg.dev/p/r/stream:latest", "empty or LOCATION-docker.pkg.dev/PROJECT/"),
        ("image", "", "the job's image by its digest"),
        ("diskSizeGb", 5, "a whole number from 20 to 10000"),
        ("workerHarnessThreads", 0, "a whole number from 1 to 1000"),
        ("profileMemory", "sometimes", "true or false"),
        ("pipelineOwner", "airflow", "pulumi, composer or scheduler"),
        ("templatePath", "template.json", "empty or a gs://….json path"),
        ("machineType", "big", "a machine type, such as n2-standard-4"),
        ("workers", 0, "a whole number from 1 to 1000"),
        ("maxWorkers", 1001, "a whole number from 1 to 1000"),
        ("workers", 9, "at most maxWorkers (1)"),
        ("subnetwork", "default", "empty, regions/R/subnetworks/S, or projects/HOST/regions/R/subnetworks/S"),
        ("subnetwork", "projects/host/regions/us-east1/subnetworks/s", "in the stack's region, us-central1"),
        ("keyRing", "projects/k/locations/us/keyRings/r", "empty or projects/KEYS/locations/{location}/keyRings/NAME"),
        ("keyGrants", "some", "true or false"),
        ("logBucket", "audit", "empty or projects/P/locations/L/buckets/B"),
        ("labels", ["Team=Payments"], "a list of labels as key=value in lower case, digits, _ and -"),
        ("subnetwork", "regions/us-east1/subnetworks/s", "in the stack's region, us-central1"),
        ("subnetworkRange", "10.10.0.0/8", "a private IPv4 range from /20 to /26"),
        ("subnetworkRange", "10.10.0.1/24", "a private IPv4 range from /20 to /26"),
        ("subnetworkRange", "8.8.8.0/24", "a private IPv4 range from /20 to /26"),
        ("subnetworkRange", "10.10.0.0/27", "a private IPv4 range from /20 to /26"),
        ("cloudNat", "maybe", "true or false"),
        ("kubernetesServiceAccount", "api", "empty or namespace/name of a service account"),
        ("kubernetesProject", "Clusters", "empty or a Google Cloud project id"),
        ("ciIssuer", "http://ci.example.com", "empty or the https:// URL of an OIDC issuer"),
        ("ciCondition", "true", "empty or a condition on the token's claims"),
        ("deployers", ["allUsers"], "a list of members such as user:ops@example.com"),
        ("onCall", ["serviceAccount:a@p.iam.gserviceaccount.com"], "a list of people, such as group:audit-on-call"),
        ("drainers", ["allAuthenticatedUsers"], "a list of people, such as group:audit-on-call@example.com"),
        ("accessPolicy", "policy", "empty or the number of an access policy"),
        ("perimeterMode", "on", "dryRun or enforced"),
        ("perimeterMembers", ["allUsers"], "a list of members such as user:ops@example.com"),
        ("customerManagedKeys", "perhaps", "true or false"),
        ("keyRotationDays", 1, "a whole number from 2 to 365"),
        ("adoptRetained", "once", "true or false"),
        ("logRetentionDays", 1, "a whole number from 30 to 3650"),
        ("auditLogExemptions", ["console-sa"], "a list of accounts of the stack"),
        ("backupRetentionDays", 1, "a whole number from 7 to 3650"),
        ("accessLogDays", 7, "a whole number from 30 to 3650"),
        ("consoleImage", "us-central1-docker.pkg.dev/p/r/console:1", "empty or LOCATION-docker.pkg.dev/PROJECT/"),
        ("consoleMinInstances", 4, "a whole number from 0 to 3"),
        ("consoleIngress", "everywhere", "all or internal"),
        ("consoleViewers", ["allUsers"], "a list of people, such as group:support-leads@example.com"),
        ("consoleAgents", ["allAuthenticatedUsers"], "a list of people, such as group:support-leads@example.com"),
        ("consoleLeads", ["domain:example.com"], "a list of people, such as group:support-leads@example.com"),
        ("memoryProfileDays", 31, "a whole number from 1 to 30"),
        ("spannerKeyRegions", ["Iowa"], "a list of regions, such as us-central1"),
        ("spannerInstanceConfig", "regional-us-east1", "regional-us-central1, where the stack is, or multi-region"),
        ("warehouseLocation", "EU", "us-central1 or US, where the stack is"),
        ("dlqRetentionDays", 6, "a whole number from 7 to 3650"),
        ("rpcPriority", "URGENT", "HIGH|MEDIUM|LOW"),
        ("readMode", "poll", "tail|windows"),
        ("directedReads", "us-east4", "empty where spannerInstanceConfig is regional-us-central1: only an instance of"),
        ("writeMode", "twice", "exactly-once|at-least-once"),
        ("newColumns", "drop", "scan|hold"),
        ("batchRows", 0, "a whole number from 1 to 100000"),
        ("logLevel", "LOUD", "DEBUG|INFO|WARNING|ERROR"),
        ("spannerEndpoint", "spanner.example.com:9010", "empty, a host:port of this machine or a host:443 (TLS)"),
        (
            "spannerAdminEndpoint",
            "http://spanner.example.com",
            "empty, an http:// URL of this machine or an https:// URL",
        ),
        ("bigQueryEndpoint", "http://10.0.0.1:9050", "empty, an http:// URL of this machine or an https:// URL"),
        ("bigQueryEndpoint", "http://127.0.0.1:9050", "set together with bigQueryStorageEndpoint, or neither"),
        ("bigQueryStorageEndpoint", "10.0.0.1:9060", "empty, a host:port of this machine or a host:443 (TLS)"),
        ("latencyGoal", "1", "a number from 0.5 to 0.9999"),
        ("latencyGoal", "high", "a number from 0.5 to 0.9999"),
        ("fastBurn", "101", "less than 100, or its alert can never fire: latencyGoal leaves a budget of 0.01"),
        ("designTps", 0, "a whole number from 1 to 100000"),
        ("unauditedSeconds", 60, "a whole number from 90 to 3600"),
        ("dlqOldestHours", 80, "a whole number from 1 to 72"),
        ("notifications", ["everybody"], "a list of severity[/team]=target lines"),
        ("runbooksUrl", "http://wiki.example.com", "empty or an https:// URL without a / at its end"),
    ],
)
def test_a_wrong_value_is_refused(key: str, value: Any, rule: str) -> None:
    [problem] = refusal(**{key: value})
    assert problem.startswith(f"{key} must be {rule}")
    assert f"got {value if isinstance(value, str) else json.dumps(value)!s}" in problem.replace("'", "")
    assert problem.endswith("Set it in Pulumi.dev.yaml.")


@pytest.mark.parametrize("labels", [["stack=mine"], ["goog-drz=1"], ["team=a", "team=b"]])
def test_a_label_that_is_ours_or_there_twice_is_refused(labels: list[str]) -> None:
    rule = "labels must be other labels than service, stack, managed-by and goog…, each once"
    assert {problem.startswith(rule) for problem in refusal(labels=labels)} == {True}


@pytest.mark.parametrize("key", sorted(DECLARED))
def test_a_missing_value_is_refused(key: str) -> None:
    assert f"{key} must be set, got nothing. Set it in Pulumi.dev.yaml." in refusal("dev", **{key: None})


def test_an_unknown_payment_state_is_refused() -> None:
    [problem] = refusal(paymentStates="DONE=finished")
    assert "initiated, processed, failed" in problem


# Values that an option must not have. What a preview takes of them ends the job, or is never heard of again.
BAD_OPTIONS: dict[str, tuple[Any, ...]] = {
    "rpcPriority": ("", "high", "HIGH ", "HIGH|LOW"),
    "startTimestamp": (
        "yesterday",
        "2026-11-23",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-11-23T25:00:00Z",
        "2026-11-23T09:00:00+01:00",
        "2026-11-23T09:00:00.0123456789Z",
        "2026-11-23T09:00:00Z\n",
    ),
    "directedReads": (
        "us-east4:READONLY",
        "us-east4:",
        "US",
        "us-east4;us-east5",
        ",",
        ":",
        ",".join(["us-east4"] * 11),
    ),
    "ignoreOperations": ("INSERT;DELETE", "delete", "REPLAY", "INSERT,UPDATE,DELETE", "DELETE,"),
    "ignoreTransactionTags": (",", "a,", "a" * 51, "caf\u00e9", "a\tb"),
    "readMode": ("", "tail,windows", "Tail"),
    "heartbeatMillis": (0, 999, 300_001, "1e3", "-1", "", "１０００", "9" * 400),
    "windowMillis": (0, 3_600_001, "0.5", ""),
    "newColumns": ("", "drop", "scan hold"),
    "paymentStates": ("DONE", "DONE=finished", "=initiated", "DONE=", "A=initiated;B=failed", "A =initiated"),
    "ignoreFields": (
        "payment_audit_trail.Error Details",
        "a.b.c.d",
        "a..b",
        ".b",
        "a.",
        "a;b",
        "a,,b",
        "a,",
        "*",
        "`a`",
        "a-b",
        "1a",
        "Größe",
        "a\nb",
    ),
    "ignoreTables": ("Error Details", "a.b.c", "a;b", "a,,b", "a,", "*", "`a`", "a\tb"),
    "bigQueryDataset": ("nowhere", "payment-audit", "p.payment_audit"),
    "bigQueryChangelogTableNameTemplate": (
        "",
        "changes",
        "{table}_changelog",
        "{_metadata_spanner_table_name} log",
        "d.{_metadata_spanner_table_name}",
    ),
    "writeMode": ("", "twice", "exactly_once"),
    "numStorageWriteApiStreams": (0, "-1", "1.5", "", 1_001),
    "changeStreamReaders": ("-1", "1.5", "", 101),
    "batchMillis": ("-1", 1_001, "0.2", ""),
    "batchRows": (0, "-5", "1e3", "", 100_001),
    "dlqRetryMinutes": ("0", "0.0", "-1", "ten", "1e9", "", ".5", "nan", "inf", "525601"),
    "dlqMaxRetries": ("-1", "1.0", 1_001, ""),
    "disableDlqRetries": ("", "True", "yes", "0"),
    "logLevel": ("", "LOUD", "info", "TRACE"),
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD_OPTIONS.items() for v in values])
def test_a_launch_option_that_the_job_cannot_take_is_refused_in_the_preview(name: str, value: Any) -> None:
    [problem] = refusal(**{name: value})
    assert problem.startswith(f"{name} must be ")
    assert problem.endswith("Set it in Pulumi.dev.yaml.")


@pytest.mark.parametrize("name", STACK_OPTIONS)
def test_a_launch_option_is_refused_outside_its_bounds_and_for_what_is_none_of_its_values(name: str) -> None:
    option = options.named(name)
    wrong = [f"{option.default}\x7f"]
    if option.low is not None and option.high is not None:
        wrong += [f"{option.low - 1:.15g}", f"{option.high + 1:.15g}", "", "x"]
    if option.regex and re.fullmatch(r"[\w-]+(\|[\w-]+)+", option.regex):
        wrong += ["", option.regex, f"{option.default} "]
    assert wrong
    for value in wrong:
        [problem] = refusal(**{name: value})
        assert problem.startswith(f"{name} must be ")


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD_OPTIONS.items() for v in values])
def test_what_the_job_refuses_at_its_launch_the_preview_has_refused(name: str, value: Any) -> None:
    """Not the other way round: a person who launches a job by hand may go further than a stack."""
    text = value if isinstance(value, str) else json.dumps(value)
    with contextlib.suppress(LaunchError):
        parse_launch([f"--{n}={v}" for n, v in (REQUIRED_OPTIONS | {name: text}).items()])
        return
    assert options.named(name).broken(text)


@pytest.mark.parametrize("option", options.OPTIONS, ids=lambda option: option.name)
def test_an_option_takes_its_own_default_and_no_line_break(option: options.Option) -> None:
    assert option.default is None or option.broken(option.default) is None
    assert option.broken("a\nb") is not None


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "spannerProjectId": ("", "My Project", "p/q"),
        "spannerInstanceId": ("", "audit/instance", "Instance"),
        "spannerDatabase": ("", "audit db", "a/b"),
        "spannerDatabaseRole": ("a b", "1a", "a;b"),
        "spannerMetadataInstanceId": ("", "a b"),
        "spannerMetadataDatabase": ("", "a b"),
        "spannerChangeStreamNames": ("", " ", ",", "A,,B", "A;B", "A B", "1A", "A-B"),
        "endTimestamp": ("never", "2026-02-30T00:00:00Z"),
        "spannerEndpoint": ("localhost", "http://localhost:1", "localhost:port", "a b:1"),
        "maskingKeys": ("", "keys.json", "projects/p/secrets/s/versions/1", "file:"),
        "bigQueryProjectId": ("", "a b"),
        "bigQueryEndpoint": ("localhost:9050", "ftp://x", "http://", "http://a b"),
        "bigQueryStorageEndpoint": ("localhost", "https://x:1"),
        "deadLetterQueueDirectory": ("", " ", "gs://", "gs://Bucket/x", "gs:/bucket", "s3://bucket/x", "gs://b ucket"),
        "dryRun": ("", "yes"),
    }.items(),
)
def test_an_option_that_resources_or_people_give_has_a_rule_too(name: str, values: tuple[str, ...]) -> None:
    assert [value for value in values if options.named(name).broken(value) is None] == []


# Launch options that no stack sets: what its resources give, and what is for a person who launches a job by hand.
DERIVED = {
    "watchedTables",
    "spannerProjectId",
    "spannerInstanceId",
    "spannerDatabase",
    "spannerDatabaseRole",
    "spannerMetadataInstanceId",
    "spannerMetadataDatabase",
    "spannerChangeStreamNames",
    "spannerEndpoint",
    "bigQueryProjectId",
    "bigQueryEndpoint",
    "bigQueryStorageEndpoint",
    "maskingKeys",
    "deadLetterQueueDirectory",
}
# Where others own the source: tests/infra/test_existing_database.py.
OF_OTHERS = {"spannerMetadataProjectId"}
BY_HAND = {"endTimestamp", "dryRun"}


def test_a_stack_can_set_every_launch_option_or_its_resources_give_it() -> None:
    """An option that nothing can set is dead: whoever reads of it waits for what it never does."""
    assert {*STACK_OPTIONS, *DERIVED, *OF_OTHERS, *BY_HAND} == {option.name for option in options.OPTIONS}
    assert len(STACK_OPTIONS) + len(DERIVED) + len(OF_OTHERS) + len(BY_HAND) == len(options.OPTIONS)
    endpoints = {
        "spannerEndpoint": "spanner.us-east4.rep.googleapis.com:443",
        "bigQueryEndpoint": "https://bigquery.us-east4.rep.googleapis.com",
        "bigQueryStorageEndpoint": "bigquerystorage.us-east4.rep.googleapis.com:443",
    }
    given = graph_of("prod", endpoints).one("FlexTemplateJob").inputs["parameters"]
    assert set(given) >= DERIVED
    assert {name: rule for name, value in given.items() if (rule := options.named(name).broken(value))} == {}


def test_prod_must_be_protected_and_survive_a_region_and_hold_new_columns() -> None:
    weak = {
        "deletionProtection": False,
        "newColumns": "scan",
        "customerManagedKeys": False,
        "perimeterMode": "dryRun",
        "spannerInstanceConfig": "regional-us-east4",
    }
    assert refusal("prod", **weak) == [
        "deletionProtection must be true in prod, got 'false'. Set it in Pulumi.prod.yaml.",
        "perimeterMode must be enforced, with an accessPolicy, in prod; or say in perimeterWaiver why there is no "
        "perimeter, got 'dryRun'. Set it in Pulumi.prod.yaml.",
        "customerManagedKeys must be true in prod, got 'false'. Set it in Pulumi.prod.yaml.",
        "spannerInstanceConfig must be multi-region in prod, such as nam3; or say in singleRegionReason why one region "
        "is enough, got 'regional-us-east4'. Set it in Pulumi.prod.yaml.",
        "newColumns must be hold in prod, where a column is kept NULL until somebody has classified it, got 'scan'. "
        "Set it in Pulumi.prod.yaml.",
    ]


def test_an_enforced_perimeter_needs_an_access_policy() -> None:
    [problem] = refusal("prod", accessPolicy="")
    assert problem.startswith("perimeterMode must be enforced, with an accessPolicy, in prod")
    assert "got 'enforced without accessPolicy'" in problem


def test_prod_may_say_why_it_has_no_perimeter_and_one_region() -> None:
    settings = parse(
        "prod",
        accessPolicy="",
        perimeterWaiver="The project has no organisation.",
        spannerInstanceConfig="regional-us-east4",
        spannerKeyRegions=[],
        singleRegionReason="The services that write are in this region alone.",
    )
    assert not settings.perimeter.on


def test_a_multi_region_instance_needs_a_key_in_each_region() -> None:
    [problem] = refusal("prod", spannerKeyRegions=["us-east1"])
    assert problem.startswith("spannerKeyRegions must be every region of nam3, which `gcloud spanner")
    parse("dev", spannerInstanceConfig="nam3", spannerEdition="ENTERPRISE_PLUS", customerManagedKeys=False)


def test_a_ci_s_issuer_without_a_condition_is_refused() -> None:
    [problem] = refusal(ciIssuer="https://token.actions.githubusercontent.com")
    assert problem.startswith("ciCondition must be set together with ciIssuer: without it every repository")


def test_a_clusters_project_without_an_account_is_refused() -> None:
    [problem] = refusal(kubernetesProject="clusters-prod")
    assert problem.startswith("kubernetesServiceAccount must be set together with kubernetesProject")


def test_nat_is_the_shared_network_s_own_business() -> None:
    [problem] = refusal(cloudNat=True, subnetwork="regions/us-central1/subnetworks/data")
    assert problem.startswith("cloudNat must be false where subnetwork names a network that somebody else keeps")


def test_a_stack_without_a_file_is_refused() -> None:
    with pytest.raises(
        StackFileError, match=r"got 'qa' without Pulumi\.qa\.yaml\. There are dev, local, prod, staging\."
    ):
        stack_config("qa")


def test_personal_data_is_for_readers_and_service_accounts() -> None:
    [problem] = refusal(personalDataReaders=["user:a@example.com"])
    assert problem.startswith("personalDataReaders must be members of readers, or service accounts, got 'user:a@")
    console = "serviceAccount:console-sa@payment-audit-dev.iam.gserviceaccount.com"
    assert parse(personalDataReaders=[console]).warehouse.personal_data_readers == (console,)


def test_autoscaling_has_a_least_and_a_most() -> None:
    for least, most in ((100, 1000), (2000, 1000), (1000, 11_000)):
        [problem] = refusal(spannerProcessingUnits=least, spannerMaxProcessingUnits=most, spannerEdition="ENTERPRISE")
        assert problem.startswith("spannerMaxProcessingUnits must be 0, or 1 to 10 times spannerProcessingUnits")


def test_capacity_needs_the_edition_that_has_it() -> None:
    autoscaled: dict[str, Any] = {"spannerProcessingUnits": 1000, "spannerMaxProcessingUnits": 3000}
    [problem] = refusal(**autoscaled)
    assert problem.startswith("spannerEdition must be ENTERPRISE or ENTERPRISE_PLUS with autoscaling")
    assert parse(**autoscaled, spannerEdition="ENTERPRISE").spanner.max_processing_units == 3000
    [problem] = refusal("prod", spannerEdition="ENTERPRISE")
    assert problem.startswith("spannerEdition must be ENTERPRISE_PLUS for nam3")


def test_fine_grained_access_needs_the_changesets_that_make_its_roles() -> None:
    [problem] = refusal(spannerAccess="fineGrained", schemaContexts=[])
    assert problem.startswith("schemaContexts must be with cloud among them")
    assert parse(spannerAccess="fineGrained", schemaContexts=[], schemaOwner="liquibase").spanner.roles


BANK = "tests/examples/bank/tables.toml"


def test_the_tables_file_names_a_changelog_for_the_dialect() -> None:
    made = parse(spannerDialect="POSTGRESQL")
    assert made.watched.source_changelog == schema.SQL / "postgresql" / "changelog.yaml"
    assert made.watched.payments.columns["Amount"].type == "PG_NUMERIC"
    assert parse().watched.source_changelog == schema.AUDIT_DB
    [problem] = refusal(spannerDialect="POSTGRESQL", tables="tests/examples/transfers/tables.toml")
    assert problem.startswith(
        "tables.toml: changelog must name a changelog of the dialect POSTGRESQL (spannerDialect), got "
        "'GOOGLE_STANDARD_SQL'. "
    )
    assert "changelog_postgresql" in problem
    [problem] = refusal(spannerDialect="POSTGRESQL", schemaOwner="liquibase")
    assert problem.startswith("schemaOwner must be pulumi where spannerDialect is POSTGRESQL: Liquibase runs GoogleSQL")


EXISTING: dict[str, Any] = {"schemaOwner": "existing", "spannerInstance": "core", "spannerDatabase": "ledger-db"}


def test_a_database_of_others_has_its_names_its_ddl_and_metadata_elsewhere() -> None:
    given = parse("prod", **EXISTING, tables=BANK, metadataProcessingUnits=100).spanner
    assert (given.instance, given.database, given.roles, given.multi_region) == ("core", "ledger-db", True, False)
    assert parse(**EXISTING, tables=BANK, metadataInstance="core").spanner.metadata_instance == "core"
    problems = refusal(schemaOwner="existing", tables=BANK, metadataProcessingUnits=100)
    assert [problem.split()[0] for problem in problems] == ["spannerInstance", "spannerDatabase"]
    neither: dict[str, Any] = {}
    for wrong in (neither, {"metadataProcessingUnits": 100, "metadataInstance": "core"}):
        [problem] = refusal(**EXISTING, tables=BANK, **wrong)
        assert problem.startswith("metadataProcessingUnits must be 100 at least")
    [problem] = refusal(**EXISTING, metadataProcessingUnits=100)
    assert problem.startswith("tables must be a description with `ddl` where schemaOwner is existing")
    [problem] = refusal(tables=BANK)
    assert problem.startswith("tables must be a description with `changelog` where schemaOwner is pulumi")
    [problem] = refusal(
        schemaOwner="existing", spannerInstance="core", spannerDatabase="audit-metadata", tables=BANK,
        metadataInstance="core",
    )  # fmt: skip
    assert problem.startswith("spannerDatabase must be another than the audit's own")


@pytest.mark.parametrize("key", ["spannerProject", "spannerInstance", "spannerDatabase", "metadataInstance"])
def test_a_stack_that_makes_its_database_names_none_of_others(key: str) -> None:
    [problem] = refusal(**{key: "bank-payments"})
    assert problem.startswith(f"{key} must be empty, unless schemaOwner is existing")


def test_fine_grained_access_needs_the_roles_in_the_changelog() -> None:
    [problem] = refusal(spannerAccess="fineGrained", tables="tests/examples/transfers/tables.toml")
    assert "the changelog must make the roles audit_probe, audit_reader, audit_validation, audit_writer" in problem


def test_prod_has_fine_grained_access_and_backups_of_a_week() -> None:
    assert [problem.split()[0] for problem in refusal("prod", spannerAccess="databaseRoles", spannerBackupDays=6)] == [
        "spannerAccess",
        "spannerBackupDays",
    ]


def test_the_job_needs_an_image_unless_it_has_a_template() -> None:
    assert parse(image="", templatePath="gs://b/t.json").pipeline.image == ""


def test_a_page_that_reaches_nobody_is_refused_in_prod() -> None:
    assert refusal("prod", notifications=["ticket=a@example.com", "page/payments=b@example.com"]) == [
        "notifications must be one page=target at least in prod, or nobody is notified, "
        "got 'a@example.com, b@example.com'. Set it in Pulumi.prod.yaml."
    ]


def test_the_probe_of_prod_runs_every_minute() -> None:
    [problem] = refusal("prod", probeMinutes=2)
    assert problem.startswith("probeMinutes must be 1 in prod, where a page must come within minutes, got '2'")


def test_a_page_comes_before_its_ticket() -> None:
    [problem] = refusal(slowBurn="20")
    assert problem.startswith("fastBurn must be more than slowBurn")


def test_everything_that_is_wrong_is_said_at_once() -> None:
    problems = refusal(project="X", region=None, mergeMinutes=1, rpcPriority="URGENT")
    assert [problem.split()[0] for problem in problems] == ["project", "region", "mergeMinutes", "rpcPriority"]


def test_endpoints_with_tls_are_accepted() -> None:
    settings = parse(
        spannerEndpoint="spanner.us-central1.rep.googleapis.com:443",
        bigQueryEndpoint="https://bigquery.us-central1.rep.googleapis.com",
        bigQueryStorageEndpoint="bigquerystorage.us-central1.rep.googleapis.com:443",
    )
    assert settings.endpoints.spanner.endswith(":443")


def test_every_value_is_refused_outside_its_range_or_its_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a section reads: a new setting needs no bad value of its own here, only its relations do."""
    asked: dict[str, list[Any]] = {}

    def noted(kind: str, wrong: Callable[..., list[Any]]) -> None:
        read = getattr(Reader, kind)

        def reads(self: Reader, key: str, *rule: Any) -> Any:
            asked[key] = wrong(*rule)
            return read(self, key, *rule)

        monkeypatch.setattr(Reader, kind, reads)

    noted("integer", lambda low, high: [low - 1, high + 1, f"{low}.5", "many"])
    noted("number", lambda low, high: [f"{low / 2:g}" if low else "-1", f"{high + 1:g}", "many"])
    noted("boolean", lambda: ["yes", "True", ""])
    noted("text", lambda pattern, rule: [] if re.fullmatch(pattern, "\x7f") else ["\x7f"])
    noted("texts", lambda pattern, rule: ["x", ["\x7f"], [1], {}] if not re.fullmatch(pattern, "\x7f") else ["x"])
    parse()
    monkeypatch.undo()
    assert asked.keys() | set(STACK_OPTIONS) == DECLARED.keys()
    taken = [
        (key, value)
        for key, values in asked.items()
        for value in values
        if not any(problem.startswith(f"{key} must be ") for problem in _problems(**{key: value}))
    ]
    assert taken == []


def test_every_declared_key_is_read_and_every_key_read_is_declared() -> None:
    read = set()
    values = {k: v if isinstance(v, str) else json.dumps(v) for k, v in {**stack_config("dev"), "image": IMAGE}.items()}

    def get(key: str) -> str | None:
        read.add(key)
        return values.get(key)

    Settings.parse("dev", get)
    assert read == set(DECLARED)


@pytest.mark.parametrize("key", sorted(DECLARED))
def test_a_declaration_has_a_type_that_pulumi_knows_and_a_description(key: str) -> None:
    declared = DECLARED[key]
    assert set(declared) <= {"type", "items", "description", "default"}
    assert declared["description"].endswith(".")
    assert ("items" in declared) == (declared["type"] == "array")
    assert type(declared.get("default", PYTHON_TYPES[declared["type"]]())) is PYTHON_TYPES[declared["type"]]


@pytest.mark.parametrize("name", STACK_OPTIONS)
def test_a_launch_option_has_the_same_default_in_config(name: str) -> None:
    [option] = [option for option in options.OPTIONS if option.name == name]
    default = DECLARED[name]["default"]
    assert (default if isinstance(default, str) else json.dumps(default)) == option.default


def test_what_the_project_file_declares_of_other_parts_is_as_they_say() -> None:
    assert declared.written(declared.PROJECT.read_text()) == declared.PROJECT.read_text()


def test_a_misspelt_key_in_a_stack_file_is_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    (tmp_path / "Pulumi.dev.yaml").write_text("config: {'payment-audit:projekt': p}")
    monkeypatch.setattr("components.config.ROOT", tmp_path)
    with pytest.raises(StackFileError, match=r"payment-audit:projekt is not declared in Pulumi\.yaml"):
        stack_config("dev")
