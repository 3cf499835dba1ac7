"""Connections to Google Cloud or to emulators: an endpoint is a setting, and nothing else in the pipeline knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import grpc
from grpc.experimental import ChannelOptions

from contract.endpoints import on_this_machine
from pipeline.channels import StreamingChannels

# A peer that froze or vanished is noticed in half a minute instead of never.
_CHANNEL = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
]


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Where the services are. Empty texts mean Google Cloud."""

    spanner: str = ""
    bigquery: str = ""
    bigquery_storage: str = ""

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Endpoints:
        """From launch options."""
        return cls(
            spanner=values["spannerEndpoint"],
            bigquery=values["bigQueryEndpoint"],
            bigquery_storage=values["bigQueryStorageEndpoint"],
        )


def _credentials() -> Any:
    from google.auth import default

    credentials, _ = default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    return credentials


def _reaching(endpoint: str) -> dict[str, Any]:
    """What makes a client of Google's reach an endpoint: with the process's credentials, but not on this machine."""
    from google.auth.credentials import AnonymousCredentials

    if not endpoint:
        return {}
    reaching: dict[str, Any] = {"client_options": {"api_endpoint": endpoint}}
    if on_this_machine(endpoint):
        reaching["credentials"] = AnonymousCredentials()  # type: ignore[no-untyped-call]
    return reaching


def spanner_channel(endpoint: str) -> StreamingChannels:
    """The process's connections to one endpoint: this machine's in plain text, any other with TLS and credentials.

    To be used as one gRPC channel, for any number of streaming calls at once.
    """
    return _spanner_channels(endpoint)


@cache
def _spanner_channels(endpoint: str) -> StreamingChannels:
    def connect(options: list[tuple[str, Any]]) -> grpc.Channel:
        if on_this_machine(endpoint):
            return grpc.insecure_channel(endpoint, options=options)
        from google.auth.transport.grpc import secure_authorized_channel
        from google.auth.transport.requests import Request

        channel: grpc.Channel = secure_authorized_channel(  # type: ignore[no-untyped-call]
            credentials(), Request(), endpoint or "spanner.googleapis.com:443", options=options
        )
        return channel

    # One token for all the connections.
    credentials = cache(_credentials)
    return StreamingChannels(lambda number: connect([*_CHANNEL, *_own_connection(number)]))


def _own_connection(number: int) -> list[tuple[str, Any]]:
    # Channels of one target and the same options share a connection, unless each keeps its own.
    # A stream that waits in Python wakes ten times a second to see to signals; a thousand of them take a core.
    return [
        ("grpc.use_local_subchannel_pool", 1),
        ("audit.connection", number),
        (ChannelOptions.SingleThreadedUnaryStream, 1),
    ]


def spanner_database(endpoint: str, project: str, instance: str, database: str, role: str = "") -> Any:
    """A Spanner client library database, for what is not the change stream itself."""
    import os

    from google.cloud import spanner

    # The client exports its own metrics in the background otherwise, to a service an emulator does not have.
    os.environ.setdefault("SPANNER_DISABLE_BUILTIN_METRICS", "true")
    options: dict[str, Any] = {"project": project}
    client = spanner.Client(**options, **_reaching(endpoint))
    return client.instance(instance).database(database, database_role=role or None)


def bigquery_client(endpoint: str, project: str) -> Any:
    """BigQuery's REST client."""
    from google.cloud import bigquery

    return bigquery.Client(project=project, **_reaching(endpoint))


def write_client(endpoint: str) -> Any:
    """The Storage Write API's client."""
    from google.cloud.bigquery_storage_v1 import BigQueryWriteClient
    from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport

    if not on_this_machine(endpoint):
        return BigQueryWriteClient(**_reaching(endpoint))
    return BigQueryWriteClient(
        transport=BigQueryWriteGrpcTransport(channel=grpc.insecure_channel(endpoint, options=_CHANNEL))
    )


def authorized_session(endpoint: str, scope: str) -> Any:
    """A session for one of Google's REST APIs; an endpoint of this machine is given no credentials."""
    import requests
    from google.auth import default
    from google.auth.transport.requests import AuthorizedSession

    if on_this_machine(endpoint):
        return requests.Session()
    credentials, _ = default(scopes=[scope])
    return AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
