"""What is personal is hidden from a viewer who is not among the personal data's readers, as BigQuery hides it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from contract.errors import AuditError
from contract.watched import WatchedTables
from support.console.identity import Viewer
from support.console.live import Seen
from support.replay import Replay
from support.reports import Report
from support.search import Found, Payment
from support.timeline import Event, Timeline

HIDDEN: Final = "hidden"
# What enrichment adds, and what reports call it.
_ALWAYS: Final = frozenset({"customer_id", "acting_user", "customer"})


class PersonalDataError(AuditError):
    """The viewer may not ask for this; the message says who may."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(
            "customers are personal data, which you may not see here. Ask for a place in personalDataReaders, or "
            f"search by payment.{viewer.doubt}"
        )


def refuse(viewer: Viewer) -> None:
    """Raises PersonalDataError where the viewer would learn of a customer by asking for one."""
    if not viewer.sees_personal:
        raise PersonalDataError(viewer)


def of_payments(viewer: Viewer, payments: Iterable[Payment]) -> tuple[Payment, ...]:
    """The payments without customer and acting user, where the viewer may not see them."""
    if viewer.sees_personal:
        return tuple(payments)
    return tuple(replace(payment, customer_id=None, acting_user=None) for payment in payments)


def of_found(viewer: Viewer, found: Found) -> Found:
    return replace(found, payments=of_payments(viewer, found.payments))


def of_seen(viewer: Viewer, seen: Seen) -> Seen:
    latest = seen.overview and replace(seen.overview, latest=of_payments(viewer, seen.overview.latest))
    return replace(seen, overview=latest)


def of_replay(viewer: Viewer, found: Replay) -> Replay:
    """A replay without the customer that it is of, where the viewer may not see one."""
    if viewer.sees_personal or not found.selection.customer:
        return found
    return replace(found, selection=replace(found.selection, customer=HIDDEN))


def of_report(viewer: Viewer, report: Report, watched: WatchedTables) -> Report:
    if viewer.sees_personal:
        return report
    return replace(report, rows=tuple(_row(row, watched) for row in report.rows))


def of_timeline(viewer: Viewer, timeline: Timeline, watched: WatchedTables) -> Timeline:
    if viewer.sees_personal:
        return timeline
    return replace(timeline, events=tuple(_event(event, watched) for event in timeline.events))


def _event(event: Event, watched: WatchedTables) -> Event:
    def shown(column: str, value: str | None) -> str | None:
        return HIDDEN if value is not None and is_personal(watched, column) else value

    differences = tuple(
        replace(each, old=shown(each.column, each.old), new=shown(each.column, each.new)) for each in event.differences
    )
    return replace(event, acting_user=None, differences=differences)


def _row(row: Mapping[str, Any], watched: WatchedTables) -> dict[str, Any]:
    return {name: None if is_personal(watched, name) else value for name, value in row.items()}


def is_personal(watched: WatchedTables, column: str) -> bool:
    """Whether a column, or the column of which it is a member, is personal in any table."""
    name = column.partition(".")[0]
    return name in _ALWAYS or any(table.is_personal(name) for table in watched.tables)
