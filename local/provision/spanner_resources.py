"""Spanner instances and databases, made in the emulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from google.api_core.exceptions import ServiceUnavailable
from google.api_core.retry import Retry, if_exception_type

from contract.dialects import GOOGLE_SQL, POSTGRESQL
from local.provision.place import SECONDS, Handler, Inputs, LocalMachine, ProviderError, found

# The client keeps trying for an hour by itself.
_PATIENCE: Final[dict[str, Any]] = {
    "timeout": SECONDS,
    "retry": Retry(predicate=if_exception_type(ServiceUnavailable), timeout=SECONDS),
}


class SpannerInstance(Handler):
    """An instance of the emulator."""

    def read(self, on: LocalMachine, name: str, inputs: Inputs) -> Any:
        return found(on.instances.get_instance, name=_instance(on, inputs["name"]), **_PATIENCE)

    def create(self, on: LocalMachine, name: str, inputs: Inputs) -> None:
        on.instances.create_instance(
            parent=f"projects/{on.project}",
            instance_id=inputs["name"],
            instance={
                # The only one that the emulator has.
                "config": f"projects/{on.project}/instanceConfigs/emulator-config",
                "display_name": inputs["displayName"],
                "processing_units": int(inputs["processingUnits"]),
            },
            timeout=SECONDS,
        ).result(SECONDS)

    def delete(self, on: LocalMachine, name: str, inputs: Inputs) -> None:
        on.instances.delete_instance(name=_instance(on, inputs["name"]), **_PATIENCE)


class SpannerDatabase(Handler):
    """A database. As for Google's provider, the statements that were run are the resource's state, not the database's.

    They are kept in a file with the database's creation time: a restarted emulator has lost both together.
    """

    def read(self, on: LocalMachine, name: str, inputs: Inputs) -> Any:
        return found(on.databases.get_database, name=self._path(on, inputs), **_PATIENCE)

    def create(self, on: LocalMachine, name: str, inputs: Inputs) -> None:
        statements = list(inputs.get("ddls") or [])
        # Spanner's default, where nothing is said.
        dialect = inputs.get("databaseDialect") or GOOGLE_SQL
        postgresql = dialect == POSTGRESQL
        quote = '"' if postgresql else "`"
        database = on.databases.create_database(
            request={
                "parent": _instance(on, inputs["instance"]),
                "create_statement": f"CREATE DATABASE {quote}{inputs['name']}{quote}",
                "database_dialect": dialect,
                # A PostgreSQL database takes its statements once it is there.
                "extra_statements": [] if postgresql else statements,
            },
            timeout=SECONDS,
        ).result(SECONDS)
        if postgresql and statements:
            on.databases.update_database_ddl(database=self._path(on, inputs), statements=statements).result(SECONDS)
        self._record(on, inputs, str(database.create_time), statements)

    def update(self, on: LocalMachine, name: str, inputs: Inputs, there: Any) -> bool:
        wanted, run = list(inputs.get("ddls") or []), self._run(on, inputs, there)
        if wanted[: len(run)] != run:
            raise ProviderError(
                f"{inputs['name']}: an earlier statement of the changelog was changed or removed, or something else "
                "made the database. A changelog only grows: add a changeset, or start over: `audit local down`, `up`."
            )
        later = wanted[len(run) :]
        if later:
            on.databases.update_database_ddl(database=self._path(on, inputs), statements=later).result(SECONDS)
            self._record(on, inputs, str(there.create_time), wanted)
        return bool(later)

    def delete(self, on: LocalMachine, name: str, inputs: Inputs) -> None:
        on.databases.drop_database(database=self._path(on, inputs), **_PATIENCE)
        self._file(on, inputs).unlink(missing_ok=True)

    def _run(self, on: LocalMachine, inputs: Inputs, there: Any) -> list[str]:
        """The statements that made the database, or one that no changelog has where that is not known."""
        file = self._file(on, inputs)
        kept = json.loads(file.read_text()) if file.exists() else {}
        return list(kept["ddls"]) if kept.get("create_time") == str(there.create_time) else ["unknown"]

    def _record(self, on: LocalMachine, inputs: Inputs, create_time: str, statements: list[str]) -> None:
        file = self._file(on, inputs)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"create_time": create_time, "ddls": statements}, indent=1))

    def _file(self, on: LocalMachine, inputs: Inputs) -> Path:
        return on.folder / "spanner" / f"{on.project}.{inputs['instance']}.{inputs['name']}.json"

    def _path(self, on: LocalMachine, inputs: Inputs) -> str:
        return f"{_instance(on, inputs['instance'])}/databases/{inputs['name']}"


def _instance(on: LocalMachine, name: str) -> str:
    return f"projects/{on.project}/instances/{name}"
