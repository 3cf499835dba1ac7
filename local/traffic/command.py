"""Payment traffic: commits the simulator's operations at a rate, and keeps the ledger of what really happened.

A second run with the same seed and ledger continues where the first one ended, even if that was killed in the middle of
a commit: which commit is under way is in a file beside the ledger, and is settled first.
"""

from __future__ import annotations

import fcntl
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import orjson

from local.machine.state import DEFAULT, State
from local.traffic.commits import Attempt, CommitError, Committer, Unanswered
from local.traffic.ledger import Entry, Ledger, read_ledger
from local.traffic.shape import Shape, columns_of
from local.traffic.simulator import Operation, Simulator
from support.cli.explained import Command

DEFAULT_SEED: Final = 1
_LATE_SECONDS: Final = 1.0
_PROGRESS_SECONDS: Final = 1.0
_LAST_ANSWER_SECONDS: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class TrafficSummary:
    """What a run committed. `unanswered` says that its last commit has yet to be settled, by the next run."""

    operations: int = 0
    changes: int = 0
    dead_letters: int = 0
    aborted: int = 0
    repeated: int = 0
    seconds: float = 0.0
    first_commit: str | None = None
    last_commit: str | None = None
    unanswered: bool = False

    @property
    def rate(self) -> float:
        """Commits a second."""
        return self.operations / self.seconds if self.seconds else 0.0


Progress = Callable[[TrafficSummary], None]


def run_traffic(
    *,
    endpoint: str,
    database: str,
    tps: float,
    duration: float | None,
    seed: int,
    ledger_path: Path,
    no_dead_letters: bool = False,
    shape: Shape | None = None,
    on_progress: Progress | None = None,
    stop: threading.Event,
) -> TrafficSummary:
    """Commits at `tps` a second for `duration` seconds (None: until `stop`). `database` is its full resource name,
    `shape` how the payments are written into tables that are not the shipped ones.

    A server that does not answer holds the traffic up; what was not committed meanwhile is not made up for. Raises
    CommitError where Spanner refuses permanently.
    """
    committer = Committer(endpoint, database, _Patience(stop, duration))
    try:
        with _alone(ledger_path), Ledger(ledger_path) as ledger:
            simulator = Simulator(seed, clock=lambda: datetime.now(UTC), no_dead_letters=no_dead_letters)
            run = _Run(committer, ledger, map(shape.fit, simulator) if shape else simulator, seed, ledger_path)
            return run.go(tps, duration, on_progress or (lambda _: None), stop)
    finally:
        committer.close()


class _Run:
    """One run of the traffic."""

    def __init__(
        self, committer: Committer, ledger: Ledger, simulator: Iterator[Operation], seed: int, ledger_path: Path
    ) -> None:
        self._committer = committer
        self._ledger = ledger
        self._seed = seed
        self._pending = ledger_path.with_suffix(".pending")
        self._simulator = simulator
        self._summary = TrafficSummary()
        self._known = [entry for entry in read_ledger(ledger_path) if entry.seed == seed]

    def go(self, tps: float, duration: float | None, on_progress: Progress, stop: threading.Event) -> TrafficSummary:
        began = due = time.monotonic()
        said = began
        try:
            self._settle()
            while not stop.is_set() and (duration is None or time.monotonic() - began < duration):
                self._commit(next(self._simulator))
                now = time.monotonic()
                self._summary = replace(self._summary, seconds=now - began)
                if now - said >= _PROGRESS_SECONDS:
                    said = now
                    on_progress(self._summary)
                due = max(due + 1 / tps, now - _LATE_SECONDS)
                stop.wait(min(due, began + (duration or due)) - now)
        except Unanswered:
            return replace(self._summary, unanswered=True, seconds=time.monotonic() - began)
        self._pending.unlink(missing_ok=True)
        return replace(self._summary, seconds=time.monotonic() - began)

    def _settle(self) -> None:
        """Passes over what earlier runs committed, and finishes what the last of them left half done."""
        if not self._known and not self._pending.exists():
            return
        last = max((entry.operation for entry in self._known), default=-1)
        operation = None
        for _ in range(last + 1):
            operation = next(self._simulator)
        entries = [entry for entry in self._known if entry.operation == last]
        if operation and len(entries) < len(operation.mutations):
            self._ledger.append(self._entries(operation, entries[0].commit_timestamp)[len(entries) :])
        pending = _read_pending(self._pending)
        if pending.get("seed") == self._seed and pending.get("operation") == last + 1:
            self._commit(next(self._simulator), Attempt.from_dict(pending))

    def _commit(self, operation: Operation, earlier: Attempt | None = None) -> None:
        at = self._committer.commit(operation, attempting=lambda a: self._note(operation, a), earlier=earlier)
        entries = self._entries(operation, at)
        self._ledger.append(entries)
        before = self._summary
        self._summary = replace(
            before,
            operations=before.operations + 1,
            changes=before.changes + len(entries),
            dead_letters=before.dead_letters + sum(entry.dead_letter for entry in entries),
            aborted=self._committer.aborted,
            repeated=self._committer.repeated,
            first_commit=before.first_commit or at,
            last_commit=at,
        )

    def _note(self, operation: Operation, attempt: Attempt) -> None:
        """Writes down which commit is under way. A file cut short says that none is: it is whole before the commit."""
        note = {"seed": self._seed, "operation": operation.number, **attempt.to_dict()}
        self._pending.write_bytes(orjson.dumps(note))

    def _entries(self, operation: Operation, commit_timestamp: str) -> list[Entry]:
        return [
            Entry(
                seed=self._seed,
                operation=operation.number,
                table=mutation.table,
                puid=mutation.puid,
                mod_type=mutation.mod_type,
                commit_timestamp=commit_timestamp,
                status=mutation.status,
                dead_letter=mutation.dead_letter,
            )
            for mutation in operation.mutations
        ]


