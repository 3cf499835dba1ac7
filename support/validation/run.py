"""Validation: Spanner at a moment behind the resume position, compared with what BigQuery says of that moment.

A run compares the changes since the last one, each by its id (the change streams against the changelogs), the rows of
the keys that they touched, and, when it is due, the next part of all keys: a range of them, with a count and a checksum
on each side. Nothing waits and nothing is unsure: what was committed before the position is in BigQuery or is a dead
letter, and Spanner answers as of the moment.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from contract import tables, timestamps
from contract.changes import Change, Column, Row, StepError
from contract.watched import WatchedTable
from support.connection import Connection
from support.unmasked import columns_with_cards
from support.validation import repair as repairs
from support.validation.comparable import Comparable
from support.validation.compare import (
    ChangesOfWindow,
    Compared,
    Newest,
    StateOfKeys,
    committed_of,
    named,
    newest_row,
)
from support.validation.findings import MISMATCHES, MOST_NAMED, Check, Finding, Report, ValidationError
from support.validation.letters import Letters
from support.validation.source import MICROSECOND, Masking, Part, Source, as_change, raw_key
from support.validation.state import State, States
from support.validation.target import Target

Progress = Callable[[str], None]
# What a value that does not fit its type raises in the sink's conversion: the job makes a dead letter of it.
_UNFIT: Final = (StepError, ValueError, TypeError, ArithmeticError, KeyError, AttributeError)
_GIB: Final = 2**30
_QUERY_SECONDS: Final = 600.0
_COUNTED: Final = 100_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run may take: changes of its window, rows of a part, bytes that a query of a window may read.

    A window with more changes is cut, and the next run continues there. Memory is about 650 bytes for each. An
    hour's window reads the partitions of its days: `most_bytes` is two days of 500 changes a second, all columns.
    """

    most_changes: int = 2_500_000
    part_rows: int = 3_000_000
    most_bytes: int = 256 * _GIB
    part_every: timedelta = timedelta(days=1)

    @classmethod
    def of(cls, connection: Connection) -> Limits:
        """Of a stack: one on one machine is small, and each run compares all of it."""
        return cls(part_every=timedelta(0)) if connection.local else cls()


class Validation:
    """Validates one stack. What it knows between two runs is in the metadata database."""

    def __init__(self, connection: Connection, limits: Limits | None = None) -> None:
        self._connection, self._limits = connection, limits or Limits.of(connection)
        self._watched, self._states = connection.watched, States(connection)

    def run(
        self,
        *,
        since: datetime | None = None,
        everything: bool = False,
        repair: bool = False,
        progress: Progress = lambda _: None,
    ) -> Report:
        """One run. `since`: the changes from then on, instead of those since the last run. `everything`: all keys.

        Raises ValidationError, WarehouseError.
        """
        run = uuid.uuid4().hex
        now = datetime.now(UTC)
        with _explained(), self._claimed(run, now) as state:
            one = _Run(self._connection, self._limits, self._states, state, Report(id=run, at=now, until=now), progress)
            began = time.process_time()
            one.compare(since=since, everything=everything)
            if repair:
                one.repair()
            one.report.cpu_seconds = round(time.process_time() - began, 3)
            one.remember()
            one.record()
        return one.report

    @contextmanager
    def _claimed(self, run: str, now: datetime) -> Iterator[State]:
        state = self._states.claim(run, now)
        try:
            with self._states.renewed(run):
                yield state
        except BaseException:
            with suppress(Exception):
                self._states.release(run, None)
            raise
        self._states.release(run, state)


@contextmanager
def _explained() -> Iterator[None]:
    import grpc
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (GoogleAPIError, GoogleAuthError, grpc.RpcError) as error:
        raise ValidationError(
            f"Spanner or BigQuery does not answer, or refuses ({type(error).__name__}). See `audit local status`, and "
            "the roles of the account: it reads audit-db, its change streams and the changelogs. Nothing is lost: the "
            "next run continues where this one began."
        ) from error


