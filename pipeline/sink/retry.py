"""Dead letters are tried again while the job runs.

A try starts from the masked change that the dead letter keeps, or else reads the record again from its change stream,
and goes through the same functions as the first time. It is resolved only once its row is in the table, and the state's
merge, which has seen more than that row, is rewound.

A dead letter's reason says whether trying again helps (`contract.changes.REASONS`); a service's failure does not count
as an attempt.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam
import grpc
import pyarrow as pa
from apache_beam.coders import FloatCoder
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec
from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError
from google.auth.exceptions import GoogleAuthError

from contract import tables, timestamps
from contract.changes import Change, Coordinates, DeadLetter, Reason, StepError
from contract.logs import ErrorClass
from pipeline import clients, logs
from pipeline.failures import dead_letter, error_fields
from pipeline.service_errors import Action, code_of, of_code
from pipeline.sink import rows
from pipeline.sink.append import rejected_letter
from pipeline.sink.changelogs import NotReady
from pipeline.sink.config import SinkSettings
from pipeline.sink.connection import NoAnswer
from pipeline.sink.dead_letters import DeadLetterQueue, bounded
from pipeline.sink.generations import Fenced
from pipeline.sink.rewind import rewind_merge
from pipeline.sink.shards import Shard, existing_ids
from pipeline.source.completion import Completer, SpannerRows, lacks_values
from pipeline.source.lookup import read_again
from pipeline.source.query import ChangeStream, ChangeStreamQuery
from pipeline.source.records import DataChange
from pipeline.transforms import decode
from pipeline.transforms.enrich import enrich
from pipeline.transforms.filter import keep
from pipeline.transforms.settings import TransformSettings

_LOG = logging.getLogger(__name__)
_SHARD = "dead-letters"


@dataclass(frozen=True, kw_only=True)
class RetrySettings:
    """What a try needs: where the dead letters are, the transforms' settings, and the sink."""

    directory: str
    every_seconds: float
    max_retries: int
    transforms: TransformSettings
    streams: tuple[ChangeStream, ...]
    sink: SinkSettings

    @classmethod
    def of(cls, settings: Any, sink: SinkSettings) -> RetrySettings:
        """From the job's settings."""
        return cls(
            directory=settings["deadLetterQueueDirectory"],
            every_seconds=float(settings["dlqRetryMinutes"]) * 60,
            max_retries=int(settings["dlqMaxRetries"]),
            transforms=settings.transforms,
            streams=settings.streams,
            sink=sink,
        )


class RetryDeadLetters(beam.DoFn):
    """Tries all dead letters every `every_seconds`. Its input is the clock, under one key."""

    LAST = ReadModifyWriteStateSpec("last", FloatCoder())

    def __init__(self, settings: RetrySettings) -> None:
        self._settings = settings

    def setup(self) -> None:
        self._retrier = Retrier(self._settings)
        self._round: threading.Thread | None = None

    def process(self, element: Any, last: Any = beam.DoFn.StateParam(LAST)) -> None:
        now = time.time()
        since = last.read()
        if since is None:
            last.write(now)
        elif now - since >= self._settings.every_seconds and not (self._round and self._round.is_alive()):
            last.write(now)
            # Beside the bundle: a client that waits minutes for its service holds up no position. Ended with the
            # process at any point, it leaves dead letters that the next round resolves.
            self._round = threading.Thread(target=self._retrier.run, name="RetryDeadLetters", daemon=True)
            self._round.start()


@dataclass
class _Round:
    """What a round came to. `away`: the tables and streams that are left alone until the next one, and why."""

    tried: int = 0
    resolved: int = 0
    failed: list[DeadLetter] = field(default_factory=list)
    parked: list[DeadLetter] = field(default_factory=list)
    waiting: Counter[str] = field(default_factory=Counter)
    away: dict[str, str] = field(default_factory=dict)

    def wait(self, letters: Iterable[DeadLetter], what: str, why: str = "") -> None:
        """A service's failure does not count as an attempt: the dead letters stay as they are."""
        self.away.setdefault(what, why)
        self.waiting[what] += len(list(letters))


