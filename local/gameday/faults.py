"""The faults of the game days: what is broken, which alerts must fire, and what the runbook does about it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Final

from contract import schema, tables, timestamps
from contract.changes import Coordinates, DeadLetter, Reason
from local.traffic.simulator import COMMIT_TIMESTAMP, PAYMENT_TABLE, Mutation

if TYPE_CHECKING:
    from local.gameday.runner import Runner

# A command of `audit`, as the runbook prints it.
Command = tuple[str, ...]
# The commits that a fault makes, each a list of modifications.
Commits = Iterator[list[Mutation]]
# Does something to the stack, and says what.
Act = Callable[["Runner"], str]

# A Status that no traffic has; the local stack's config gives it a limit of a minute.
STUCK_STATUS: Final = "WAITING_FOR_BANK"
_POISONED: Final = 60
_FAILED: Final = 600
# More than half of the seven days that Spanner keeps its change records.
_FORGOTTEN: Final = timedelta(days=4)
# In a runbook's command: the dead letter in question.
LETTER: Final = "<ID>"
_BACKUP: Final = "game-day"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault. `leads` fires first and is the page to open, `fires` are all that must, `may` what rightly may too.

    `minutes` is how long it may take until all of it fires, `resolves` until none fires. `inject` and `mitigate` are
    commands; what no command does, `breaks` does and `mends` takes back. `slow` is a process that answers only now and
    then, until the mitigation; `letter` is one that was parked. `stack` are options that its stack is started
    with: it then needs a separate one.
    """

    name: str
    title: str
    leads: str
    fires: frozenset[str]
    may: frozenset[str] = frozenset()
    minutes: int = 15
    resolves: int = 20
    inject: tuple[Command, ...] = ()
    commits: Callable[[], Commits] | None = None
    mitigate: tuple[Command, ...] = ()
    fix: Callable[[list[Mutation]], Commits] | None = None
    slow: str = ""
    breaks: Act | None = None
    mends: Act | None = None
    letter: Callable[[], DeadLetter] | None = None
    stack: tuple[str, ...] = ()

    @property
    def runbook(self) -> str:
        return f"runbooks/{self.leads}.md"


def _payment(puid: str, kind: str, status: str, **values: str | None) -> Mutation:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    row = {"PUID": puid, "Action": "GAME_DAY", "Timestamp": now, "Status": status, "UpdatedAt": COMMIT_TIMESTAMP}
    return Mutation(
        table=PAYMENT_TABLE,
        kind="insert" if kind == "INSERT" else "update",
        values={**row, **values},
        mod_type="INSERT" if kind == "INSERT" else "UPDATE",
        dead_letter="CustomerId" in values,
    )


def _stuck() -> Commits:
    yield [_payment(str(uuid.uuid4()), "INSERT", STUCK_STATUS, Region="us-central1")]


def _moved(made: list[Mutation]) -> Commits:
    for puid in {mutation.puid for mutation in made}:
        yield [_payment(puid, "UPDATE", "SETTLED")]


def _failures() -> Commits:
    for _ in range(_FAILED):
        yield [_payment(str(uuid.uuid4()), "INSERT", "FAILED", Region="us-central1")]


def _poison() -> Commits:
    for _ in range(_POISONED):
        # The test number of every card network's documentation, where an identifier has to be.
        yield [_payment(str(uuid.uuid4()), "INSERT", "INITIATED", CustomerId="4111111111111111")]


def _ddl(statement: str) -> Act:
    def run(runner: Runner) -> str:
        runner.change_schema([statement])
        return statement

    return run


def _forgotten() -> DeadLetter:
    at = timestamps.from_datetime(datetime.now(UTC) - _FORGOTTEN)
    stream = next(name for name, tables in schema.change_streams().items() if PAYMENT_TABLE in tables)
    return DeadLetter(
        coordinates=Coordinates(stream, PAYMENT_TABLE, at, uuid.uuid4().hex, "00000000", 0),
        step="write",
        reason=Reason.REJECTED,
        message="A game day: nobody has decided on this dead letter for four days.",
        attempts=5,
        first_failed_at=at,
        last_failed_at=at,
    )


# Arrived, and the probe has seen it: to the probe, a row that goes later is not one that never came.
_CARD: Final = "card 4111111111111111"
_SETTLED: Final = f"{tables.COMMIT_TIMESTAMP} < TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 3 MINUTE)"


def _changelog(runner: Runner) -> str:
    return f"`{runner.connection.project}.{runner.connection.watched.payments.id}`"


