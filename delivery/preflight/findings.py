"""What a check found, and how people and programs are shown it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from rich import box
from rich.table import Table
from rich.text import Text


class State(StrEnum):
    """In the order in which findings are shown. A BLOCKER makes `up` fail, TO_DO may; LATER cannot be checked before
    something is made; NOT_SEEN was not checked, so nobody knows."""

    BLOCKER = "blocker"
    TO_DO = "to do"
    NOT_SEEN = "not seen"
    LATER = "later"
    OK = "ok"


_STYLES: Final = {
    State.BLOCKER: "bold red",
    State.TO_DO: "red",
    State.NOT_SEEN: "yellow",
    State.LATER: "dim",
    State.OK: "green",
}
GOOD, SOMETHING_TO_DO, COULD_NOT_LOOK = 0, 1, 2
DEPLOYER: Final = "who deploys"
OWNER: Final = "the project's owner"
ORGANISATION: Final = "the organisation's policy administrator"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`what` was looked at; `why` it matters; `repair`, a command or a step, is for `who`."""

    check: str
    what: str
    state: State = State.OK
    why: str = ""
    repair: str = ""
    who: str = DEPLOYER


def result(findings: Sequence[Finding]) -> int:
    """The exit code: what is to be done counts more than what was not seen."""
    states = {finding.state for finding in findings}
    if states & {State.BLOCKER, State.TO_DO}:
        return SOMETHING_TO_DO
    return COULD_NOT_LOOK if State.NOT_SEEN in states else GOOD


def blockers(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.state is State.BLOCKER]


def counted(findings: Sequence[Finding]) -> str:
    """How many there are of each state, such as `1 blocker, 12 ok`."""
    counts = {state: sum(finding.state is state for finding in findings) for state in State}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def table(findings: Sequence[Finding]) -> Table:
    """For people: what is to be done comes first, and under each finding why and who repairs it how."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("", "check", "found"):
        shown.add_column(name, overflow="fold")
    for finding in ordered(findings):
        text = Text(finding.what)
        if finding.why:
            text.append(f"\n{finding.why}")
        if finding.repair or finding.state in (State.BLOCKER, State.TO_DO):
            text.append(f"\n→ {finding.who}: {finding.repair}", style="bold")
        shown.add_row(Text(finding.state, style=_STYLES[finding.state]), finding.check, text)
    return shown


def as_json(stack: str, account: str, findings: Sequence[Finding]) -> dict[str, Any]:
    names = {GOOD: "good", SOMETHING_TO_DO: "to do", COULD_NOT_LOOK: "not seen"}
    return {
        "stack": stack,
        "asked_as": account,
        "result": names[result(findings)],
        "findings": [asdict(finding) for finding in ordered(findings)],
    }


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    order = list(State)
    return sorted(findings, key=lambda finding: order.index(finding.state))