class _Late(Exception):
    """BigQuery keeps an append waiting for longer than a round has."""


def _until(seconds: float) -> Callable[[float], None]:
    """A sleep for what waits by time: it ends the waiting once the time is up."""
    ends = time.monotonic() + seconds

    def sleep(pause: float) -> None:
        if time.monotonic() + pause > ends:
            raise _Late
        time.sleep(pause)

    return sleep


class Retrier:
    """One try of every dead letter in `retry/`. Raises nothing: what fails is a line, and waits for the next round.

    `patience`: how long an append may be kept waiting. `pauses`: between the tries of a rewind, in seconds.
    """

    def __init__(
        self, settings: RetrySettings, *, patience: float = 15.0, pauses: tuple[float, ...] = (0.5, 1.0, 2.0)
    ) -> None:
        self._settings = settings
        self._patience = patience
        self._pauses = pauses
        self._queue = DeadLetterQueue(settings.directory)
        self._transforms = settings.transforms
        self._masker = settings.transforms.masker()
        self._erased = settings.transforms.erased_now()
        self._clients = settings.sink.connect()
        self._queries: dict[str, ChangeStreamQuery] = {}
        self._completers: dict[str, Completer] = {}

    def run(self) -> None:
        """Tries them. Then each is resolved, has one attempt more, is parked, or waits for a service as it is."""
        done = _Round()
        try:
            # What lies behind the resume position is not read again, by this job or a later one. Before that, the
            # job itself may still append the change, and does not check whether it is there.
            passed = self._settings.sink.generations().position() or ""
            behind = (x for x in self._queue.letters("retry") if x.coordinates.commit_timestamp < passed)
            # As many at once as may be in memory.
            for letters in bounded(behind):
                self._try(letters, done)
        except Exception as error:
            # The folder or bucket itself, or the metadata database. What was not reached stays as it is.
            done.wait([], self._settings.directory, type(error).__name__)
        report(done.tried, done.resolved, done.failed, done.parked)
        _report_waiting(done, {stream.name for stream in self._settings.streams})

    def _try(self, letters: list[DeadLetter], done: _Round) -> None:
        done.parked += self._queue.park(x for x in letters if _hopeless(x))
        failed: list[DeadLetter] = []
        resolved: list[DeadLetter] = []
        changes: dict[str, list[tuple[DeadLetter, Change]]] = defaultdict(list)
        for letter in letters:
            if _hopeless(letter):
                continue
            stream = letter.coordinates.stream
            if stream in done.away and not _holds_change(letter):
                done.wait([letter], stream)
                continue
            try:
                change = self._change(letter)
                watched = self._transforms.watched.of(change.table)
                kept = self._erased.current().redact(change, watched)
                enrich(change, watched, self._transforms.payment_states)
                if keep(change, self._transforms.ignored) and kept:
                    changes[change.table].append((letter, change))
                else:
                    resolved.append(letter)
            except Exception as error:
                if _is_a_service(error):
                    done.wait([letter], stream, type(error).__name__)
                else:
                    failed.append(_failed_again(letter, error))
        for table, these in changes.items():
            self._append(table, these, resolved, failed, done)
        resolved = self._rewound(resolved, changes[self._transforms.watched.payments.name], done)
        self._queue.resolve([letter.id for letter in resolved])
        done.tried += len(resolved) + len(failed)
        done.resolved += len(resolved)
        done.failed += failed
        done.parked += self._park(self._queue.update(failed))

    def _change(self, letter: DeadLetter) -> Change:
        """The masked change. A dead letter without one, or with a refused row only, is read again and masked."""
        if letter.change is not None and _holds_change(letter):
            return Change.from_dict(letter.change)
        at = letter.coordinates
        record = self._read_again(at)
        if record is None:
            raise StepError(
                Reason.GONE,
                f"the record is no longer in {at.stream}: its retention period is over. `audit replay start "
                "--dead-letter` fills it from the payment's present state.",
            )
        change = decode.decode(record, at.mod_index)
        if lacks_values(change):
            [(change, error)] = self._completer(at.stream).complete([change])
            if error:
                raise error
        self._masker.mask(change)
        return change

    def _completer(self, stream: str) -> Completer:
        if stream not in self._completers:
            described = next(each for each in self._settings.streams if each.name == stream)
            self._completers[stream] = Completer(SpannerRows(described), patience=self._patience)
        return self._completers[stream]

    def _read_again(self, at: Coordinates) -> DataChange | None:
        for last in (False, True):
            try:
                return read_again(self._query(at.stream), at)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.OUT_OF_RANGE:
                    return None
                if error.code() is not grpc.StatusCode.NOT_FOUND or last:
                    raise
                # A session ends, after 28 days at the latest: the next query has a new one.
                self._queries.pop(at.stream, None)
        raise AssertionError("unreachable")

    def _append(
        self,
        table: str,
        changes: list[tuple[DeadLetter, Change]],
        resolved: list[DeadLetter],
        failed: list[DeadLetter],
        done: _Round,
    ) -> None:
        """Appends what the table lacks. Adds to `resolved` what is in it now, and to `failed` the rest."""
        # One batch per set of columns: a dead letter may be older than the table's newest column.
        watched = self._transforms.watched.of(table)
        by_columns: dict[Any, dict[str, tuple[DeadLetter, Change]]] = defaultdict(dict)
        for letter, change in changes:
            by_columns[change.columns][change.change_id] = letter, change
        for columns, alike in by_columns.items():
            if table in done.away:
                done.wait([letter for letter, _ in alike.values()], table)
                continue
            batch, unencodable = rows.encode([change for _, change in alike.values()], watched)
            for change, error in unencodable:
                original = alike[change.change_id][0]
                failed.append(_again(original, dead_letter(change.coordinates, "EncodeRows", error, change, watched)))
            if batch is None:
                continue
            letters = {i: letter for i, (letter, _) in alike.items()}
            for ids, outcome in self._append_each(table, pa.Table.from_batches([batch]), columns):
                tried = [letters[i] for i in ids]
                if isinstance(outcome, Exception):
                    if _is_a_service(outcome):
                        done.wait(tried, table, type(outcome).__name__)
                    else:
                        failed += [_failed_again(letter, outcome) for letter in tried]
                    continue
                refused = {letter.coordinates.change_id: letter for letter in outcome}
                failed += [_again(letters[i], letter) for i, letter in refused.items()]
                resolved += [letters[i] for i in ids if i not in refused]

    def _append_each(
        self, table: str, batch: pa.Table, columns: Any
    ) -> Iterator[tuple[list[str], list[DeadLetter] | Exception]]:
        """Appends the batch; where that raises what is not a service's failure, in halves: one row takes none along.

        Gives change ids, and the dead letters of the refused ones among them or why none of them was appended.
        """
        ids = batch[tables.CHANGE_ID].to_pylist()
        try:
            outcome: list[DeadLetter] | Exception = self._append_batch(table, batch, columns)
        except Exception as error:
            half = len(ids) // 2
            if half and not _is_a_service(error):
                yield from self._append_each(table, batch.slice(0, half), columns)
                yield from self._append_each(table, batch.slice(half), columns)
                return
            outcome = error
        yield ids, outcome

    def _append_batch(self, table: str, batch: pa.Table, columns: Any) -> list[DeadLetter]:
        """Appends the rows that the table lacks. Gives the dead letters of the refused ones."""
        watched = self._transforms.watched.of(table)
        self._clients.changelogs.conform(table, columns, rows.fields(columns, watched))
        there = existing_ids(self._clients.query, self._clients.destinations.id(table), batch)
        missing = batch.filter(pa.array([i not in there for i in batch[tables.CHANGE_ID].to_pylist()]))
        if not missing.num_rows:
            return []
        # A new stream each time: what an older try left open is finalized and looked through first.
        shard = Shard(replace(self._clients, sleep=_until(self._patience)), table, _SHARD)
        try:
            _, outcome = shard.append(None, missing, columns)
        finally:
            shard.close()
        return [rejected_letter(rejected, watched) for rejected in outcome.rejected]

    def _rewound(
        self, resolved: list[DeadLetter], payments: list[tuple[DeadLetter, Change]], done: _Round
    ) -> list[DeadLetter]:
        """Those that may be resolved: a payment's only once the merge of the state goes back to before its row.

        Also for rows that were there: an earlier round may have ended between its append and its rewind.
        """
        ids = {letter.id for letter, _ in payments}
        late = [letter for letter in resolved if letter.id in ids]
        if not late:
            return resolved
        try:
            oldest = min(letter.coordinates.commit_timestamp for letter in late)
            rewind_merge(self._clients.query, self._clients.destinations, oldest, pauses=self._pauses)
        except Exception as error:
            done.wait(late, f"the rewind of {tables.merge_progress(self._transforms.watched).id}", type(error).__name__)
            return [letter for letter in resolved if letter.id not in ids]
        return resolved

    def _park(self, letters: list[DeadLetter]) -> list[DeadLetter]:
        """Parks those that were tried often enough, or that trying again does not help. Gives them."""
        most = self._settings.max_retries
        return self._queue.park(
            [x for x in letters if not x.released and (x.attempts >= most or x.info.retry != "automatic")]
        )

    def _query(self, stream: str) -> ChangeStreamQuery:
        if stream not in self._queries:
            found = next((s for s in self._settings.streams if s.name == stream), None)
            if found is None:
                raise StepError(Reason.GONE, f"{stream} is not among spannerChangeStreamNames: add it, then retry.")
            self._queries[stream] = ChangeStreamQuery(found, clients.spanner_channel(found.endpoint))
        return self._queries[stream]


