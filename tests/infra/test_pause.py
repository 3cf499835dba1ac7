"""A stack that is paused: what of it stops, what stays, and until when Spanner waits for it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from components.settings import SettingsError
from components.settings.pause import PAUSED
from contract import operations
from delivery import deploy
from delivery.assumptions import Assumptions
from delivery.cost import estimate
from delivery.prices import Prices
from graph import resources
from graph.resources import Graph, Node
from guardrails.rules import RULES
from guardrails.stores import STORES
from tests.infra.clone import Clone, Done
from tests.infra.graphs import graph_of

SINCE = datetime(2026, 11, 30, 9, tzinfo=UTC)
JOB = "audit-stream-job"


def of(stack: str = "dev", **config: Any) -> Graph:
    return resources.graph_of(stack, config, passed={PAUSED: SINCE.isoformat()})


def _job(graph: Graph) -> Node:
    [found] = [node for node in graph.nodes if node.id == "gcp:cloudrunv2/job:Job audit-pipeline"]
    return found


@pytest.fixture(scope="module", params=["dev", "staging"])
def paused(request: pytest.FixtureRequest) -> Graph:
    return of(request.param)


def test_the_job_alone_is_taken_away_and_all_that_holds_data_stays_as_it_is(paused: Graph) -> None:
    running = {node.id: node for node in graph_of(paused.stack).nodes}
    there = {node.id: node for node in paused.nodes}
    assert running.keys() - there.keys() == {f"gcp:dataflow/flexTemplateJob:FlexTemplateJob {JOB}"}
    assert not there.keys() - running.keys()
    for id, node in there.items():
        if node.type in STORES:
            assert node.inputs == running[id].inputs


def test_the_job_is_drained_so_that_it_resumes_where_it_stopped() -> None:
    assert graph_of("dev").one("FlexTemplateJob").inputs["onDelete"] == "drain"


def test_nothing_is_started_by_a_schedule(paused: Graph) -> None:
    schedules = [node for node in paused.nodes if node.type == "gcp:cloudscheduler/job:Job"]
    queries = paused.of("DataTransferConfig")
    assert len(schedules) == 1 + len(operations.SCHEDULED) and len(queries) == 2
    assert all(node.inputs["paused"] for node in schedules)
    assert all(node.inputs["disabled"] for node in queries)


def test_a_stack_that_is_not_paused_says_so_of_each_part() -> None:
    """Where nothing is said, the provider leaves a paused schedule as it is."""
    running = graph_of("dev")
    assert {n.inputs["paused"] for n in running.nodes if n.type == "gcp:cloudscheduler/job:Job"} == {False}
    assert {n.inputs["disabled"] for n in running.of("DataTransferConfig")} == {False}
    assert {n.inputs["enabled"] for n in running.of("AlertPolicy")} == {True}
    assert not {"pausedSince", "pausedUntil"} & running.outputs.keys()


def test_one_alert_is_left_and_fires_when_half_of_the_retention_is_over(paused: Graph) -> None:
    policies = paused.of("AlertPolicy")
    assert [p.name for p in policies if p.inputs["enabled"]] == ["AuditRetentionClock"]
    clock = paused.one("AlertPolicy", "AuditRetentionClock").inputs["conditions"][0]
    query = clock["conditionPrometheusQueryLanguage"]["query"]
    [fires] = re.findall(r"^vector\(time\(\)\) > (\d+)$", query)
    assert datetime.fromtimestamp(int(fires), UTC) == SINCE + timedelta(days=3.5)


def test_the_outputs_say_since_when_and_until_when_spanner_keeps_the_changes(paused: Graph) -> None:
    assert paused.outputs["pausedSince"] == "2026-11-30T09:00:00+00:00"
    assert paused.outputs["pausedUntil"] == "2026-12-07T09:00:00+00:00"


def test_a_paused_stack_breaks_no_guardrail(paused: Graph) -> None:
    assert [broken for rule in RULES for broken in rule(paused)] == []


def test_dev_costs_less_than_75_dollars_while_it_is_paused() -> None:
    found = estimate(of(), Prices.load(), Assumptions())
    assert found.idle < 75
    assert not [line for line in found.lines if line.service == "Dataflow" and line.dollars]
    assert not [line for line in found.lines if line.service == "Cloud Run" and line.dollars]


def test_a_pause_of_prod_is_refused() -> None:
    with pytest.raises(SettingsError, match="A pause must be of a stack other than prod"):
        of("prod")


def test_the_operation_that_launches_the_job_launches_none_in_a_pause() -> None:
    graph = of(pipelineOwner="scheduler")
    [container] = _job(graph).inputs["template"]["template"]["containers"]
    given = json.loads(next(each["value"] for each in container["envs"] if each["name"] == "AUDIT_CONNECTION_JSON"))
    assert (given["pipelineOwner"], given["pipelinePaused"]) == ("scheduler", "true")
    assert not graph.of("FlexTemplateJob")
    schedules = [node for node in graph.nodes if node.type == "gcp:cloudscheduler/job:Job"]
    assert schedules and all(node.inputs["paused"] for node in schedules)


def test_the_command_refuses_prod_before_it_opens_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy.run(["pause", "-s", "prod", "--backend", "file:///nowhere"]) == deploy.FAILED
    assert "pause must be of another stack than prod" in capsys.readouterr().err


@pytest.mark.timeout(900)
def test_a_pause_under_the_real_cli_takes_the_job_and_resume_brings_it_back(dev: Clone) -> None:
    assert "not paused" in dev.deploy("resume", "-s", "dev").err

    done = dev.deploy("pause", "-s", "dev")
    _changed(done)
    assert done.names("delete") == {JOB} and not done.names("replace")
    outputs = done.report["outputs"]
    since, until = (datetime.fromisoformat(outputs[name]) for name in ("pausedSince", "pausedUntil"))
    assert until - since == timedelta(days=7)
    assert f"until {outputs['pausedUntil']}" in done.err
    again = dev.deploy("pause", "-s", "dev")
    assert (again.code, again.report["changes"]) == (0, []), "a pause does not begin anew"

    back = dev.deploy("resume", "-s", "dev")
    _changed(back)
    assert back.names("create") == {JOB}
    last = dev.deploy("preview", "-s", "dev")
    assert (last.code, last.report["changes"]) == (0, []), last.out


def _changed(done: Done) -> None:
    assert (done.code, done.report["errors"]) == (2, []), done.err + done.out
