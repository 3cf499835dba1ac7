"""An erasure, step by step.

    record ─► tokens: all that writes redacts ─► wait for what was under way ─► redact ─► count ─► finish

Each step can be repeated: killed at any point, it is run again from the start, and what is redacted stays redacted.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

from contract import tables
from contract.changes import Change, DeadLetter
from contract.schema import ERASER_ROLE, SUBMITTER_ROLE
from pipeline.transforms.cards import find_cards
from pipeline.transforms.enrich import customers
from pipeline.transforms.erase import CUSTOMER, PAYMENT
from pipeline.transforms.erased import OLDEST_SECONDS
from support import cloud_run
from support.connection import Connection
from support.erasure.redaction import AT_ONCE, Redaction
from support.erasure.store import Erasure, ErasureError, Erasures, ErasureWaits, batched
from support.lookup import days_of, payments_with
from support.requested import broken_id, broken_reason
from support.validation.state import Busy, States
from support.warehouse import Warehouse

Progress = Callable[[str], None]

# A customer with more is one of a test, or of a system.
MOST_PAYMENTS: Final = 100_000
# Beside the age of tokens: commit timestamps and the machine's clock differ by less.
_MARGIN: Final = timedelta(seconds=5)
_STATEMENT_SECONDS: Final = 1_800.0
_PAUSE_SECONDS: Final = 1.0
# How long one call waits for the job; then it says so, and is run again.
_PATIENCE_SECONDS: Final = 900.0
_FAIL_SAFE: Final = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What an erasure would be of: payments, and rows with something personal, by table; bytes read to know it."""

    payments: int
    rows: Mapping[str, int]
    bytes_read: int


def submit(
    connection: Connection, customer: str, *, requested_by: str, reason: str, erasure_id: str | None = None
) -> Erasure:
    """Records an erasure. One with an id that is known is returned as it is. Raises ErasureError."""
    reason = reason.strip()
    if not customer.strip() or len(customer) > 1_000:
        raise ErasureError("a customer must be named by its id, of at most 1,000 characters.")
    known = erasure_id or uuid.uuid4().hex
    if rule := broken_reason(reason, "erasure") or broken_id(known, "erasure", "DSR-4711"):
        raise ErasureError(rule)
    if find_cards(customer):
        raise ErasureError("the customer of an erasure must hold no card's number: it is kept until the end.")
    if re.search(_word(customer), reason):
        raise ErasureError("the reason of an erasure must not name the customer: it is kept, and the customer is not.")
    with _explained():
        found = _records(connection).add(known, requested_by, reason, customer)
    if found.customer not in (customer, None):
        raise ErasureError(
            f"the id of an erasure must be a new one: {known} is of another customer. Choose another id, or run that "
            "one with `audit erase resume`."
        )
    return found


def count(connection: Connection, customer: str) -> Found:
    """What there is of a customer, by who may read the tables. Changes nothing. Raises ErasureWaits, WarehouseError."""
    with _explained():
        return Erasing(connection).find(customer)


def start(connection: Connection, erasure_id: str) -> None:
    """Has the stack's job run each erasure that is not finished, and does not wait. Raises ErasureWaits."""
    try:
        cloud_run.start(connection, connection.erasure_job)
    except cloud_run.CloudRunError as error:
        raise ErasureWaits(f"{error} The erasure {erasure_id} is recorded: `audit erase resume` starts it.") from error


def run(connection: Connection, erasure_id: str, progress: Progress = lambda _: None) -> Erasure:
    """Runs an erasure to its end, or nothing of it where it has ended. Raises ErasureError, ErasureWaits."""
    with _explained():
        return Erasing(connection, progress).run(erasure_id)


def find(connection: Connection, erasure_id: str) -> Erasure:
    """An erasure. Raises ErasureError, ErasureWaits."""
    with _explained():
        return _records(connection).one(erasure_id)


def every(connection: Connection) -> list[Erasure]:
    """All erasures, the newest first, without their customers. Raises ErasureWaits.

    Read as who records erasures, or as who records replays: one of these is what a person may be.
    """
    from google.api_core.exceptions import PermissionDenied

    with _explained():
        try:
            return _records(connection).every()
        except PermissionDenied:
            return Erasures(connection, SUBMITTER_ROLE).every()


