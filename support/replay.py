"""Replay: payments are read from Spanner as they are, masked and enriched as the job does it, and written again.

The rows have the mod type REPLAY and the moment of the read. It audits again and runs no payment again. What it is for:
a payment whose last change never arrived, a column that was held and is classified now, a dead letter whose record has
left Spanner's retention. A replay has an id; run again, killed half-way or run by two at once, its rows are there once.

Where it runs is `support/submitted.py`'s; what it does, and why that is right, `pipeline/replay/`.
"""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from contract import schema, timestamps
from contract.changes import BACKFILL, kind_of
from pipeline.replay.records import Replay, ReplayError, ReplayUnavailable, Selection
from pipeline.transforms.cards import find_cards
from support.connection import Connection
from support.metadata import metadata_database
from support.requested import broken_id, broken_reason
from support.search import PERIOD, Search, payment_id, search
from support.timeline import Event, Timeline
from support.warehouse import Warehouse

if TYPE_CHECKING:
    from pipeline.replay.settings import ReplaySettings
    from pipeline.replay.store import ReplayStore

__all__ = [
    "MOST",
    "Replay",
    "ReplayError",
    "ReplayUnavailable",
    "Selection",
    "check",
    "check_reason",
    "find",
    "latest",
    "of_dead_letters",
    "run",
    "selected",
    "stopped",
    "submit",
    "unfinished",
    "with_reasons",
]

# Payments that are named one by one; more are selected by what they are.
MOST: Final = 1_000
# One that has not come further for so long does not run: a shard takes seconds, Dataflow minutes to begin.
_STOPPED: Final = timedelta(minutes=15)
_PROGRESS_SECONDS: Final = 2.0
Progress = Callable[[str], None]


def submit(
    connection: Connection,
    selection: Selection,
    *,
    requested_by: str,
    reason: str,
    replay_id: str | None = None,
    dead_letters: Sequence[str] = (),
) -> Replay:
    """Records a replay. One with an id that is known is not recorded again: it is returned as it is.

    Raises ReplayError, also where the known one is of other payments; SearchError, ReplayUnavailable.
    """
    reason = reason.strip()
    check(connection, selection, reason)
    known = replay_id or uuid.uuid4().hex
    if rule := broken_id(known, "replay", "INC-4711"):
        raise ReplayError(rule)
    if known.startswith(BACKFILL):
        raise ReplayError(f"the id of a replay must not begin with {BACKFILL}: those are of `audit backfill start`.")
    with explained():
        store = store_of(connection)
        store.add(known, requested_by, reason, selection, dead_letters)
        found = store.one(known)
    if not _same(found.selection, selection):
        raise ReplayError(
            f"the id of a replay must be a new one, or that of a replay of the same payments: {known} is of others. "
            "Choose another id, or run that one with `audit replay resume`."
        )
    return found


def check(connection: Connection, selection: Selection, reason: str) -> None:
    """Raises ReplayError, or SearchError for an id that no payment can have, where a replay cannot be."""
    named = selection.payments
    if not selection.given or len(named) > MOST:
        raise ReplayError(
            f"a replay must be of 1 to {MOST:,} payments that are named, got {len(named):,}, or of those in a state, a "
            "status, of a customer or a time. Narrow the search."
        )
    check_reason(reason)
    if any(find_cards(str(text)) for text in (*named, selection.customer or "", selection.status or "")):
        raise ReplayError("the payments of a replay must hold no card's number: they are kept.")
    for each in named:
        payment_id(connection.watched.payments, each)
    selection.where(connection.watched.payments, {})


def check_reason(reason: str) -> None:
    """Raises ReplayError where it is too short or too long, or holds a card's number: it is kept."""
    if rule := broken_reason(reason, "replay"):
        raise ReplayError(rule)


