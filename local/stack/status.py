"""What runs on this machine, as `audit local status` shows it."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from local.emulators import launch as emulators
from local.machine.state import FAILED, READY, State, alive, read_json
from local.monitoring.launch import PROMETHEUS, firing
from local.stack.figures import dead_letters, unreadable
from local.stack.supervisor import resume_position
from support import connection as connections
from support.operations.runs import Runs
from support.plain import plain
from support.validation.state import States

RECORDED: Final = "recorded only"


def collect(state: State) -> dict[str, Any]:
    """Phase, processes, endpoints, resources, dead letters and the pipeline's position, as far as they are known."""
    stack = state.read()
    phase = stack.get("phase", "down")
    if not state.supervisor() and phase != FAILED:
        phase = "down"
    processes = {
        name: {key: value for key, value in record.items() if key != "started_at"} | {"running": bool(alive(record))}
        for name, record in stack.get("processes", {}).items()
    }
    found: dict[str, Any] = {
        "phase": phase,
        "error": stack.get("error"),
        "state": str(state.root),
        "processes": processes,
        "restarts": stack.get("restarts", 0),
        "queries": stack.get("queries", {}),
        "resources": stack.get("resources", []),
        "dead_letters": dead_letters(state.dead_letters),
        "unreadable_dead_letters": unreadable(state.dead_letters),
        "pipeline": {},
        "validation": {},
        "operations": [],
        "monitoring": bool(processes.get(PROMETHEUS)),
        "alerts": [],
    }
    if phase == READY:
        found["pipeline"] = _position(state)
        found["validation"] = _validation(state)
        found["operations"] = _operations(state)
        found["alerts"] = [asdict(alert) for alert in firing(state)]
    return found


def _position(state: State) -> dict[str, Any]:
    outputs = read_json(state.connection)
    position = resume_position(emulators.metadata_database(outputs), outputs["jobName"])
    if position is None:
        return {}
    lag = (datetime.datetime.now(datetime.UTC) - position).total_seconds()
    return {"position": position.isoformat(), "lag_seconds": round(lag, 1)}


def _validation(state: State) -> dict[str, Any]:
    """What the last validation came to; nothing before the first."""
    known = States(connections.load(state.connection)).load()
    if known.at is None or known.until is None:
        return {}
    return {
        "at": known.at.isoformat(),
        "runs": known.runs,
        "compared_until": known.until.isoformat(),
        "mismatches": known.mismatches,
    }


def _operations(state: State) -> list[dict[str, Any]]:
    """The last run of each operation that ever ran."""
    runs = Runs(connections.load(state.connection)).last()
    return [{k: plain_or(v) for k, v in asdict(run).items()} for run in runs if run.started_at]


def plain_or(value: Any) -> Any:
    """A value as JSON has it."""
    return plain(value) if isinstance(value, datetime.datetime) else value


def show(found: dict[str, Any]) -> None:
    """Prints it for people."""
    console = Console()
    style = {"ready": "green", "down": "dim", "failed": "red"}.get(found["phase"], "yellow")
    console.print(f"local stack: [{style}]{found['phase']}[/]   state and logs: {found['state']}", soft_wrap=True)
    if found["error"]:
        console.print(found["error"], style="red", soft_wrap=True)
    if found["phase"] in {"down", FAILED}:
        console.print("Start it with `audit local up`, or `make run` with traffic.")
        return
    processes = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("process", "", "pid", "where"):
        processes.add_column(column)
    for name, record in found["processes"].items():
        where = "  ".join(record[key] for key in ("endpoint", "rest", "storage", "url") if key in record)
        running = "[green]running[/]" if record["running"] else "[red]ended[/]"
        processes.add_row(name, running, str(record["pid"] or ""), where)
    console.print(processes)
    _show_pipeline(console, found)
    _show_validation(console, found)
    _show_operations(console, found["operations"])
    _show_alerts(console, found)
    _show_resources(console, found["resources"])


def _show_pipeline(console: Console, found: dict[str, Any]) -> None:
    position, letters = found["pipeline"], found["dead_letters"]
    if position:
        console.print(f"pipeline: resume position {position['position']}, {position['lag_seconds']} s behind now")
    console.print(f"restarts of the pipeline: {found['restarts']}")
    console.print(f"dead letters: {letters['retry']} to retry, {letters['severe']} parked")
    if lines := found["unreadable_dead_letters"]:
        console.print(f"{lines} lines among them are not dead letters: see `audit dead-letters list`", style="yellow")
    for name, last in found["queries"].items():
        how = f"failed: {last['error']}" if "error" in last else f"took {last['seconds']} s"
        console.print(f"last {name}: {last['at']}, {how}", soft_wrap=True)


def _show_validation(console: Console, found: dict[str, Any]) -> None:
    if last := found["validation"]:
        wrong = last["mismatches"]
        console.print(
            f"last validation: {last['at']}, everything before {last['compared_until']}: {wrong} rows wrong",
            style="bold red" if wrong else "",
            soft_wrap=True,
        )


def _show_operations(console: Console, operations: list[dict[str, Any]]) -> None:
    if not operations:
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("operation", "last run", "", "what it said"):
        table.add_column(column, no_wrap=column == "operation", overflow="fold")
    styles = {"failed": "bold red", "found": "yellow"}
    for last in operations:
        outcome = last["outcome"] or "runs"
        style = styles.get(outcome, "")
        table.add_row(last["operation"], str(last["started_at"])[11:19], outcome, last["summary"] or "", style=style)
    console.print(table)


def _show_alerts(console: Console, found: dict[str, Any]) -> None:
    if not found["monitoring"]:
        console.print("alerts: nobody looks; start the stack with --monitoring", style="dim")
    elif not found["alerts"]:
        console.print("alerts: none fires")
    else:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("alert", "severity", "since", "title", "runbook", "notifies"):
            # Names are looked up: they are never cut, and the first is on one line.
            table.add_column(column, no_wrap=column == "alert", overflow="fold")
        for alert in found["alerts"]:
            style = "bold red" if alert["severity"] == "page" else "yellow"
            since = str(alert["since"])[11:19]
            who = "silenced" if alert["silenced"] else ", ".join(alert["notifies"] or ())
            table.add_row(alert["name"], alert["severity"], since, alert["title"], alert["runbook"], who, style=style)
        console.print(table)


def _show_resources(console: Console, resources: list[dict[str, Any]]) -> None:
    running = [r for r in resources if r["outcome"] != RECORDED]
    recorded = [r for r in resources if r["outcome"] == RECORDED]
    for title, some, style in (
        (f"really here ({len(running)})", running, ""),
        (f"recorded only: no counterpart on one machine ({len(recorded)})", recorded, "dim"),
    ):
        console.print(f"\n{title}")
        table = Table.grid(padding=(0, 2))
        for _ in range(3):
            table.add_column(overflow="fold")
        for resource in sorted(some, key=lambda r: (r["type"], r["name"])):
            table.add_row("", resource["type"].rpartition(":")[2], resource["name"], style=style)
        console.print(table)
