"""What deploy.py reports and refuses, from events alone; the same with the real CLI is in test_pulumi.py."""

from __future__ import annotations

import importlib
import inspect
import re
import threading
from collections.abc import Callable
from typing import Any

import pulumi_gcp
import pytest
from click.testing import CliRunner
from pulumi import automation
from pulumi.automation import events
from rich.console import Console

from components.config import ROOT
from delivery import changes, deploy, drain, stacks
from delivery.changes import Run
from delivery.stacks import Place
from graph.google import IMPORT_IDS, import_id
from graph.resources import Graph, Node
from guardrails.stores import RETAINED, STORES
from tests.infra.asked_for import MORE
from tests.infra.graphs import graph_of

DATABASE = "gcp:spanner/database:Database"
BUCKET = "gcp:storage/bucket:Bucket"
TABLE = "gcp:bigquery/table:Table"
KEY_RING = "gcp:kms/keyRing:KeyRing"
LOG_BUCKET = "gcp:logging/projectBucketConfig:ProjectBucketConfig"


def _step(op: str, kind: str, name: str, *, field: str = "resource_pre_event", **more: Any) -> Any:
    """An event of the engine, as the CLI sends it."""
    urn = f"urn:pulumi:dev::payment-audit::payment-audit:components:X${kind}::{name}"
    inputs = more.pop("inputs", {})
    state = {"type": kind, "urn": urn, "custom": True, "id": "i", "parent": "", "provider": "", "inputs": inputs}
    metadata = {"op": op, "urn": urn, "type": kind, "provider": "", "old": {**state, "outputs": {}}, **more}
    event = getattr(events, {"resource_pre_event": "ResourcePreEvent", "res_outputs_event": "ResOutputsEvent"}[field])
    return events.EngineEvent(sequence=1, timestamp=1, **{field: event.from_json({"metadata": metadata})})


def _heard(*steps: Any, drift: bool = False) -> Run:
    run = Run(drift=drift)
    for step in steps:
        run.hear(step)
    return run


def test_the_steps_of_a_replacement_are_one_change_and_the_dangerous_come_first() -> None:
    run = _heard(
        _step("create", BUCKET, "new"),
        _step("update", BUCKET, "temp", diffs=["labels"]),
        _step("delete", TABLE, "payment_audit.old"),
        _step("create-replacement", DATABASE, "audit-db", keys=["ddls"]),
        _step("replace", DATABASE, "audit-db", keys=["ddls"]),
        _step("delete-replaced", DATABASE, "audit-db"),
        _step("same", BUCKET, "staging"),
    )
    assert [(c.op, c.name) for c in run.found()] == [
        ("replace", "audit-db"),
        ("delete", "payment_audit.old"),
        ("update", "temp"),
        ("create", "new"),
    ]
    assert changes.summary(run.found()) == [
        "replace 1",
        "  Database audit-db (ddls)  ← its data is lost",
        "delete 1",
        "  Table payment_audit.old  ← its data is lost",
        "update 1",
        "  Bucket temp (labels)",
        "create 1",
        "  Bucket new",
    ]


def test_many_creations_are_told_by_kind() -> None:
    run = _heard(*[_step("create", TABLE, f"t{n}") for n in range(9)], _step("create", BUCKET, "b"))
    assert changes.summary(run.found()) == ["create 10", "  Bucket 1, Table 9"]


@pytest.mark.parametrize(
    ("op", "kind", "name", "inputs", "lost"),
    [
        *(("delete", kind, "x", {}, True) for kind in STORES),
        ("replace", DATABASE, "audit-db", {}, True),
        ("update", DATABASE, "audit-db", {}, False),
        ("delete", TABLE, "payment_audit.payment_current", {"view": {"query": "SELECT 1"}}, False),
        ("delete", BUCKET, "temp", {}, False),
        ("delete", "gcp:projects/iAMMember:IAMMember", "query-merge", {}, False),
    ],
)
def test_what_goes_away_with_its_data_is_known(op: str, kind: str, name: str, inputs: Any, lost: bool) -> None:
    [change] = _heard(_step(op, kind, name, inputs=inputs)).found()
    assert change.loses_data is lost