def selected(warehouse: Warehouse, wanted: Search) -> Selection:
    """The payments that a search finds, named one by one. Of more than 1,000: its filters, applied to what Spanner has.

    Raises ReplayError for more by a card, which Spanner does not have in that form; WarehouseError.
    """
    found = search(warehouse, replace(wanted, limit=MOST))
    if not found.more:
        return Selection(payments=tuple(each.puid for each in found.payments if not each.deleted_at))
    since = wanted.since
    if not since and not wanted.narrow:
        # Such a search is of a time, also where it does not say so.
        since = (wanted.until or datetime.now(UTC)) - PERIOD
    if wanted.card_tokens or wanted.last_four:
        raise ReplayError(f"the search finds more than {MOST:,} payments, by a card. Narrow it by time.")
    return Selection(
        customer=wanted.customer_id,
        state=wanted.state,
        status=wanted.status,
        since=timestamps.from_datetime(since) if since else None,
        until=timestamps.from_datetime(wanted.until) if wanted.until else None,
    )


def of_dead_letters(connection: Connection, ids: Sequence[str]) -> Selection:
    """The payments of dead letters: by their ids, or by the time of the change where nothing else is kept.

    Raises ReplayError where one is not there, is of another table, or the two kinds are mixed.
    """
    from pipeline.sink.dead_letters import DeadLetterQueue

    payments_table = connection.watched.payments
    queue = DeadLetterQueue(connection.dead_letter_directory)
    found = [letter for each in dict.fromkeys(ids) if (there := queue.find(each)) for letter in [there[1]]]
    if len(found) < len(set(ids)):
        raise ReplayError("every dead letter must be there, and some are not. See `audit dead-letters list`.")
    if any(letter.coordinates.table != payments_table.name for letter in found):
        raise ReplayError(
            f"a replay must be of {payments_table.name}, and a dead letter is of another table. Name the payment that "
            "it is about as well."
        )
    known = tuple(dict.fromkeys(letter.payment for letter in found if letter.payment))
    times = tuple(letter.coordinates.commit_timestamp for letter in found if not letter.payment)
    if known and times:
        raise ReplayError("dead letters with a payment and those without one must be replayed apart.")
    return Selection(payments=known, changed_at=times)


def run(connection: Connection, replay_id: str, progress: Progress = lambda _: None) -> Replay:
    """Runs a replay or backfill to its end, or nothing where it has ended. Raises ReplayError for an unknown id.

    One shard is run here; several are a Beam job, in a separate process or on Dataflow. Also ReplayUnavailable: it
    can be run again then.
    """
    from pipeline.replay.work import Replayer

    with explained():
        replayer = Replayer(settings_of(connection))
        found = replayer.store.one(replay_id)
        if found.finished_at:
            return found
        shards = replayer.plan(replay_id)
        if shards:
            replayer.wait(replay_id, progress)
        if len(shards) > 1:
            _run_job(connection, replayer.store, replay_id, progress)
        elif shards:
            replayer.run_shard(replay_id, shards[0].number)
        else:
            replayer.finish(replay_id)
        return replayer.store.one(replay_id)


def with_reasons(connection: Connection, story: Timeline) -> Timeline:
    """The timeline with who requested each of its replays, and why; as it is for a reader without access to that."""
    known: dict[str, Replay] = {}
    for replay_id in {event.replay for event in story.events if event.replay}:
        with suppress(ReplayError, ReplayUnavailable):
            known[replay_id] = find(connection, replay_id)
    return replace(story, events=tuple(_with_reason(event, known.get(event.replay or "")) for event in story.events))


def _with_reason(event: Event, found: Replay | None) -> Event:
    return replace(event, replayed_by=found.requested_by, replay_reason=found.reason) if found else event


def find(connection: Connection, replay_id: str) -> Replay:
    """A replay. Raises ReplayError, ReplayUnavailable."""
    with explained():
        return store_of(connection).one(replay_id)


def latest(connection: Connection, limit: int = 50) -> list[Replay]:
    """The last replays, the newest first. Raises ReplayUnavailable."""
    with explained():
        return store_of(connection).latest(limit)


def unfinished(connection: Connection) -> list[Replay]:
    """The replays that wait or were ended half-way, the oldest first. Raises ReplayUnavailable."""
    with explained():
        return store_of(connection).latest(1000, unfinished=True)[::-1]


def stopped(connection: Connection) -> list[Replay]:
    """Those that are not finished, and that nobody seems to run, the oldest first. Raises ReplayUnavailable."""
    return [each for each in unfinished(connection) if is_stopped(each)]


