"""`audit probe`."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import click

from support.cli.explained import Command
from support.cli.output import current_connection, json_option, print_json, print_table, wants_json
from support.connection import Connection

# A little after the minute: the window that is looked at ended 60 to 90 seconds ago.
_OFFSET_SECONDS: Final = 5
# What is older says nothing about now. A probe that fails must look silent, not as if all were well.
_SHOWN_FOR: Final = 2.0


@click.command(cls=Command)
@click.option("--once", is_flag=True, help="One run.  [default]")
@click.option("--every", type=click.FloatRange(1), metavar="SECONDS", help="Seconds between two runs, until Ctrl-C.")
@click.option("--write", is_flag=True, help="Write the series to Cloud Monitoring.")
@click.option("--listen", type=click.IntRange(1, 65535), metavar="PORT", help="Show them to a Prometheus here.")
@json_option
@click.pass_context
def probe(ctx: click.Context, once: bool, every: float | None, write: bool, listen: int | None, as_json: bool) -> None:
    """Compare what Spanner committed with what BigQuery holds, and measure how late it is.

    It looks at the minutes that ended at least a minute ago and that no run has looked at, and again at what has not
    arrived yet. The first run only notes where to begin. Run one probe per stack.

    \b
    Examples:
      audit probe                       what a run finds, as a table
      audit probe --once --write        as the scheduled job in the cloud does it
      audit probe --every 60 --listen 9100
    """
    if once and every:
        raise click.UsageError("--once and --every exclude each other.")
    if listen and not every:
        raise click.UsageError("--listen needs --every: who looks must find something.")
    from probe.measure import Probe

    connection = current_connection(ctx)
    if write and connection.local:
        raise click.UsageError("--write is for a stack in the cloud; here, Prometheus reads --listen.")
    measuring = Probe(connection)
    if every is None:
        _explained(lambda: _report(_run(measuring, connection, write=write), as_json=as_json, as_line=write))
        return
    shown = _Shown(connection, every * _SHOWN_FOR)
    if listen:
        _serve(shown, listen)
    wait = 0.0
    while True:
        time.sleep(wait)
        wait = every - (time.time() - _OFFSET_SECONDS) % every
        try:
            measurement = _run(measuring, connection, write=write)
        except Exception as error:
            # The next run catches up.
            click.echo(f"{datetime.now(UTC):%H:%M:%S} nothing measured: {type(error).__name__}: {error}", err=True)
        else:
            shown.show(measurement)
            click.echo(_line(measurement))


def _run(measuring: Any, connection: Connection, *, write: bool) -> Any:
    measurement = measuring.run(datetime.now(UTC))
    if write:
        from probe import series

        series.write(measurement, connection)
    return measurement


def _explained(work: Any) -> None:
    from google.api_core.exceptions import GoogleAPICallError, RetryError

    from probe.state import ProbeError

    try:
        work()
    except (GoogleAPICallError, RetryError) as error:
        raise ProbeError(
            f"Spanner or Cloud Monitoring does not answer ({type(error).__name__}). In the cloud, look at the roles of "
            "the probe's account; here, at `audit local status`."
        ) from error


def _line(measurement: Any) -> str:
    totals = measurement.totals
    line = (
        f"{measurement.at:%H:%M:%S} {len(measurement.windows)} windows: {totals.committed} committed, "
        f"{totals.queryable} queryable, {measurement.waiting} waiting, oldest unaudited "
        f"{measurement.oldest_unaudited_seconds:.0f} s, {sum(measurement.dead_letters.values())} dead letters, "
        f"{sum(measurement.stuck.values())} stuck, {measurement.bytes_read} bytes read"
    )
    return "\n  ".join([line, *measurement.notes])


def _report(measurement: Any, *, as_json: bool, as_line: bool) -> None:
    from dataclasses import asdict

    from contract.metrics import LATENCY_BUCKETS, LATENCY_SECONDS

    if as_line and not as_json:
        # A scheduled run: its log has a line a minute.
        click.echo(_line(measurement))
        return
    if wants_json(as_json):
        print_json(asdict(measurement))
        return
    totals = measurement.totals
    in_time = sum(n for bound, n in zip(LATENCY_BUCKETS, totals.latency, strict=False) if bound <= LATENCY_SECONDS)
    windows = ", ".join(f"{span.start:%H:%M:%S} to {span.end:%H:%M:%S}" for span in measurement.windows)
    rows = [
        ("windows looked at", windows or "none"),
        ("committed since the first run", f"{totals.committed:,}"),
        ("of them queryable", f"{totals.queryable:,}"),
        ("of them late", f"{sum(totals.latency) - in_time:,}"),
        ("waiting now", f"{measurement.waiting:,}"),
        ("oldest unaudited", f"{measurement.oldest_unaudited_seconds:.0f} s"),
        ("open dead letters", f"{sum(measurement.dead_letters.values()):,}"),
        ("stuck payments", ", ".join(f"{s} {n:,}" for s, n in measurement.stuck.items() if n) or "none"),
        ("rows that validation found wrong", f"{measurement.mismatches:,}"),
        ("age of the newest good backup", f"{measurement.backup_age_seconds / 3600:,.1f} h"),
        ("unclassified columns", f"{measurement.unclassified_columns}"),
        ("BigQuery read", f"{measurement.bytes_read:,} bytes"),
    ]
    print_table(["what", "now"], rows)
    for note in measurement.notes:
        click.echo(note)


class _Shown:
    """The last measurement, as long as it is new."""

    def __init__(self, connection: Connection, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self._lock = threading.Lock()
        self._last: tuple[float, Any] | None = None

    def show(self, measurement: Any) -> None:
        with self._lock:
            self._last = (time.monotonic(), measurement)

    def text(self) -> bytes:
        from probe import series

        with self._lock:
            if self._last is None or time.monotonic() - self._last[0] > self._seconds:
                return b""
            return series.exposition(self._last[1], self._connection)


def _serve(shown: _Shown, port: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = shown.text()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Prometheus asks every few seconds."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