def test_a_refresh_tells_at_its_end_what_it_found() -> None:
    run = _heard(
        _step("refresh", BUCKET, "temp"),
        _step("update", BUCKET, "temp", field="res_outputs_event", diffs=["labels"]),
        _step("same", BUCKET, "staging", field="res_outputs_event"),
        drift=True,
    )
    assert [(c.op, c.name) for c in run.found()] == [("update", "temp")]


def _failure(message: str) -> Any:
    """A diagnostic of an error, as the CLI sends it; its own at the end is one too."""
    diagnostic = {"urn": "", "prefix": "", "message": message, "color": "", "severity": "error", "streamID": 0}
    return events.EngineEvent(sequence=1, timestamp=1, diagnostic_event=events.DiagnosticEvent.from_json(diagnostic))


@pytest.mark.parametrize(
    ("runs", "errors"),
    [
        ([["Service account a@b does not exist.", "update failed"], []], []),
        ([["quota exceeded", "update failed"]], ["quota exceeded", "update failed"]),
        ([["a does not exist", "quota exceeded"]], ["a does not exist", "quota exceeded"]),
        ([["a does not exist"]] * 4, ["a does not exist"]),
    ],
)
def test_an_up_that_google_is_not_ready_for_is_tried_again(
    runs: list[list[str]], errors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An account that was just made can be granted nothing for a minute; what will not pass by itself ends it."""
    monkeypatch.setattr(deploy, "_PAUSES", (0.0, 0.0, 0.0))
    left = list(runs)

    class Stack:
        def up(self, on_event: Callable[[Any], None], show_secrets: bool) -> None:
            assert not show_secrets
            on_event(_step("create", BUCKET, f"bucket {len(left)}"))
            for message in left.pop(0):
                on_event(_failure(message))

    job = deploy.Job(place=Place(folder=ROOT), stack="dev", as_json=True, console=Console(stderr=True))
    run = deploy._up(job, Stack(), {})  # type: ignore[arg-type]
    assert left == []
    assert run.errors == errors
    # The report has what each of the runs did.
    assert len(run.changes) == len(runs)


def test_what_google_keeps_is_told_after_a_destroy() -> None:
    run = _heard(_step("delete", KEY_RING, "audit"), _step("delete", BUCKET, "temp"))
    assert [change.name for change in changes.retained(run.found())] == ["audit"]
    assert set(RETAINED) <= set(IMPORT_IDS), "what is kept must be adoptable"


def test_a_name_that_is_taken_by_what_google_keeps_is_known() -> None:
    def said(kind: str, message: str) -> Any:
        urn = f"urn:pulumi:dev::payment-audit::payment-audit:components:X${kind}::audit"
        return events.EngineEvent(1, 1, diagnostic_event=events.DiagnosticEvent(message, "", "error", urn=urn))

    taken = (
        "Error creating KeyRing: googleapi: Error 409: KeyRing projects/p/locations/l/keyRings/audit already exists."
    )
    assert _heard(said(KEY_RING, taken)).kept == ["audit"]
    assert _heard(said(KEY_RING, "googleapi: Error 403: Permission denied")).kept == []
    # A bucket that is there is somebody's: it is not taken over.
    assert _heard(said(BUCKET, "googleapi: Error 409: The requested bucket name is not available.")).kept == []


def test_only_what_went_wrong_is_told_as_an_error() -> None:
    def said(severity: str, message: str) -> Any:
        return events.EngineEvent(1, 1, diagnostic_event=events.DiagnosticEvent(message, "", severity))

    run = _heard(said("warning", "w"), said("error", "it broke\n"), said("error", "it broke"), said("info", "i"))
    assert run.errors == ["it broke"]
    assert _heard(said("error", "failed to run x: context canceled")).errors == []


@pytest.mark.parametrize("command", sorted(deploy.main.commands))
def test_every_command_says_what_it_does(command: str) -> None:
    shown = CliRunner().invoke(deploy.main, [command, "--help"])
    assert shown.exit_code == 0
    assert "--stack" in shown.output
    assert "--json" in shown.output


def test_the_help_has_examples_and_the_exit_codes() -> None:
    shown = CliRunner().invoke(deploy.main, ["--help"]).output
    for command in deploy.main.commands:
        assert f"python -m delivery.deploy {command} -s" in shown
    assert "0 nothing changes, 2 something does or did, 1 an error" in " ".join(shown.split())


# ---------------------------------------------------------------------- the names by which Google finds things again


@pytest.mark.parametrize("kind", sorted(IMPORT_IDS))
def test_an_import_id_is_one_of_the_provider_s(kind: str) -> None:
    """Its own documentation, which names some fields its own way: {{bucket}} is the bucket's name."""
    package, _, name = kind.removeprefix("gcp:").partition(":")
    module = importlib.import_module(f"pulumi_gcp.{package.partition('/')[0]}")
    documented = inspect.getsource(getattr(module, name))

    def shape(text: str) -> str:
        return re.sub(r"{{\w+}}@{{\w+}}[\w.]*|{{\w+}}", "{}", text)

    formats = {shape(found) for found in re.findall(r"`([^`\s]*{{[^`\s]*)`", documented)}
    formats |= {shape(found) for found in re.findall(r"pulumi import gcp:\S+ \S+ (\S+)", documented)}
    assert pulumi_gcp and (shape(IMPORT_IDS[kind]) in formats or kind in UNDOCUMENTED), sorted(formats)


# Their pages show the format by an example, not by fields; or as one name, which has those fields; or, of a view, by
# fields which its bucket's full name has.
UNDOCUMENTED = {
    BUCKET,
    TABLE,
    "gcp:logging/logView:LogView",
    "gcp:monitoring/customService:CustomService",
    "gcp:monitoring/metricDescriptor:MetricDescriptor",
    "gcp:monitoring/slo:Slo",
    "gcp:serviceaccount/account:Account",
}


def test_an_import_id_is_made_of_the_inputs() -> None:
    inputs = {"instance": "audit-instance", "name": "audit-db"}
    assert import_id("p", DATABASE, inputs) == "projects/p/instances/audit-instance/databases/audit-db"
    assert import_id("p", "gcp:monitoring/alertPolicy:AlertPolicy", {}) is None


# What we named and is not found by it, and what becomes of it when an `up` is killed.
NOT_FOUND_AGAIN = {
    "gcp:cloudbuild/trigger:Trigger": "Google gives it a number; the second of a name is refused until it is deleted",
    "gcp:dataflow/flexTemplateJob:FlexTemplateJob": "Google gives each run an id; the second of a name is refused",
    "gcp:storage/bucketObject:BucketObject": "made again, it is overwritten by the same",
}


def test_what_a_killed_up_has_made_is_found_again_by_its_name(graph: Graph) -> None:
    for whole in (graph, graph_of(graph.stack, MORE if graph.stack == "dev" else {})):
        missing = {node.type for node in whole.nodes if _has_a_name(node)} - {*IMPORT_IDS, *NOT_FOUND_AGAIN}
        assert missing == set(), "making it again would be a 409: add it to IMPORT_IDS in graph/google.py"


def _has_a_name(node: Node) -> bool:
    own = {"name", f"{node.kind[0].lower()}{node.kind[1:]}Id"}
    grant = {"role", "member"} <= node.inputs.keys()
    return node.type.startswith("gcp:") and not grant and bool(own & node.inputs.keys())


def test_every_store_that_a_stack_makes_can_be_found_again(graph: Graph) -> None:
    missing = {node.type for node in graph.nodes if node.type in STORES} - set(IMPORT_IDS)
    assert missing == set(), "a killed `up` could not find it: add it to IMPORT_IDS in graph/google.py"


class Interrupted:
    """A stack whose last run was killed while it made one resource of each kind."""

    name = "dev"

    def __init__(self, **inputs: dict[str, str]) -> None:
        pending = [{"type": "creating", "resource": self._resource(kind, given)} for kind, given in inputs.items()]
        self.state = automation.Deployment(version=3, deployment={"resources": [], "pending_operations": pending})

    @staticmethod
    def _resource(kind: str, inputs: dict[str, str]) -> dict[str, Any]:
        type_ = {"bucket": BUCKET, "log_bucket": LOG_BUCKET}[kind]
        return {"urn": f"urn:pulumi:dev::payment-audit::{type_}::{kind}", "type": type_, "inputs": inputs}

    def export_stack(self) -> automation.Deployment:
        return self.state

    def import_stack(self, state: automation.Deployment) -> None:
        self.state = state

    def refresh(self) -> None: ...


def test_what_the_provider_takes_over_is_not_imported_after_a_kill() -> None:
    """A refresh of a log bucket that is known by its id alone would make it another project's."""
    stack: Any = Interrupted(bucket={"name": "b"}, log_bucket={"location": "us-central1", "bucketId": "audit-logs"})
    stacks.recover(stack, "p", lambda what, name: None)
    assert [resource["id"] for resource in stack.state.deployment["resources"]] == ["b"]


def test_the_outputs_in_the_state_are_those_that_are_no_secret() -> None:
    """A deployment reads them there to know who launches the job."""
    secret = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "plaintext": '"x"'}
    outputs = {"pipelineOwner": "composer", "connection": {"project": "p"}, "token": secret}
    made = {"urn": "urn:pulumi:dev::payment-audit::pulumi:pulumi:Stack::s", "type": "pulumi:pulumi:Stack"}
    stack: Any = Interrupted()
    stack.state.deployment = {"resources": [{**made, "outputs": outputs}, Interrupted._resource("bucket", {})]}
    read = stacks.recover(stack, "p", lambda what, name: None)
    assert read == {"pipelineOwner": "composer", "connection": {"project": "p"}}


