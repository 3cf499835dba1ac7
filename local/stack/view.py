"""What `make run` shows: a live picture on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from contract import payments, tables
from contract.watched import Meaning, WatchedTable, WatchedTables
from local.emulators import launch as emulators
from local.machine.state import State, alive, read_json
from local.stack.figures import Figures, Latency, dead_letters
from local.stack.supervisor import PIPELINE, resume_position

_BARS: Final = " ▁▂▃▄▅▆▇█"
_PLAIN_SECONDS: Final = 5
_STATE_STYLES: Final = {payments.INITIATED: "yellow", payments.PROCESSED: "green", payments.FAILED: "red"}
_FLOW_COLUMNS: Final[tuple[JustifyMethod, ...]] = ("left", "right", "right", "left")
_RECENT_ROWS: Final = 8
# A query costs the BigQuery emulator much: the pause after one is this many times what it took.
_QUERY_PAUSE: Final = 15


_SHOWN: Final[tuple[Meaning, ...]] = ("payment", "region", "amount", "currency", "status")


def _column(payments: WatchedTable, meaning: Meaning) -> str:
    name = tables.named(payments, meaning)
    return f"`{name}`" if name else "NULL"


@dataclass
class Glimpse:
    """What can only be asked of the databases: it is asked in the background, now and then."""

    state: State
    payment_states: dict[str, int] = field(default_factory=dict)
    recent: list[dict[str, Any]] = field(default_factory=list)
    lag_seconds: float | None = None

    def follow(self, ended: threading.Event) -> None:
        """Asks until `ended`."""
        from pipeline.clients import bigquery_client

        connection = read_json(self.state.connection)
        if not connection:
            return
        client = bigquery_client(connection["bigQueryEndpoint"], connection["project"])
        metadata = emulators.metadata_database(connection)
        pause = 2.0
        while not ended.wait(pause):
            began = time.monotonic()
            try:
                self._ask(client, metadata, connection)
            except Exception:  # noqa: S112 - a picture may be late; what is wrong is in the logs and in `check`
                continue
            finally:
                pause = max(3.0, (time.monotonic() - began) * _QUERY_PAUSE)

    def _ask(self, client: Any, metadata: Any, connection: dict[str, Any]) -> None:
        if position := resume_position(metadata, connection["jobName"]):
            self.lag_seconds = (datetime.datetime.now(datetime.UTC) - position).total_seconds()
        watched = WatchedTables.from_json(connection["watchedTables"])
        current, payments = f"`{connection['project']}.{watched.views_dataset}.payment_current`", watched.payments
        columns = ", ".join(f"{_column(payments, meaning)} AS {meaning}" for meaning in _SHOWN)
        recent = f"SELECT {columns}, payment_state, {tables.COMMIT_TIMESTAMP} AS at"
        rows = client.query(f"{recent} FROM {current} ORDER BY at DESC LIMIT {_RECENT_ROWS}", timeout=20).result(20)
        self.recent = [dict(row) for row in rows]
        states = f"SELECT COALESCE(payment_state, 'unknown') AS state, COUNT(*) AS n FROM {current} GROUP BY state"
        self.payment_states = {row["state"]: row["n"] for row in client.query(states, timeout=20).result(20)}


class View:
    """Shows the stack until `done()` says so. Raises nothing when the databases are slow or away."""

    def __init__(self, state: State, console: Console | None = None) -> None:
        self.state = state
        self.console = console or Console()
        self.figures = Figures(state.ledger, state.arrivals)
        self.glimpse = Glimpse(state)
        self._began = time.time()

    def show(self, done: Callable[[], bool]) -> None:
        ended = threading.Event()
        threading.Thread(target=self.glimpse.follow, args=(ended,), daemon=True).start()
        try:
            if self.console.is_terminal:
                self._live(done)
            else:
                self._plain(done)
        finally:
            ended.set()

    def _live(self, done: Callable[[], bool]) -> None:
        with Live(console=self.console, auto_refresh=False) as live:
            while True:
                ending = done()
                live.update(self.picture(), refresh=True)
                if ending:
                    return
                time.sleep(0.5)

    def _plain(self, done: Callable[[], bool]) -> None:
        printed = time.monotonic()
        while not done():
            time.sleep(0.25)
            if time.monotonic() - printed >= _PLAIN_SECONDS:
                printed = time.monotonic()
                self.console.print(self.line(), soft_wrap=True)
        self.console.print(self.line(), soft_wrap=True)

    # ------------------------------------------------------------------ plain

    def line(self) -> Text:
        """One line with the figures of now."""
        figures, now = self._updated()
        letters = dead_letters(self.state.dead_letters)
        return Text(
            f"{self._clock(now)}  committed {figures.committed:,} "
            f"({figures.rate(figures.per_second_committed, now=now):.0f}/s)  "
            f"arrived {figures.arrived:,} ({figures.rate(figures.per_second_arrived, now=now):.0f}/s)  "
            f"{_latency(figures.latency(now=now))}  dead letters {letters['retry']}+{letters['severe']}"
        )

    # ------------------------------------------------------------------ live

    def picture(self) -> RenderableType:
        """The whole picture of now."""
        figures, now = self._updated()
        flow = Table.grid(padding=(0, 2))
        for justify in _FLOW_COLUMNS:
            flow.add_column(justify=justify)
        for name, total, per_second in (
            ("committed to Spanner", figures.committed, figures.per_second_committed),
            ("searchable in BigQuery", figures.arrived, figures.per_second_arrived),
        ):
            rate = figures.rate(per_second, now=now)
            flow.add_row(name, f"[bold]{total:,}[/]", f"{rate:.0f}/s", _spark(figures.history(per_second, now=now)))
        flow.add_row("under way", f"{max(0, figures.in_flight):,}", "", "")
        parts: list[RenderableType] = [flow, Text(), self._facts(figures, now)]
        if self.glimpse.recent:
            parts += [Text(), self._recent()]
        title = f"[bold]payment audit[/]  {self._clock(now)}  {self._pipeline()}"
        return Panel(Group(*parts), title=title, title_align="left", border_style="dim")

    def _facts(self, figures: Figures, now: float) -> Table:
        facts = Table.grid(padding=(0, 2))
        facts.add_row("latency, last 10 s", _latency(figures.latency(now=now)))
        lag = self.glimpse.lag_seconds
        facts.add_row("resume position", f"{lag:.1f} s behind now" if lag is not None else "…")
        rows = "   ".join(f"{table} [bold]{rows:,}[/]" for table, rows in sorted(figures.rows.items()))
        facts.add_row("rows", rows)
        letters = dead_letters(self.state.dead_letters)
        facts.add_row("dead letters", f"{letters['retry']} to retry, {letters['severe']} parked")
        states = "   ".join(
            f"[{_STATE_STYLES.get(state, 'dim')}]{state}[/] {count:,}"
            for state, count in sorted(self.glimpse.payment_states.items())
        )
        facts.add_row("payments", states or "…")
        return facts

    def _recent(self) -> Table:
        recent = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("payment", "region", "amount", "status", "state", "committed"):
            recent.add_column(column, justify="right" if column == "amount" else "left")
        for row in self.glimpse.recent:
            state = row["payment_state"] or ""
            amount = f"{row['amount']:,.2f} {row['currency'] or ''}" if row["amount"] is not None else ""
            style = _STATE_STYLES.get(state, "dim")
            at = f"{row['at']:%H:%M:%S}"
            cells = (str(row["payment"]), row["region"] or "", amount, row["status"] or "", f"[{style}]{state}[/]", at)
            recent.add_row(*cells)
        return recent

    def _pipeline(self) -> str:
        stack = self.state.read()
        running = alive(stack.get("processes", {}).get(PIPELINE) or {})
        restarts = f", restarted {n}×" if (n := stack.get("restarts")) else ""
        return f"[green]● pipeline running{restarts}[/]" if running else f"[red]● pipeline starting{restarts}[/]"

    def _updated(self) -> tuple[Figures, float]:
        self.figures.update()
        return self.figures, time.time()

    def _clock(self, now: float) -> str:
        minutes, seconds = divmod(int(now - self._began), 60)
        return f"{minutes:02d}:{seconds:02d}"


def _latency(latency: Latency | None) -> str:
    if latency is None:
        return "p50 … p95 … p99 …"
    return f"p50 {latency.p50:,} ms  p95 {latency.p95:,} ms  p99 {latency.p99:,} ms"


def _spark(values: list[int]) -> str:
    top = max([*values, 1])
    return "".join(_BARS[-(-value * (len(_BARS) - 1) // top)] for value in values)
