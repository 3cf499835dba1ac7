"""The starter over HTTP, against a stand-in of Cloud Run's API: what it starts, and what it answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import pytest
import requests
from aiohttp import web

from support.starter import IN_ENVIRONMENT, Jobs, StarterError, create
from tests.strict.google_apis import CloudRun, serving

NAMES = ("audit-probe", "audit-backup")
FULL = {name: f"projects/p/locations/us-central1/jobs/{name}" for name in NAMES}


@contextmanager
def starter(known: Jobs) -> Iterator[str]:
    """Its address while it is served."""
    loop, ready, address = asyncio.new_event_loop(), Event(), []

    async def serve() -> web.AppRunner:
        runner = web.AppRunner(create(known))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address.append(f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}")  # type: ignore[union-attr]
        ready.set()
        return runner

    def run() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(serve())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


@contextmanager
def between(cloud: CloudRun) -> Iterator[str]:
    with serving(cloud) as endpoint, starter(Jobs(jobs=FULL, endpoint=endpoint)) as address:
        yield address


def test_it_starts_the_job_of_the_path_and_overrides_nothing_of_it() -> None:
    cloud = CloudRun(jobs=frozenset(FULL.values()))
    with between(cloud) as address:
        answer = requests.post(f"{address}/audit-probe", timeout=10)
    assert (answer.status_code, answer.json()) == (200, {"job": "audit-probe", "started": True})
    assert cloud.started == [(FULL["audit-probe"], [])]


@pytest.mark.parametrize("status", ["EXECUTION_RUNNING", "EXECUTION_PENDING"])
def test_a_job_that_runs_is_not_started_again_and_that_is_no_failure(status: str) -> None:
    job = FULL["audit-backup"]
    cloud = CloudRun(jobs=frozenset(FULL.values()), newest={job: ("audit-backup-x7", status)})
    with between(cloud) as address:
        answer = requests.post(f"{address}/audit-backup", timeout=10)
    assert answer.status_code == 200
    assert answer.json() == {"job": "audit-backup", "started": False, "running": "audit-backup-x7"}
    assert cloud.started == []


@pytest.mark.parametrize("status", ["EXECUTION_SUCCEEDED", "EXECUTION_FAILED", "EXECUTION_CANCELLED"])
def test_a_job_whose_last_run_is_over_is_started(status: str) -> None:
    job = FULL["audit-backup"]
    cloud = CloudRun(jobs=frozenset(FULL.values()), newest={job: ("audit-backup-x7", status)})
    with between(cloud) as address:
        assert requests.post(f"{address}/audit-backup", timeout=10).json()["started"] is True
    assert cloud.started == [(job, [])]


@pytest.mark.parametrize("path", ["audit-repair", "audit-probe:run", "..%2Faudit-probe", "AUDIT-PROBE"])
def test_no_other_job_is_started_whatever_the_path_says(path: str) -> None:
    cloud = CloudRun(jobs=frozenset({*FULL.values(), "projects/p/locations/us-central1/jobs/audit-repair"}))
    with between(cloud) as address:
        answer = requests.post(f"{address}/{path}", timeout=10)
    assert answer.status_code == 404 and "a job with a schedule: audit-backup, audit-probe" in answer.text
    assert cloud.started == []


def test_what_a_request_says_changes_nothing_of_the_job() -> None:
    cloud = CloudRun(jobs=frozenset(FULL.values()))
    overrides: Any = {"overrides": {"containerOverrides": [{"args": ["--help"], "env": [{"name": "A", "value": "B"}]}]}}
    with between(cloud) as address:
        assert requests.post(f"{address}/audit-probe?overrides=1", json=overrides, timeout=10).ok
    assert cloud.started == [(FULL["audit-probe"], [])]


def test_a_refusal_of_cloud_run_is_an_error_that_says_what_is_missing() -> None:
    with between(CloudRun(jobs=frozenset())) as address:
        answer = requests.post(f"{address}/audit-probe", timeout=10)
    assert answer.status_code == 502
    error = answer.json()["error"]
    assert "Cloud Run answers 404" in error and "audit-probe" in error and "roles/run.viewer" in error
    with starter(Jobs(jobs=FULL, endpoint="http://127.0.0.1:9")) as address:
        answer = requests.post(f"{address}/audit-probe", timeout=30)
    assert answer.status_code == 502 and "does not answer" in answer.json()["error"]


def test_it_says_that_it_is_there_and_starts_nothing_by_a_look() -> None:
    cloud = CloudRun(jobs=frozenset(FULL.values()))
    with between(cloud) as address:
        assert requests.get(f"{address}/healthz", timeout=10).status_code == 200
        assert requests.get(f"{address}/audit-probe", timeout=10).status_code == 405
    assert cloud.started == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"jobs": 3}', "not JSON"])
def test_without_its_jobs_it_does_not_begin(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IN_ENVIRONMENT, text)
    with pytest.raises(StarterError, match=f"{IN_ENVIRONMENT} must hold"):
        Jobs.load()


def test_it_reads_the_jobs_that_a_stack_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.infra.graphs import graph_of

    [container] = graph_of("prod").one("Service", "audit-starter").inputs["template"]["containers"]
    given: Mapping[str, Any] = {each["name"]: each["value"] for each in container["envs"]}
    monkeypatch.setenv(IN_ENVIRONMENT, given[IN_ENVIRONMENT])
    known = Jobs.load()
    assert known.endpoint == "" and known.jobs == json.loads(given[IN_ENVIRONMENT])["jobs"]
    assert {"audit-probe", "audit-pipeline", "audit-erasure"} <= known.jobs.keys()
    assert "audit-repair" not in known.jobs and "audit-replay" not in known.jobs
