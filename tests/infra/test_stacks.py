"""The graphs of dev, staging and prod: what is in them, and what the parts of the program guarantee each other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from components import naming
from components.config import ROOT, stack_config
from components.spanner import SchemaOwnerError
from contract import operations, options, queries, schema, tables
from contract.options import STACK_OPTIONS
from delivery import stacks
from graph import resources
from graph.google import server_made
from graph.program import first_cause, run_program
from graph.resources import IMAGE, Graph
from guardrails.rules import RULES
from tests.infra.graphs import graph_of
from tests.shipped import WATCHED

EXPECTED = Path(__file__).with_name("expected")
CONNECTION = {
    "project",
    "location",
    "bigQueryEndpoint",
    "spannerEndpoint",
    "spannerInstance",
    "spannerDatabase",
    "metadataDatabase",
    "maskingKeys",
    "deadLetterDirectory",
    "jobName",
    "region",
    "paymentStates",
    "stuckLimits",
    "ignoreFields",
    "ignoreTables",
    "latencyGoal",
    "throughputGoal",
    "designTps",
}


@pytest.mark.parametrize("inventory", ["all", "own"])
def test_a_stack_has_what_its_inventory_expects(graph: Graph, inventory: str) -> None:
    name = "all" if inventory == "all" else graph.stack
    text = (EXPECTED / f"{name}.yaml").read_text().replace("${project}", graph.outputs["project"])
    there = {(node.type, node.name): node.inputs for node in graph.nodes}
    missing = [
        problem
        for kind, resources in yaml.safe_load(text).items()
        for resource, wanted in resources.items()
        for problem in _missing(wanted, there.get((kind, resource)), f"{kind} {resource}")
    ]
    assert missing == []


def _missing(wanted: Any, there: Any, where: str) -> Iterator[str]:
    if isinstance(wanted, dict) and hasattr(there, "get"):
        for key, value in wanted.items():
            yield from _missing(value, there.get(key), f"{where}.{key}")
    elif wanted != there:
        yield f"{where}: expected {wanted!r}, got {there!r}"


def test_an_inventory_is_seen_to_miss() -> None:
    assert list(_missing({"a": {"b": 1}}, {"a": {"b": 2}}, "x")) == ["x.a.b: expected 1, got 2"]
    assert list(_missing({"a": 1}, None, "x")) == ["x: expected {'a': 1}, got None"]


def test_stacks_have_the_same_types_of_resources() -> None:
    """But for what only some ask for: a perimeter, hidden columns, backups, people; and here no keys."""
    asked_for = {
        "gcp:bigquerydatapolicy/dataPolicy:DataPolicy",
        "gcp:bigquerydatapolicy/dataPolicyIamMember:DataPolicyIamMember",
        "gcp:datacatalog/policyTag:PolicyTag",
        "gcp:datacatalog/policyTagIamMember:PolicyTagIamMember",
        "gcp:datacatalog/taxonomy:Taxonomy",
        "gcp:spanner/backupSchedule:BackupSchedule",
        "gcp:accesscontextmanager/servicePerimeter:ServicePerimeter",
        "gcp:logging/logViewIamMember:LogViewIamMember",
        "gcp:dns/managedZone:ManagedZone",
        "gcp:dns/recordSet:RecordSet",
        "gcp:monitoring/notificationChannel:NotificationChannel",
        "gcp:iap/webCloudRunServiceIamMember:WebCloudRunServiceIamMember",
    }
    dev, staging, prod, local = (
        {node.type for node in graph_of(stack).nodes} - asked_for for stack in ("dev", "staging", "prod", "local")
    )
    assert dev == staging == prod
    assert {kind for kind in dev - local if not kind.startswith("gcp:kms/")} == set()
    assert local <= dev


def test_the_databases_get_the_statements_of_the_changelogs(graph: Graph) -> None:
    assert graph.one("Database", "audit-db").inputs["ddls"] == schema.statements(contexts=frozenset({"cloud"}))
    assert graph.one("Database", "audit-metadata").inputs["ddls"] == schema.statements(
        schema.METADATA_DB, contexts=frozenset({"cloud"})
    )


def test_every_table_and_view_of_the_contract_is_there(graph: Graph) -> None:
    made = {node.name: node.inputs for node in graph.of("Table")}
    views = {f"{tables.VIEWS_DATASET}.{view}" for view in queries.views()}
    assert set(made) == {table.id for table in tables.all_tables(WATCHED)} | views
    for table in tables.all_tables(WATCHED):
        columns = json.loads(made[table.id]["schema"])
        assert [(c["name"], c["type"], c["mode"]) for c in columns] == [(f.name, f.type, f.mode) for f in table.fields]


def test_the_job_gets_options_of_the_contract_and_all_required_ones(graph: Graph) -> None:
    known = {option.name: option for option in options.OPTIONS}
    parameters = graph.one("FlexTemplateJob").inputs["parameters"]
    assert set(parameters) <= set(known)
    assert {name for name, option in known.items() if option.required} <= set(parameters)
    for name, value in parameters.items():
        assert value != known[name].default
        assert re.fullmatch(known[name].regex or ".+", value), f"{name}={value}"


def test_every_setting_of_the_job_reaches_it() -> None:
    given = {name: _another(options.named(name)) for name in STACK_OPTIONS}
    # Directed reads need replicas in several regions.
    place = {"spannerInstanceConfig": "nam3", "spannerEdition": "ENTERPRISE_PLUS", "spannerProcessingUnits": 1000}
    place |= {"spannerKeyRegions": ["us-east4", "us-east1", "us-central1"]}
    parameters = graph_of("dev", given | place).one("FlexTemplateJob").inputs["parameters"]
    assert {name: parameters[name] for name in given} == given


# Of the options that are free text: another value.
_TEXTS = {
    "startTimestamp": "2026-11-23T09:00:00Z",
    "paymentStates": "DONE=processed",
    "ignoreFields": "ErrorDetails",
    "ignoreTables": "audit_logs",
    "ignoreOperations": "DELETE",
    "ignoreTransactionTags": "app=nightly, app=import",
    "directedReads": "us-east4:READ_ONLY",
    "bigQueryDataset": "audit_service_dataset",
    "bigQueryChangelogTableNameTemplate": "changes_of_{_metadata_spanner_table_name}",
}


def _another(option: options.Option) -> str:
    """A value that an option takes, and that is not its default."""
    number = [] if option.low is None else [f"{option.low + 1:.15g}", f"{option.low + 2:.15g}"]
    values = [_TEXTS.get(option.name, ""), *number, *(option.regex or "").split("|")]
    return next(value for value in values if value and value != option.default and not option.broken(value))


def test_a_changed_job_is_drained_and_then_replaced(graph: Graph) -> None:
    job = graph.one("FlexTemplateJob")
    assert job.inputs["onDelete"] == "drain"
    assert job.options.deleteBeforeReplace
    assert list(job.options.replaceOnChanges) == ["*"]


def test_the_job_starts_when_all_its_grants_are_there(graph: Graph) -> None:
    """A worker that starts without a grant fails, and Dataflow gives up after a few of them."""
    [job] = [node for node in graph.nodes if node.type.endswith("FlexTemplateJob")]
    awaited = " ".join(job.options.dependencies)
    for node in graph.nodes:
        if "dataflow-sa" in str(node.inputs.get("member")):
            assert f"::{node.name} " in f"{awaited} ", node.id


def test_composer_keeps_the_job_when_it_owns_the_pipeline() -> None:
    graph = graph_of("dev", {"pipelineOwner": "scheduler"})
    assert graph.of("FlexTemplateJob") == []
    assert graph.one("IAMMember", "dataflow-worker").inputs["role"].endswith("/roles/auditWorker")


def test_the_outputs_are_the_connection_file(graph: Graph) -> None:
    assert set(graph.outputs) >= CONNECTION
    assert graph.outputs["maskingKeys"] == f"projects/{graph.outputs['project']}/secrets/masking-keys"
    assert graph.outputs["deadLetterDirectory"] == f"gs://{graph.outputs['project']}-dead-letters"


def test_the_merge_may_use_the_tables_that_its_sql_names_and_no_others(graph: Graph) -> None:
    scripts = "".join(node.inputs["params"]["query"] for node in graph.of("DataTransferConfig"))
    named = set(re.findall(r"`[\w-]+\.\w+\.(\w+)`", scripts))
    grants = [node.inputs for node in graph.of("IamMember") if "merge-sa" in node.inputs["member"]]
    assert {grant["tableId"] for grant in grants} == named
    edited = {grant["tableId"] for grant in grants if grant["role"] == "roles/bigquery.dataEditor"}
    assert edited == {"payment_state", "payment_state_progress", "payment_lookup"}


def test_liquibase_s_database_is_made_empty_and_left_alone() -> None:
    database = graph_of("dev", {"schemaOwner": "liquibase"}).one("Database", "audit-db")
    assert not database.inputs.get("ddls")
    assert list(database.options.ignoreChanges) == ["ddls"]


def test_the_source_is_of_the_configured_dialect_and_our_own_database_of_googlesql() -> None:
    graph = graph_of("dev", {"spannerDialect": "POSTGRESQL"})
    source, metadata = (graph.one("Database", name).inputs for name in ("audit-db", "audit-metadata"))
    assert (source["databaseDialect"], metadata["databaseDialect"]) == ("POSTGRESQL", "GOOGLE_STANDARD_SQL")
    assert "character varying(36) NOT NULL" in source["ddls"][0]
    [table] = [n.inputs for n in graph.of("Table") if n.inputs["tableId"] == WATCHED.payments.table]
    fields = {field["name"]: field["type"] for field in json.loads(table["schema"])}
    assert (fields["Amount"], fields["Metadata"], fields["RetryCount"]) == ("NUMERIC", "JSON", "INT64")


@pytest.mark.parametrize(
    ("made_with", "configured", "way_out"),
    [
        (
            "pulumi",
            "liquibase",
            "run `liquibase changelog-sync`, which marks the statements as run, then `pulumi up --replace",
        ),
        ("liquibase", "pulumi", "keep Liquibase: the provider cannot adopt statements that it did not run."),
    ],
)
def test_the_schema_s_owner_of_a_living_stack_cannot_be_changed(made_with: str, configured: str, way_out: str) -> None:
    databases = []

    def make(kind: str, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if name == "audit-db" and inputs.get("ddls"):
            databases.append(name)
        kept = {"output": made_with} if kind == "pulumi:index:Stash" else {}
        return {**server_made("payment-audit-dev", kind, name, inputs), **kept}

    with pytest.raises(SchemaOwnerError) as refused:
        run_program("dev", {**stack_config("dev"), "image": IMAGE, "schemaOwner": configured}, make)
    assert f"schemaOwner must stay '{made_with}'" in str(refused.value)
    assert way_out in str(refused.value)
    assert databases == []


def test_a_failure_is_told_as_itself_and_not_as_what_waited_for_it() -> None:
    failure = SchemaOwnerError("the rule")
    failure.__cause__ = KeyError("deeper")
    waiting = ValueError("While processing input: 'ddls'")
    waiting.__cause__ = failure
    resource = ValueError("While processing resource: 'audit-db'")
    resource.__cause__ = waiting
    assert first_cause(resource) is failure
    assert first_cause(failure) is failure


def test_names_are_the_same_in_every_run(graph: Graph) -> None:
    again = resources.graph_of(graph.stack)
    assert {node.id for node in again.nodes} == {node.id for node in graph.nodes}


def test_the_program_is_wiring_only() -> None:
    lines = (ROOT / "__main__.py").read_text().splitlines()
    assert len(lines) <= 130
    assert not [line for line in lines if re.match(r"\s*(def|class|if|for|while) ", line)]


# ---------------------------------------------------------------------- the stacks' files exactly as they are shipped

DEPLOYED = ("dev", "staging", "prod")
DATASETS = ("payment_audit", "audit_service_dataset", tables.VIEWS_DATASET)


def _as_shipped(stack: str, *, without_job: bool) -> set[tuple[str, str]]:
    """(type, name) of what delivery's program makes of a stack's file, to which nothing is added."""
    config, made = stack_config(stack), set()

    def make(kind: str, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        made.add((kind, name))
        return server_made(config["project"], kind, name, inputs)

    run_program(stack, config, make, program=stacks.program(ROOT, without_job=without_job))
    return made


@pytest.mark.parametrize("stack", DEPLOYED)
def test_a_stack_as_shipped_needs_no_image_where_its_job_is_left_out(stack: str) -> None:
    """The image comes later: the first cloud command of the README is run before there is one."""
    there = _as_shipped(stack, without_job=True)
    missing = {node.name for node in graph_of(stack).nodes if (node.type, node.name) not in there}
    jobs = {naming.PROBE, naming.REPLAY, naming.LAUNCH_CHECK, *(each.job for each in operations.SCHEDULED)}
    assert {"image-pipeline", "template", naming.CONSOLE, naming.STARTER, *jobs} <= missing
    runs = "|".join(sorted({*jobs, naming.STARTER, "audit-card-tokens", "audit-repair", "audit-erasure"}))
    upkeep = "launcher|schema|dead-letters|retry"
    accounts = f"card-search|validation|backup|erasure|starter|scheduler|{upkeep}"
    assert not [
        name
        for name in missing
        if not re.match(
            f"image-|template|.*probe|.*console|.*replay|iap-agent|({runs})|({accounts})-sa-|dead-letters-erasure"
            f"|dead-letters-({upkeep})-sa$|audit-(db|metadata)-({upkeep})$|({'|'.join(DATASETS)}|dataflow)-launcher",
            name,
        )
    ]


@pytest.mark.parametrize("stack", DEPLOYED)
def test_a_stack_as_shipped_is_told_what_its_job_needs(stack: str) -> None:
    with pytest.raises(pulumi.RunError) as refused:
        _as_shipped(stack, without_job=False)
    [_, problem] = str(refused.value).splitlines()
    assert problem.startswith("image must be the job's image by its digest (delivery/cloudbuild.yaml builds it")
    assert "--without-job" in problem
    assert problem.endswith(f"got ''. Set it in Pulumi.{stack}.yaml.")


@pytest.mark.parametrize("stack", DEPLOYED)
def test_a_stack_without_an_image_keeps_the_rules(stack: str) -> None:
    graph = graph_of(stack, {"image": ""}, program=stacks.program(ROOT, without_job=True))
    assert [broken for rule in RULES for broken in rule(graph)] == []
