"""Where replays run: the Cloud Run job is started by the request that Google takes, with nothing overridden."""

from __future__ import annotations

from typing import Any

import pytest

from support.connection import Connection
from support.replay import ReplayUnavailable
from support.replay_runs import CloudRunJob, InThisProcess, runs
from tests.shipped import WATCHED
from tests.strict.google_apis import CloudRun, serving

JOB = "projects/p/locations/us-central1/jobs/audit-replay"


def connection(**more: Any) -> Connection:
    names = "project location big_query_endpoint spanner_endpoint spanner_instance spanner_database metadata_database"
    texts = dict.fromkeys(f"{names} masking_keys dead_letter_directory job_name".split(), "x")
    return Connection(**{**texts, "watched_tables": WATCHED.to_json(), **more})


def test_the_stack_says_where_replays_run() -> None:
    assert isinstance(runs(connection()), InThisProcess)
    assert isinstance(runs(connection(replay_job=JOB)), CloudRunJob)


def test_the_job_is_started_and_nothing_of_it_is_overridden() -> None:
    cloud = CloudRun(jobs=frozenset({JOB}))
    with serving(cloud) as address:
        runs(connection(replay_job=JOB, cloud_run_endpoint=address)).start("INC-1")
    assert cloud.started == [(JOB, [])]


def test_a_job_that_cannot_be_started_leaves_a_replay_that_waits_and_says_how_it_goes_further() -> None:
    with serving(CloudRun(jobs=frozenset())) as address, pytest.raises(ReplayUnavailable) as refused:
        runs(connection(replay_job=JOB, cloud_run_endpoint=address)).start("INC-1")
    assert "answers 404" in str(refused.value) and "roles/run.invoker" in str(refused.value)
    assert "audit replay resume INC-1" in str(refused.value)
    with pytest.raises(ReplayUnavailable, match="does not answer"):
        runs(connection(replay_job=JOB, cloud_run_endpoint="http://127.0.0.1:9")).start("INC-1")
