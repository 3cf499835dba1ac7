"""Runs `__main__.py` under Pulumi's mocks (`graph/program.py`), and makes its resources on this machine.

The program that goes to the cloud is the program that runs: only the stack's config differs, and the provider behind it
(`local/provision/provider.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.bigquery import minutes_of
from components.config import stack_config
from graph.google import looked_up, server_made
from graph.program import run_program
from local.provision.place import LocalEndpoints, LocalMachine, ProviderError, State
from local.provision.provider import HANDLERS, JOB, LOOKUPS, SCHEDULED_QUERY

Outcome = Literal["created here", "updated", "unchanged", "recorded only"]


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A resource of the program, and what became of it here."""

    type: str
    name: str
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class ScheduledQuery:
    """A query that BigQuery would run on a schedule."""

    name: str
    sql: str
    seconds: int


@dataclass(frozen=True, kw_only=True)
class Provisioned:
    """`job_parameters` are those that the flex template job got; `outputs` are the stack's, as in connection.json."""

    resources: tuple[Resource, ...]
    job_parameters: dict[str, str]
    scheduled: tuple[ScheduledQuery, ...]
    outputs: dict[str, Any]


def provision(
    *,
    stack: str,
    state: Path,
    endpoints: LocalEndpoints,
    on_resource: Callable[[Resource], None],
    config: Mapping[str, Any] | None = None,
) -> Provisioned:
    """Makes every resource of the stack that has a counterpart here. Run again, it only adds what is missing.

    `config` overrides values of the stack's file. Raises SettingsError, SchemaError and ProviderError.
    """
    values = {
        **stack_config(stack),
        "spannerEndpoint": endpoints.spanner,
        "bigQueryEndpoint": endpoints.bigquery,
        "bigQueryStorageEndpoint": endpoints.bigquery_storage,
        **(config or {}),
    }
    on = LocalMachine(project=values["project"], folder=state.absolute(), endpoints=endpoints)
    making = _Making(on, on_resource)
    outputs = run_program(stack, values, making.make, look=making.look)
    return Provisioned(
        resources=tuple(making.resources),
        job_parameters=dict(making.inputs(JOB)["parameters"]),
        scheduled=tuple(
            ScheduledQuery(
                name=each["displayName"], sql=each["params"]["query"], seconds=60 * minutes_of(each["schedule"])
            )
            for each in making.every(SCHEDULED_QUERY)
        ),
        outputs=outputs,
    )


class _Making:
    """Makes resources one at a time: the program registers independent ones at once, from several threads."""

    def __init__(self, on: LocalMachine, on_resource: Callable[[Resource], None]) -> None:
        self.resources: list[Resource] = []
        self._on = on
        self._on_resource = on_resource
        self._inputs: dict[str, list[Mapping[str, Any]]] = {}
        self._lock = threading.Lock()

    def make(self, kind: str, name: str, inputs: Mapping[str, Any]) -> State:
        with self._lock:
            state = server_made(self._on.project, kind, name, inputs)
            outcome = self._really_make(kind, name, inputs)
            if not kind.startswith("pulumi:"):
                resource = Resource(type=kind, name=name, outcome=outcome)
                self.resources.append(resource)
                self._inputs.setdefault(kind, []).append(inputs)
                self._on_resource(resource)
            handler = HANDLERS.get(kind)
            return {**state, **(handler.outputs(self._on, name, inputs) if handler else {})}

    def look(self, function: str, inputs: Mapping[str, Any]) -> State:
        """Answers what the program looks up: here, where it has a counterpart."""
        return LOOKUPS[function](self._on, inputs) if function in LOOKUPS else looked_up(function)

    def inputs(self, kind: str) -> Mapping[str, Any]:
        """The inputs of the only resource of a kind."""
        if kind not in self._inputs:
            raise ProviderError(
                f"the stack has no {kind}: pipelineOwner must be pulumi here. Set it in Pulumi.local.yaml."
            )
        return self._inputs[kind][-1]

    def every(self, kind: str) -> list[Mapping[str, Any]]:
        """The inputs of each resource of a kind."""
        return self._inputs.get(kind, [])

    def _really_make(self, kind: str, name: str, inputs: Mapping[str, Any]) -> Outcome:
        handler = HANDLERS.get(kind)
        if handler is None:
            return "recorded only"
        try:
            there = handler.read(self._on, name, inputs)
            if there is None:
                handler.create(self._on, name, inputs)
                return "created here"
            return "updated" if handler.update(self._on, name, inputs, there) else "unchanged"
        except ProviderError:
            raise
        except Exception as error:
            raise ProviderError(
                f"{kind} {name} could not be made: {error}. "
                "Look at the emulator's log in the state folder; `audit local down`, then `up`, begins from scratch."
            ) from error
