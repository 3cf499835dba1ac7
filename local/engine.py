"""Runs `__main__.py` in this process, with Pulumi's mocks in place of its engine, and makes its resources here.

The program that goes to the cloud is the program that runs: only the stack's config differs, and the provider behind it
(`local/provider.py`). Each run has a context of its own, so several stacks can be run one after the other.
"""

from __future__ import annotations

import asyncio
import json
import runpy
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pulumi
import yaml
from pulumi.runtime import mocks, settings
from pulumi.runtime.stack import run_pulumi_func

from local.machine import Here, LocalEndpoints, ProviderError, State
from local.provider import HANDLERS, JOB, SCHEDULED_QUERY, server_made

ROOT: Final = Path(__file__).parent.parent
Outcome = Literal["created here", "updated", "unchanged", "recorded only"]


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A resource of the program, and what became of it here."""

    type: str
    name: str
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class Provisioned:
    """`job_parameters` are those that the flex template job got; `outputs` are the stack's, as in connection.json."""

    resources: tuple[Resource, ...]
    job_parameters: dict[str, str]
    merge_sql: str
    merge_seconds: int
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
    here = Here(project=values["project"], folder=state.absolute(), endpoints=endpoints)
    making = _Making(here, on_resource)
    outputs = run_program(stack, values, making.make)
    return Provisioned(
        resources=tuple(making.resources),
        job_parameters=dict(making.inputs(JOB)["parameters"]),
        merge_sql=making.inputs(SCHEDULED_QUERY)["params"]["query"],
        merge_seconds=60 * int(making.inputs(SCHEDULED_QUERY)["schedule"].split()[1]),
        outputs=outputs,
    )


class _Making:
    """Makes resources one at a time: the program registers independent ones at once, from several threads."""

    def __init__(self, here: Here, on_resource: Callable[[Resource], None]) -> None:
        self.resources: list[Resource] = []
        self._here = here
        self._on_resource = on_resource
        self._inputs: dict[str, Mapping[str, Any]] = {}
        self._lock = threading.Lock()

    def make(self, kind: str, name: str, inputs: Mapping[str, Any]) -> State:
        with self._lock:
            state = server_made(self._here.project, kind, name, inputs)
            outcome = self._really_make(kind, name, inputs)
            if not kind.startswith("pulumi:"):
                resource = Resource(type=kind, name=name, outcome=outcome)
                self.resources.append(resource)
                self._inputs[kind] = inputs
                self._on_resource(resource)
            handler = HANDLERS.get(kind)
            return {**state, **(handler.outputs(self._here, name, inputs) if handler else {})}

    def inputs(self, kind: str) -> Mapping[str, Any]:
        """The inputs of the only resource of a kind."""
        if kind not in self._inputs:
            raise ProviderError(
                f"the stack has no {kind}: pipelineOwner must be pulumi here. Set it in Pulumi.local.yaml."
            )
        return self._inputs[kind]

    def _really_make(self, kind: str, name: str, inputs: Mapping[str, Any]) -> Outcome:
        handler = HANDLERS.get(kind)
        if handler is None:
            return "recorded only"
        try:
            there = handler.read(self._here, name, inputs)
            if there is None:
                handler.create(self._here, name, inputs)
                return "created here"
            return "updated" if handler.update(self._here, name, inputs, there) else "unchanged"
        except ProviderError:
            raise
        except Exception as error:
            raise ProviderError(
                f"{kind} {name} could not be made: {error}. "
                "Look at the emulator's log in the state folder; `audit local down`, then `up`, begins anew."
            ) from error


def stack_config(stack: str) -> dict[str, Any]:
    """A stack's values by key: the defaults of Pulumi.yaml, and the stack's own file over them."""
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
    declared = project["config"]
    values = {key: value["default"] for key, value in declared.items() if "default" in value}
    file = ROOT / f"Pulumi.{stack}.yaml"
    for key, value in yaml.safe_load(file.read_text())["config"].items():
        name = key.removeprefix(f"{project['name']}:")
        if name not in declared:
            raise ProviderError(
                f"{file.name}: {key} is not declared in Pulumi.yaml. Declare it there, or mend its name."
            )
        values[name] = value
    return values


def run_program(
    stack: str,
    values: Mapping[str, Any],
    make: Callable[[str, str, Mapping[str, Any]], State],
    *,
    on_register: Callable[[Any], None] | None = None,
    program: Callable[[], object] | None = None,
) -> dict[str, Any]:
    """Runs the stack's program; `make(type, name, inputs)` stands in for the provider. Returns the stack's outputs.

    `on_register` gets each raw registration, with the resource options that `make` does not see. `program` replaces
    `__main__.py`.
    """
    config = {f"payment-audit:{key}": _text(value) for key, value in values.items()}
    run = program or (lambda: runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__"))
    ended: Future[dict[str, Any]] = Future()

    def settle() -> None:
        try:
            ended.set_result(_run(stack, config, make, on_register, run))
        except BaseException as error:
            ended.set_exception(first_cause(error))

    # A thread of its own has Pulumi's global state of its own; a daemon, so that Ctrl-C does not wait for an emulator.
    threading.Thread(target=settle, name="pulumi", daemon=True).start()
    return ended.result()


def first_cause(error: BaseException) -> BaseException:
    """What went wrong, where Pulumi tells of a resource that waited for it: which of the two comes first is chance."""
    while isinstance(error, ValueError) and str(error).startswith("While processing ") and error.__cause__:
        error = error.__cause__
    return error


def _run(
    stack: str,
    config: dict[str, str],
    make: Callable[[str, str, Mapping[str, Any]], State],
    on_register: Callable[[Any], None] | None,
    program: Callable[[], object],
) -> dict[str, Any]:
    class Mocks(mocks.Mocks):
        def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
            if not args.custom:
                return "", dict(args.inputs)
            state = make(args.typ, args.name, args.inputs)
            return str(state["id"]), {**args.inputs, **state}

        def call(self, args: mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
            return {}, []

    class Monitor(mocks.MockMonitor):
        def RegisterResource(self, request: Any) -> Any:  # noqa: N802
            if on_register:
                on_register(request)
            return super().RegisterResource(request)  # type: ignore[no-untyped-call]

    async def main() -> dict[str, Any]:
        settings.reset_options()
        pulumi.runtime.set_all_config(config)
        offline = Mocks()
        mocks.set_mocks(offline, project="payment-audit", stack=stack, preview=False, monitor=Monitor(offline))
        root: Any = settings.get_root_resource()

        async def run() -> None:
            program()

        await run_pulumi_func(run)
        return dict(await pulumi.Output.all(**root.outputs).future() or {})

    return asyncio.run(main())


def _text(value: Any) -> str:
    """A config value as Pulumi hands it to a program."""
    return value if isinstance(value, str) else json.dumps(value)