def _read_pending(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return found


class _Patience:
    """Says when to give up on an answer: some time after the traffic should have ended, so that it can still come."""

    def __init__(self, stop: threading.Event, duration: float | None) -> None:
        self._stop = stop
        self._end = None if duration is None else time.monotonic() + duration

    def __call__(self) -> bool:
        now = time.monotonic()
        if self._stop.is_set():
            self._end = min(now, self._end or now)
        return self._end is not None and now > self._end + _LAST_ANSWER_SECONDS


@contextmanager
def _alone(ledger_path: Path) -> Iterator[None]:
    """One writer per ledger: two of the same seed would commit the same payments."""
    ledger_path.parent.mkdir(parents=True, exist_ok=True)
    with ledger_path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CommitError(f"Traffic that keeps the ledger {ledger_path} runs already. End it first.") from None
        yield


@click.command(cls=Command)
@click.option("--state", "folder", type=click.Path(path_type=Path), default=DEFAULT, help="State folder of the stack.")
@click.option("--tps", type=click.FloatRange(0, 10_000, min_open=True), default=50.0, help="Commits a second.  [50]")
@click.option("--duration", type=click.FloatRange(0, min_open=True), help="Seconds.  [until Ctrl-C]")
@click.option("--seed", type=int, default=DEFAULT_SEED, help=f"The payments come from it.  [{DEFAULT_SEED}]")
@click.option("--no-dead-letters", is_flag=True, help="Without the changes that must become dead letters.")
def traffic(folder: Path, tps: float, duration: float | None, seed: int, no_dead_letters: bool) -> None:
    """Make payment traffic, and keep a ledger of it.

    With the seed of an earlier run it continues where that one ended.
    """
    from support import connection

    state = State(folder)
    stack = connection.load(state.connection)
    if not stack.local:
        raise click.ClickException("traffic goes to an emulator only: this stack is in the cloud, with real payments.")
    if stack.spanner_project:
        raise click.ClickException("this stack is attached to a database of others: traffic goes to a separate one.")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    summary = run_traffic(
        endpoint=stack.spanner_endpoint,
        database=f"projects/{stack.project}/instances/{stack.spanner_instance}/databases/{stack.spanner_database}",
        tps=tps,
        duration=duration,
        seed=seed,
        ledger_path=state.ledger,
        no_dead_letters=no_dead_letters,
        shape=Shape(stack.watched, columns_of(_database(stack), stack.watched)),
        on_progress=lambda so_far: click.echo(_line(so_far)),
        stop=stop,
    )
    click.echo(orjson.dumps({**asdict(summary), "rate": round(summary.rate, 1)}).decode())


def _database(stack: Any) -> Any:
    from pipeline.clients import spanner_database

    return spanner_database(stack.spanner_endpoint, stack.project, stack.spanner_instance, stack.spanner_database)


def _line(so_far: TrafficSummary) -> str:
    return (
        f"{so_far.operations} commits, {so_far.changes} changes, {so_far.rate:.1f}/s, "
        f"{so_far.aborted} aborted, {so_far.repeated} sent again"
    )
