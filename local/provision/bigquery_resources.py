"""BigQuery datasets, tables, views and table functions, made in the emulator."""

from __future__ import annotations

import json
from typing import Any, Final

from google.cloud import bigquery

from local.provision.place import SECONDS, Handler, Inputs, LocalMachine, State, found

# The client keeps trying for ten minutes by itself.
_PATIENCE: Final[dict[str, Any]] = {"timeout": SECONDS, "retry": bigquery.DEFAULT_RETRY.with_timeout(SECONDS)}


class Dataset(Handler):
    """A dataset of the emulator."""

    def read(self, on: LocalMachine, name: str, inputs: Inputs) -> Any:
        return found(on.bigquery.get_dataset, inputs["datasetId"], **_PATIENCE)

    def create(self, on: LocalMachine, name: str, inputs: Inputs) -> None:
        dataset = bigquery.Dataset(f"{on.project}.{inputs['datasetId']}")
        dataset.location = inputs["location"]
        on.bigquery.create_dataset(dataset, **_PATIENCE)

    def delete(self, on: LocalMachine, name: str, inputs: Inputs) -> None:
        on.bigquery.delete_dataset(inputs["datasetId"], delete_contents=True, **_PATIENCE)


class Table(Handler):
    """A table or a view. Columns are only ever added: the job adds more."""

    def read(self, on: LocalMachine, name: str, inputs: Inputs) -> Any:
        return found(on.bigquery.get_table, f"{inputs['datasetId']}.{inputs['tableId']}", **_PATIENCE)

    def create(self, on: LocalMachine, name: str, inputs: Inputs) -> None:
        on.bigquery.create_table(self._asked(on, inputs), **_PATIENCE)

    def update(self, on: LocalMachine, name: str, inputs: Inputs, there: Any) -> bool:
        asked = self._asked(on, inputs)
        if asked.view_query:
            if there.view_query == asked.view_query:
                return False
            on.bigquery.delete_table(there, **_PATIENCE)
            on.bigquery.create_table(asked, **_PATIENCE)
            return True
        names = {field.name for field in there.schema}
        missing = [field for field in asked.schema if field.name not in names]
        if missing:
            there.schema = [*there.schema, *missing]
            on.bigquery.update_table(there, ["schema"], **_PATIENCE)
        return bool(missing)

    def delete(self, on: LocalMachine, name: str, inputs: Inputs) -> None:
        on.bigquery.delete_table(f"{inputs['datasetId']}.{inputs['tableId']}", **_PATIENCE)

    def _asked(self, on: LocalMachine, inputs: Inputs) -> Any:
        """The inputs in the API's own shape."""
        place = {"projectId": on.project, "datasetId": inputs["datasetId"], "tableId": inputs["tableId"]}
        shape: dict[str, Any] = {"tableReference": place, "description": inputs.get("description")}
        if view := inputs.get("view"):
            shape["view"] = {"query": view["query"], "useLegacySql": False}
        else:
            shape["schema"] = {"fields": json.loads(inputs["schema"])}
        if partitioning := inputs.get("timePartitioning"):
            shape["timePartitioning"] = dict(partitioning)
            if expiry := partitioning.get("expirationMs"):
                # The API's numbers of 64 bits are texts.
                shape["timePartitioning"]["expirationMs"] = str(int(expiry))
        if clusterings := inputs.get("clusterings"):
            shape["clustering"] = {"fields": list(clusterings)}
        return bigquery.Table.from_api_repr(shape)


class TableFunction(Handler):
    """A prebuilt query as a function."""

    def read(self, on: LocalMachine, name: str, inputs: Inputs) -> Any:
        return found(on.bigquery.get_routine, self._place(on, inputs), **_PATIENCE)

    def create(self, on: LocalMachine, name: str, inputs: Inputs) -> None:
        on.bigquery.create_routine(self._asked(on, inputs), **_PATIENCE)

    def update(self, on: LocalMachine, name: str, inputs: Inputs, there: Any) -> bool:
        asked = self._asked(on, inputs)
        if (there.body, there.arguments) == (asked.body, asked.arguments):
            return False
        on.bigquery.delete_routine(there, **_PATIENCE)
        on.bigquery.create_routine(asked, **_PATIENCE)
        return True

    def delete(self, on: LocalMachine, name: str, inputs: Inputs) -> None:
        on.bigquery.delete_routine(self._place(on, inputs), **_PATIENCE)

    def _place(self, on: LocalMachine, inputs: Inputs) -> str:
        return f"{on.project}.{inputs['datasetId']}.{inputs['routineId']}"

    def _asked(self, on: LocalMachine, inputs: Inputs) -> Any:
        arguments = [
            bigquery.RoutineArgument.from_api_repr({"name": a["name"], "dataType": json.loads(a["dataType"])})
            for a in inputs.get("arguments") or []
        ]
        return bigquery.Routine(
            self._place(on, inputs),
            type_=inputs["routineType"],
            language=inputs["language"],
            body=inputs["definitionBody"],
            arguments=arguments,
        )


def table_there(on: LocalMachine, inputs: Inputs) -> State:
    """What the program learns about an existing table: its columns, as the API writes them."""
    table = found(on.bigquery.get_table, f"{inputs['datasetId']}.{inputs['tableId']}", **_PATIENCE)
    return {"schema": json.dumps([field.to_api_repr() for field in table.schema])} if table else {}
