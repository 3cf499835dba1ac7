"""A secret and datasets that the organisation has: used, granted on for the stack's accounts, and made nowhere."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest

from components import config
from components.settings import SettingsError
from delivery import owners
from delivery.preflight.findings import Finding, State
from delivery.preflight.google import Google
from delivery.preflight.names import existing
from delivery.preflight.target import Target
from graph.resources import Graph
from guardrails import iam, rules
from tests.infra.asked_for import BESIDE
from tests.infra.graphs import graph_of
from tests.infra.test_two_stacks import parsed
from tests.strict.google_apis import serving
from tests.strict.google_project import Project

DEV: Final = "payment-audit-dev"
SECRET: Final = "projects/keys-prod/secrets/masking"
DATASET: Final = "payment_audit"
GIVEN: Final = {"maskingSecret": SECRET, "existingDatasets": [DATASET]}


@pytest.fixture(scope="module")
def theirs() -> Graph:
    return graph_of("dev", GIVEN)


@pytest.fixture(scope="module")
def made() -> Graph:
    return graph_of("dev")


def test_neither_is_made_and_all_else_is(made: Graph, theirs: Graph) -> None:
    left_out = {node.id for node in made.nodes} - {node.id for node in theirs.nodes}
    kinds = sorted(re.sub(r".*:(\w+) ", r"\1 ", id) for id in left_out if "SecretIamMember" not in id)
    assert kinds == [
        "CryptoKey secrets",
        "CryptoKeyIAMMember secrets-secretmanager",
        f"Dataset {DATASET}",
        "Secret masking-keys",
        "ServiceIdentity secretmanager-agent",
    ]
    assert {node.id for node in theirs.nodes} <= {node.id for node in made.nodes}
    tables = [{n.inputs["tableId"] for n in g.of("Table") if n.inputs["datasetId"] == DATASET} for g in (made, theirs)]
    assert tables[0] == tables[1] and len(tables[0]) > 5


def test_the_stack_s_accounts_are_granted_on_their_dataset_and_the_views_are_trusted_there(
    made: Graph, theirs: Graph
) -> None:
    grants = [{g for g in iam.grants(graph) if DATASET in g.resource} for graph in (made, theirs)]
    assert grants[0] == grants[1] and grants[0]
    trusts = [sorted(str(dict(n.inputs)) for n in graph.of("DatasetAccess")) for graph in (made, theirs)]
    assert trusts[0] == trusts[1]


def test_job_and_commands_take_the_keys_from_their_secret(theirs: Graph) -> None:
    assert theirs.one("FlexTemplateJob").inputs["parameters"]["maskingKeys"] == SECRET
    assert theirs.outputs["maskingKeys"] == SECRET
    assert theirs.of("SecretIamMember") == []


def test_on_a_secret_of_the_stack_s_project_the_stack_grants(made: Graph) -> None:
    near = graph_of("dev", {"maskingSecret": f"projects/{DEV}/secrets/masking"})
    own, given = (
        {(n.inputs["role"], n.inputs["member"]) for n in graph.of("SecretIamMember")} for graph in (made, near)
    )
    assert own == given and {n.inputs["secretId"] for n in near.of("SecretIamMember")} == {"masking"}


def test_the_script_for_its_owners_grants_what_the_stack_would(made: Graph) -> None:
    accounts = ["dataflow-sa=runner@accounts-prod.iam.gserviceaccount.com"]
    text = "\n".join(owners.script(made, {**made.config, "maskingSecret": SECRET, "serviceAccounts": accounts}))
    found = re.findall(r"secrets add-iam-policy-binding masking --project=keys-prod --member=(\S+) --role=(\S+)", text)
    own = {(str(n.inputs["member"]), str(n.inputs["role"])) for n in made.of("SecretIamMember")}
    runner = "runner@accounts-prod.iam.gserviceaccount.com"
    assert set(found) == {
        (member.replace(f"dataflow-sa@{DEV}.iam.gserviceaccount.com", runner), role) for member, role in own
    }
    assert owners.every_grant({**made.config, "maskingSecret": SECRET})["maskingSecret"] == ""


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_it_keeps_every_rule(theirs: Graph, rule: rules.Rule) -> None:
    assert list(rule(theirs)) == []


def test_their_dataset_keeps_its_name_in_a_stack_with_a_prefix() -> None:
    graph = graph_of("dev", {**GIVEN, **BESIDE, "bigQueryDataset": DATASET})
    datasets = {str(node.inputs["datasetId"]) for node in graph.of("Table")}
    assert DATASET in datasets and all(name == DATASET or name.startswith("eu_1_") for name in datasets)
    assert "`payment-audit-dev.payment_audit.payment_state_progress`" in str(
        [node.inputs for node in graph.of("DataTransferConfig")]
    )
    assert graph.one("FlexTemplateJob").inputs["parameters"]["bigQueryDataset"] == DATASET
    assert list(rules.names_have_the_stack_s_prefix(graph)) == []


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"existingDatasets": ["payment_views"]}, "existingDatasets must be datasets of changelogs"),
        ({"existingDatasets": ["other"]}, "existingDatasets must be datasets of changelogs"),
        ({"maskingSecret": "masking"}, "maskingSecret must be empty or projects/P/secrets/S"),
        (
            {"maskingSecret": SECRET, "accessPolicy": "1", "perimeterMode": "enforced"},
            "perimeterMode must be dryRun where maskingSecret is another project's",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(given: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        graph_of("dev", given)


def test_two_stacks_have_no_dataset_of_others_in_common() -> None:
    """The tables of both would have one name."""
    other = {**config.stack_config("dev"), "prefix": "eu", "projectWide": False, "existingDatasets": [DATASET]}
    with pytest.raises(SettingsError, match="existingDatasets must be others than those of other"):
        parsed({"existingDatasets": [DATASET]}).beside({"other": other})
    parsed({}).beside({"other": other})


def found(others: dict[str, dict[str, Any]], graph: Graph) -> list[Finding]:
    with serving(Project(DEV, others=others)) as endpoint:
        return list(existing(Target(google=Google(endpoint=endpoint), graph=graph, pinned={})))


def test_preflight_looks_for_both_and_says_where_a_dataset_is(theirs: Graph) -> None:
    there: dict[str, dict[str, Any]] = {SECRET: {}, DATASET: {"location": "us-central1"}}
    assert {(f.what, f.state) for f in found(there, theirs)} == {
        (SECRET, State.OK),
        (f"dataset {DATASET}", State.OK),
    }
    [far] = [f for f in found({**there, DATASET: {"location": "EU"}}, theirs) if f.state is not State.OK]
    assert far.state is State.BLOCKER and far.why == "is in EU, and warehouseLocation is us-central1"
    assert {f.what for f in found({}, theirs) if f.state is State.BLOCKER} == {SECRET, f"dataset {DATASET}"}
