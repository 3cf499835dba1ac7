"""Dead letters are tried again while the job runs.

A try starts from the masked change that the letter keeps, or else reads the record again from its change stream, and
goes through the same functions as the first time. A letter goes only once its row is in the table. That row is older
than what the state's merge has seen, so the merge is rewound.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
import grpc
import pyarrow as pa
from apache_beam.coders import FloatCoder
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from contract import tables, timestamps
from contract.changes import Change, DeadLetter, Reason, StepError
from pipeline import clients, logs
from pipeline.sink import rows
from pipeline.sink.config import SinkSettings
from pipeline.sink.dead_letters import DeadLetterQueue
from pipeline.sink.shards import Shard, existing_ids
from pipeline.source.query import ChangeStream, ChangeStreamQuery
from pipeline.source.reread import read_again
from pipeline.steps import dead_letter, trouble_of
from pipeline.transforms import decode
from pipeline.transforms.enrich import enrich
from pipeline.transforms.filter import Ignored, keep
from pipeline.transforms.keys import MaskingKeys
from pipeline.transforms.mask import Masker, NewColumns

_LOG = logging.getLogger(__name__)
_SHARD = "dead-letters"


@dataclass(frozen=True, kw_only=True)
class RetrySettings:
    """What a try needs: where the letters are, the steps' settings, and the sink."""

    directory: str
    every_seconds: float
    max_retries: int
    masking_keys: str
    new_columns: NewColumns
    payment_states: dict[str, str]
    ignored: Ignored
    streams: tuple[ChangeStream, ...]
    sink: SinkSettings

    @classmethod
    def of(cls, settings: Any, sink: SinkSettings) -> RetrySettings:
        """From the job's settings."""
        return cls(
            directory=settings["deadLetterQueueDirectory"],
            every_seconds=float(settings["dlqRetryMinutes"]) * 60,
            max_retries=int(settings["dlqMaxRetries"]),
            masking_keys=settings["maskingKeys"],
            new_columns=settings.new_columns,
            payment_states=settings.payment_states,
            ignored=settings.ignored,
            streams=settings.streams,
            sink=sink,
        )


class RetryDeadLetters(beam.PTransform):
    """Tries all dead letters every `every_seconds`. The read positions are its clock."""

    def __init__(self, settings: RetrySettings) -> None:
        super().__init__()
        self._settings = settings

    def expand(self, positions: Any) -> Any:
        return (
            positions
            | "OneRetrier" >> beam.WithKeys(b"").with_output_types(tuple[bytes, Any])
            | "Retry" >> beam.ParDo(_Retry(self._settings))
        )


class _Retry(beam.DoFn):
    LAST = ReadModifyWriteStateSpec("last", FloatCoder())

    def __init__(self, settings: RetrySettings) -> None:
        self._settings = settings

    def setup(self) -> None:
        self._retrier = Retrier(self._settings)

    def process(self, element: Any, last: Any = beam.DoFn.StateParam(LAST)) -> None:
        now = time.time()
        since = last.read()
        if since is None:
            last.write(now)
        elif now - since >= self._settings.every_seconds:
            last.write(now)
            self._retrier.run()


