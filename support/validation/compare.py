"""The two comparisons: the changes of a window by their ids, and the state of keys. Pure: the rows are given.

BigQuery's rows are taken in first, as digests. What differs is known at Spanner's row, and only then its form is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from contract import tables, timestamps
from contract.changes import Change
from pipeline.transforms.cards import hide_cards
from support.validation.comparable import Comparable, Form, digest
from support.validation.findings import MOST_NAMED, Check, Finding

_REPLAY: Final = "REPLAY"
_DELETE: Final = "DELETE"
# 16 bytes: the sum of digests, in any order.
_SUMS: Final = 2**128


class Checksum:
    """How many rows, and the sum of their digests."""

    def __init__(self) -> None:
        self.rows = self._sum = 0

    def add(self, digested: bytes) -> None:
        self.rows += 1
        self._sum += int.from_bytes(digested)

    @property
    def text(self) -> str:
        return f"{self._sum % _SUMS:032x}"


@dataclass(frozen=True)
class Newest:
    """The newest row of a key in BigQuery."""

    change_id: str
    deleted: bool
    digest: bytes
    version: str
    raw_key: tuple[Any, ...]


@dataclass(frozen=True)
class Differing:
    """A row that both sides have, and not alike: Spanner's form of it, and the change that BigQuery has it from."""

    finding: Finding
    ours: Form
    change_id: str


@dataclass
class Compared:
    """What a comparison found. `differing` is still to be looked at: columns are not known yet."""

    findings: list[Finding] = field(default_factory=list)
    differing: list[Differing] = field(default_factory=list)


class ChangesOfWindow:
    """The changes of one table in a window: by id, each with all that its row says."""

    def __init__(self, form: Comparable) -> None:
        self.form = form
        self.newest: dict[str, Newest] = {}
        # By change id; what Spanner has too is taken out: an hour can be millions.
        self._theirs: dict[str, tuple[bytes, str]] = {}
        self._versions: dict[str, str] = {}
        self._checksums = Checksum(), Checksum()
        self._found = Compared()
        self._left_out = 0

    def add_row(self, row: Mapping[str, Any]) -> None:
        """A row of BigQuery."""
        form, change_id = self.form.of_row(row), row[tables.CHANGE_ID]
        key, mod = self.form.key_of_row(row), row[tables.MOD_TYPE]
        version = self.form.key_version(row)
        known = self.newest.get(key)
        if known is None or known.change_id < change_id:
            raw = self.form.raw_key_of_row(row)
            self.newest[key] = Newest(change_id, mod == _DELETE, digest(form.state), version, raw)
        if mod == _REPLAY:
            # Of no commit: a payment that was read again.
            return
        if change_id in self._theirs:
            self._found.findings.append(self._finding(key, "doubled", change_id))
            return
        self._theirs[change_id] = digest((*form.state, *form.history)), key
        self._checksums[1].add(self._theirs[change_id][0])
        if version:
            self._versions[change_id] = version

    def version_of(self, change_id: str) -> str:
        return self._versions.get(change_id, "")

    def add_change(self, change: Change, raw_key: tuple[Any, ...]) -> None:
        """A change as the job would have written it. Raises what a value that is unfit raises."""
        form, change_id = self.form.of_change(change), change.change_id
        digested = digest((*form.state, *form.history))
        self._checksums[0].add(digested)
        theirs, _ = self._theirs.pop(change_id, (None, ""))
        if theirs == digested:
            return
        key = self.form.key_of_change(change)
        finding = self._finding(key, "missing" if theirs is None else "different", change_id, raw_key)
        if theirs is None:
            self._found.findings.append(finding)
        elif len(self._found.differing) < MOST_NAMED:
            self._found.differing.append(Differing(finding, form, change_id))

    def leave_out(self, change_id: str) -> None:
        """A change that has a dead letter, or must have one: it may be there or not."""
        self._theirs.pop(change_id, None)
        self._left_out += 1

    def compared(self, check: Check) -> Compared:
        """Ends it: what is left of BigQuery's rows is extra. Fills the counts of the check."""
        for change_id, (_, key) in self._theirs.items():
            raw = self.newest[key].raw_key
            self._found.findings.append(self._finding(key, "extra", change_id, raw))
        _fill(check, self._checksums, self._left_out)
        return self._found

    def _finding(self, key: str, kind: Any, change_id: str, raw_key: tuple[Any, ...] = ()) -> Finding:
        committed = change_id.partition("/")[0]
        outcome = "the views show it once" if kind == "doubled" else ""
        return Finding(
            table=self.form.table.name,
            key=hide_cards(key, set()),
            kind=kind,
            change_id=change_id,
            raw_key=raw_key,
            committed=committed,
            outcome=outcome,
        )


