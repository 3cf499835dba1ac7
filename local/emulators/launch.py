"""The two emulators: Spanner's, as the Google Cloud CLI ships it, and BigQuery's, in its own Python environment.

Both keep their data only while they run.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from components.naming import METADATA_INSTANCE
from contract.errors import AuditError
from local.machine import installed
from local.machine.processes import Process

PROJECT: Final = "audit-local"
INSTANCE: Final = "audit-instance"
_HOST: Final = "127.0.0.1"
_READY_SECONDS: Final = 90


class EmulatorError(AuditError):
    """An emulator cannot be started; the message says the rule and the remedy."""


@dataclass(frozen=True, kw_only=True)
class SpannerEmulator:
    """A running Spanner emulator. `endpoint` is host:port of its gRPC API."""

    endpoint: str
    process: Process


@dataclass(frozen=True, kw_only=True)
class BigQueryEmulator:
    """A running BigQuery emulator: URL of its REST API, host:port of the Storage API, and the folder of its data."""

    rest: str
    grpc: str
    data: Path
    process: Process


def launch_spanner(*, logs: Path, port: int | None = None, partition_seconds: int | None = None) -> SpannerEmulator:
    """Starts the Spanner emulator without waiting for it. Raises EmulatorError, installed.NotInstalled.

    A change stream partition lives 20 to 40 s, then moves, splits or merges; `partition_seconds` n makes it n to 2n.
    """
    binary = installed.spanner_emulator()
    port = _port(port, "Spanner emulator", "--spanner-port")
    endpoint = f"{_HOST}:{port}"
    command: list[str | Path] = [binary, "--host_port", endpoint]
    if partition_seconds:
        command.append(f"--override_change_stream_partition_token_alive_seconds={partition_seconds}")
    process = Process.start("spanner-emulator", command, log=logs / "spanner-emulator.log")
    return SpannerEmulator(endpoint=endpoint, process=process)


def launch_bigquery(
    *,
    logs: Path,
    data: Path,
    arrivals: Path | None = None,
    rest_port: int | None = None,
    grpc_port: int | None = None,
) -> BigQueryEmulator:
    """Starts the BigQuery emulator without waiting for it. Raises EmulatorError, installed.NotInstalled."""
    python = installed.bigquery_python()
    rest = _port(rest_port, "BigQuery emulator", "--bigquery-port")
    grpc = _port(grpc_port, "BigQuery emulator's Storage API", "--bigquery-storage-port")
    launcher = Path(__file__).with_name("bigquery_launcher.py")
    command: list[str | Path] = [
        python,
        launcher,
        "--rest",
        str(rest),
        "--grpc",
        str(grpc),
        "--data",
        data,
        "--project",
        PROJECT,
    ]
    if arrivals:
        command += ["--arrivals", arrivals]
    process = Process.start("bigquery-emulator", command, log=logs / "bigquery-emulator.log")
    return BigQueryEmulator(rest=f"http://{_HOST}:{rest}", grpc=f"{_HOST}:{grpc}", data=data, process=process)


def await_spanner(emulator: SpannerEmulator) -> None:
    """Waits until it answers. Raises ProcessError."""
    port = int(emulator.endpoint.rpartition(":")[2])
    emulator.process.await_ready(lambda: answers(port), timeout=_READY_SECONDS)


def await_bigquery(emulator: BigQueryEmulator) -> None:
    """Waits until both of its ports answer. Raises ProcessError."""
    emulator.process.await_ready(lambda: "READY" in emulator.process.output(), timeout=_READY_SECONDS)


def spanner_client(endpoint: str, project: str = PROJECT) -> Any:
    """A google.cloud.spanner client of the emulator."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import spanner

    return spanner.Client(
        project=project,
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        client_options={"api_endpoint": endpoint},
        disable_builtin_metrics=True,
    )


def metadata_database(connection: dict[str, Any]) -> Any:
    """The metadata database of a connection.json, where the pipeline keeps its resume position."""
    client = spanner_client(connection["spannerEndpoint"], connection["project"])
    instance = connection.get("metadataInstance") or connection["spannerInstance"]
    return client.instance(instance).database(connection["metadataDatabase"])


def drop_metadata(endpoint: str) -> None:
    """Drops a local stack's metadata in an emulator of others: what it says is of a stack that has ended."""
    instance = spanner_client(endpoint).instance(METADATA_INSTANCE)
    if instance.exists():
        instance.delete()


def answers(port: int) -> bool:
    """Whether something listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((_HOST, port)) == 0


def _port(wanted: int | None, what: str, option: str) -> int:
    """`wanted`, if it is free, or any free port.

    Asked by connecting: the Spanner emulator opens its port with SO_REUSEPORT, so a second one on the same port starts
    without an error and the requests are split between the two.
    """
    if wanted is None:
        with socket.socket() as probe:
            probe.bind((_HOST, 0))
            return int(probe.getsockname()[1])
    if answers(wanted):
        raise EmulatorError(
            f"Port {wanted} is taken by another program, so the {what} cannot have it. "
            f"End that program, give {option} another port, or leave {option} out: a free port is chosen."
        )
    return wanted