class _Run:
    """One run of a validation."""

    def __init__(
        self,
        connection: Connection,
        limits: Limits,
        states: States,
        state: State,
        report: Report,
        progress: Progress,
    ) -> None:
        self._connection, self._limits, self._watched = connection, limits, connection.watched
        self.state, self.report, self._progress = state, report, progress
        self._source, self._masking = Source(connection), Masking(connection)
        self._target = Target(connection, most_bytes=limits.most_bytes, seconds=_QUERY_SECONDS)
        # First the position, then the dead letters, then the rows: what is in neither of the last two is missing.
        self._until = _behind(states.position())
        self._letters = Letters.read(connection)
        self._forms = {table.name: self._form(table) for table in self._tables}
        report.until = self._until

    @property
    def _tables(self) -> list[WatchedTable]:
        return [table for table in self._watched.tables if table.name.casefold() not in self._masking.ignored.tables]

    def _form(self, table: WatchedTable) -> Comparable:
        return Comparable(
            table,
            self._source.columns(table, self._until - MICROSECOND),
            self._target.columns(table),
            ignored=self._masking.ignored,
            hold_new=self._masking.hold_new,
            emulated=self._connection.local,
        )

    # ------------------------------------------------------------------ what is compared

    def compare(self, *, since: datetime | None, everything: bool) -> None:
        since, known = since or self.state.until, self.state.until
        found: list[Finding] = []
        if since and since < self._until and not everything:
            until = self._window_end(since)
            found += self._window(since, until)
            self.state.until = max(known or until, until)
        else:
            self.state.until = known or self._until
        due = self.state.parts_at is None or self.report.at - self.state.parts_at >= self._limits.part_every
        if self._source.ignored.rows_differ:
            self.report.notes.append(
                "ignoreOperations and ignoreTransactionTags leave out changes of rows: rows are not compared, other "
                "changes are."
            )
        elif everything or due:
            found += self._parts(everything=everything)
            self.state.parts_at = self.report.at
        self._settle(found)

    def _window_end(self, since: datetime) -> datetime:
        """Where the window ends so that it is within the limits; `since` has been moved to a whole second."""
        changes = self._target.count(self._tables, since, self._until)
        if changes <= self._limits.most_changes:
            return self._until
        seconds = (self._until - since).total_seconds() * self._limits.most_changes / changes
        until = min(self._until, since + timedelta(seconds=max(1, int(seconds))))
        self.report.notes.append(
            f"{changes:,} changes wait, and a run compares {self._limits.most_changes:,}: the next one continues at "
            f"{until:%Y-%m-%d %H:%M:%S}."
        )
        return until

    def _window(self, since: datetime, until: datetime) -> list[Finding]:
        windows = {name: ChangesOfWindow(form) for name, form in self._forms.items()}
        for name, window in windows.items():
            self._progress(f"changes of {name}, {since:%H:%M:%S} to {until:%H:%M:%S}")
            for row in self._rows(window.form, self._target.window(window.form, since, until)):
                window.add_row(row)
        touched: dict[str, dict[str, tuple[Any, ...]]] = {name: {} for name in windows}
        unsure: dict[str, set[str]] = {name: set() for name in windows}
        for stream in dict.fromkeys(table.change_stream for table in self._tables):
            if not self._stream(stream, since, until, windows, touched, unsure):
                return []
        found: list[Finding] = []
        for name, window in windows.items():
            check = Check(table=name, scope="changes", since=since, until=until)
            of_changes = self._named(window.form, check, window.compared(check), since)
            of_keys = self._keys(window, touched[name], unsure[name], since, until)
            found += _with_state(of_changes, of_keys)
        return found

    def _stream(
        self,
        stream: str,
        since: datetime,
        until: datetime,
        windows: Mapping[str, ChangesOfWindow],
        touched: Mapping[str, dict[str, tuple[Any, ...]]],
        unsure: Mapping[str, set[str]],
    ) -> bool:
        """Takes in the changes of a stream. False where it keeps them no longer."""
        import grpc

        try:
            for change in self._source.changes(stream, since, until):
                window = windows.get(change.table)
                if window is None:
                    continue
                raw = raw_key(window.form.columns, change.keys)
                touched[change.table][_text(raw)] = raw
                if not self._take(window, change, raw):
                    unsure[change.table].add(_text(raw))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.OUT_OF_RANGE:
                raise
            self.report.notes.append(
                f"{stream} keeps no changes as old as {since:%Y-%m-%d %H:%M:%S}: changes are not compared, parts are."
            )
            return False
        return True

    def _take(self, window: ChangesOfWindow, change: Change, raw: tuple[Any, ...]) -> bool:
        """Gives a change to its window. False where it is a dead letter, or must be one."""
        change_id = change.change_id
        if self._letters.has_change(change.table, change_id):
            window.leave_out(change_id)
            return False
        try:
            if self._masking.prepare(change, window.version_of(change_id)):
                window.add_change(change, raw)
        except _UNFIT:
            window.leave_out(change_id)
            return False
        return True

    def _keys(
        self,
        window: ChangesOfWindow,
        touched: dict[str, tuple[Any, ...]],
        unsure: set[str],
        since: datetime,
        until: datetime,
    ) -> list[Finding]:
        """The rows of the keys that a window touched, as they were at its end."""
        if self._source.ignored.rows_differ:
            return []
        form = window.form
        newest = {key: row for key, row in window.newest.items() if key not in unsure}
        for key, row in newest.items():
            if row.raw_key:
                touched.setdefault(key, row.raw_key)
        wanted = [raw for key, raw in touched.items() if key not in unsure]
        check = Check(table=form.table.name, scope="keys", since=since, until=until)
        rows = self._source.keyed(form.table, wanted, until - MICROSECOND)
        return self._named(form, check, self._state(form, check, newest, rows, until), since)

    def _parts(self, *, everything: bool) -> list[Finding]:
        found: list[Finding] = []
        for name, form in self._forms.items():
            low = None if everything else self.state.lows.get(name)
            key = _ranged(form)
            while True:
                high = self._part_end(form, key, low)
                part = Part(low=low, high=high)
                self._progress(f"keys of {name}, {low or 'the first'} to {high or 'the last'}")
                found += self._part(form, key, part)
                low = high
                if low is None or not everything:
                    break
            self.state.lows[name] = low
        return found

    def _part_end(self, form: Comparable, key: Column | None, low: str | None) -> str | None:
        if key is None:
            return None
        return self._source.part_end(form.table, key, low, self._limits.part_rows, self._until - MICROSECOND)

    def _part(self, form: Comparable, key: Column | None, part: Part) -> list[Finding]:
        if not form.key_columns:
            self.report.notes.append(f"{form.table.name} has a key that masking leaves nothing of: not compared.")
            return []
        theirs = self._rows(form, self._target.newest(form, part, self._until))
        newest = dict(newest_row(form, row) for row in theirs)
        check = Check(table=form.table.name, scope="part", until=self._until, low=part.low, high=part.high)
        rows = self._source.part(form.table, key, part, self._until - MICROSECOND)
        return self._named(form, check, self._state(form, check, newest, rows, self._until), None)

    def _state(
        self, form: Comparable, check: Check, newest: Mapping[str, Newest], rows: Iterable[Row], moment: datetime
    ) -> Compared:
        state = StateOfKeys(form, newest)
        changed, at = form.table.column("changed") or form.table.column("time"), timestamps.from_datetime(moment)
        for row in rows:
            raw = raw_key(form.columns, row)
            text, committed = _text(raw), committed_of(row.get(changed or ""))
            if self._letters.has_key(form.table.name, text):
                state.leave_out(text)
                continue
            change = as_change(form.table, form.columns, row, at)
            try:
                self._masking.prepare(change, state.version_of(text))
                state.add(change, raw, committed)
            except _UNFIT:
                state.leave_out(text)
        for text in self._letters.keys_of(form.table.name) & newest.keys():
            state.leave_out(text)
        return state.compared(check)

    def _named(self, form: Comparable, check: Check, found: Compared, since: datetime | None) -> list[Finding]:
        """The findings, with the columns of the rows that differ. Counts them in the check."""
        begin = since or timestamps.to_datetime("1970-01-01T00:00:00.000000000Z")
        by_id = {each.change_id: each for each in found.differing}
        findings = list(found.findings)
        if by_id:
            for row in self._target.changes(form, sorted(by_id), begin, self._until):
                differing = by_id.pop(row[tables.CHANGE_ID], None)
                if differing and (columns := named(form, differing, row)):
                    findings.append(replace(differing.finding, columns=columns))
        for kind in ("missing", "extra", "different", "doubled"):
            setattr(check, kind, sum(finding.kind == kind for finding in findings))
        self.report.checks.append(check)
        return findings

    def _rows(self, form: Comparable, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows, each looked at for card numbers."""
        for row in rows:
            if columns := columns_with_cards(form.table, row):
                self._card(form, row, columns)
            yield row

    def _card(self, form: Comparable, row: Row, columns: Sequence[str]) -> None:
        change_id = row[tables.CHANGE_ID]
        seen = f"{form.table.name} {change_id}"
        if seen in self.state.seen_cards:
            return
        self.state.cards += 1
        self.state.seen_cards = [*self.state.seen_cards, seen][-MOST_NAMED:]
        key = repairs.shown(form.key_of_row(row))
        self.report.findings.append(
            Finding(
                table=form.table.name, key=key, kind="card", change_id=change_id, columns=tuple(columns), final=True
            )
        )

    # ------------------------------------------------------------------ what was found before

    def _settle(self, found: Sequence[Finding]) -> None:
        """Joins what was found with what was open before, and looks at the latter again."""
        known = {finding.identity: finding for finding in self.state.findings}
        new = {finding.identity: finding for finding in _joined(found, self.state.findings)}
        again = [finding for identity, finding in known.items() if identity not in new]
        for finding in again:
            if self._is_still_there(finding):
                new[finding.identity] = finding
            else:
                self.report.resolved.append(finding)
        for identity, finding in new.items():
            before = known.get(identity)
            self.report.findings.append(before if before and before.final else finding)

    def _is_still_there(self, finding: Finding) -> bool:
        form = self._forms.get(finding.table)
        if form is None:
            return False
        if finding.change_id:
            return self._change_is_wrong(form, finding)
        if not finding.raw_key or len(finding.raw_key) > 1:
            # The next part that has the key finds it again.
            return False
        newest = dict(newest_row(form, row) for row in self._target.newest_of(form, [finding.raw_key[0]], self._until))
        rows = self._source.keyed(form.table, [finding.raw_key], self._until - MICROSECOND)
        check = Check(table=finding.table, scope="keys", until=self._until)
        compared = self._state(form, check, newest, rows, self._until)
        return bool(self._named_quietly(form, compared))

    def _named_quietly(self, form: Comparable, compared: Compared) -> list[Finding]:
        check = Check(table=form.table.name, scope="keys", until=self._until)
        found = self._named(form, check, compared, None)
        self.report.checks.remove(check)
        return found

    def _change_is_wrong(self, form: Comparable, finding: Finding) -> bool:
        at = timestamps.to_datetime(str(finding.committed))
        rows = list(self._target.changes(form, [str(finding.change_id)], at, at + MICROSECOND))
        match finding.kind:
            case "missing":
                return not rows
            case "extra":
                return bool(rows)
        change = self._source.change(form.table.change_stream, str(finding.change_id), finding.table) if rows else None
        if change is None:
            # Nobody can say any more what it was.
            return finding.final or bool(rows)
        window = ChangesOfWindow(form)
        for row in rows:
            window.add_row(row)
        if not self._take(window, change, finding.raw_key):
            return False
        found = window.compared(Check(table=finding.table, scope="changes", until=self._until))
        return bool(self._named_quietly(form, found))

    # ------------------------------------------------------------------ what is done about it

    def repair(self) -> None:
        """Has every open finding repaired, as far as it can be."""
        wrong = [finding for finding in self.report.findings if finding.is_open]
        handled = repairs.repair(self._connection, self.report.id, wrong, self._source, self._target, self._forms)
        self.report.findings = [handled.get(finding.identity, finding) for finding in self.report.findings]

    def remember(self) -> None:
        """Makes the run's result the state of the next one."""
        kept = [finding for finding in self.report.findings if finding.kind not in ("doubled", "card")]
        if len(kept) > MOST_NAMED:
            self.report.notes.append(f"{len(kept):,} rows are wrong; {MOST_NAMED:,} of them are kept by their names.")
        self.state.findings = kept[:MOST_NAMED]
        self.state.runs, self.state.at = self.state.runs + 1, self.report.at
        self.report.source_rows = self._source.rows_read
        self.report.warehouse_rows, self.report.warehouse_bytes = self._target.rows_read, self._target.bytes_read

    def record(self) -> None:
        """Appends the run to the table `audit_checks`."""
        self._target.record(self.report)


def _behind(position: datetime | None) -> datetime:
    if position is None:
        raise ValidationError(
            "the job has not said yet how far BigQuery is complete. Start it, see `audit local status`, and validate "
            "a minute later."
        )
    return position.replace(microsecond=0)


def _ranged(form: Comparable) -> Column | None:
    """The first column of the key, where parts can be cut by it."""
    first = form.columns_of_key[0]
    carried = form.table.policy_of(first.name) in ("identifier", "scan")
    return first if carried and first.type in ("STRING", "INT64") else None


def _text(raw: Iterable[Any]) -> str:
    return "/".join("NULL" if part is None else str(part) for part in raw)


def _with_state(of_changes: Sequence[Finding], of_keys: Sequence[Finding]) -> list[Finding]:
    """Both, each change with whether the state of its key is wrong."""
    wrong = {finding.key for finding in of_keys}
    return [*(replace(finding, state_is_wrong=finding.key in wrong) for finding in of_changes), *of_keys]


def _joined(findings: Iterable[Finding], known: Iterable[Finding]) -> list[Finding]:
    """A wrong state of a key of which a change is wrong is one finding: that of the change."""
    explained = {
        (f.table, f.key) for f in (*findings, *known) if f.change_id and f.state_is_wrong and f.kind in MISMATCHES
        and not f.outcome.startswith(repairs.REPLAYED)
    }  # fmt: skip
    return [f for f in findings if f.change_id or (f.table, f.key) not in explained]