def _newest(runner: Runner, where: str) -> str:
    """The change id of a payment's last row; a stack that has just started has none that is old enough."""
    payment = tables.named(runner.connection.watched.payments, "payment")
    last = (
        f"SELECT * FROM {_changelog(runner)} "
        f"QUALIFY ROW_NUMBER() OVER (PARTITION BY {payment} ORDER BY {tables.CHANGE_ID} DESC) = 1"
    )
    while True:
        [row] = runner.query(f"SELECT MAX({tables.CHANGE_ID}) AS id FROM ({last}) WHERE {_SETTLED} AND {where}")
        if row["id"]:
            return str(row["id"])
        time.sleep(1)


def _delete_a_row(runner: Runner) -> str:
    table = _changelog(runner)
    row = _newest(runner, f"{tables.MOD_TYPE} != 'DELETE'")
    runner.query(f"DELETE FROM {table} WHERE {tables.CHANGE_ID} = @id", id=row)
    return f"row {row} is deleted from BigQuery"


def _lose_a_change(runner: Runner) -> str:
    stream = runner.connection.watched.payments.change_stream
    runner.change_schema([f"ALTER CHANGE STREAM {stream} DROP FOR ALL"])
    # Nor does the ledger know it: it never arrives, only what a replay makes of it.
    [made] = runner.commit(_lost(), recorded=False)
    runner.change_schema([f"ALTER CHANGE STREAM {stream} SET FOR {PAYMENT_TABLE}"])
    return f"payment {made.puid} is written while {stream} does not watch its table"


def _lost() -> Commits:
    yield [_payment(str(uuid.uuid4()), "INSERT", "CAPTURED", Region="us-central1")]


def _start_traffic(runner: Runner) -> str:
    runner.audit("local", "start", "traffic")
    return "the traffic is started again"


def _write_a_card(runner: Runner) -> str:
    table = _changelog(runner)
    row = _newest(runner, "ErrorDetails IS NULL")
    runner.query(f"UPDATE {table} SET ErrorDetails = '{_CARD}' WHERE {tables.CHANGE_ID} = @id", id=row)
    return f"row {row} of BigQuery holds a card number"


def _purge_the_card(runner: Runner) -> str:
    table = _changelog(runner)
    runner.query(f"UPDATE {table} SET ErrorDetails = NULL WHERE ErrorDetails = '{_CARD}'")
    return "it is purged: the column is NULL in the row, as in Spanner"


def _alter_a_snapshot(runner: Runner) -> str:
    altered = runner.alter_snapshot(_BACKUP)
    runner.audit("backup", "drill", _BACKUP)
    return f"the snapshot {altered} is another one, with another region in every row"


_OUTAGE: Final = frozenset({"AuditPaymentsNotAudited", "AuditThroughputStalled"})
_LATE: Final = frozenset({"AuditLatencyFastBurn", "AuditThroughputBurn", "AuditThroughputDeficit", *_OUTAGE})
_DEAD: Final = frozenset({"CardNumberFound", "AuditDlqGrowth", "AuditLatencyFastBurn", "AuditThroughputBurn"})