class StateOfKeys:
    """The rows of some keys of one table at a moment: Spanner's against the newest of BigQuery."""

    def __init__(self, form: Comparable, newest: Mapping[str, Newest]) -> None:
        self.form, self._newest = form, newest
        self._seen: set[str] = set()
        self._checksums = Checksum(), Checksum()
        self._found = Compared()
        self._left_out = 0

    def version_of(self, key: str) -> str:
        found = self._newest.get(key)
        return found.version if found else ""

    def add(self, change: Change, raw_key: tuple[Any, ...], committed: str | None) -> None:
        """A row of Spanner as the change that made it. Raises what a value that is unfit raises."""
        form, key = self.form.of_change(change), self.form.key_of_change(change)
        digested, theirs = digest(form.state), self._newest.get(key)
        self._seen.add(key)
        self._checksums[0].add(digested)
        if theirs is None or theirs.deleted:
            self._found.findings.append(self._finding(key, "missing", raw_key, committed))
            return
        self._checksums[1].add(theirs.digest)
        if theirs.digest != digested and len(self._found.differing) < MOST_NAMED:
            self._found.differing.append(
                Differing(self._finding(key, "different", raw_key, committed), form, theirs.change_id)
            )

    def leave_out(self, key: str) -> None:
        """A key of which a change is a dead letter, or must be one."""
        self._seen.add(key)
        self._left_out += 1

    def compared(self, check: Check) -> Compared:
        """Ends it: what is left of BigQuery's rows is extra. Fills the counts of the check."""
        for key in self._newest.keys() - self._seen:
            theirs = self._newest[key]
            if not theirs.deleted:
                self._checksums[1].add(theirs.digest)
                self._found.findings.append(self._finding(key, "extra", theirs.raw_key, None))
        _fill(check, self._checksums, self._left_out)
        return self._found

    def _finding(self, key: str, kind: Any, raw_key: tuple[Any, ...], committed: str | None) -> Finding:
        name = self.form.table.name
        return Finding(table=name, key=hide_cards(key, set()), kind=kind, raw_key=raw_key, committed=committed)


def newest_row(form: Comparable, row: Mapping[str, Any]) -> tuple[str, Newest]:
    """A row of BigQuery that is the newest of its key, by its key."""
    state = digest(form.of_row(row).state)
    deleted = row[tables.MOD_TYPE] == _DELETE
    made = Newest(row[tables.CHANGE_ID], deleted, state, form.key_version(row), form.raw_key_of_row(row))
    return form.key_of_row(row), made


def named(form: Comparable, differing: Differing, row: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns in which BigQuery's row differs; none where it is only what Spanner's row does not say."""
    theirs, history = form.of_row(row), differing.finding.change_id is not None
    if not history:
        theirs = form.same_state(differing.ours, theirs)
    return form.differing(differing.ours, theirs, history=history)


def committed_of(value: Any) -> str | None:
    """A time of Spanner's row, as text of nine fractional digits."""
    return timestamps.normalise(value) if isinstance(value, str) else None


def _fill(check: Check, checksums: tuple[Checksum, Checksum], left_out: int) -> None:
    ours, theirs = checksums
    check.source_rows, check.warehouse_rows = ours.rows, theirs.rows
    check.source_checksum, check.warehouse_checksum = ours.text, theirs.text
    check.left_out = left_out