def report(tried: int, resolved: int, failed: list[DeadLetter], parked: list[DeadLetter]) -> None:
    """One line per round: a warning when some were parked, which nobody tries again unasked."""
    if not tried and not parked:
        return
    fields: dict[str, Any] = {"reasons": Counter(letter.reason for letter in failed)} if failed else {}
    aside = ""
    if parked:
        aside = f" {len(parked)} of them parked in severe/: see `audit dead-letters list --severe`."
        fields |= error_fields(parked)
    _LOG.log(
        logging.WARNING if parked else logging.INFO,
        "Dead letters: %d tried, %d resolved, %d failed again.%s",
        tried,
        resolved,
        len(failed),
        aside,
        extra=logs.fields(**fields),
    )


def _report_waiting(done: _Round, streams: Collection[str]) -> None:
    """One line per round where a service failed: for what they wait."""
    if not done.away:
        return
    error_class = ErrorClass.SOURCE if done.away.keys() <= set(streams) else ErrorClass.SINK
    _LOG.warning(
        "Dead letters: %d wait for %s. That does not count as an attempt; the next round tries them again.",
        done.waiting.total(),
        ", ".join(f"{what} ({why})" for what, why in done.away.items()),
        extra=logs.fields(error_class=error_class, waits_for=done.away, waiting=done.waiting),
    )