def is_stopped(found: Replay) -> bool:
    """Whether it is not finished, and nobody seems to run it."""
    return not found.finished_at and found.moved_at is not None and datetime.now(UTC) - found.moved_at > _STOPPED


def shown_state(found: Replay) -> str:
    """Its state as a list has it: `stopped` for one that waits for a person."""
    return "stopped" if is_stopped(found) else found.state


def resumes(replay_id: str) -> str:
    """The command that runs it to its end."""
    return f"audit {kind_of(replay_id)} resume {replay_id}"


def _run_job(connection: Connection, store: ReplayStore, replay_id: str, progress: Progress) -> None:
    """Runs the shards as a Beam job and waits for its end; on Dataflow, until it is launched."""
    given = {**_launch_options(connection), "replayId": replay_id}
    command = [sys.executable, "-m", "pipeline.jobs.batch", *(f"--{name}={value}" for name, value in given.items())]
    with subprocess.Popen([*command, *connection.replay_beam_args.split()]) as job:
        try:
            while job.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    job.wait(_PROGRESS_SECONDS)
                found = store.one(replay_id)
                progress(f"{found.done:,} of {found.total:,} rows")
        except BaseException:
            job.kill()
            raise
    if job.returncode:
        raise ReplayUnavailable(
            f"the {kind_of(replay_id)}'s job ended with exit code {job.returncode}; its log says why. What it has "
            f"written is there once: run it again with `{resumes(replay_id)}`."
        )


def store_of(connection: Connection) -> ReplayStore:
    """What is recorded, for who submits and looks: where replays run elsewhere, by a database role for that."""
    from pipeline.replay.store import ReplayStore

    return ReplayStore(metadata_database(connection, schema.SUBMITTER_ROLE if connection.replay_job else ""))


def _same(one: Selection, other: Selection) -> bool:
    return {**one.given, "payments": set(one.payments)} == {**other.given, "payments": set(other.payments)}


def settings_of(connection: Connection) -> ReplaySettings:
    from pipeline.replay.settings import ReplaySettings

    return ReplaySettings.of(_launch_options(connection))


def _launch_options(connection: Connection) -> dict[str, str]:
    """What the stack says, as launch options of the batch job."""
    known = connection
    values = {
        "spannerProjectId": known.spanner_project or known.project,
        "spannerInstanceId": known.spanner_instance,
        "spannerDatabase": known.spanner_database,
        "spannerDatabaseRole": known.role(schema.VALIDATION_ROLE),
        "spannerMetadataProjectId": known.project,
        "spannerMetadataInstanceId": known.metadata_instance or known.spanner_instance,
        "spannerMetadataDatabase": known.metadata_database,
        "watchedTables": known.watched_tables,
        "spannerEndpoint": known.spanner_endpoint,
        "maskingKeys": known.masking_keys,
        "newColumns": known.new_columns,
        "paymentStates": known.payment_states,
        "ignoreFields": known.ignore_fields,
        "ignoreTables": known.ignore_tables,
        "bigQueryProjectId": known.project,
        "bigQueryEndpoint": known.big_query_endpoint,
        "bigQueryStorageEndpoint": known.big_query_storage_endpoint,
        "deadLetterQueueDirectory": known.dead_letter_directory,
        "replayMost": known.replay_most,
        "dataBoost": known.replay_data_boost,
        "jobName": known.job_name,
        "designTps": known.design_tps,
        "replayTopic": known.replay_topic,
        "pubSubEndpoint": known.pub_sub_endpoint,
    }
    return {name: value for name, value in values.items() if value}


@contextmanager
def explained() -> Iterator[None]:
    """Raises ReplayUnavailable in place of what the clients raise."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    from pipeline.sink.changelogs import NotReady

    try:
        yield
    except NotReady as error:
        raise ReplayUnavailable(f"the replay cannot go further yet: {error}. Run it again then.") from error
    except (GoogleAPIError, GoogleAuthError) as error:
        raise ReplayUnavailable(
            f"Spanner or BigQuery does not answer, or refuses ({type(error).__name__}). See `audit local status`, and "
            "your roles: a replay reads audit-db, and writes the table `replays` and the changelog. Run it again then."
        ) from error
