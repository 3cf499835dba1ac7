"""What a run of Pulumi changes, from its events: a list that people and pipelines read alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from guardrails.stores import RETAINED, holds_data

# What Pulumi calls the steps of one replacement.
_REPLACING: Final = frozenset({"replace", "create-replacement", "delete-replaced", "import-replacement"})
_NOTHING: Final = frozenset({"same", "read", "discard", "refresh", "remove-pending-replace"})
# How Google answers to a name that is taken.
_TAKEN: Final = re.compile(r"\b409\b|already exists|ALREADY_EXISTS", re.I)
# The dangerous first.
ORDER: Final = ("replace", "delete", "update", "create", "import")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One resource's change. `why` names the inputs that change; `store` says that data is in what goes away."""

    op: str
    type: str
    name: str
    urn: str
    why: tuple[str, ...] = ()
    store: bool = False

    @property
    def kind(self) -> str:
        return self.type.rpartition(":")[2]

    @property
    def loses_data(self) -> bool:
        return self.store and self.op in ("replace", "delete")

    def as_json(self) -> dict[str, Any]:
        return {
            "op": self.op,
            "type": self.type,
            "name": self.name,
            "why": list(self.why),
            "losesData": self.loses_data,
        }


@dataclass
class Run:
    """Gathers a run's events: `hear` takes each. `errors` are what the engine, a provider or a rule said.

    `kept` are the names of what Google kept of a stack that was destroyed, and what could therefore not be made. With
    `drift` the run is a refresh, whose steps report only at their end what they found.
    """

    drift: bool = False
    changes: dict[str, Change] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    result: Any = None

    def hear(self, event: Any) -> Change | None:
        """The change that this event begins, if it begins one."""
        if (diagnostic := event.diagnostic_event) and diagnostic.severity == "error":
            self._error(diagnostic.message.strip())
            if diagnostic.urn and _TAKEN.search(diagnostic.message) and _kind_of(diagnostic.urn) in RETAINED:
                self.kept.append(_name_of(diagnostic.urn))
        if (policy := event.policy_event) and policy.enforcement_level == "mandatory":
            self._error(f"{policy.policy_name}: {policy.message.strip()}")
        step = event.res_outputs_event if self.drift else event.resource_pre_event
        if step and (change := change_of(step.metadata)):
            before = self.changes.get(change.urn)
            # A replacement is several steps, and not each of them says why.
            self.changes[change.urn] = change if change.why or not before else replace(change, why=before.why)
            return change if before is None else None
        return None

    def found(self) -> list[Change]:
        """Every change, the dangerous first."""
        return sorted(self.changes.values(), key=lambda change: (ORDER.index(change.op), change.type, change.name))

    def _error(self, message: str) -> None:
        # What was under way when something else failed says only that.
        if message and message not in self.errors and "context canceled" not in message:
            self.errors.append(message)


def change_of(step: Any) -> Change | None:
    """The change that a step of the engine makes to a resource of the cloud; None where it makes none."""
    op = "replace" if step.op.value in _REPLACING else step.op.value
    if op in _NOTHING or step.type.startswith("pulumi:pulumi:") or not _custom(step):
        return None
    inputs = (step.old.inputs if step.old else None) or {}
    name = _name_of(step.urn)
    why = tuple(sorted(step.keys or step.diffs or ())) if op in ("replace", "update") else ()
    store = holds_data(step.type, name, inputs)
    return Change(op=op, type=step.type, name=name, urn=step.urn, why=why, store=store)


def _custom(step: Any) -> bool:
    state = step.new or step.old
    return bool(state and state.custom)


def _kind_of(urn: str) -> str:
    """The resource's own type; those of its parents come before it."""
    return urn.split("::")[2].rpartition("$")[2]


def _name_of(urn: str) -> str:
    return urn.split("::", 3)[3]


def retained(changes: Iterable[Change]) -> list[Change]:
    """What was deleted here and stays in Google Cloud."""
    return [change for change in changes if change.op == "delete" and change.type in RETAINED]


def counts(changes: Iterable[Change]) -> dict[str, int]:
    found = Counter(change.op for change in changes)
    return {op: found[op] for op in ORDER if found[op]}


def summary(changes: list[Change]) -> list[str]:
    """For people: replacements and deletions each on a line, with why; many of the rest by kind."""
    lines = []
    for op in ORDER:
        of_op = [change for change in changes if change.op == op]
        if not of_op:
            continue
        lines.append(f"{op} {len(of_op)}")
        if op in ("replace", "delete", "update") or len(of_op) <= _FEW:
            lines += [f"  {_line(change)}" for change in of_op]
        else:
            kinds = Counter(change.kind for change in of_op)
            lines.append("  " + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())))
    return lines


_FEW: Final = 8


def _line(change: Change) -> str:
    why = f" ({', '.join(change.why)})" if change.why else ""
    return f"{change.kind} {change.name}{why}{'  ← its data is lost' if change.loses_data else ''}"
