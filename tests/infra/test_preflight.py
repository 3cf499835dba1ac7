"""Preflight names what is missing, why, and who repairs it how; it reads only, and what it did not see is not good.

The stand-in for Google's APIs is tests/strict/google_project.py: nothing is missing there until a test takes it away.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from bootstrap import roles
from bootstrap.steps import Stack, steps
from components import naming
from components.config import ROOT
from contract.watched import WatchedTables
from delivery import deploy, stacks
from delivery.preflight import permissions
from delivery.preflight.findings import COULD_NOT_LOOK, GOOD, SOMETHING_TO_DO, Finding, State, result
from delivery.preflight.google import Google, NotSeen
from delivery.preflight.policies import CONSTRAINTS
from delivery.preflight.run import CHECKS, preflight
from delivery.preflight.target import Target
from graph.resources import IMAGE, Graph
from tests.infra.asked_for import MORE
from tests.infra.graphs import graph_of
from tests.infra.published import ROLES
from tests.infra.test_existing_database import EXISTING
from tests.strict.google_apis import serving
from tests.strict.google_project import Project

DEV = "payment-audit-dev"
OURS = naming.labels("dev")
# What only looks, though it is a POST or ends what a look began.
READS = ("testIamPermissions", "iam:troubleshoot", "getAncestry", "/sessions", "executeSql", "/sessions/1")


def _looked(project: Project, graph: Graph, pinned: Mapping[str, str] | None = None) -> list[Finding]:
    with serving(project) as endpoint:
        return preflight(Target(google=Google(endpoint=endpoint), graph=graph, pinned=pinned or {}))


def test_nothing_is_missing_in_a_project_that_bootstrap_made_ready(graph: Graph) -> None:
    """The stack files as they are shipped, before the first `up`."""
    project = Project(graph.outputs["project"])
    found = _looked(project, graph)
    assert [f for f in found if f.state not in (State.OK, State.LATER)] == []
    assert result(found) == GOOD
    assert {f.check for f in found} == set(CHECKS)
    # Nothing is made yet, and no image is pinned: it says so.
    assert {f.check for f in found if f.state is State.LATER} == {"accounts", "images", "columns"}


def test_it_reads_only() -> None:
    project = Project(DEV, accounts=True, tables=_tables())
    _looked(project, graph_of("dev"), {"image": IMAGE})
    assert [asked for asked in project.asked if asked[0] != "GET" and not asked[1].endswith(READS)] == []
    assert ("DELETE", f"spanner.googleapis.com/v1/{_database()}/sessions/1") in project.asked


def test_bootstrap_enables_each_api_that_it_asks() -> None:
    project = Project(DEV, accounts=True, tables=_tables())
    _looked(project, graph_of("dev"), {"image": IMAGE})
    asked = {whole.partition("/")[0] for _, whole in project.asked}
    stack = Stack(name="dev", project=DEV, region="us-central1", number="1")
    enabled = {word for step in steps(stack) if step.make[:2] == ("services", "enable") for word in step.make}
    assert len(asked) > 10
    assert asked - enabled == set()


def _database() -> str:
    return f"projects/{DEV}/instances/{naming.INSTANCE}/databases/{naming.AUDIT_DATABASE}"


WATCHED_BY_OTHERS = {
    table.name: {name: column.type for name, column in table.columns.items()}
    for table in WatchedTables.load(ROOT / EXISTING["tables"]).tables
}


def _tables(watched: WatchedTables | None = None, *, without: str = "") -> dict[str, dict[str, str]]:
    kinds = {"STRING": "STRING(MAX)"}
    return {
        table.name: {n: kinds.get(c.type, c.type) for n, c in table.columns.items() if n != without}
        for table in (watched or WatchedTables.load()).tables
    }


class Missing(NamedTuple):
    """What was taken away; where and how it is found, and what repairs it."""

    project: Project
    check: str
    what: str
    why: str
    repair: str
    state: State = State.BLOCKER


def _policy(name: str, why: str, repair: str, *rules: dict[str, Any]) -> Missing:
    return Missing(Project(DEV, rules={name: list(rules)}), "policies", name, why, repair)


MISSING = {
    "permission": Missing(
        Project(DEV, lacking={"spanner.databases.updateDdl"}),
        "permissions",
        "spanner.databases.updateDdl on the project",
        "making spanner/database takes it (cloud.google.com/spanner/docs/iam)",
        "python -m bootstrap --stack dev",
    ),
    "permission on the repository": Missing(
        Project(DEV, lacking={"artifactregistry.repositories.setIamPolicy"}),
        "permissions",
        "artifactregistry.repositories.setIamPolicy on the repository",
        "artifactregistry/repositoryIamMember",
        "python -m bootstrap --stack dev",
    ),
    "a permission's name": Missing(
        Project(DEV, unknown={"run.jobs.create"}),
        "permissions",
        "run.jobs.create on the project",
        "Google knows no such permission there; cloudrunv2/job was said to take it",
        "",
        State.NOT_SEEN,
    ),
    "role of an account": Missing(
        Project(DEV, accounts=True, ungranted={("dataflow-sa", "dataflow.workItems.lease")}),
        "accounts",
        "dataflow-sa: dataflow.workItems.lease",
        "the program grants roles/auditWorker",
        "python -m delivery.deploy up -s dev --refresh",
        State.TO_DO,
    ),
    "CPUs": Missing(
        Project(DEV, limits={"CPUS": 1}),
        "quotas",
        "CPUS",
        "1, and 2 are needed",
        f"https://console.cloud.google.com/iam-admin/quotas?project={DEV}, filter CPUS",
        State.TO_DO,
    ),
    "jobs": Missing(
        Project(DEV, limits={"dataflow.googleapis.com/job_count": 1}),
        "quotas",
        "jobs at once",
        "1, and 2 are needed",
        "filter dataflow.googleapis.com/job_count",
        State.TO_DO,
    ),
    "Spanner nodes": Missing(
        Project(DEV, limits={"spanner.googleapis.com/nodes": 0}),
        "quotas",
        "nodes of regional-us-central1",
        "0, and 1 are needed",
        "filter spanner.googleapis.com/nodes",
        State.TO_DO,
    ),
    "locations": _policy(
        "gcp.resourceLocations",
        "refuses us-central1, which the stack needs: allowed in:eu-locations",
        "payment-audit:region",
        {"values": {"allowedValues": ["in:eu-locations"]}},
    ),
    "key projects": _policy(
        "gcp.restrictCmekCryptoKeyProjects",
        "allowed under:folders/1",
        "allow it for this project",
        {"values": {"allowedValues": ["under:folders/1"]}},
    ),
    "ingress": _policy(
        "run.allowedIngress",
        "refuses all",
        "set payment-audit:consoleIngress to internal",
        {"values": {"allowedValues": ["internal"]}},
    ),
    "accounts that may be made": _policy(
        "iam.disableServiceAccountCreation", "refuses service accounts", "allow it", {"enforce": True}
    ),
    "a service": _policy(
        "gcp.restrictServiceUsage",
        "denied dataflow.googleapis.com",
        "allow it",
        {"values": {"deniedValues": ["dataflow.googleapis.com"]}},
    ),
    "people's domains": _policy(
        "iam.allowedPolicyMemberDomains",
        "whether it allows example.com cannot be seen from here: allowed C0abc",
        "",
        {"values": {"allowedValues": ["C0abc"]}},
    )._replace(state=State.NOT_SEEN),
    "API": Missing(
        Project(DEV, off={"dataflow.googleapis.com"}),
        "APIs",
        "dataflow.googleapis.com",
        "the job needs it",
        f"gcloud services enable dataflow.googleapis.com --project={DEV}",
        State.TO_DO,
    ),
    "bucket's name": Missing(
        Project(DEV, taken={f"{DEV}-temp": None}),
        "names",
        f"bucket {DEV}-temp",
        "a bucket's name is one in the whole of Google Cloud",
        "payment-audit:project",
    ),
    "dataset's name": Missing(
        Project(DEV, taken={"payment_audit": {"team": "other"}}),
        "names",
        "dataset payment_audit",
        "not made by this stack: `up` would end with 409",
        "another name",
    ),
    "name of a stack beside it": Missing(
        Project(DEV, taken={naming.INSTANCE: naming.labels("other")}),
        "names",
        f"instance {naming.INSTANCE}",
        "stack other of this project has it",
        "payment-audit:prefix",
    ),
    "repository": Missing(
        Project(DEV, repository=False),
        "images",
        f"repository projects/{DEV}/locations/us-central1/repositories/audit-images",
        "the job's image is taken from it",
        "python -m bootstrap --stack dev",
    ),
    "column": Missing(
        Project(DEV, accounts=True, tables=_tables(without="Amount")),
        "columns",
        "payment_audit_trail.Amount",
        "payment_audit_trail.Amount must exist",
        "correct the line in tables.toml",
        State.TO_DO,
    ),
    "a look": Missing(
        Project(DEV, refuse={"cloudquotas.googleapis.com"}),
        "quotas",
        "spanner.googleapis.com/nodes",
        "cloudquotas.googleapis.com answers 403: The caller does not have permission",
        "",
        State.NOT_SEEN,
    ),
    "the form of an answer": Missing(
        Project(DEV, limits={"CPUS": "many"}),
        "quotas",
        "quotas",
        "not as its page has it (ValueError",
        "",
        State.NOT_SEEN,
    ),
    "an API that is looked with": Missing(
        Project(DEV, off={"orgpolicy.googleapis.com"}),
        "policies",
        "gcp.resourceLocations",
        "the API orgpolicy.googleapis.com is off",
        "gcloud services enable orgpolicy.googleapis.com",
        State.NOT_SEEN,
    ),
}


@pytest.mark.parametrize("missing", MISSING.values(), ids=MISSING)
def test_what_was_taken_away_is_named_with_why_and_the_remedy(missing: Missing) -> None:
    config = {"readers": ["group:support@example.com"]} if "Domains" in missing.what else {}
    found = _looked(missing.project, graph_of("dev", config))
    [finding] = [f for f in found if f.check == missing.check and missing.what in f.what and f.state is not State.OK]
    assert finding.state is missing.state
    assert missing.why in finding.why
    assert missing.repair in finding.repair
    assert finding.who
    assert result(found) == (COULD_NOT_LOOK if missing.state is State.NOT_SEEN else SOMETHING_TO_DO)
    # Nothing that was not taken away is complained of.
    assert {f.check for f in found if f.state not in (State.OK, State.LATER)} == {missing.check}


def test_a_table_of_a_named_schema_is_compared_with_the_one_there() -> None:
    """And not with the table of that name in the default schema."""
    shop = "tests/examples/shop/tables.toml"
    tables = _tables(WatchedTables.load(ROOT / shop), without="pan")
    found = _looked(Project(DEV, accounts=True, tables=tables), graph_of("dev", {"tables": shop}))
    assert [(f.what, f.state) for f in found if f.check == "columns"] == [
        ("sales.payments.pan", State.TO_DO),
        ("columns of sales.payments", State.OK),
        ("columns of sales.order", State.OK),
        ("columns of order", State.OK),
    ]
    found = _looked(Project(DEV, accounts=True, tables={"order": tables["order"]}), graph_of("dev", {"tables": shop}))
    assert [f.what for f in found if f.check == "columns" and f.state is State.TO_DO] == [
        "sales.payments",
        "sales.order",
    ]


def test_what_the_stack_made_itself_is_its_own() -> None:
    names = (f"{DEV}-temp", "payment_audit", naming.INSTANCE)
    project = Project(DEV, taken=dict.fromkeys(names, OURS), accounts=True, tables=_tables(), digests={IMAGE[-71:]})
    found = _looked(project, graph_of("dev"), {"image": IMAGE})
    assert {f.state for f in found} == {State.OK}
    assert any(f.what.startswith("image ") for f in found)


def test_a_host_that_does_not_answer_is_asked_once() -> None:
    """Each look would wait for it, in a build that `up` runs in."""
    project = Project(DEV, silent={"orgpolicy.googleapis.com"})
    found = _looked(project, graph_of("dev"))
    unseen = [f for f in found if f.state is State.NOT_SEEN]
    assert len(unseen) == len(CONSTRAINTS)
    assert {f.why for f in unseen} == {"orgpolicy.googleapis.com does not answer"}
    assert len([whole for _, whole in project.asked if whole.startswith("orgpolicy.")]) == 1


def test_a_digest_that_is_not_in_the_registry_is_found() -> None:
    found = _looked(Project(DEV), graph_of("dev"), {"image": IMAGE})
    [finding] = [f for f in found if f.state is State.BLOCKER]
    assert (finding.check, finding.what) == ("images", f"image {IMAGE}")


def test_a_key_ring_where_cloud_kms_has_no_place_is_found() -> None:
    """For data in the EU it is `europe`."""
    graph = graph_of("dev")
    [ring] = graph.of("KeyRing")
    moved = {**ring.inputs, "location": "eu"}
    nodes = tuple(n if n is not ring else type(n)(**{**vars(n), "inputs": moved}) for n in graph.nodes)
    found = _looked(Project(DEV), Graph(**{**vars(graph), "nodes": nodes}))
    [finding] = [f for f in found if f.state is State.BLOCKER]
    assert finding.what == "key ring audit in eu"
    assert "europe" in finding.why


@pytest.mark.parametrize("tables", [None, WATCHED_BY_OTHERS], ids=["no database", "their tables"])
def test_a_database_that_others_own_is_compared_where_it_is(tables: dict[str, dict[str, str]] | None) -> None:
    project = Project(DEV, tables=tables)
    found = _looked(project, graph_of("dev", EXISTING))
    assert ("POST", "spanner.googleapis.com/v1/projects/bank-payments/instances/core/databases/ledger-db/sessions") in (
        project.asked
    )
    states = {f.state for f in found if f.check == "columns"}
    assert states == ({State.OK} if tables else {State.BLOCKER})


def test_the_columns_of_a_postgresql_database_are_compared_by_what_spanner_calls_their_types() -> None:
    written = {"STRING": "character varying(36)", "INT64": "bigint", "TIMESTAMP": "timestamp with time zone"}
    written |= {"NUMERIC": "numeric", "JSON": "jsonb", "FLOAT64": "double precision"}
    theirs = {
        table: {name: written.get(kind, kind.lower()) for name, kind in columns.items()}
        for table, columns in WATCHED_BY_OTHERS.items()
    }
    found = _looked(Project(DEV, tables=theirs, dialect="POSTGRESQL"), graph_of("dev", EXISTING))
    assert {f.state for f in found if f.check == "columns"} == {State.OK}
    theirs["ledger"]["stage"] = "jsonb"
    found = _looked(Project(DEV, tables=theirs, dialect="POSTGRESQL"), graph_of("dev", EXISTING))
    [unfit] = [f for f in found if f.check == "columns" and f.state is not State.OK]
    assert "ledger.stage must be of type STRING" in unfit.why


def test_their_owners_send_what_may_not_be_read() -> None:
    found = _looked(Project(DEV, refuse={"spanner.googleapis.com"}), graph_of("dev", EXISTING))
    [finding] = [f for f in found if f.check == "columns"]
    assert (finding.state, finding.who) == (State.NOT_SEEN, "the database's owners")
    assert "python -m delivery.schema verify -s dev --ddl FILE" in finding.repair


def test_a_project_that_may_not_be_seen_is_one_finding() -> None:
    found = _looked(Project("somebody-s"), graph_of("dev"))
    assert [(f.check, f.state) for f in found] == [("project", State.NOT_SEEN)]
    assert result(found) == COULD_NOT_LOOK


@pytest.mark.parametrize(
    ("value", "location", "covers"),
    [
        ("us-east4", "us-east4", True),
        ("is:us-east4", "us-east4", True),
        ("us", "us-east4", False),
        ("in:us-locations", "us-east4", True),
        ("in:us-locations", "us", True),
        ("in:us-east4-locations", "us-east4", True),
        ("in:us-east1-locations", "us-east4", False),
        ("in:eu-locations", "europe-west1", True),
        ("in:eu-locations", "europe-west2", False),
        ("in:europe-locations", "europe-west2", True),
        ("in:asia-locations", "us-east4", False),
        ("in:somewhere-new", "us-east4", None),
    ],
)
def test_a_value_of_a_location_policy_covers_what_google_says(value: str, location: str, covers: bool | None) -> None:
    assert CONSTRAINTS["gcp.resourceLocations"].within(value, location) is covers


# ---------------------------------------------------------------------- the table of permissions


def test_each_kind_of_resource_says_what_it_takes() -> None:
    graphs = [*(graph_of(stack) for stack in ("dev", "staging", "prod")), graph_of("dev", MORE)]
    kinds = {permissions.kind_of(node.type) for graph in graphs for node in graph.nodes if node.type[:4] == "gcp:"}
    assert kinds - permissions.NEEDS.keys() == set(), "name its permissions in delivery/preflight/permissions.py"


def test_the_deployer_s_roles_have_every_permission_of_the_table() -> None:
    """What bootstrap grants is what `up` needs: by Google's own lists, not by ours."""
    # Of the billing account its administrator grants them, where config has a budget.
    ours = [need for need in permissions.NEEDS.values() if need.on != permissions.BILLING_ACCOUNT]
    needed = {permission for need in ours for permission in need.permissions}
    assert needed - _held_by_the_deployer(composer=True) == set()
    # Where the program makes no environment of Composer, its deployer makes none either.
    lacking = needed - _held_by_the_deployer(composer=False)
    assert lacking == {f"composer.environments.{verb}" for verb in ("create", "delete", "get", "update")}


