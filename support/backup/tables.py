"""BigQuery's tables as backups need them: snapshots, restores, partitions, exports and loads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, Final, NamedTuple

from support.backup.checksums import is_partition, within
from support.backup.records import Backed, BackupError
from support.connection import Connection
from support.warehouse import Warehouse

# Metadata of partitions: a view of BigQuery's that reads 10 MB at the least.
_LEAST: Final = 64 * 2**20
_JOB_SECONDS: Final = 3 * 3600.0
_LAYOUT: Final = ("schema", "timePartitioning", "clustering")


class Held(NamedTuple):
    """A table that is there. `made_at` is when it was made; bytes are logical."""

    made_at: datetime
    expires: datetime | None
    rows: int
    bytes: int
    layout: dict[str, Any]


class PartitionInfo(NamedTuple):
    """A partition, from BigQuery's metadata."""

    rows: int
    changed_at: datetime | None


class Tables:
    """One stack's tables, for backups. Names are `dataset.name`. Raises BackupError and WarehouseError."""

    def __init__(self, connection: Connection, warehouse: Warehouse) -> None:
        from pipeline.clients import bigquery_client

        self._project, self._location = connection.project, connection.location or None
        self._warehouse, self._backups = warehouse, connection.watched.backups_dataset
        self._client = bigquery_client(connection.big_query_endpoint, connection.project)

    def get(self, name: str) -> Held | None:
        """A table or snapshot; None where there is none."""
        from google.api_core.exceptions import NotFound

        try:
            with _explained(f"reading {name}"):
                table = self._client.get_table(self._name(name))
        except NotFound:
            return None
        known = table.to_api_repr()
        return Held(
            table.created,
            table.expires,
            int(table.num_rows or 0),
            int(table.num_bytes or 0),
            {key: known[key] for key in _LAYOUT if key in known},
        )

    def snapshot(self, table: str, snapshot: str, at: datetime, expires: datetime) -> Held:
        """The snapshot of a table as it was at `at`, made if it is not there; expires then.

        Its expiration is set in a second step: made with one, it would take the permission to delete snapshots, on the
        table as well (cloud.google.com/bigquery/docs/table-snapshots-create#permissions).
        """
        from google.api_core.exceptions import Conflict

        millis = round(at.timestamp() * 1000)
        # Where it is there, an earlier try made it, of the same moment.
        with suppress(Conflict):
            self._copy(f"{table}@{millis}", snapshot, "SNAPSHOT", f"making the snapshot {snapshot}")
        with _explained(f"keeping the snapshot {snapshot} until its end"):
            made = self._client.get_table(self._name(snapshot))
            if made.expires is None:
                made.expires = expires
                self._client.update_table(made, ["expires"])
        held = self.get(snapshot)
        if held is None:
            raise BackupError(f"the snapshot {snapshot} was made and is gone. Who deletes it? Run the backup again.")
        return held

    def restore(self, snapshot: str, target: str) -> Held:
        """Makes `target` an ordinary table with the snapshot's rows. Raises BackupError where it is there already."""
        from google.api_core.exceptions import Conflict

        try:
            self._copy(snapshot, target, "RESTORE", f"restoring {snapshot} into {target}")
        except Conflict:
            raise BackupError(f"{target} is there already: nothing was written. Choose another --into.") from None
        held = self.get(target)
        if held is None:
            raise BackupError(f"{target} was restored and is gone. See who deletes tables there; restore again.")
        return held

    def replace(self, source: str, target: str) -> None:
        """Writes a table over another one, its layout with it, in one step."""
        self._copy(source, target, "COPY", f"replacing {target}", replace=True)

    def snapshots_of(self, backup_id: str) -> list[str]:
        """The snapshots that a backup made, also one that was never finished."""
        with _explained("listing the snapshots"):
            found = list(self._client.list_tables(f"{self._project}.{self._backups}"))
        return [f"{each.dataset_id}.{each.table_id}" for each in found if each.table_id.endswith(f"__{backup_id}")]

    def drop(self, name: str) -> None:
        """Deletes a table or snapshot; nothing where there is none."""
        with _explained(f"deleting {name}"):
            self._client.delete_table(self._name(name), not_found_ok=True)

    def partitions(self, table: Backed, name: str) -> dict[str, PartitionInfo]:
        """The partitions of a table, by id; of its metadata alone."""
        dataset, _, short = name.partition(".")
        rows = self._warehouse.answer(
            "SELECT partition_id, total_rows, last_modified_time "
            f"FROM `{self._project}.{dataset}.INFORMATION_SCHEMA.PARTITIONS` WHERE table_name = @name",
            {"name": short},
            most_bytes=_LEAST,
        ).rows
        return {
            row["partition_id"]: PartitionInfo(int(row["total_rows"] or 0), row["last_modified_time"])
            for row in rows
            if is_partition(table, row["partition_id"])
        }

    def export(self, table: Backed, snapshot: str, partition: str, folder: str, most_bytes: int) -> int:
        """Writes a partition of a snapshot as Avro files into a folder; says how many bytes it read.

        Avro keeps every type as BigQuery has it, JSON and NUMERIC included; files there are written over, so that it
        can be done again.
        """
        where, parameters = within(table, [partition])
        answer = self._warehouse.answer(
            f"EXPORT DATA OPTIONS (uri = '{folder}/*.avro', format = 'AVRO', compression = 'DEFLATE', "
            "overwrite = TRUE, use_avro_logical_types = TRUE) AS "
            f"SELECT * FROM `{self._project}.{snapshot}` WHERE {where}",
            parameters,
            most_bytes=most_bytes,
        )
        return answer.bytes_read

    def load(self, folders: Sequence[str], layout: Mapping[str, Any], target: str) -> Held:
        """Makes `target` from exports, with the columns, partitions and clusters that it had."""
        from google.api_core.exceptions import Conflict
        from google.cloud import bigquery

        dataset, _, short = target.partition(".")
        reference = {"projectId": self._project, "datasetId": dataset, "tableId": short}
        made = bigquery.Table.from_api_repr({"tableReference": reference, **layout})
        config = bigquery.LoadJobConfig(
            source_format="AVRO", use_avro_logical_types=True, schema=made.schema, write_disposition="WRITE_APPEND"
        )
        with _explained(f"loading {target}"):
            try:
                self._client.create_table(made)
            except Conflict:
                raise BackupError(f"{target} is there already: nothing was written. Choose another --into.") from None
            for folder in folders:
                job = self._client.load_table_from_uri(
                    f"{folder}/*.avro", self._name(target), job_config=config, location=self._location
                )
                job.result(timeout=_JOB_SECONDS)
        held = self.get(target)
        if held is None:
            raise BackupError(f"{target} was loaded and is gone. See who deletes tables there; restore again.")
        return held

    def _copy(self, source: str, target: str, operation: str, what: str, *, replace: bool = False) -> None:
        from google.cloud import bigquery

        config = bigquery.CopyJobConfig(
            operation_type=operation, write_disposition="WRITE_TRUNCATE" if replace else "WRITE_EMPTY"
        )
        with _explained(what):
            job = self._client.copy_table(
                self._name(source), self._name(target), job_config=config, location=self._location
            )
            job.result(timeout=_JOB_SECONDS)

    def _name(self, name: str) -> str:
        return f"{self._project}.{name}"


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """What BigQuery refuses, without its message: it can quote values."""
    from concurrent.futures import TimeoutError as NotDone

    from google.api_core.exceptions import Conflict, GoogleAPICallError, NotFound
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    try:
        yield
    except (Conflict, NotFound):
        raise
    except (GoogleAPICallError, GoogleAuthError, RequestException, NotDone) as error:
        raise BackupError(
            f"{what} failed ({type(error).__name__}). See the account's roles (docs/iam.md, audit backup) and that "
            "BigQuery answers; the same command continues where this one ended."
        ) from error
