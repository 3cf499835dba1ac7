"""Where the organisation has its own network, keys, log bucket and labels: they are used, and nothing is made there."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from components.settings import SettingsError
from delivery import owners
from delivery.preflight.findings import Finding, State
from delivery.preflight.google import Google
from delivery.preflight.run import preflight
from delivery.preflight.target import Target
from graph.google import PROJECT_NUMBER
from graph.resources import Graph
from guardrails import rules
from tests.infra.asked_for import OF_OTHERS
from tests.infra.graphs import graph_of
from tests.strict.google_apis import serving
from tests.strict.google_project import Project

DEV: Final = "payment-audit-dev"
SUBNETWORK, BUCKET = str(OF_OTHERS["subnetwork"]), str(OF_OTHERS["logBucket"])
MADE_NOWHERE: Final = ("gcp:compute/", "gcp:dns/", "gcp:kms/keyRing", "gcp:kms/cryptoKey:", "gcp:logging/projectBucket")


def _stack(name: str) -> Graph:
    if name != "prod":
        return graph_of(name, OF_OTHERS)
    perimeter = {"accessPolicy": "", "perimeterWaiver": "in the organisation's, with the host project"}
    return graph_of(name, {**OF_OTHERS, **perimeter, "subnetwork": SUBNETWORK.replace("us-central1", "us-east4")})


@pytest.fixture(params=["dev", "staging", "prod"])
def theirs(request: pytest.FixtureRequest) -> Graph:
    return _stack(request.param)


def test_what_the_organisation_has_is_not_made(theirs: Graph) -> None:
    assert [node.id for node in theirs.nodes if node.type.startswith(MADE_NOWHERE)] == []


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_it_keeps_every_rule(theirs: Graph, rule: rules.Rule) -> None:
    assert list(rule(theirs)) == []


def test_job_services_and_jobs_use_the_host_s_subnetwork(theirs: Graph) -> None:
    place = theirs.config["subnetwork"]
    # Dataflow takes another project's by its whole URL alone.
    job = theirs.one("FlexTemplateJob").inputs
    assert job["subnetwork"] == f"https://www.googleapis.com/compute/v1/{place}"
    runs = [*theirs.of("Service"), *theirs.of("Job")]
    attached = [node for node in runs if node.type.startswith("gcp:cloudrunv2/")]
    assert len(attached) > 5
    for node in attached:
        assert f"'networkInterfaces': [{{'subnetwork': '{place}'}}]" in str(dict(node.inputs)), node.id


def test_a_perimeter_that_would_leave_the_host_outside_is_refused() -> None:
    """A call has the project of its network: workers in the host's would be kept from the stack's own data."""
    with pytest.raises(SettingsError, match="perimeterMode must be dryRun where subnetwork is another project's"):
        graph_of("dev", {**OF_OTHERS, "accessPolicy": "1", "perimeterMode": "enforced"})
    graph_of("dev", {**OF_OTHERS, "accessPolicy": "1", "perimeterMode": "dryRun"})


def test_each_store_has_its_key_in_the_ring_of_its_place(theirs: Graph) -> None:
    made = [(str(n.inputs["keyRing"]).split("/")[3], n.inputs["name"]) for n in graph_of(theirs.stack).of("CryptoKey")]
    assert owners.used_keys(theirs) == sorted(
        f"projects/keys-prod/locations/{location}/keyRings/payments/cryptoKeys/{name}"
        for location, name in made
        # The log bucket's owners chose its key.
        if name != "logging"
    )


def test_the_stack_grants_on_keys_of_others_only_where_config_lets_it(theirs: Graph) -> None:
    granted = {str(node.inputs["cryptoKeyId"]) for node in theirs.of("CryptoKeyIAMMember")}
    assert granted == set(owners.used_keys(theirs))
    [database] = [node for node in theirs.of("Database") if node.name == "audit-db"]
    assert "CryptoKeyIAMMember::spanner" in " ".join(database.options.dependencies)
    left = graph_of("dev", {**OF_OTHERS, "keyGrants": False})
    assert left.of("CryptoKeyIAMMember") == []
    assert set(owners.used_keys(left)) == set(owners.used_keys(_stack("dev")))


def test_logs_go_into_their_bucket_and_who_is_on_call_sees_the_job_s_there() -> None:
    graph = _stack("dev")
    assert graph.one("ProjectSink").inputs["destination"] == f"logging.googleapis.com/{BUCKET}"
    assert graph.of("LogView", "LogViewIamMember") == []
    near = graph_of("dev", {**OF_OTHERS, "logBucket": f"projects/{DEV}/locations/eu/buckets/theirs"})
    view, seen = near.one("LogView").inputs, near.one("LogViewIamMember").inputs
    assert view["bucket"] == f"projects/{DEV}/locations/eu/buckets/theirs"
    assert (seen["parent"], seen["location"], seen["bucket"]) == (f"projects/{DEV}", "eu", "theirs")
    assert view["filter"] == f'SOURCE("projects/{DEV}") AND resource.type = "dataflow_step"'
    assert list(rules.everything_is_where_the_stack_is(near)) == []


def test_their_labels_are_beside_ours_on_everything(theirs: Graph) -> None:
    wanted = {"team": "payments", "cost-center": "42", "service": "payment-audit", "stack": theirs.stack}
    assert set(wanted.items()) <= set(_labels(theirs.one("gcp")).items())
    # A metric's labels are those of its series, and a list.
    both = [(node, node.inputs.get("userLabels") or node.inputs.get("labels")) for node in theirs.nodes]
    labelled = [(node, labels) for node, labels in both if isinstance(labels, dict)]
    for node, labels in labelled:
        # An alert's own team is whom it notifies.
        own = {"team": labels["team"]} if node.kind == "AlertPolicy" else {}
        assert set({**wanted, **own}.items()) <= set(labels.items()), node.id
    assert {"AlertPolicy", "FlexTemplateJob", "Job"} <= {node.kind for node, _ in labelled}


def _labels(node: Any) -> dict[str, str]:
    return dict(rules._mapping(node.inputs["defaultLabels"]))


# ---------------------------------------------------------------------- what their owners are to run


def _commands(graph: Graph, tmp_path: Path) -> list[list[str]]:
    """What a shell makes of the script: the words of each command of gcloud."""
    stub = tmp_path / "gcloud"
    stub.write_text(
        '#!/bin/sh\n[ "$2 $3" = "firewall-rules describe" -o "$2 $3" = "views describe" ] && exit 1\n'
        'case "$*" in *networks*describe*) echo net; exit;; esac\n'
        'for word in "$@"; do printf "%s\\t" "$word"; done; echo\n'
    )
    stub.chmod(0o755)
    text = "\n".join([owners._HEAD.format(project=DEV, stack="dev"), *owners.script(graph)])
    environment = {"PATH": str(tmp_path), "NUMBER": "777"}
    ran = subprocess.run(["/bin/sh"], input=text, env=environment, capture_output=True, text=True, check=True)
    return [line.split("\t")[:-1] for line in ran.stdout.splitlines()]


def test_the_script_for_their_owners_grants_what_the_stack_would(tmp_path: Path) -> None:
    graph = _stack("dev")
    ran = _commands(graph, tmp_path)
    grants = {
        (words[-3], words[-2].partition("=")[2], words[-1].partition("=")[2]) for words in ran if words[0] == "kms"
    }
    assert grants == {
        (n.inputs["cryptoKeyId"], str(n.inputs["member"]).replace(PROJECT_NUMBER, "777"), n.inputs["role"])
        for n in graph.of("CryptoKeyIAMMember")
    }
    users = {words[-2] for words in ran if words[-1] == "--role=roles/compute.networkUser"}
    agents = ("dataflow-service-producer-prod", "serverless-robot-prod")
    assert users == {f"--member=serviceAccount:service-777@{agent}.iam.gserviceaccount.com" for agent in agents}
    [wall] = [words for words in ran if words[:3] == ["compute", "firewall-rules", "create"]]
    assert {"--project=net-host", "--network=net", "--allow=tcp:12345-12346", "--target-tags=dataflow"} <= set(wall)
    [writer] = [words for words in ran if "--role=roles/logging.bucketWriter" in words]
    assert writer[2:4] == ["central-logs", "--member=serviceAccount:service-777@gcp-sa-logging.iam.gserviceaccount.com"]
    assert writer[-1].endswith('expression=resource.name.endsWith("locations/eu/buckets/payments")')
    # Stacks of several projects may share the bucket.
    assert [w[3:4] + w[-2:] for w in ran if w[:3] == ["logging", "views", "add-iam-policy-binding"]] == [
        [f"job-{DEV}", "--member=group:audit-on-call@example.com", "--role=roles/logging.viewAccessor"]
    ]


def test_a_stack_that_makes_its_own_has_nobody_to_ask(capsys: pytest.CaptureFixture[str]) -> None:
    assert owners.run(["-s", "dev"]) == 1
    assert (
        "one of subnetwork, keyRing, logBucket, maskingSecret and serviceAccounts must be set in Pulumi.dev.yaml"
        in capsys.readouterr().err
    )


# ---------------------------------------------------------------------- preflight


def _there(graph: Graph) -> dict[str, dict[str, Any]]:
    return {**{key: {} for key in owners.used_keys(graph)}, SUBNETWORK: {"privateIpGoogleAccess": True}, BUCKET: {}}


def _found(others: dict[str, dict[str, Any]]) -> list[Finding]:
    with serving(Project(DEV, others=others)) as endpoint:
        found = preflight(Target(google=Google(endpoint=endpoint), graph=_stack("dev"), pinned={}))
    return [finding for finding in found if finding.check in ("keys", "existing")]


def test_preflight_finds_what_is_named_of_others() -> None:
    there = _there(_stack("dev"))
    found = _found(there)
    assert {finding.what for finding in found} == set(there)
    assert {finding.state for finding in found} == {State.OK}


@pytest.mark.parametrize("what", ["spanner", SUBNETWORK, BUCKET, "private access"])
def test_preflight_names_what_is_not_there_and_who_makes_it(what: str) -> None:
    there = _there(_stack("dev"))
    if what == "private access":
        what, there[SUBNETWORK] = SUBNETWORK, {}
    else:
        there = {name: value for name, value in there.items() if not name.endswith(what)}
    [wrong] = [finding for finding in _found(there) if finding.state is not State.OK]
    assert wrong.what.endswith(what)
    assert (wrong.state, wrong.who) == (State.BLOCKER, "its owners")
    assert "python -m delivery.owners -s dev" in wrong.repair
