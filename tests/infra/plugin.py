"""A provider plugin for the real Pulumi CLI, in place of Google's own: a server that the CLI attaches to.

What it makes is kept in a file (`tests/infra/cloud.py`); what has an emulator is also made there, by the handlers that
the local stack uses (`local/provision/provider.py`), where the endpoints of one are given. It is strict: it refuses
inputs that the SDK does not have (`sdk_schema.py`) or that break a known rule of the provider (`provider_rules.py`),
and reads a resource as Google gives it back (`given_back.py`). tests/infra/README.md lists what it does not know.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from graph.google import import_id, looked_up, server_made
from tests.infra import given_back, provider_rules, sdk_schema
from tests.infra.cloud import Cloud, Refused, replacing
from tests.infra.sdk_schema import UNKNOWN

_VERSION: Final = "10.2.0"
_TABLE: Final = "gcp:bigquery/table:Table"
_GET_TABLE: Final = "gcp:bigquery/getTable:getTable"
_LARGE: Final = [("grpc.max_receive_message_length", 400 << 20)]


class Google(provider_pb2_grpc.ResourceProviderServicer):
    """Google's provider, as far as the engine sees it. Method names are the protocol's."""

    def __init__(self, cloud: Cloud, emulators: Emulators) -> None:
        self._cloud = cloud
        self._emulators = emulators
        self._project = ""

    # ------------------------------------------------------------------ the provider itself

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=_VERSION)

    def Handshake(self, request: Any, context: Any) -> Any:
        return provider_pb2.ProviderHandshakeResponse()

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        old, new = _plain(request.old_inputs), _plain(request.news)
        return _difference([key for key in sorted({*old, *new}) if old.get(key) != new.get(key)], [])

    def Configure(self, request: Any, context: Any) -> Any:
        self._project = _plain(request.args).get("project", "")
        return provider_pb2.ConfigureResponse(supportsPreview=True)

    def Attach(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def Cancel(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: Any) -> Any:
        inputs = _plain(request.args)
        answer = self._table(inputs) if request.tok == _GET_TABLE else looked_up(request.tok)
        if not answer:
            table = f"{inputs['project']}:{inputs['datasetId']}.{inputs['tableId']}"
            context.abort(grpc.StatusCode.NOT_FOUND, f"googleapi: Error 404: Not found: Table {table}, notFound")
        return provider_pb2.InvokeResponse(**{"return": _struct(answer)})

    def _table(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """A table as it is now, columns of the job's own among them; empty where there is none."""
        if self._emulators.given:
            return self._emulators.look(inputs["project"], _GET_TABLE, inputs)
        id = import_id(inputs["project"], _TABLE, inputs) or ""
        return self._cloud.read(inputs["project"], _TABLE, id) or {}

    # ------------------------------------------------------------------ its resources

    def Check(self, request: Any, context: Any) -> Any:
        kind, inputs = _kind(request.urn), _plain(request.news)
        failed = [*sdk_schema.broken(kind, inputs), *provider_rules.broken(kind, inputs)]
        failures = [provider_pb2.CheckFailure(property=each.path, reason=each.why) for each in failed]
        return provider_pb2.CheckResponse(inputs=request.news, failures=failures)

    def Diff(self, request: Any, context: Any) -> Any:
        kind, state = _kind(request.urn), _plain(request.olds)
        before, now = _plain(request.old_inputs), _plain(request.news)
        changed = given_back.changed(kind, state, before, now)
        return _difference(changed, [key for key in replacing(kind, {**before, **state}, now) if key in changed])

    def Create(self, request: Any, context: Any) -> Any:
        kind, name, inputs = _kind(request.urn), _name(request.urn), _plain(request.properties)
        made = self._made(kind, name, inputs)
        if request.preview:
            unknown = {key: UNKNOWN for key in made if key not in inputs and key != "id"}
            return provider_pb2.CreateResponse(properties=_struct({**inputs, **unknown}))
        self._hold_up(f"before {name}", context)
        with _refusals(context):
            there = self._cloud.create(self._project, kind, made["id"], inputs)
        self._emulators.make(self._project, kind, name, inputs)
        self._hold_up(f"after {name}", context)
        state = self._state(kind, name, there)
        return provider_pb2.CreateResponse(id=made["id"], properties=_struct(state))

    def Read(self, request: Any, context: Any) -> Any:
        kind, name = _kind(request.urn), _name(request.urn)
        inputs = self._cloud.read(self._project, kind, request.id)
        if inputs is None:
            return provider_pb2.ReadResponse()
        state, before = self._state(kind, name, inputs), _plain(request.inputs)
        if not request.properties.fields:
            # By an id alone, as for an import.
            state |= given_back.imported(kind, self._project, inputs)
        # What is no change stays as the program wrote it, in its order.
        changed = given_back.changed(kind, state, before, {**inputs, **before})
        kept = {key: value for key, value in before.items() if key not in changed}
        read = {key: state[key] for key in {*inputs, *before} if key in state} | kept
        return provider_pb2.ReadResponse(
            id=request.id, inputs=_struct(read), properties=_struct({**state, "id": request.id})
        )

    def Update(self, request: Any, context: Any) -> Any:
        kind, name, inputs = _kind(request.urn), _name(request.urn), _plain(request.news)
        if request.preview:
            return provider_pb2.UpdateResponse(properties=_struct({**inputs, **self._made(kind, name, inputs)}))
        with _refusals(context):
            there = self._cloud.update(self._project, kind, request.id, inputs)
        self._emulators.make(self._project, kind, name, inputs)
        return provider_pb2.UpdateResponse(properties=_struct(self._state(kind, name, there)))

    def Delete(self, request: Any, context: Any) -> Any:
        kind, name = _kind(request.urn), _name(request.urn)
        inputs = self._cloud.read(self._project, kind, request.id)
        self._hold_up(f"deleting {name}", context)
        with _refusals(context):
            self._cloud.delete(self._project, kind, request.id)
        if inputs is not None:
            self._emulators.take_away(self._project, kind, name, inputs)
        return empty_pb2.Empty()

    def _hold_up(self, name: str, context: Any) -> None:
        self._cloud.wait_if_held(name, context.is_active)
        if not context.is_active():
            context.abort(grpc.StatusCode.CANCELLED, "the CLI was killed: as Google's plugin, this one ends with it")

    def _made(self, kind: str, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return server_made(self._project, kind, name, inputs)

    def _state(self, kind: str, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {**given_back.given_back(kind, inputs), **self._made(kind, name, inputs)}


@contextlib.contextmanager
def _refusals(context: Any) -> Iterator[None]:
    """What the cloud refuses is the call's error, so the engine reports it with the resource."""
    try:
        yield
    except Refused as refused:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(refused))


class Emulators:
    """The emulators, behind the handlers of the local stack. Where no endpoint is given, nothing is really made."""

    def __init__(self, folder: Path, spanner: str, bigquery: str) -> None:
        self._folder, self._spanner, self._bigquery = folder, spanner, bigquery
        self._lock = threading.Lock()

    @property
    def given(self) -> bool:
        return bool(self._spanner and self._bigquery)

    def look(self, project: str, function: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """What an emulator answers to a question of the program; empty where there is no such thing."""
        from local.provision.provider import LOOKUPS

        with self._lock:
            return LOOKUPS[function](self._on(project), inputs)

    def make(self, project: str, kind: str, name: str, inputs: Mapping[str, Any]) -> None:
        """Creates it, or changes what is there into what is declared."""
        for handler, on in self._handlers(project, kind):
            there = handler.read(on, name, inputs)
            if there is None:
                handler.create(on, name, inputs)
            else:
                handler.update(on, name, inputs, there)

    def take_away(self, project: str, kind: str, name: str, inputs: Mapping[str, Any]) -> None:
        for handler, on in self._handlers(project, kind):
            if handler.read(on, name, inputs) is not None:
                handler.delete(on, name, inputs)

    def _handlers(self, project: str, kind: str) -> Iterator[tuple[Any, Any]]:
        """The kind's handler, if it has one, and the place that it works on."""
        if not self.given:
            return
        # The clients take seconds to import, and most runs have no emulator.
        from local.provision.provider import HANDLERS

        if kind in HANDLERS:
            with self._lock:
                yield HANDLERS[kind], self._on(project)

    def _on(self, project: str) -> Any:
        from local.provision.place import LocalEndpoints, LocalMachine

        endpoints = LocalEndpoints(spanner=self._spanner, bigquery=self._bigquery, bigquery_storage="")
        return LocalMachine(project=project, folder=self._folder, endpoints=endpoints)


def _difference(changed: list[str], replacing_keys: list[str]) -> Any:
    kinds = provider_pb2.PropertyDiff
    detail = {
        key: kinds(kind=kinds.Kind.UPDATE_REPLACE if key in replacing_keys else kinds.Kind.UPDATE, inputDiff=True)
        for key in changed
    }
    some, none = provider_pb2.DiffResponse.DiffChanges.DIFF_SOME, provider_pb2.DiffResponse.DiffChanges.DIFF_NONE
    return provider_pb2.DiffResponse(
        changes=some if changed else none,
        diffs=changed,
        replaces=replacing_keys,
        detailedDiff=detail,
        hasDetailedDiff=True,
    )


def _kind(urn: str) -> str:
    """The resource's own type; those of its parents come before it."""
    return urn.split("::")[2].rpartition("$")[2]


def _name(urn: str) -> str:
    return urn.split("::", 3)[3]


def _plain(struct: Any) -> dict[str, Any]:
    return dict(json_format.MessageToDict(struct))


def _struct(values: Mapping[str, Any]) -> Any:
    struct = struct_pb2.Struct()
    struct.update(dict(values))
    return struct


def serve(file: Path, spanner: str = "", bigquery: str = "") -> tuple[grpc.Server, int]:
    """The plugin of a cloud's file in this process: its server, and its port."""
    emulators = Emulators(file.parent / "machine", spanner, bigquery)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=_LARGE)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Google(Cloud(file), emulators), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port