FAULTS: Final = (
    Fault(
        name="pipeline-stopped",
        title="the pipeline is gone, and nothing starts it again",
        leads="AuditThroughputBurn",
        fires=frozenset({"AuditThroughputBurn", "AuditPaymentsNotAudited"}),
        may=_LATE,
        inject=(("local", "stop", "pipeline"),),
        mitigate=(("local", "start", "pipeline"),),
    ),
    Fault(
        name="pipeline-stalled",
        title="the pipeline hangs: it is there, and does nothing",
        leads="AuditThroughputBurn",
        fires=frozenset({"AuditThroughputBurn", "AuditThroughputDeficit", *_OUTAGE}),
        may=_LATE,
        inject=(("local", "freeze", "pipeline"),),
        # A job that hangs is replaced, not woken.
        mitigate=(("local", "stop", "pipeline"), ("local", "start", "pipeline")),
    ),
    Fault(
        name="bigquery-down",
        title="BigQuery does not answer",
        leads="AuditThroughputBurn",
        fires=frozenset({"AuditThroughputBurn", "AuditPaymentsNotAudited"}),
        may=_LATE,
        inject=(("local", "freeze", "bigquery-emulator"),),
        # Google has to fix it: the pipeline waits and continues.
        mitigate=(("local", "thaw", "bigquery-emulator"),),
    ),
    Fault(
        name="slow-sink",
        title="BigQuery answers now and then: everything arrives, and late",
        leads="AuditLatencyFastBurn",
        fires=frozenset({"AuditLatencyFastBurn"}),
        may=frozenset({"AuditThroughputBurn", "AuditThroughputDeficit"}),
        minutes=25,
        slow="bigquery-emulator",
        mitigate=(("local", "thaw", "bigquery-emulator"),),
    ),
    Fault(
        name="column-added",
        title="a service adds a column that nobody has classified",
        leads="UnclassifiedColumn",
        fires=frozenset({"UnclassifiedColumn"}),
        breaks=_ddl(f"ALTER TABLE {PAYMENT_TABLE} ADD COLUMN GameDay STRING(20)"),
        # Nobody wrote to it yet: its service takes it back, and classifies it first.
        mends=_ddl(f"ALTER TABLE {PAYMENT_TABLE} DROP COLUMN GameDay"),
    ),
    Fault(
        name="payment-stuck",
        title="a payment stays in a Status for too long",
        leads="PaymentsStuckInState",
        fires=frozenset({"PaymentsStuckInState"}),
        commits=_stuck,
        # Its service moves it on.
        fix=_moved,
    ),
    Fault(
        name="probe-stopped",
        title="nobody measures any more",
        leads="AuditProbeSilent",
        fires=frozenset({"AuditProbeSilent"}),
        inject=(("local", "stop", "probe"),),
        mitigate=(("local", "start", "probe"),),
    ),
    Fault(
        name="payments-fail",
        title="a burst of failed payments",
        leads="PaymentFailureRateHigh",
        fires=frozenset({"PaymentFailureRateHigh"}),
        may=frozenset({"AuditLatencyFastBurn"}),
        minutes=10,
        commits=_failures,
    ),
    Fault(
        name="poison-records",
        title="changes that cannot be audited: a card number where an identifier has to be",
        leads="AuditRecordFailureRateHigh",
        fires=frozenset({"AuditRecordFailureRateHigh", "CardNumberFound", "AuditDlqGrowth"}),
        may=_DEAD,
        commits=_poison,
        # CardNumberFound looks at the last hour: security comes even when it was only one, and is over.
        resolves=75,
    ),
    Fault(
        name="letter-forgotten",
        title="a dead letter of four days ago, on which nobody has decided",
        leads="AuditRetentionClock",
        fires=frozenset({"AuditRetentionClock", "AuditDlqUnresolved"}),
        letter=_forgotten,
        mitigate=(("dead-letters", "discard", LETTER),),
    ),
    Fault(
        name="load-above-design",
        title="more changes than the service was built for",
        leads="AuditLoadAboveDesign",
        fires=frozenset({"AuditLoadAboveDesign"}),
        minutes=30,
        # The fault is the traffic itself, above a design load that this machine can exceed. It ends with the traffic.
        stack=("--design-tps=2",),
        mitigate=(("local", "stop", "traffic"),),
    ),
    Fault(
        name="row-deleted",
        title="a row is deleted from BigQuery behind its back",
        leads="AuditValidationMismatch",
        fires=frozenset({"AuditValidationMismatch"}),
        breaks=_delete_a_row,
        mitigate=(("validate", "--repair"),),
    ),
    Fault(
        name="row-missing",
        title="a change never was in the change stream, and is repaired by replay",
        leads="AuditValidationMismatch",
        fires=frozenset({"AuditValidationMismatch"}),
        # No change of the traffic may be lost as well.
        inject=(("local", "stop", "traffic"),),
        breaks=_lose_a_change,
        mitigate=(("validate", "--repair"),),
        mends=_start_traffic,
    ),
    Fault(
        name="snapshot-altered",
        title="a snapshot of a backup is replaced by another one, and the drill finds it",
        leads="AuditBackupDrillFailed",
        fires=frozenset({"AuditBackupDrillFailed"}),
        inject=(("backup", "create", "--id", _BACKUP),),
        breaks=_alter_a_snapshot,
        mitigate=(("backup", "create", "--id", "after-the-drill"), ("backup", "drill", "after-the-drill")),
    ),
    Fault(
        name="card-in-column",
        title="a card number is written into a column of BigQuery behind its back",
        leads="CardNumberFound",
        fires=frozenset({"CardNumberFound", "AuditValidationMismatch"}),
        breaks=_write_a_card,
        mends=_purge_the_card,
        # CardNumberFound looks at the last hour. With a fourth of the traffic, which all of that hour would grow by.
        resolves=75,
        stack=("--tps=1",),
    ),
)


def names() -> tuple[str, ...]:
    """Every fault, in the order of the list."""
    return tuple(fault.name for fault in FAULTS)


def named(name: str) -> Fault:
    """A fault by its name."""
    return next(fault for fault in FAULTS if fault.name == name)


def expected() -> frozenset[str]:
    """Every alert that some game day must see fire."""
    return frozenset(chain.from_iterable(fault.fires for fault in FAULTS))