class Retrier:
    """One try of every letter in `retry/`."""

    def __init__(self, settings: RetrySettings) -> None:
        self._settings = settings
        self._queue = DeadLetterQueue(settings.directory)
        self._masker = Masker(MaskingKeys.load(settings.masking_keys), new_columns=settings.new_columns)
        self._clients = settings.sink.connect()
        self._queries: dict[str, ChangeStreamQuery] = {}

    def run(self) -> None:
        """Tries them. Ends when each is resolved, has one attempt more, or was set aside."""
        letters = list(self._queue.letters("retry"))
        if not letters:
            return
        by_table: dict[str, list[Change]] = defaultdict(list)
        failed: list[DeadLetter] = []
        filtered: list[str] = []
        for letter in letters:
            try:
                change = self._change(letter)
                enrich(change, self._settings.payment_states)
                if keep(change, self._settings.ignored):
                    by_table[change.table].append(change)
                else:
                    filtered.append(letter.id)
            except Exception as error:
                failed.append(_failed_again(letter, error))
        resolved = list(filtered)
        for table, changes in by_table.items():
            appended, refused = self._append(table, changes)
            resolved += appended
            failed += refused
        self._queue.resolve(resolved)
        tired = self._set_aside(self._queue.update(failed))
        tell(len(letters), len(resolved), failed, tired)

    def _change(self, letter: DeadLetter) -> Change:
        """The masked change. A letter without one, or with a refused row only, is read again and masked."""
        if letter.change is not None and "row" not in letter.change:
            return Change.from_dict(letter.change)
        at = letter.coordinates
        try:
            record = read_again(self._query(at.stream), at)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.OUT_OF_RANGE:
                raise
            record = None
        if record is None:
            raise StepError(
                Reason.GONE,
                f"the record is no longer in {at.stream}: its retention period is over. Replay the payment from "
                "Spanner, then discard the dead letter.",
            )
        change = decode.decode(record, at.mod_index)
        self._masker.mask(change)
        return change

    def _append(self, table: str, changes: list[Change]) -> tuple[list[str], list[DeadLetter]]:
        """Appends what the table lacks. Returns the ids that are in it now, and the letters of the rest."""
        resolved: list[str] = []
        failed: list[DeadLetter] = []
        # One batch a set of columns: a letter may be older than the table's newest column.
        by_columns: dict[Any, list[Change]] = defaultdict(list)
        for change in changes:
            by_columns[change.columns].append(change)
        for columns, alike in by_columns.items():
            batch, unencodable = rows.encode(alike)
            failed += [dead_letter(change.coordinates, "EncodeRows", error, change) for change, error in unencodable]
            if batch is not None:
                done, refused = self._append_batch(table, pa.Table.from_batches([batch]), columns)
                resolved += done
                failed += refused
        return resolved, failed

    def _append_batch(self, table: str, batch: pa.Table, columns: Any) -> tuple[list[str], list[DeadLetter]]:
        from pipeline.sink.write import rejected_letter

        self._clients.changelogs.conform(table, columns, rows.fields(columns))
        table_id = self._clients.destinations.id(table)
        there = existing_ids(self._clients.query, table_id, batch)
        ids = batch[tables.CHANGE_ID].to_pylist()
        missing = batch.filter(pa.array([i not in there for i in ids]))
        refused = []
        if missing.num_rows:
            # A stream of its own each time: what an older try left open is finalized and looked through first.
            shard = Shard(self._clients, table, _SHARD)
            _, outcome = shard.append(None, missing, columns)
            shard.close()
            refused = [rejected_letter(r) for r in outcome.rejected]
        if table == tables.PAYMENT_TABLE:
            # Also for rows that were there: an earlier try may have ended between its append and its rewind.
            self._rewind_merge(min(batch[tables.COMMIT_TIMESTAMP].to_pylist()))
        lost = {letter.id for letter in refused}
        return [letter_id for i in ids if (letter_id := f"{i}@{table}") not in lost], refused

    def _rewind_merge(self, oldest: Any) -> None:
        """The merged state ends before the oldest row that came late, so that the next merge takes it in."""
        from google.cloud.bigquery import QueryJobConfig, ScalarQueryParameter

        progress = tables.MERGE_PROGRESS
        self._clients.query.query(
            f"UPDATE `{self._clients.destinations.project}.{progress.id}` "
            "SET merged_until = LEAST(merged_until, @oldest), merged_at = CURRENT_TIMESTAMP() WHERE TRUE",
            job_config=QueryJobConfig(query_parameters=[ScalarQueryParameter("oldest", "TIMESTAMP", oldest)]),
        ).result()

    def _set_aside(self, letters: list[DeadLetter]) -> list[DeadLetter]:
        """Sets those aside that were tried often enough, and gives them."""
        tired = [letter for letter in letters if letter.attempts >= self._settings.max_retries]
        if tired:
            self._queue.set_aside(tired)
        return tired

    def _query(self, stream: str) -> ChangeStreamQuery:
        if stream not in self._queries:
            found = next((s for s in self._settings.streams if s.name == stream), None)
            if found is None:
                raise StepError(Reason.GONE, f"{stream} is not among spannerChangeStreamNames: add it, then retry.")
            self._queries[stream] = ChangeStreamQuery(found, clients.spanner_channel(found.endpoint))
        return self._queries[stream]


def tell(tried: int, resolved: int, failed: list[DeadLetter], tired: list[DeadLetter]) -> None:
    """One line a try: a warning when letters were set aside, which nobody tries again unasked."""
    fields: dict[str, Any] = {"reasons": Counter(letter.reason for letter in failed)} if failed else {}
    aside = ""
    if tired:
        aside = f" {len(tired)} of them set aside in severe/: see `audit dead-letters list --severe`."
        fields |= trouble_of(tired)
    _LOG.log(
        logging.WARNING if tired else logging.INFO,
        "Dead letters: %d tried, %d resolved, %d failed again.%s",
        tried,
        resolved,
        len(failed),
        aside,
        extra=logs.fields(**fields),
    )


def _failed_again(letter: DeadLetter, error: Exception) -> DeadLetter:
    again = dead_letter(letter.coordinates, letter.step, error)
    return replace(letter, reason=again.reason, message=again.message, last_failed_at=timestamps.now())
