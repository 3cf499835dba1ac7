"""Service accounts that others own: used under the names of the stack's, granted on its resources, and made nowhere."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest

from components.settings import SettingsError
from components.settings.identity import ACCOUNTS
from delivery import owners, schema
from delivery.preflight.findings import Finding, State
from delivery.preflight.google import Google
from delivery.preflight.names import existing
from delivery.preflight.target import Target
from graph.google import PROJECT_NUMBER
from graph.resources import Graph
from guardrails import iam, rules
from tests.infra.asked_for import OF_OTHERS
from tests.infra.graphs import graph_of
from tests.infra.test_existing_database import EXISTING
from tests.strict.google_apis import serving
from tests.strict.google_project import Project

DEV: Final = "payment-audit-dev"
ALL: Final = [f"{name}=their-{name}@accounts-prod.iam.gserviceaccount.com" for name in ACCOUNTS]
PEOPLE: Final = {
    "deployers": ["user:ops@example.com"],
    "cardSearchers": ["group:cards@example.com"],
    "kubernetesServiceAccount": "payments/app",
    "subnetwork": OF_OTHERS["subnetwork"],
}


@pytest.fixture(scope="module")
def made() -> Graph:
    return graph_of("dev", PEOPLE)


@pytest.fixture(scope="module")
def theirs() -> Graph:
    return graph_of("dev", {**PEOPLE, "serviceAccounts": ALL})


def test_none_is_made_and_nothing_is_granted_on_one(theirs: Graph) -> None:
    assert theirs.of("Account") == []
    on_accounts = [n for n in theirs.nodes if n.type == "gcp:serviceaccount/iAMMember:IAMMember"]
    assert on_accounts == []
    assert not re.search(rf"\\b({'|'.join(ACCOUNTS)})@{DEV}", str([dict(n.inputs) for n in theirs.nodes]))


def test_each_is_granted_on_the_stack_s_resources_what_the_stack_s_own_is(made: Graph, theirs: Graph) -> None:
    own = {grant for grant in iam.grants(made) if not grant.resource.startswith("account ")}
    assert set(iam.grants(theirs)) == own
    assert theirs.one("FlexTemplateJob").inputs["serviceAccountEmail"] == ALL[1].partition("=")[2]


def test_one_of_them_leaves_the_others_to_the_stack() -> None:
    graph = graph_of("dev", {"serviceAccounts": [f"merge-sa=warehouse@{DEV}.iam.gserviceaccount.com"]})
    assert {node.name for node in graph.of("Account")} == set(ACCOUNTS) - {"merge-sa"}
    for query in graph.of("DataTransferConfig"):
        assert query.inputs["serviceAccountName"] == f"warehouse@{DEV}.iam.gserviceaccount.com"


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_it_keeps_every_rule(theirs: Graph, rule: rules.Rule) -> None:
    assert list(rule(theirs)) == []


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["pipeline=a@accounts-prod.iam.gserviceaccount.com"], "NAME one of application-sa"),
        (["merge-sa=12345-compute@developer.gserviceaccount.com"], "NAME=E-MAIL of a service account"),
        ([ALL[3], ALL[3].replace("their", "other")], "each name once"),
        ([ALL[3], ALL[4].partition("=")[0] + "=" + ALL[3].partition("=")[2]], "each account once"),
        ([ALL[1]], "one of the stack's project for dataflow-sa, unless subnetwork names a network of others"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(given: list[str], why: str) -> None:
    with pytest.raises(SettingsError, match=f"serviceAccounts must be .*{why}"):
        graph_of("dev", {"serviceAccounts": given})


def test_an_account_of_the_stack_s_project_may_be_in_its_own_network() -> None:
    graph = graph_of("dev", {"serviceAccounts": [f"dataflow-sa=runner@{DEV}.iam.gserviceaccount.com"]})
    assert graph.one("Firewall", "workers").inputs["sourceServiceAccounts"] == [f"runner@{DEV}.iam.gserviceaccount.com"]


# ---------------------------------------------------------------------- what their owners run


def commands(made: Graph, given: list[str]) -> set[tuple[str, str, str]]:
    """Account, member and role of each grant in the script."""
    config = {**made.config, "serviceAccounts": given, "subnetwork": ""}
    text = "\n".join(owners.script(made, config)).replace("'", "").replace('"$NUMBER"', PROJECT_NUMBER)
    found = re.findall(r"add-iam-policy-binding (\S+) --project=accounts-prod --member=(\S+) --role=(\S+)", text)
    return {(account, member, role.removeprefix("roles/iam.")) for account, member, role in found}


def test_the_script_lets_act_as_each_whom_the_stack_would_let(made: Graph) -> None:
    wanted = set()
    for node in made.nodes:
        if node.type == "gcp:serviceaccount/iAMMember:IAMMember":
            name = str(node.inputs["serviceAccountId"]).rpartition("/")[2].partition("@")[0]
            member = re.sub(rf":({'|'.join(ACCOUNTS)})@{DEV}", r":their-\1@accounts-prod", str(node.inputs["member"]))
            role = str(node.inputs["role"]).removeprefix("roles/iam.")
            wanted.add((f"their-{name}@accounts-prod.iam.gserviceaccount.com", member, role))
    found = commands(made, ALL)
    assert len(wanted) > 10 and wanted <= found
    # What runs as an account of another project has its tokens from the agent of its service.
    agents = {(account.partition("@")[0], member) for account, member, _ in found - wanted}
    agent = f"serviceAccount:service-{PROJECT_NUMBER}@{{}}.iam.gserviceaccount.com"
    assert ("their-dataflow-sa", agent.format("dataflow-service-producer-prod")) in agents
    assert ("their-dataflow-sa", agent.format("compute-system")) in agents
    assert ("their-merge-sa", agent.format("gcp-sa-bigquerydatatransfer")) in agents
    for name in ("probe-sa", "validation-sa", "erasure-sa", "backup-sa"):
        assert (f"their-{name}", agent.format("serverless-robot-prod")) in agents
        assert (f"their-{name}", agent.format("gcp-sa-cloudscheduler")) not in agents
    assert ("their-scheduler-sa", agent.format("gcp-sa-cloudscheduler")) in agents
    assert ("their-starter-sa", agent.format("serverless-robot-prod")) in agents
    assert not [account for account, _ in agents if account == "their-application-sa"]


def test_everything_that_runs_as_an_account_has_an_agent_in_the_script(made: Graph) -> None:
    """A new job or service that runs as another account would have no tokens."""
    services = {
        "gcp:dataflow/": "dataflow-service-producer-prod",
        "gcp:cloudrunv2/": "serverless-robot-prod",
        "gcp:cloudscheduler/": "gcp-sa-cloudscheduler",
        "gcp:bigquery/dataTransferConfig": "gcp-sa-bigquerydatatransfer",
    }
    for node in made.nodes:
        agent = next((agent for kind, agent in services.items() if node.type.startswith(kind)), None)
        if agent and "IamMember" not in node.type:
            for name in re.findall(rf"({'|'.join(ACCOUNTS)})@{DEV}", str({**node.inputs, "connection": None})):
                assert name in owners._RUN_BY[agent], f"{node.id} runs as {name}"


def test_the_owners_of_a_database_let_their_accounts_in() -> None:
    config = {**graph_of("dev", EXISTING).config, "serviceAccounts": ALL}
    text = "\n".join(schema.script("dev", config, []))
    assert text.count("their-schema-sa@accounts-prod") == 1
    assert text.count("their-validation-sa@accounts-prod") == 2 and f"validation-sa@{DEV}" not in text


# ---------------------------------------------------------------------- preflight


def found(accounts: dict[str, dict[str, Any]]) -> list[Finding]:
    graph = graph_of("dev", {"serviceAccounts": ALL[2:4]})
    others = {f"projects/accounts-prod/serviceAccounts/{email}": value for email, value in accounts.items()}
    with serving(Project(DEV, others=others)) as endpoint:
        return list(existing(Target(google=Google(endpoint=endpoint), graph=graph, pinned={})))


def test_preflight_finds_each_and_says_which_is_not_there_or_is_disabled() -> None:
    launcher, merge = (pair.partition("=")[2] for pair in ALL[2:4])
    assert {(f.what, f.state) for f in found({launcher: {}, merge: {}})} == {(launcher, State.OK), (merge, State.OK)}
    [gone] = [f for f in found({launcher: {}}) if f.state is not State.OK]
    assert (gone.what, gone.state, gone.who) == (merge, State.BLOCKER, "its owners")
    [off] = [f for f in found({launcher: {}, merge: {"disabled": True}}) if f.state is not State.OK]
    assert "disabled" in off.why
