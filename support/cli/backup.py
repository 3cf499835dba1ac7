"""`audit backup`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from support.cli.explained import Command, Group
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


@click.group(cls=Group)
def backup() -> None:
    """Backs the warehouse up, restores it, and tries that it can be restored.

    A backup has a snapshot of each changelog, of the access log and of validation's runs, all as they were at one
    moment. State and lookup are made from the changelogs.
    """


@backup.command(cls=Command)
@click.option("--id", "backup_id", help="Its id; by default the day in UTC. One that is whole is not made again.")
@_most_bytes
@json_option
@click.pass_context
def create(ctx: click.Context, backup_id: str | None, most_bytes: int | None, as_json: bool) -> None:
    """Makes the day's backup: snapshots, checksums of what changed since the last one, and exports of that.

    \b
    Examples:
      audit backup create                      as the scheduled job does it
      audit backup create --id before-INC-4711

    Exit code 1 where a snapshot does not hold what its table held.
    """
    from support.backup.create import create as make

    connection = current_connection(ctx)
    made = make(connection, backup_id=backup_id, limits=_limits(connection, most_bytes), progress=_progress)
    if wants_json(as_json):
        print_json(made.to_dict())
    else:
        _show(made)
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
    raise SystemExit(0 if made.passed else 1)


def _limits(connection: Connection, most_bytes: int | None) -> Limits:
    from support.backup.create import Limits

    limits = Limits.of(connection)
    return replace(limits, most_bytes=most_bytes) if most_bytes else limits


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