def _hopeless(letter: DeadLetter) -> bool:
    """Whether it certainly fails again, and no person asked for a try."""
    return letter.info.retry == "never" and not letter.released


def _holds_change(letter: DeadLetter) -> bool:
    """Whether it has its masked change, and not only the row that BigQuery refused, or nothing."""
    return letter.change is not None and "row" not in letter.change


def _is_a_service(error: Exception) -> bool:
    """Whether a service failed and not the dead letter. Only a request that can never be taken is the row's."""
    if isinstance(error, grpc.RpcError | GoogleAPICallError):
        return of_code(code_of(error)) not in {Action.THIS_ROW, Action.TOO_LARGE}
    # OSError: connections, timeouts, and what `requests` raises.
    return isinstance(error, GoogleAPIError | GoogleAuthError | NotReady | NoAnswer | Fenced | OSError | _Late)


def _again(original: DeadLetter, failed: DeadLetter) -> DeadLetter:
    """How it failed this time, of the try that began with `original`."""
    return replace(failed, first_failed_at=original.first_failed_at, released=original.released)


def _failed_again(letter: DeadLetter, error: Exception) -> DeadLetter:
    again = dead_letter(letter.coordinates, letter.step, error)
    return replace(letter, reason=again.reason, message=again.message, last_failed_at=timestamps.now())
