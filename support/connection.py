"""What a support command needs to know about a stack: where its warehouse, its source and its dead letters are.

In the cloud that is what the Pulumi program exports (`pulumi stack output --json`); the local stack writes the same
keys.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from contract.endpoints import on_this_machine
from contract.errors import AuditError
from contract.watched import WatchedError, WatchedTables

DEFAULT_FILE = Path(".audit") / "connection.json"
IN_ENVIRONMENT = "AUDIT_CONNECTION_JSON"

_REMEDY = (
    "Start the stack with `make run`, or write the file with `python -m delivery.deploy outputs -s STACK > FILE` "
    "(or `pulumi stack output --json`) and pass --connection FILE."
)


class ConnectionFileError(AuditError, ValueError):
    """The connection file is missing or says too little; the message gives the rule and the remedy."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A stack's addresses, and what its config says of payments. An empty endpoint means Google Cloud.

    What has a default here may be missing in the file.
    """

    project: str
    location: str
    big_query_endpoint: str
    spanner_endpoint: str
    spanner_instance: str
    spanner_database: str
    metadata_database: str
    masking_keys: str
    watched_tables: str
    dead_letter_directory: str
    job_name: str
    region: str = ""
    # In front of the stack's names, where a project has several stacks.
    prefix: str = ""
    # The project of a source database that others own, and whether accounts act as database roles in the source.
    spanner_project: str = ""
    database_roles: str = ""
    metadata_instance: str = ""
    latency_goal: str = ""
    throughput_goal: str = ""
    design_tps: str = ""
    prometheus_endpoint: str = ""
    payment_states: str = ""
    stuck_limits: str = ""
    ignore_fields: str = ""
    ignore_tables: str = ""
    ignore_operations: str = ""
    ignore_transaction_tags: str = ""
    new_columns: str = ""
    big_query_storage_endpoint: str = ""
    pub_sub_endpoint: str = ""
    replay_most: str = ""
    replay_data_boost: str = ""
    replay_topic: str = ""
    # Where replays run: the full name of a Cloud Run job; empty is here. Beam's options of those with several shards.
    replay_job: str = ""
    replay_beam_args: str = ""
    # Where erasures run, as replays do.
    erasure_job: str = ""
    cloud_run_endpoint: str = ""
    # Who launches the streaming job (pulumi, composer or scheduler), the body of its launch, and whether it is paused.
    pipeline_owner: str = ""
    pipeline_launch: str = ""
    pipeline_paused: str = ""
    dataflow_endpoint: str = ""
    # Who makes the source's schema, and its DDL as JSON. The policy tag of personal columns, where there is one.
    schema_owner: str = ""
    source_schema: str = ""
    personal_tag: str = ""
    # How long a backup is kept, in days; where exports go, and where they are copied to; empty is nowhere.
    backup_days: str = ""
    backup_directory: str = ""
    backup_copy_directory: str = ""

    @property
    def source(self) -> str:
        """The full name of the source database."""
        project = self.spanner_project or self.project
        return f"projects/{project}/instances/{self.spanner_instance}/databases/{self.spanner_database}"

    @property
    def local(self) -> bool:
        """Whether its services are emulators of this machine."""
        return on_this_machine(self.spanner_endpoint)

    def role(self, name: str) -> str:
        """The database role to act as in the source; empty where accounts have their IAM roles alone."""
        return name if self.database_roles else ""

    @cached_property
    def watched(self) -> WatchedTables:
        """The watched tables, without their changelog. Raises ConnectionFileError."""
        try:
            return WatchedTables.from_json(self.watched_tables)
        except WatchedError as error:
            raise ConnectionFileError(f"watchedTables must be what the stack exports. {error} {_REMEDY}") from None


# Attribute → key in the file.
_KEYS = {
    name: "".join(part.title() if i else part for i, part in enumerate(name.split("_")))
    for name in Connection.__dataclass_fields__
}
_OPTIONAL = {_KEYS[name] for name in Connection.__dataclass_fields__ if hasattr(Connection, name)}


def load(path: Path | None = None) -> Connection:
    """Reads a connection file; without a path, the JSON in AUDIT_CONNECTION_JSON, which a container is given, or else
    `.audit/connection.json` here or in a folder above.

    Keys that it does not know (other stack outputs) do not matter. Raises ConnectionFileError.
    """
    if path is None and (text := os.environ.get(IN_ENVIRONMENT)):
        return _read(text, IN_ENVIRONMENT)
    path = path or _nearest()
    try:
        return _read(path.read_text(), str(path))
    except OSError as error:
        raise ConnectionFileError(f"{path} cannot be read: {error.strerror}. {_REMEDY}") from None


def _read(text: str, where: str) -> Connection:
    try:
        content = json.loads(text)
    except ValueError:
        raise ConnectionFileError(f"{where} must hold JSON, and does not. {_REMEDY}") from None
    return of(content, where)


def of(content: object, where: str) -> Connection:
    """The connection that a stack's outputs are; `where` they come from. Raises ConnectionFileError."""
    if not isinstance(content, dict):
        raise ConnectionFileError(f"{where} must hold a JSON object, and does not. {_REMEDY}")
    content = dict.fromkeys(_OPTIONAL, "") | content
    if missing := sorted(key for key in _KEYS.values() if not isinstance(content.get(key), str)):
        raise ConnectionFileError(f"{where} must name {', '.join(missing)} as texts, and does not. {_REMEDY}")
    return Connection(**{name: content[key] for name, key in _KEYS.items()})


def _nearest() -> Path:
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / DEFAULT_FILE).exists():
            return folder / DEFAULT_FILE
    return DEFAULT_FILE