def _held_by_the_deployer(*, composer: bool) -> set[str]:
    stack = Stack(name="prod", project="p-prod", region="us-east4", number="1", access_policy="7", composer=composer)
    member = f"serviceAccount:{stack.deployer}"
    granted = {step.grant[1] for step in steps(stack) if step.grant and step.grant[0] == member}
    held = {permission for role in granted for permission in ROLES.get(role, ())}
    return held | {p for role in roles.CUSTOM if role.of(stack.project) in granted for p in role.permissions}


# ---------------------------------------------------------------------- the command


def _command(endpoint: str, *args: str) -> tuple[int, str]:
    """Exit code and output; a usage error is 1 as in a shell."""
    done = CliRunner().invoke(deploy.main, [*args, "--google-endpoint", endpoint], standalone_mode=False)
    assert done.exception is None, done.exception
    return int(done.return_value), done.stdout


def test_the_command_shows_people_a_table_and_programs_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delivery.preflight.run.graph_of", graph_of)
    with serving(Project(DEV, lacking={"run.jobs.create"})) as endpoint:
        code, shown = _command(endpoint, "preflight", "-s", "dev")
        assert code == SOMETHING_TO_DO
        lines = shown.splitlines()
        first = next(line for line in lines if "run.jobs.create" in line)
        assert first.split() == ["blocker", "permissions", "run.jobs.create", "on", "the", "project"]
        assert "→ the project's owner:" in shown
        assert lines[-1].startswith("dev: 1 blocker, ")
        assert "\x1b" not in shown
        code, out = _command(endpoint, "preflight", "-s", "dev", "--json")
        report = json.loads(out)
        assert (code, report["result"], report["findings"][0]["what"]) == (1, "to do", "run.jobs.create on the project")


def test_up_is_stopped_by_a_blocker_before_it_writes_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delivery.preflight.run.graph_of", graph_of)
    monkeypatch.setattr(stacks, "open_stack", _never)
    with serving(Project(DEV, lacking={"run.jobs.create"})) as endpoint:
        code, out = _command(endpoint, "up", "-s", "dev", "--json")
    assert code == deploy.FAILED
    [error] = json.loads(out)["errors"]
    assert "run.jobs.create" in error
    assert "--no-preflight" in error


def _never(*args: Any, **more: Any) -> Callable[[], None]:
    raise AssertionError("the stack was opened")


def test_what_is_not_a_blocker_keeps_nobody_back() -> None:
    with serving(Project(DEV, limits={"CPUS": 1}, refuse={"orgpolicy.googleapis.com"})) as endpoint:
        google = Google(endpoint=endpoint)
        found = preflight(Target(google=google, graph=graph_of("dev"), pinned={}))
    assert {State.TO_DO, State.NOT_SEEN} <= {f.state for f in found}
    assert State.BLOCKER not in {f.state for f in found}


def test_an_endpoint_without_tls_is_on_this_machine() -> None:
    with pytest.raises(NotSeen, match="must be on this machine"):
        Google(endpoint="http://proxy.example.com:80")
