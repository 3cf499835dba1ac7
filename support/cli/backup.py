"""`audit backup`."""

from __future__ import annotations

import time
from dataclasses import replace as changed
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

import click

from contract.errors import AuditError
from support.cli.explained import Command, Group
from support.cli.operated import summarise
from support.cli.output import (
    Form,
    NothingFound,
    age,
    cell,
    current_connection,
    formats,
    json_option,
    print_json,
    print_table,
    show,
    wants_json,
)

if TYPE_CHECKING:
    from support.backup.create import Limits
    from support.backup.records import Backup
    from support.connection import Connection

_most_bytes = click.option(
    "--most-bytes", type=click.IntRange(1), help="Bytes that the run may read, instead of 1 TiB; BigQuery bills them."
)


_KEPT: Final = 3


@click.group(cls=Group)
def backup() -> None:
    """Backs the warehouse up, restores it, and tries that it can be restored.

    A backup has a snapshot of each changelog, of the access log and of validation's runs, all as they were at one
    moment. State and lookup are made from the changelogs.

    \b
    Examples:
      audit backup list                  how old the newest is, and what its drill found
      audit backup create                the day's, as the scheduled job makes it
      audit backup drill                 restore the newest, compare it, drop it
      audit backup restore payment_audit.payment_audit_trail_bq
    """


@backup.command(cls=Command)
@click.option("--id", "backup_id", help="Its id; by default the day in UTC. One that is whole is not made again.")
@_most_bytes
@click.option("--every", type=click.FloatRange(1), metavar="SECONDS", help="Make and try one this often, until Ctrl-C.")
@json_option
@click.pass_context
def create(
    ctx: click.Context, backup_id: str | None, most_bytes: int | None, every: float | None, as_json: bool
) -> None:
    """Makes the day's backup: snapshots, checksums of what changed since the last one, and exports of that.

    \b
    Examples:
      audit backup create                      as the scheduled job does it
      audit backup create --id before-INC-4711

    Exit code 1 where a snapshot does not hold what its table held.
    """
    from support.backup.create import create as make

    connection = current_connection(ctx)
    if every:
        if backup_id:
            raise click.UsageError("--every and --id exclude each other: each of its backups has its time as its id.")
        _loop(connection, every)
    made = make(connection, backup_id=backup_id, limits=_limits(connection, most_bytes), progress=_progress)
    if wants_json(as_json):
        print_json(made.to_dict())
    else:
        _show(made)
    good = "" if made.good else "; its snapshots are not good"
    summarise(ctx, f"backup {made.id}: {made.rows:,} rows{good}")
    raise SystemExit(0 if made.good else 1)


@backup.command("list", cls=Command)
@formats
@click.pass_context
def list_(ctx: click.Context, form: Form) -> None:
    """Lists the backups, the newest first: how old, until when, what they hold, and the last drill.

    Exit code 1 where no good one is younger than two days.
    """
    from support.backup.listing import listed

    found = listed(current_connection(ctx))
    show(form, found.to_dict(), found.rows, lambda: _table(found.rows))
    if found.too_old:
        click.echo(found.too_old, err=True)
        raise NothingFound


@backup.command(cls=Command)
@click.argument("backup_id", required=False, metavar="[ID]")
@_most_bytes
@json_option
@click.pass_context
def drill(ctx: click.Context, backup_id: str | None, most_bytes: int | None, as_json: bool) -> None:
    """Tries the newest backup, or one: restores it into a scratch dataset, compares it, and drops that again.

    Rows are counted in every partition. Checksums are compared of the newest partitions and, in turn, of older ones.
    Exit code 1 where something is not as it was recorded.
    """
    from support.backup.drill import drill as try_it

    connection = current_connection(ctx)
    tried = try_it(connection, backup_id=backup_id, limits=_limits(connection, most_bytes), progress=_progress)
    made = tried.drill
    assert made is not None
    if wants_json(as_json):
        print_json({"backup": tried.id, "passed": made.passed, **tried.to_dict()["drill"]})
    else:
        click.echo(
            f"Backup {tried.id}: {made.rows:,} rows counted, {made.partitions:,} of {made.of:,} partitions compared by "
            f"their checksums, {made.bytes_read:,} bytes read."
        )
        for line in (*made.differences, *made.notes):
            click.echo(f"  {line}")
        click.echo("It can be restored, and is what was recorded." if made.passed else "It is not what was recorded.")
    what = "passed" if made.passed else f"{len(made.differences)} differences"
    summarise(ctx, f"backup {tried.id}: {what}")
    raise SystemExit(0 if made.passed else 1)


