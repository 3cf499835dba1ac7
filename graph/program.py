"""Runs `__main__.py` in this process, with Pulumi's mocks in place of its engine.

The program that goes to the cloud is the program that runs: only who makes its resources differs. The rules look at
what it registers; the local stack makes it on this machine. Each run has its own context, so several stacks can be
run one after the other.
"""

from __future__ import annotations

import asyncio
import json
import runpy
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import pulumi
from pulumi.runtime import mocks, settings
from pulumi.runtime.stack import run_pulumi_func

from components.config import ROOT
from graph.google import looked_up

# (type, name, inputs) → the resource's state, `id` among it.
Make = Callable[[str, str, Mapping[str, Any]], dict[str, Any]]
# (function, inputs) → its answer.
Look = Callable[[str, Mapping[str, Any]], dict[str, Any]]


def run_program(
    stack: str,
    values: Mapping[str, Any],
    make: Make,
    *,
    look: Look = lambda function, inputs: looked_up(function),
    on_register: Callable[[Any], None] | None = None,
    program: Callable[[], object] | None = None,
    passed: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Runs the stack's program; `make(type, name, inputs)` stands in for the provider. Returns the stack's outputs.

    `look(function, inputs)` answers what the program looks up; by default no table is there yet. `on_register` gets
    each raw registration, with the resource options that `make` does not see. `program` replaces `__main__.py`.
    `passed` is what delivery passes to the program for one run, by its whole key.
    """
    config = {f"payment-audit:{key}": _text(value) for key, value in values.items()} | dict(passed or {})
    run = program or (lambda: runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__"))
    ended: Future[dict[str, Any]] = Future()

    def settle() -> None:
        try:
            ended.set_result(_run(stack, config, make, look, on_register, run))
        except BaseException as error:
            ended.set_exception(first_cause(error))

    # A separate thread has its own global state of Pulumi; a daemon, so that Ctrl-C does not wait for an emulator.
    threading.Thread(target=settle, name="pulumi", daemon=True).start()
    return ended.result()


def first_cause(error: BaseException) -> BaseException:
    """What went wrong, where Pulumi names a resource that waited for it: which of the two comes first is chance."""
    while isinstance(error, ValueError) and str(error).startswith("While processing ") and error.__cause__:
        error = error.__cause__
    return error


def _run(
    stack: str,
    config: dict[str, str],
    make: Make,
    look: Look,
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
            return look(args.token, args.args), []

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
