"""Spanner instances and databases, made in the emulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from google.api_core.exceptions import ServiceUnavailable
from google.api_core.retry import Retry, if_exception_type

from local.provision.place import SECONDS, Handler, Here, Inputs, ProviderError, found

# The client keeps trying for an hour by itself.
_PATIENCE: Final[dict[str, Any]] = {
    "timeout": SECONDS,
    "retry": Retry(predicate=if_exception_type(ServiceUnavailable), timeout=SECONDS),
}


class SpannerInstance(Handler):
    """An instance of the emulator."""

    def read(self, here: Here, name: str, inputs: Inputs) -> Any:
        return found(here.instances.get_instance, name=_instance(here, inputs["name"]), **_PATIENCE)

    def create(self, here: Here, name: str, inputs: Inputs) -> None:
        here.instances.create_instance(
            parent=f"projects/{here.project}",
            instance_id=inputs["name"],
            instance={
                "config": f"projects/{here.project}/instanceConfigs/{inputs['config']}",
                "display_name": inputs["displayName"],
                "processing_units": int(inputs["processingUnits"]),
            },
            timeout=SECONDS,
        ).result(SECONDS)

    def delete(self, here: Here, name: str, inputs: Inputs) -> None:
        here.instances.delete_instance(name=_instance(here, inputs["name"]), **_PATIENCE)


class SpannerDatabase(Handler):
    """A database. As for Google's provider, the statements that were run are the resource's state, not the database's.

    They are kept in a file with the database's creation time: a restarted emulator has lost both together.
    """

    def read(self, here: Here, name: str, inputs: Inputs) -> Any:
        return found(here.databases.get_database, name=self._path(here, inputs), **_PATIENCE)

    def create(self, here: Here, name: str, inputs: Inputs) -> None:
        statements = list(inputs.get("ddls") or [])
        database = here.databases.create_database(
            request={
                "parent": _instance(here, inputs["instance"]),
                "create_statement": f"CREATE DATABASE `{inputs['name']}`",
                "extra_statements": statements,
            },
            timeout=SECONDS,
        ).result(SECONDS)
        self._record(here, inputs, str(database.create_time), statements)

    def update(self, here: Here, name: str, inputs: Inputs, there: Any) -> bool:
        wanted, run = list(inputs.get("ddls") or []), self._run(here, inputs, there)
        if wanted[: len(run)] != run:
            raise ProviderError(
                f"{inputs['name']}: an earlier statement of the changelog was changed or removed, or something else "
                "made the database. A changelog only grows: add a changeset, or start over: `audit local down`, `up`."
            )
        later = wanted[len(run) :]
        if later:
            here.databases.update_database_ddl(database=self._path(here, inputs), statements=later).result(SECONDS)
            self._record(here, inputs, str(there.create_time), wanted)
        return bool(later)

    def delete(self, here: Here, name: str, inputs: Inputs) -> None:
        here.databases.drop_database(database=self._path(here, inputs), **_PATIENCE)
        self._file(here, inputs).unlink(missing_ok=True)

    def _run(self, here: Here, inputs: Inputs, there: Any) -> list[str]:
        """The statements that made the database, or one that no changelog has where that is not known."""
        file = self._file(here, inputs)
        kept = json.loads(file.read_text()) if file.exists() else {}
        return list(kept["ddls"]) if kept.get("create_time") == str(there.create_time) else ["unknown"]

    def _record(self, here: Here, inputs: Inputs, create_time: str, statements: list[str]) -> None:
        file = self._file(here, inputs)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"create_time": create_time, "ddls": statements}, indent=1))

    def _file(self, here: Here, inputs: Inputs) -> Path:
        return here.folder / "spanner" / f"{here.project}.{inputs['instance']}.{inputs['name']}.json"

    def _path(self, here: Here, inputs: Inputs) -> str:
        return f"{_instance(here, inputs['instance'])}/databases/{inputs['name']}"


def _instance(here: Here, name: str) -> str:
    return f"projects/{here.project}/instances/{name}"
