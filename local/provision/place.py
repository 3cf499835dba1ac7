"""This machine as a place to provision onto: its emulators, its folder, and what making a resource here means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import grpc
from google.api_core.exceptions import NotFound
from google.cloud.spanner_admin_database_v1 import DatabaseAdminClient
from google.cloud.spanner_admin_database_v1.services.database_admin.transports import DatabaseAdminGrpcTransport
from google.cloud.spanner_admin_instance_v1 import InstanceAdminClient
from google.cloud.spanner_admin_instance_v1.services.instance_admin.transports import InstanceAdminGrpcTransport

from contract.errors import AuditError
from pipeline import clients

Inputs = Mapping[str, Any]
State = dict[str, Any]

SECONDS: Final = 30  # the longest that one call to an emulator may take


class ProviderError(AuditError):
    """A resource cannot be made here; the message says the rule and the remedy."""


@dataclass(frozen=True, kw_only=True)
class LocalEndpoints:
    """Where the emulators answer: `spanner` and `bigquery_storage` are host:port, `bigquery` is a URL."""

    spanner: str
    bigquery: str
    bigquery_storage: str


@dataclass(frozen=True)
class LocalMachine:
    """This machine: the emulators, and the folder of everything that is a file."""

    project: str
    folder: Path
    endpoints: LocalEndpoints

    @cached_property
    def instances(self) -> Any:
        channel = grpc.insecure_channel(self.endpoints.spanner)
        return InstanceAdminClient(transport=InstanceAdminGrpcTransport(channel=channel))

    @cached_property
    def databases(self) -> Any:
        channel = grpc.insecure_channel(self.endpoints.spanner)
        return DatabaseAdminClient(transport=DatabaseAdminGrpcTransport(channel=channel))

    @cached_property
    def bigquery(self) -> Any:
        return clients.bigquery_client(self.endpoints.bigquery, self.project)


class Handler:
    """How one resource type is really made. `name` is the resource's name in the program, `inputs` what it asks for."""

    def read(self, on: LocalMachine, name: str, inputs: Inputs) -> Any:
        """What exists, or None."""
        raise NotImplementedError

    def create(self, on: LocalMachine, name: str, inputs: Inputs) -> None:
        """Makes it where there was nothing."""
        raise NotImplementedError

    def update(self, on: LocalMachine, name: str, inputs: Inputs, there: Any) -> bool:
        """Changes what exists into what the program declares. Whether anything had to be done."""
        return False

    def delete(self, on: LocalMachine, name: str, inputs: Inputs) -> None:
        """Takes it away, with what is in it."""
        raise NotImplementedError

    def outputs(self, on: LocalMachine, name: str, inputs: Inputs) -> State:
        """What the program reads of it that differs here from Google Cloud."""
        return {}


def found(get: Any, *args: Any, **named: Any) -> Any:
    """What `get` finds, or None."""
    try:
        return get(*args, **named)
    except NotFound:
        return None