@backup.command(cls=Command)
@click.argument("table", metavar="DATASET.TABLE")
@click.option("--id", "backup_id", help="Which backup; by default the newest good one.")
@click.option("--into", default="", help="Where to, DATASET.TABLE; by default a new table of the scratch dataset.")
@click.option(
    "--from",
    "source",
    type=click.Choice(["snapshot", "export"]),
    default="snapshot",
    show_default=True,
    help="What of the backup is restored; an export is of the partitions that were exported.",
)
@click.option("--exports", default="", help="Bucket or folder to read the backup from, such as the second region's.")
@click.option("--replace", is_flag=True, help="Write over a table that is there, once what was restored is compared.")
@click.option("--reason", default="", help="Why a table is replaced; it is kept with the backup.")
@_most_bytes
@json_option
@click.pass_context
def restore(
    ctx: click.Context,
    table: str,
    backup_id: str | None,
    into: str,
    source: Literal["snapshot", "export"],
    exports: str,
    replace: bool,
    reason: str,
    most_bytes: int | None,
    as_json: bool,
) -> None:
    """Restores a table of a backup, compares it with what was recorded, and says what is left to do.

    \b
    Examples:
      audit backup restore payment_audit.payment_audit_trail_bq
      audit backup restore payment_audit.audit_logs --id 20261129 --from export
      audit backup restore payment_audit.payment_audit_trail_bq \\
        --into payment_audit.payment_audit_trail_bq --replace --reason INC-4711

    Exit code 1 where it is not what was recorded.
    """
    from support.backup.restore import restore as put_back

    connection = current_connection(ctx)
    done = put_back(
        connection,
        table,
        backup_id=backup_id,
        into=into,
        source=source,
        exports=exports,
        replace=replace,
        reason=reason,
        limits=_limits(connection, most_bytes),
        progress=_progress,
    )
    if wants_json(as_json):
        print_json(done.to_dict())
    else:
        click.echo(
            f"{done.into}: {done.rows:,} rows of backup {done.backup}, as of {cell(done.at)} UTC; {done.partitions:,} "
            f"of {done.of:,} partitions compared, {done.bytes_read:,} bytes read."
        )
        for line in (*done.differences, *done.next_steps):
            click.echo(f"  {line}")
    raise SystemExit(1 if done.differences else 0)


@backup.command(cls=Command)
@click.argument("backup_id", metavar="ID")
@click.confirmation_option(prompt="Delete its snapshots, and what no other backup holds of its exports?")
@click.pass_context
def delete(ctx: click.Context, backup_id: str) -> None:
    """Deletes a backup wholly: snapshots, exports that no other backup has, their copies, and its record."""
    from support.backup.places import delete as remove

    for place in remove(current_connection(ctx), backup_id):
        click.echo(f"{place.kind:<9} {place.where}")


def _loop(connection: Connection, every: float) -> None:
    """Backups with their drills. The newest three are kept."""
    from support.backup.create import create as make
    from support.backup.drill import drill as try_it
    from support.backup.places import delete as remove
    from support.backup.store import Backups

    while True:
        began = time.monotonic()
        try:
            made = make(connection, backup_id=f"{datetime.now(UTC):%Y%m%d-%H%M%S}")
            tried = try_it(connection, backup_id=made.id).drill
            for old in Backups(connection).all()[_KEPT:]:
                remove(connection, old.id)
        except Exception as error:
            # Only an AuditError is sure to quote no row.
            why = str(error) if isinstance(error, AuditError) else type(error).__name__
            click.echo(f"{datetime.now(UTC):%H:%M:%S} no backup: {why}", err=True)
        else:
            result = "passed" if tried and tried.passed else "FAILED"
            click.echo(f"{datetime.now(UTC):%H:%M:%S} backup {made.id}: {made.rows:,} rows, drill {result}")
        time.sleep(max(0.0, every - (time.monotonic() - began)))


def _limits(connection: Connection, most_bytes: int | None) -> Limits:
    from support.backup.create import Limits

    limits = Limits.of(connection)
    return changed(limits, most_bytes=most_bytes) if most_bytes else limits


def _progress(text: str) -> None:
    click.echo(f"{text} …", err=True)


def _show(made: Backup) -> None:
    print_table(
        ["table", "rows", "bytes", "checksum", "partitions", "unchecked", "snapshot"],
        [
            (t.table, f"{t.rows:,}", f"{t.bytes:,}", t.checksum, len(t.partitions), len(t.unchecked), t.snapshot)
            for t in made.tables
        ],
    )
    for line in (*made.problems, *made.notes):
        click.echo(line)
    click.echo(
        f"Backup {made.id}, as of {cell(made.at)} UTC, kept until {cell(made.expires_at)}: {made.rows:,} rows, "
        f"{made.bytes_read:,} bytes read."
    )


def _table(rows: list[dict[str, object]]) -> None:
    print_table(
        ["id", "age", "expires", "rows", "bytes", "good", "drill"],
        [
            (
                row["id"],
                age(timedelta(seconds=float(str(row["age_seconds"])))),
                row["expires_at"],
                f"{row['rows']:,}",
                f"{row['bytes']:,}",
                row["state"],
                _drill(row),
            )
            for row in rows
        ],
    )


def _drill(row: dict[str, object]) -> str:
    at = row["drilled_at"]
    if not isinstance(at, datetime):
        return "never"
    return f"{'passed' if row['drill_passed'] else 'FAILED'} {age(datetime.now(UTC) - at)} ago"
