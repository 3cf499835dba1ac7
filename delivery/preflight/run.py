"""Runs every check at once, and collects what they found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Final

from components import naming
from components.config import stack_config
from delivery.preflight import access, names, policies, quotas, source
from delivery.preflight.findings import OWNER, Finding, State
from delivery.preflight.google import Google, NotSeen
from delivery.preflight.target import Target, not_seen
from graph.resources import graph_of

Check = Callable[[Target], Iterator[Finding]]

CHECKS: Final[Mapping[str, Check]] = {
    "APIs": access.apis,
    "permissions": access.permissions,
    "accounts": access.accounts,
    "quotas": quotas.quotas,
    "policies": policies.policies,
    "names": names.names,
    "images": names.images,
    "keys": names.keys,
    "existing": names.existing,
    "columns": source.columns,
}
_AT_ONCE: Final = 8


def target_of(stack: str, google: Google) -> Target:
    """The stack of that name, as its file has it. Raises AuditError for a config that the program refuses."""
    config = stack_config(stack)
    pinned = {key: config[key] for key in ("image", "consoleImage") if config.get(key)}
    return Target(google=google, graph=graph_of(stack, pinned), pinned=pinned)


def preflight(target: Target, report: Callable[[str], None] = lambda check: None) -> list[Finding]:
    """Everything that was found, in the order of the checks. `report` gets the name of each check as it ends."""
    try:
        number = target.number
    except NotSeen as error:
        deployer = naming.account(naming.DEPLOYER, target.project)
        found = not_seen("project", target.project, error)
        return [replace(found, repair=found.repair.replace("{deployer}", deployer))]
    if not number:
        why = f"{target.project} does not exist, or is being deleted: the stack is made in this project"
        repair = "set payment-audit:project in the stack's file, or create the project with billing"
        return [Finding(check="project", what=target.project, state=State.BLOCKER, why=why, repair=repair, who=OWNER)]
    ended: dict[str, list[Finding]] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        running = {pool.submit(_run, name, check, target): name for name, check in CHECKS.items()}
        for done in as_completed(running):
            ended[running[done]] = done.result()
            report(running[done])
    return [finding for name in CHECKS for finding in ended[name]]


def _run(name: str, check: Check, target: Target) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check(target))
    except NotSeen as error:
        found.append(not_seen(name, name, error))
    except (KeyError, TypeError, ValueError) as error:
        # `up` runs this: what Google answers in another form keeps nobody from a deployment.
        why = f"Google's answer is not as its page has it ({type(error).__name__}: {error})"
        found.append(Finding(check=name, what=name, state=State.NOT_SEEN, why=why))
    return found