def _records(connection: Connection) -> Erasures:
    """For who submits and looks: where erasures run elsewhere, by a database role for that."""
    return Erasures(connection, ERASER_ROLE if connection.erasure_job else "")


@contextmanager
def _explained() -> Iterator[None]:
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (GoogleAPIError, GoogleAuthError) as error:
        raise ErasureWaits(
            f"Spanner or BigQuery does not answer, or refuses ({type(error).__name__}). See `audit health`, and your "
            "roles: `erasers` in the stack's config record erasures, and the job audit-erasure runs them. What was "
            "redacted stays redacted: run it again with `audit erase resume`."
        ) from error


def _word(customer: str) -> str:
    """A pattern for a customer's id in a text, and not for one that begins or ends with it."""
    return rf"(^|[^A-Za-z0-9_-]){re.escape(customer)}($|[^A-Za-z0-9_-])"


def _add(report: dict[str, int], name: str, number: int) -> None:
    report[name] = report.get(name, 0) + number


class Erasing:
    """Runs erasures. Raises ErasureWaits, WarehouseError, and what Spanner's client raises. For one thread."""

    def __init__(self, connection: Connection, progress: Progress = lambda _: None) -> None:
        self._connection, self._progress = connection, progress
        self._watched = connection.watched
        self._warehouse = Warehouse(connection, seconds=_STATEMENT_SECONDS)
        self.records, self._states = Erasures(connection), States(connection)

    def find(self, customer: str) -> Found:
        """What there is of a customer. Changes nothing."""
        payments = self._payments(customer)
        rows = {
            each.name: sum(count for _, count in self._counted(each, customer, payments)) for each in self._redactions
        }
        by_table = {self._plain(name): count for name, count in rows.items()}
        return Found(payments=len(payments), rows=by_table, bytes_read=self._warehouse.bytes_read)

    def run(self, erasure_id: str) -> Erasure:
        """Runs an erasure to its end, or nothing of it where it has ended."""
        erasure = self.records.one(erasure_id)
        if erasure.finished_at or erasure.customer is None:
            return erasure
        customer = erasure.customer
        since = self.records.entomb(erasure.id, {self._token(CUSTOMER, customer): "customer"})
        # A run that was killed has found and redacted something already.
        report: dict[str, Any] = {"payments": 0, **erasure.report}
        self.records.note(erasure.id, report)
        while True:
            self._await(since)
            # What names the customer has all arrived: these are its payments. Theirs are redacted from now on.
            known = self.records.payments(erasure.id)
            found = known | set(self._payments(customer))
            if found <= known:
                break
            self.records.remember(erasure.id, found)
            since = self.records.entomb(erasure.id, {self._token(PAYMENT, each): "payment" for each in found})
        payments = sorted(found)
        report["payments"] = len(payments)
        with self._no_validation():
            self._redact(erasure.id, customer, payments, report)
        _add(report, "backups", self._renew_backups(erasure.id))
        _add(report, "bytes_read", self._warehouse.bytes_read)
        report["held"] = self._held(datetime.now(UTC))
        self.records.finish(erasure.id, report)
        return self.records.one(erasure.id)

    # ------------------------------------------------------------------ waiting

    def _await(self, since: datetime) -> None:
        """Returns once every row that may have been made without knowing of tokens of `since` has arrived."""
        wanted = since + timedelta(seconds=OLDEST_SECONDS) + _MARGIN
        deadline = time.monotonic() + _PATIENCE_SECONDS
        self._progress("Waiting until the job has written all that it read before")
        while True:
            position = self._states.position()
            running = self.records.unfinished_replays(wanted)
            if position and position >= wanted and not running:
                return
            if time.monotonic() > deadline:
                raise ErasureWaits(
                    f"the replay {running[0]} is not finished, and may bring rows that are not redacted: end it with "
                    f"`audit replay resume {running[0]}`, and run the erasure again."
                    if running
                    else "the job has not come past the time of the erasure: see `audit health`. Run the erasure again "
                    "once it has; until then its new rows are redacted, and those that were there are not."
                )
            time.sleep(_PAUSE_SECONDS)

    @contextmanager
    def _no_validation(self) -> Iterator[None]:
        """Meanwhile nothing is compared: rows that are half redacted would be found, and replayed."""
        run, deadline = f"erasure-{uuid.uuid4().hex}", time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                self._states.claim(run, datetime.now(UTC))
                break
            except Busy as error:
                if time.monotonic() > deadline:
                    raise ErasureWaits(f"{error} Then run the erasure again.") from error
                self._progress("Waiting for the end of a validation")
                time.sleep(_PAUSE_SECONDS)
        with self._states.renewed(run):
            try:
                yield
            finally:
                self._states.release(run, None)

    # ------------------------------------------------------------------ BigQuery

    def _payments(self, customer: str) -> list[str]:
        found = payments_with(self._warehouse, "customer", [customer], most=MOST_PAYMENTS + 1)
        if len(found) > MOST_PAYMENTS:
            raise ErasureError(f"a customer to erase must have at most {MOST_PAYMENTS:,} payments; this one has more.")
        return [str(each) for each in found]

    def _redact(self, erasure_id: str, customer: str, payments: Sequence[str], report: dict[str, Any]) -> None:
        """Adds what it did to the report."""
        rows: dict[str, int] = report.setdefault("rows", {})
        for redaction in self._redactions:
            name = self._plain(redaction.name)
            self._progress(f"Redacting {name}")
            _add(rows, name, 0)
            for where, count in self._counted(redaction, customer, payments):
                if count:
                    sql, parameters = where
                    self._warehouse.answer(redaction.statement(sql), parameters)
                    _add(rows, name, count)
            self.records.note(erasure_id, report)
            if left := sum(count for _, count in self._counted(redaction, customer, payments)):
                raise ErasureWaits(
                    f"{left:,} rows of {name} came in while it was redacted: run the erasure again, and nothing of "
                    "them is left."
                )
        self._progress("Redacting dead letters, access log, replays, lookup table")
        _add(report, "dead_letters", self._forget_letters(customer, set(payments)))
        _add(report, "access_log", self._forget_accesses(customer))
        _add(report, "replays", self.records.forget_in_replays(customer))
        _add(report, "lookup", self._forget_lookup(payments))
        self.records.note(erasure_id, report)

    @cached_property
    def _redactions(self) -> list[Redaction]:
        """The state comes last: a merge may take rows there until the payments' changelog is redacted."""
        from pipeline.clients import bigquery_client

        known = self._connection
        client = bigquery_client(known.big_query_endpoint, known.project)
        state = f"{self._watched.payments.dataset}.payment_state"
        places = [*((table.id, table) for table in self._watched.tables), (state, self._watched.payments)]
        return [
            Redaction(
                name=f"`{known.project}.{place}`",
                table=table,
                columns=client.get_table(f"{known.project}.{place}").schema,
            )
            for place, table in places
        ]

    def _plain(self, name: str) -> str:
        return name.strip("`").removeprefix(f"{self._connection.project}.")

    def _counted(
        self, redaction: Redaction, customer: str, payments: Sequence[str]
    ) -> Iterator[tuple[tuple[str, dict[str, Any]], int]]:
        """The conditions of an erasure's rows in a table, and how many rows each has left."""
        for where in self._conditions(redaction, customer, payments):
            sql, parameters = where
            [row] = self._warehouse.rows(redaction.count(sql), **parameters)
            yield where, int(row["found"])

    def _conditions(
        self, redaction: Redaction, customer: str, payments: Sequence[str]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """A payment's own rows all have its id; others may name the customer alone."""
        if redaction.table.kind != "payments":
            yield redaction.of_customer(), {"customer": customer}
        if not redaction.of_payments():
            return
        for some in batched(payments, AT_ONCE):
            ids = self._ids(some)
            if redaction.name.endswith(".payment_state`"):
                yield redaction.of_payments(), {"payments": ids}
            else:
                # The days on which something happened to them: other partitions stay unread.
                days, parameters = days_of(self._warehouse, *some).condition(tables.COMMIT_TIMESTAMP)
                yield f"{redaction.of_payments()} AND {days}", {"payments": ids, **parameters}

    def _forget_lookup(self, payments: Sequence[str]) -> int:
        """Deletes by what the payments were found, but for their own ids. Says how many rows."""
        name = f"`{self._connection.project}.{tables.payment_lookup(self._watched).id}`"
        where, deleted = "puid IN UNNEST(@payments) AND kind != 'payment'", 0
        for some in batched(payments, AT_ONCE):
            ids: dict[str, Any] = {"payments": self._ids(some)}
            [row] = self._warehouse.rows(f"SELECT COUNT(*) AS found FROM {name} WHERE {where}", **ids)
            if row["found"]:
                self._warehouse.answer(f"DELETE FROM {name} WHERE {where}", ids)
                deleted += int(row["found"])
        return deleted

    def _ids(self, payments: Sequence[str]) -> list[Any]:
        """As BigQuery has them."""
        whole = self._watched.payments.payment_type == "INT64"
        return [int(each) for each in payments] if whole else list(payments)

    def _forget_accesses(self, customer: str) -> int:
        """Takes the customer out of what people asked for, and why; who asked, when and for what kind of page stays."""
        name = f"`{self._connection.project}.{tables.access_log(self._watched).id}`"
        # The whole value of a filter: another customer's id may begin with this one.
        named = ("STRPOS(TO_JSON_STRING(subject), @named) > 0", json.dumps(customer, ensure_ascii=False))
        given = ("REGEXP_CONTAINS(reason, @named)", _word(customer))
        forgotten = 0
        for (where, sought), without in (
            (named, "subject = PARSE_JSON('{\"erased\":true}')"),
            (given, "reason = NULL"),
        ):
            known: dict[str, Any] = {"named": sought}
            [row] = self._warehouse.rows(f"SELECT COUNT(*) AS found FROM {name} WHERE {where}", **known)
            if row["found"]:
                self._warehouse.answer(f"UPDATE {name} SET {without} WHERE {where}", known)
            forgotten += int(row["found"])
        return forgotten

    # ------------------------------------------------------------------ dead letters

    def _forget_letters(self, customer: str, payments: set[str]) -> int:
        """Leaves of the customer's dead letters where to read the change again: then it is redacted."""
        from pipeline.sink.dead_letters import DeadLetterQueue

        queue = DeadLetterQueue(self._connection.dead_letter_directory)
        found = [letter.id for _, letter in queue.every() if self._concerns(letter, customer, payments)]
        return queue.forget(found) if found else 0

    def _concerns(self, letter: DeadLetter, customer: str, payments: set[str]) -> bool:
        if letter.change is None:
            return False
        change = Change.from_dict(letter.change)
        return letter.payment in payments or customer in customers(change, self._watched.of(change.table))

    # ------------------------------------------------------------------ backups

    def _renew_backups(self, erasure_id: str) -> int:
        """Makes a backup without the customer, then deletes every older one. Says how many there were."""
        from support.backup import places
        from support.backup.create import create
        from support.backup.store import Backups

        if not Backups(self._connection).all():
            return 0
        self._progress("Making a backup, and deleting those from before")
        name = f"erasure-{hashlib.sha256(erasure_id.encode()).hexdigest()[:16]}"
        made = create(self._connection, backup_id=name, progress=self._progress)
        if not made.good:
            raise ErasureWaits(
                f"the backup {made.id} is not good, so those from before were kept: see `audit backup list`. Delete it "
                "with `audit backup delete`, and run the erasure again."
            )
        older = [each for each in Backups(self._connection).all() if each.at < made.at]
        for backup in older:
            places.delete(self._connection, backup.id)
        return len(older)

    # ------------------------------------------------------------------ what is known, what remains

    @cached_property
    def _keys(self) -> Any:
        from pipeline.transforms.keys import MaskingKeys

        return MaskingKeys.load(self._connection.masking_keys)

    def _token(self, kind: str, value: str) -> str:
        return str(self._keys.token(kind, value))

    def _held(self, now: datetime) -> dict[str, str]:
        """What still has the customer's data, and until when: BigQuery's time travel, and its fail-safe after that."""
        from pipeline.clients import bigquery_client

        known = self._connection
        client = bigquery_client(known.big_query_endpoint, known.project)
        datasets = {table.dataset for table in self._watched.tables} | {self._watched.access_dataset}
        hours = [client.get_dataset(f"{known.project}.{each}").max_time_travel_hours or 168 for each in datasets]
        travel = now + timedelta(hours=max(map(int, hours)))
        return {
            "time travel": f"{travel:%Y-%m-%dT%H:%MZ}",
            "fail-safe": f"{travel + _FAIL_SAFE:%Y-%m-%dT%H:%MZ}",
        }