JOB = drain.KIND


class Dataflow:
    """What was cancelled and said. `done` is set once both are."""

    def __init__(self, refuses: str = "") -> None:
        self.cancelled: list[drain.Job] = []
        self.said: list[str] = []
        self.done = threading.Event()
        self._refuses = refuses

    def limit(self, minutes: float) -> drain.DrainLimit:
        return drain.DrainLimit(project="p", minutes=minutes, say=self._say, cancel=self._cancel)

    def _cancel(self, job: drain.Job) -> None:
        self.cancelled.append(job)
        if self._refuses:
            raise RuntimeError(self._refuses)
        self.done.set()

    def _say(self, text: str) -> None:
        self.said.append(text)
        if len(self.said) == 2:
            self.done.set()


def test_a_drain_that_exceeds_its_limit_is_cancelled_and_the_run_says_so() -> None:
    dataflow = Dataflow()
    dataflow.limit(0.0001).hear(_step("delete-replaced", JOB, "audit-stream-job", inputs={"region": "us-east4"}))
    assert dataflow.done.wait(30)
    assert dataflow.cancelled == [drain.Job(project="p", region="us-east4", id="i")]
    assert "nothing is lost" in dataflow.said[0]


def test_a_cancel_that_is_refused_says_what_a_person_can_do() -> None:
    dataflow = Dataflow(refuses="403 dataflow.jobs.cancel")
    dataflow.limit(0.0001).hear(_step("delete", JOB, "audit-stream-job", inputs={"region": "us-east4"}))
    assert dataflow.done.wait(30)
    assert "403 dataflow.jobs.cancel" in dataflow.said[1]
    assert "`gcloud dataflow jobs cancel i --region=us-east4 --project=p --force`" in dataflow.said[1]


def test_a_drain_that_ends_in_time_and_what_is_no_drain_are_left_alone() -> None:
    dataflow = Dataflow()
    limit = dataflow.limit(60)
    drained: dict[str, Any] = {"inputs": {"region": "us-east4"}}
    limit.hear(_step("delete-replaced", JOB, "audit-stream-job", **drained))
    limit.hear(_step("delete-replaced", JOB, "audit-stream-job", field="res_outputs_event", **drained))
    limit.hear(_step("create-replacement", JOB, "audit-stream-job", **drained))
    limit.hear(_step("delete", BUCKET, "temp"))
    assert _timers() == []
    limit.hear(_step("delete", JOB, "audit-stream-job", **drained))
    assert len(_timers()) == 1
    limit.over()
    assert _timers() == []
    assert dataflow.cancelled == []


def _timers() -> list[threading.Timer]:
    return [each for each in threading.enumerate() if isinstance(each, threading.Timer) and not each.finished.is_set()]
