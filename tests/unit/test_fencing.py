"""What waits for a service waits by time and says so; what is not a service's fault is raised."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from google.api_core import exceptions
from google.auth.exceptions import RefreshError, TransportError

from pipeline.clients import Endpoints
from pipeline.sink.changelogs import Destinations
from pipeline.sink.config import MetadataDatabase, SinkSettings
from pipeline.sink.fencing import wait_out
from pipeline.sink.generations import Fenced, run_id
from pipeline.sink.positions import PositionLog
from pipeline.sink.track_position import TrackPosition
from tests.shipped import PAYMENT_DATASET, WATCHED

POSITION = "2026-11-23T09:00:00.000000000Z"


class Unavailable(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE


def failing(*errors: Exception) -> Callable[[], str]:
    left: Iterator[Exception] = iter(errors)

    def work() -> str:
        for error in left:
            raise error
        return "done"

    return work


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ServiceUnavailable("x"),
        exceptions.DeadlineExceeded("x"),
        exceptions.Aborted("x"),
        exceptions.ResourceExhausted("x"),
        exceptions.InternalServerError("x"),
        exceptions.PermissionDenied("x"),
        exceptions.RetryError("x", cause=None),
        Unavailable(),
        ConnectionError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_service_that_does_not_answer_is_waited_for(error: Exception) -> None:
    pauses: list[float] = []
    assert wait_out("Trying", failing(*[error] * 12), pauses.append) == "done"
    assert len(pauses) == 12
    assert pauses[0] < 1 and max(pauses) <= 30 and sum(pauses) > 60


def test_a_wait_is_said_in_the_log_and_not_with_every_try(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        wait_out("Taking over", failing(*[exceptions.ServiceUnavailable("x")] * 30), lambda seconds: None)
    said = [m for m in caplog.messages if m.startswith("Taking over: ServiceUnavailable, try")]
    assert [m.split("try ")[1].split(".")[0] for m in said] == ["2", "5", "20"]


@pytest.mark.parametrize(
    "error",
    [Fenced("job", 1, 2), exceptions.NotFound("x"), exceptions.InvalidArgument("x"), KeyError("x")],
    ids=lambda error: type(error).__name__,
)
def test_what_waiting_does_not_help_is_raised_at_once(error: Exception) -> None:
    pauses: list[float] = []
    with pytest.raises(type(error)):
        wait_out("Trying", failing(error), pauses.append)
    assert pauses == []


class State:
    """Keyed state of one value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def read(self) -> Any:
        return self.value

    def write(self, value: Any) -> None:
        self.value = value

    def clear(self) -> None:
        self.value = None


class Database:
    """The metadata database's positions; each failure is given once."""

    def __init__(self, *failures: Exception) -> None:
        self._failures = list(failures)
        self.positions: list[tuple[int, str]] = []

    def advance(self, generation: int, position: str) -> None:
        if self._failures:
            raise self._failures.pop()
        self.positions.append((generation, position))


class Log:
    def __init__(self) -> None:
        self.published: list[str] = []

    def publish(self, position: str) -> None:
        self.published.append(position)


def tracking(database: Database, log: Log, *, exactly_once: bool = True) -> TrackPosition:
    settings = SinkSettings(
        endpoints=Endpoints(),
        metadata=MetadataDatabase(project="p", instance="i", database="d"),
        destinations=Destinations(project="p", watched=WATCHED, dataset=PAYMENT_DATASET),
        job_name="job",
        exactly_once=exactly_once,
        generation=3,
    )
    step = TrackPosition(settings, ("A",))
    step._generations, step._log, step._published = cast(Any, database), cast(Any, log), -1e9
    return step


@pytest.mark.parametrize("exactly_once", [True, False])
def test_a_metadata_database_that_is_away_does_not_end_the_job(
    exactly_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.sink.fencing._PAUSE_SECONDS", (0.0, 0.0))
    database, log = Database(*[exceptions.ServiceUnavailable("x")] * 4), Log()
    step = tracking(database, log, exactly_once=exactly_once)
    awaited = State(POSITION)
    step.advance(State({"A": POSITION}), awaited, None)
    assert database.positions == [(3, POSITION)]
    assert log.published == [POSITION]
    assert awaited.read() is None


def test_a_job_that_was_replaced_ends_at_its_next_position() -> None:
    database, log = Database(Fenced("job", 3, 4)), Log()
    with pytest.raises(Fenced):
        tracking(database, log).advance(State({"A": POSITION}), State(POSITION), None)
    assert log.published == []


def test_text_order_of_runs_is_launch_order() -> None:
    second = 10**9
    launches = [run_id(nanos, None) for nanos in (0, 1, 999 * second, 1_764_000_000 * second, 99_764_000_000 * second)]
    assert launches == sorted(launches)
    assert len({len(launch) for launch in launches}) == 1
    assert all(len(launch) <= 64 for launch in launches)


def test_no_clock_makes_a_launch_an_old_one() -> None:
    newest = run_id(2_000_000_000_000_000_000, None)
    for nanos in (0, 1_999_999_999_999_999_999, 2_000_000_000_000_000_000):
        later = run_id(nanos, newest)
        assert later > newest
        newest = later


def test_two_launches_of_one_moment_are_two_runs() -> None:
    assert run_id(5, None) != run_id(5, None)


@pytest.mark.parametrize("error", [RefreshError("x"), TransportError("x"), TimeoutError("x")], ids=repr)
def test_credentials_or_a_connection_that_fail_for_a_moment_end_no_bundle(error: Exception) -> None:
    assert wait_out("Trying", failing(error, error), lambda _: None) == "done"


@pytest.mark.parametrize(
    "error", [RefreshError("x"), exceptions.RetryError("x", cause=None), Unavailable(), OSError("x")], ids=repr
)
def test_a_position_that_cannot_be_published_is_left(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    class Connection:
        ended = False

        def append(self, *_: Any, **__: Any) -> Any:
            raise error

        def close(self) -> None:
            pass

    log = PositionLog(SimpleNamespace(job_name="job", generation=1))
    log._connection = Connection()  # type: ignore[assignment]
    log.publish(POSITION)
    assert type(error).__name__ in caplog.text and log._connection is None
