"""Who may write: generations of a job, the write streams they opened, and the position to resume from.

Each launch of a job is a run. The first worker of a run takes a new generation; from that moment older ones can record
neither write streams nor positions. Their streams are finalized, so that an append of a dying worker is refused, and
then the generation's fence is set: its time says how young an older job's row can be. Every other worker of the run
finds the generation taken, and repeats what is not done yet. All of it lives in the metadata database, each step in
one transaction that checks the generation.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from google.cloud.spanner_v1 import KeySet, param_types

from contract import timestamps

_RUN_DIGITS = 20
# What a metadata database of an earlier release lacks. A launch refuses one without them.
ADDED_TO_JOBS: Final = ("RunId", "RunGeneration")


class Fenced(Exception):
    """A newer job has taken over. `mine` is None where this run never had a generation."""

    def __init__(self, job_name: str, mine: int | None, newest: int) -> None:
        who = "a run" if mine is None else f"generation {mine}"
        super().__init__(
            f"{who} of {job_name} was replaced by generation {newest}, which resumes from the resume "
            "position. This job must end; nothing is lost. Two jobs of one name must not run at once."
        )


class Takeover(NamedTuple):
    """A run's generation, and where to read from. `fenced_at` None: older streams may be open still.

    `taken` says whether this call took the generation: once a run.
    """

    generation: int
    position: str
    fenced_at: str | None
    taken: bool


class GenerationStore(Protocol):
    """What the sink asks of one job name's generations: `Generations`, or the tests' twin in memory.

    One test holds both to the same behaviour.
    """

    def new_run(self) -> str: ...
    def take_over(self, run: str, start: str) -> Takeover: ...
    def older_streams(self, generation: int) -> list[str]: ...
    def fence(self, generation: int) -> str: ...
    def stream(self, table_id: str, shard: str) -> str | None: ...
    def record_stream(
        self, generation: int, table_id: str, shard: str, stream: str, *, replaces: str | None
    ) -> str | None: ...
    def advance(self, generation: int, position: str) -> None: ...
    def position(self) -> str | None: ...


class Generations:
    """A GenerationStore in the metadata database."""

    def __init__(self, database: Any, job_name: str) -> None:
        self._database = database
        self._job = job_name

    def new_run(self) -> str:
        """An id for a launch, later than that of the run which has the generation, regardless of the clocks.

        Writes nothing: what is launched may still fail, and the running job continues.
        """
        with self._database.snapshot() as snapshot:
            row = _first(snapshot.read("jobs", ["RunId"], _keys([self._job])))
        return run_id(time.time_ns(), row[0] if row else None)

    def take_over(self, run: str, start: str) -> Takeover:
        """Makes a run the newest, once: a run that has its generation keeps it. Raises Fenced for an older run.

        From its return on, older jobs can record neither streams nor positions. `start` becomes the resume position
        of a first start: a job that dies before it wrote one leaves no gap.
        """
        columns = ["Generation", "ResumePosition", "FencedAt", "RunId", "RunGeneration"]

        def work(transaction: Any) -> Takeover:
            row = _first(transaction.read("jobs", columns, _keys([self._job])))
            generation, position, fenced_at, newest, ran_as = row or (0, None, None, None, None)
            position = _text(position) if position else start
            if newest == run and ran_as == generation:
                return Takeover(generation, position, _text(fenced_at) if fenced_at else None, False)
            if newest is not None and newest >= run:
                raise Fenced(self._job, ran_as if newest == run else None, generation)
            transaction.insert_or_update(
                "jobs",
                ["JobName", "Generation", "ResumePosition", "FencedAt", "RunId", "RunGeneration", "UpdatedAt"],
                [[self._job, generation + 1, position, None, run, generation + 1, _COMMIT_TIMESTAMP]],
            )
            return Takeover(generation + 1, position, None, True)

        taken: Takeover = self._run(work)
        return taken

    def older_streams(self, generation: int) -> list[str]:
        """The write streams that generations before this one recorded, and may be appending to."""
        with self._database.snapshot() as snapshot:
            rows = snapshot.execute_sql(
                "SELECT WriteStream FROM write_streams WHERE JobName = @job AND Generation < @generation",
                params={"job": self._job, "generation": generation},
                param_types={"job": param_types.STRING, "generation": param_types.INT64},
            )
            return [row[0] for row in rows]

    def fence(self, generation: int) -> str:
        """Call when the older streams are finalized. Returns the time after which no older job's row can be.

        The first call of a generation counts: what was appended since is the generation's own. Raises Fenced.
        """

        def work(transaction: Any, fenced_at: Any) -> None:
            if fenced_at is None:
                transaction.update(
                    "jobs", ["JobName", "FencedAt", "UpdatedAt"], [[self._job, _COMMIT_TIMESTAMP, _COMMIT_TIMESTAMP]]
                )

        self._checked(generation, work, "FencedAt")
        with self._database.snapshot() as snapshot:
            newest, fenced_at = _first(snapshot.read("jobs", ["Generation", "FencedAt"], _keys([self._job])))
        if newest != generation:
            raise Fenced(self._job, generation, newest)
        return _text(fenced_at)

    def stream(self, table_id: str, shard: str) -> str | None:
        """The write stream that is recorded for a shard."""
        with self._database.snapshot() as snapshot:
            row = _first(snapshot.read("write_streams", ["WriteStream"], _keys([self._job, table_id, shard])))
        return row[0] if row else None

    def record_stream(
        self, generation: int, table_id: str, shard: str, stream: str, *, replaces: str | None
    ) -> str | None:
        """Records the stream that may take rows of a shard, and returns when: the commit timestamp.

        None when another one than `replaces` is recorded by now. Raises Fenced when a newer job has taken over.
        """
        ran: list[Any] = []

        def work(transaction: Any) -> bool:
            ran[:] = [transaction]
            row = _first(transaction.read("write_streams", ["WriteStream"], _keys([self._job, table_id, shard])))
            if (row[0] if row else None) != replaces:
                return False
            transaction.insert_or_update(
                "write_streams",
                ["JobName", "TableId", "Shard", "Generation", "WriteStream", "UpdatedAt"],
                [[self._job, table_id, shard, generation, stream, _COMMIT_TIMESTAMP]],
            )
            return True

        recorded = self._checked(generation, work)
        return _text(ran[0].committed) if recorded else None

    def advance(self, generation: int, position: str) -> None:
        """Every change committed before `position` is in BigQuery or is a durable dead letter. Raises Fenced."""

        def work(transaction: Any, before: Any) -> None:
            if before is None or _text(before) < position:
                transaction.update(
                    "jobs", ["JobName", "ResumePosition", "UpdatedAt"], [[self._job, position, _COMMIT_TIMESTAMP]]
                )

        self._checked(generation, work, "ResumePosition")

    def position(self) -> str | None:
        """The resume position: what a running job has behind it. None where no job has run."""
        with self._database.snapshot() as snapshot:
            row = _first(snapshot.read("jobs", ["ResumePosition"], _keys([self._job])))
        return _text(row[0]) if row and row[0] else None

    def _checked(self, generation: int, work: Callable[..., Any], *columns: str) -> Any:
        """Runs `work` in a transaction in which this generation is the newest, with those columns of the job's row."""

        def guarded(transaction: Any) -> Any:
            row = transaction.read("jobs", ["Generation", *columns], _keys([self._job]))
            newest, *values = _first(row)
            if newest != generation:
                raise Fenced(self._job, generation, newest)
            return work(transaction, *values)

        return self._run(guarded)

    def _run(self, work: Callable[[Any], Any]) -> Any:
        return self._database.run_in_transaction(work)


_COMMIT_TIMESTAMP = "spanner.commit_timestamp()"


def run_id(nanos: int, newest: str | None) -> str:
    """The id of a launch at `nanos` since 1970, after `newest` in text order: no clock makes a launch an old one."""
    if newest is not None:
        nanos = max(nanos, int(newest[:_RUN_DIGITS]) + 1)
    return f"{nanos:0{_RUN_DIGITS}d}-{secrets.token_hex(4)}"


def _keys(key: list[str]) -> Any:
    return KeySet(keys=[key])


def _first(rows: Any) -> Any:
    return next(iter(list(rows)), None)


def _text(moment: Any) -> str:
    # The client library's DatetimeWithNanoseconds.
    return timestamps.normalise(moment.rfc3339())
