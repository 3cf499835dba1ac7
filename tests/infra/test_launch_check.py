"""The next launch is tried by a Cloud Run job before the running one is drained; delivery starts it and awaits it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from components import naming
from components.config import ROOT
from delivery import deploy
from delivery.launch_check import tried
from delivery.preflight.google import Google
from delivery.stacks import DeliveryError
from graph.resources import IMAGE, Graph
from pipeline.jobs.settings import parse
from tests.infra.graphs import graph_of
from tests.strict.bigquery_rest import HttpServer

JOB = "projects/payment-audit-dev/locations/us-central1/jobs/audit-launch-check"
EXECUTION = f"{JOB}/executions/audit-launch-check-x1"


class CloudRun:
    """Cloud Run's jobs as their pages say: `run` gives an operation with the execution, which ends after some looks.

    Source: cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs/run, …jobs.executions/get.
    """

    def __init__(self) -> None:
        self.there, self.state, self.looks, self.started = True, "CONDITION_SUCCEEDED", 2, 0
        self.url = ""

    def answer(self, method: str, target: str, body: bytes, headers: Any) -> tuple[int, str, bytes]:
        status, content = self._answer(method, target.partition("?")[0], json.loads(body or b"{}"))
        return status, "application/json", json.dumps(content).encode()

    def _answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if not self.there:
            return 404, {"error": {"code": 404, "message": "Resource was not found."}}
        if (method, path) == ("POST", f"/run.googleapis.com/v2/{JOB}:run"):
            assert body == {}, "overrides take another permission"
            self.started += 1
            return 200, {"name": "projects/p/locations/l/operations/o", "metadata": {"name": EXECUTION}}
        assert (method, path) == ("GET", f"/run.googleapis.com/v2/{EXECUTION}")
        self.looks -= 1
        state = self.state if self.looks <= 0 else "CONDITION_RECONCILING"
        return 200, {"name": EXECUTION, "conditions": [{"type": "Completed", "state": state}]}


@pytest.fixture
def cloud_run() -> Iterator[CloudRun]:
    made = CloudRun()
    http = HttpServer(made.answer)
    made.url = http.url
    yield made
    http.stop()


def test_it_tries_the_options_of_the_job_with_its_image_as_its_account(graph: Graph) -> None:
    template = graph.one("Job", "audit-launch-check").inputs["template"]["template"]
    [container] = template["containers"]
    assert container["image"] == IMAGE
    assert template["serviceAccount"].startswith("dataflow-sa@")
    python, m, module, *arguments = container["commands"]
    assert (python, m, module) == ("python", "-m", "pipeline.jobs.stream")
    settings, beam = parse(arguments)
    assert settings["dryRun"] == "true" and beam == [f"--job_name={naming.STREAM_JOB}"]
    job = graph.one("FlexTemplateJob").inputs["parameters"]
    given = {each for each in arguments if not each.startswith(("--dryRun=", "--job_name="))}
    assert given == {f"--{key}={value}" for key, value in job.items()}


def test_without_an_image_there_is_none() -> None:
    graph = graph_of("dev", {"image": "", "consoleImage": "", "templatePath": "gs://mine/t.json"})
    assert not [node for node in graph.of("Job") if node.name == "audit-launch-check"]


def _command(cloud_run: CloudRun, *more: str) -> int:
    return deploy.run(["dry-run", "-s", "dev", "--google-endpoint", cloud_run.url, *more])


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delivery.launch_check.time.sleep", lambda seconds: None)


def test_a_launch_that_would_work_is_0_and_is_started_once(
    cloud_run: CloudRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _command(cloud_run) == 0
    assert "dev, dry-run: the job can start (audit-launch-check-x1)" in capsys.readouterr().out
    assert cloud_run.started == 1
    assert _command(cloud_run, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"stack": "dev", "good": True, "execution": EXECUTION}


def test_a_launch_that_would_fail_is_1_and_says_where_the_findings_are(
    cloud_run: CloudRun, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud_run.state = "CONDITION_FAILED"
    assert _command(cloud_run) == 1
    said = capsys.readouterr().out
    assert "the job would not start. The running one was left as it is." in said
    assert 'execution_name"=audit-launch-check-x1' in said and "--project=payment-audit-dev" in said


def test_what_was_not_tried_is_an_error_with_the_remedy(
    cloud_run: CloudRun, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud_run.there = False
    assert _command(cloud_run) == 1
    assert "`delivery.deploy up --without-job`" in capsys.readouterr().err


def test_a_trial_that_does_not_end_is_an_error(cloud_run: CloudRun) -> None:
    cloud_run.looks = 1000
    times = iter(range(0, 10_000, 100))
    with pytest.raises(DeliveryError, match="did not end within 15 minutes"):
        names = naming.Names(project="payment-audit-dev")
        tried(Google(endpoint=cloud_run.url), names, "us-central1", clock=lambda: next(times))


def test_a_delivery_tries_the_launch_before_it_drains() -> None:
    steps = (ROOT / "delivery/cloudbuild.yaml").read_text()
    assert "waitFor: [dry-run]" in steps.partition("- id: pipeline")[2].partition("script:")[0]
