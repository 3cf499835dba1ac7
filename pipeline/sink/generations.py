"""Who may write: generations of a job, the write streams they opened, and the position to resume from.

A job that starts takes a new generation. From that moment the older job can record no more write streams, and those
that are recorded get finalized: an append of a dying worker is refused. All of it lives in the metadata database, each
step in one transaction that checks the generation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from google.cloud.spanner_v1 import KeySet, param_types

from contract import timestamps


class Fenced(Exception):
    """A newer job has taken over."""

    def __init__(self, job_name: str, mine: int, newest: int) -> None:
        super().__init__(
            f"generation {mine} of {job_name} was replaced by generation {newest}, which goes on from the resume "
            "position. This job must end; nothing is lost. Two jobs of one name must not run at once."
        )


class Takeover(NamedTuple):
    """What a new job found: where to read from, and the write streams of older jobs."""

    generation: int
    position: str
    streams: list[str]


class Generations:
    """The metadata database, as one job name sees it."""

    def __init__(self, database: Any, job_name: str) -> None:
        self._database = database
        self._job = job_name

    def take_over(self, start: str) -> Takeover:
        """Makes this job the newest. From its return on, older jobs can record neither streams nor positions.

        `start` becomes the resume position of a first start: a job that dies before it wrote one leaves no gap.
        """

        def work(transaction: Any) -> tuple[int, str]:
            row = _first(transaction.read("jobs", ["Generation", "ResumePosition"], _keys([self._job])))
            generation = row[0] + 1 if row else 1
            position = timestamps.from_nanos(_nanos(row[1])) if row and row[1] else start
            transaction.insert_or_update(
                "jobs",
                ["JobName", "Generation", "ResumePosition", "UpdatedAt"],
                [[self._job, generation, position, _COMMIT_TIMESTAMP]],
            )
            return generation, position

        generation, position = self._run(work)
        with self._database.snapshot() as snapshot:
            streams = [
                row[0]
                for row in snapshot.execute_sql(
                    "SELECT WriteStream FROM write_streams WHERE JobName = @job",
                    params={"job": self._job},
                    param_types={"job": param_types.STRING},
                )
            ]
        return Takeover(generation, position, streams)

    def fence(self, generation: int) -> str:
        """Call when the older streams are finalized. Returns the time after which no older job's row can be."""
        self._checked(
            generation,
            lambda transaction: transaction.update(
                "jobs", ["JobName", "FencedAt", "UpdatedAt"], [[self._job, _COMMIT_TIMESTAMP, _COMMIT_TIMESTAMP]]
            ),
        )
        with self._database.snapshot() as snapshot:
            row = _first(snapshot.read("jobs", ["FencedAt"], _keys([self._job])))
        return timestamps.from_nanos(_nanos(row[0]))

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
        return timestamps.from_nanos(_nanos(ran[0].committed)) if recorded else None

    def advance(self, generation: int, position: str) -> None:
        """Every change committed before `position` is in BigQuery or is a durable dead letter. Raises Fenced."""

        def work(transaction: Any) -> None:
            row = _first(transaction.read("jobs", ["ResumePosition"], _keys([self._job])))
            if row[0] is None or _nanos(row[0]) < timestamps.to_nanos(position):
                transaction.update(
                    "jobs", ["JobName", "ResumePosition", "UpdatedAt"], [[self._job, position, _COMMIT_TIMESTAMP]]
                )

        self._checked(generation, work)

    def _checked(self, generation: int, work: Callable[[Any], Any]) -> Any:
        """Runs `work` in a transaction in which this generation is the newest."""

        def guarded(transaction: Any) -> Any:
            newest = _first(transaction.read("jobs", ["Generation"], _keys([self._job])))[0]
            if newest != generation:
                raise Fenced(self._job, generation, newest)
            return work(transaction)

        return self._run(guarded)

    def _run(self, work: Callable[[Any], Any]) -> Any:
        return self._database.run_in_transaction(work)


_COMMIT_TIMESTAMP = "spanner.commit_timestamp()"


def _keys(key: list[str]) -> Any:
    return KeySet(keys=[key])


def _first(rows: Any) -> Any:
    return next(iter(list(rows)), None)


def _nanos(moment: Any) -> int:
    # The client library's DatetimeWithNanoseconds.
    return timestamps.to_nanos(timestamps.normalise(moment.rfc3339()))
