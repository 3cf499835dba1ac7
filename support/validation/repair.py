"""Repairs of what a validation found: a lost change is read again by the job, a wrong state is replayed.

A row of BigQuery is never deleted or changed by a repair; what that would take is said, for a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final

from contract import timestamps
from contract.changes import Change, Coordinates, DeadLetter, Reason
from pipeline.transforms.cards import hide_cards
from support import replay
from support.connection import Connection
from support.validation.comparable import Comparable
from support.validation.findings import Finding, Identity
from support.validation.source import MICROSECOND, Source
from support.validation.target import Target

READ_AGAIN: Final = "the job reads the change again"
REPLAYED: Final = "its payment was replayed"
_REPAIRER: Final = "validation"
# Of a table whose rows do not say when they were committed: how far from their time the change is looked for.
_AROUND: Final = timedelta(seconds=5), timedelta(seconds=60)
_SECOND: Final = timedelta(seconds=1)

Handled = dict[Identity, Finding]


def shown(key: str) -> str:
    """A key as it may be shown."""
    return hide_cards(key, set())


def repair(
    connection: Connection,
    run: str,
    findings: Sequence[Finding],
    source: Source,
    target: Target,
    forms: Mapping[str, Comparable],
) -> Handled:
    """Repairs open findings; gives each with its outcome. Raises ReplayError, ReplayUnavailable."""
    from pipeline.sink.dead_letters import DeadLetterQueue

    letters: list[DeadLetter] = []
    replayed: list[Finding] = []
    handled: Handled = {}
    payments = connection.watched.payments.name
    for finding in findings:
        form = forms[finding.table]
        lost = _lost_change(finding, form, source, target)
        if lost:
            letters.append(_letter(lost))
            handled[finding.identity] = _with(finding, READ_AGAIN)
        elif finding.table == payments and finding.state_is_wrong and finding.raw_key:
            replayed.append(finding)
        else:
            handled[finding.identity] = finding.ended(_cannot(finding, payments))
    DeadLetterQueue(connection.dead_letter_directory).put(letters)
    return handled | _replay(connection, run, replayed)


def _with(finding: Finding, outcome: str) -> Finding:
    from dataclasses import replace

    return replace(finding, outcome=outcome)


def _lost_change(finding: Finding, form: Comparable, source: Source, target: Target) -> Coordinates | None:
    """The change that BigQuery lacks, where the change stream still has it."""
    if finding.change_id:
        if finding.kind != "missing":
            return None
        found = source.change(form.table.change_stream, finding.change_id, finding.table)
        return found.coordinates if found else None
    if finding.kind == "extra" or not finding.committed or not finding.raw_key:
        return None
    change = _last_change(finding, form, source)
    if change is None:
        return None
    at = timestamps.to_datetime(change.commit_timestamp)
    there = list(target.changes(form, [change.change_id], at, at + MICROSECOND))
    return None if there else change.coordinates


def _last_change(finding: Finding, form: Comparable, source: Source) -> Change | None:
    """The last change of a key at the time that its row says."""
    at = timestamps.to_datetime(str(finding.committed)).replace(microsecond=0)
    exact = form.table.column("changed") is not None
    since, until = (at, at + _SECOND) if exact else (at - _AROUND[0], at + _AROUND[1])
    changes = source.changes_of(form.table, form.columns, finding.raw_key, since, until)
    return max(changes, key=lambda change: change.change_id, default=None)


def _letter(at: Coordinates) -> DeadLetter:
    now = timestamps.now()
    return DeadLetter(
        coordinates=at,
        step="Validate",
        reason=Reason.MISSING,
        message="validation found the change in its change stream and not in BigQuery. It is read again.",
        attempts=0,
        first_failed_at=now,
        last_failed_at=now,
    )


def _cannot(finding: Finding, payments: str) -> str:
    if finding.kind == "extra":
        return "cannot be restored: Spanner has no such row or change. Find out who wrote it, and take it out by hand"
    if finding.change_id and finding.kind == "missing":
        return "cannot be restored: its change stream no longer keeps the change"
    if finding.change_id:
        return "cannot be restored: the row was altered, and is not newest. Time travel has it as it was for a week"
    if finding.table != payments:
        return "cannot be restored: the change is no longer in its stream, and only payments are replayed"
    return "cannot be restored: its key is not one that a replay takes"


def _replay(connection: Connection, run: str, findings: Sequence[Finding]) -> Handled:
    """Replays the payments, whose states the merge then takes in."""
    handled: Handled = {}
    for number, first in enumerate(range(0, len(findings), replay.MOST)):
        some = findings[first : first + replay.MOST]
        selection = replay.Selection(payments=tuple(str(finding.raw_key[0]) for finding in some))
        submitted = replay.submit(
            connection,
            selection,
            requested_by=_REPAIRER,
            reason="validation found another state in BigQuery than in Spanner",
            replay_id=f"validation-{run}-{number}",
        )
        done = replay.run(connection, submitted.id)
        for finding in some:
            handled[finding.identity] = _after(finding, done.problems)
    return handled


def _after(finding: Finding, problems: Iterable[str]) -> Finding:
    problem = next((text for text in problems if text.startswith(f"{finding.raw_key[0]}: ")), "")
    if problem:
        return finding.ended(f"cannot be restored: {problem.partition(': ')[2]}")
    if finding.change_id:
        return finding.ended(f"{REPLAYED}; the altered change itself stays as it is")
    return _with(finding, REPLAYED)
