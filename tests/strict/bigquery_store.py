"""What the strict BigQuery keeps: datasets, tables, their schemas over time, and the rows as Arrow batches.

A table has two views of its schema. REST shows a change at once; the write path learns of it `schema_lag` seconds later
("if the BigQuery table schema is updated, users will be able to ingest data on the new schema after some time (in order
of minutes)": cloud.google.com/java/docs/reference/google-cloud-bigquerystorage, `SchemaAwareStreamWriter`).
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

Reference = tuple[str, str, str]
UTC_MICROS = pa.timestamp("us", tz="UTC")

# REST writes the older names: cloud.google.com/bigquery/docs/reference/rest/v2/tables#TableFieldSchema.FIELDS.type
_OLDER = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}

ARROW: dict[str, pa.DataType] = {
    "STRING": pa.string(),
    "JSON": pa.string(),
    "BYTES": pa.binary(),
    "INTEGER": pa.int64(),
    "FLOAT": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "NUMERIC": pa.decimal128(38, 9),
    "BIGNUMERIC": pa.decimal256(76, 38),
    "DATE": pa.date32(),
    "TIMESTAMP": UTC_MICROS,
    "DATETIME": pa.timestamp("us"),
}

# cloud.google.com/bigquery/docs/schemas#column_names: at most 300 characters, unique whatever the case, none of these
# prefixes; and what flexible column names still exclude.
_RESERVED = (
    "_table_",
    "_file_",
    "_partition",
    "_row_timestamp",
    "__root__",
    "_colidentifier",
    "_change_sequence_number",
)
_NOT_IN_NAMES = re.compile(r"""[!"$()*,./;?@\[\\\]^`{}~\x00-\x1f]""")
_MOST_COLUMNS = 10_000


class RestError(Exception):
    """What REST answers instead: cloud.google.com/bigquery/docs/error-messages."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


@dataclass
class Chunk:
    """The rows of one append, and when queries could see them (server's clock, ns since 1970)."""

    arrived_ns: int
    batch: pa.RecordBatch
    stream: str = ""
    _bounds: dict[str, tuple[Any, Any] | None] = field(default_factory=dict)

    def bounds(self, column: str) -> tuple[Any, Any] | None:
        """Least and greatest value of a column; None where it has none."""
        if column not in self._bounds:
            low_high = pc.min_max(self.batch.column(column)).as_py() if column in self.batch.schema.names else None
            known = low_high is not None and low_high["min"] is not None
            self._bounds[column] = (low_high["min"], low_high["max"]) if low_high and known else None
        return self._bounds[column]


@dataclass(frozen=True)
class Version:
    """A schema, and when (on the store's clock) the write path knows it."""

    fields: tuple[dict[str, Any], ...]
    known_at: float


class Table:
    def __init__(self, reference: Reference, resource: dict[str, Any], version: Version) -> None:
        self.reference = reference
        self.resource = resource
        self.versions = [version]
        self.chunks: list[Chunk] = []
        self.dropped = False
        self.lock = threading.RLock()

    @property
    def id(self) -> str:
        return ".".join(self.reference[1:])

    @property
    def path(self) -> str:
        return "projects/{}/datasets/{}/tables/{}".format(*self.reference)

    @property
    def fields(self) -> tuple[dict[str, Any], ...]:
        """What REST shows."""
        return self.versions[-1].fields

    def written_as(self, now: float) -> Version | None:
        """What the write path knows; None while it does not know the table."""
        return next((version for version in reversed(self.versions) if version.known_at <= now), None)

    @property
    def rows(self) -> int:
        return sum(chunk.batch.num_rows for chunk in self.chunks)

    def as_rest(self) -> dict[str, Any]:
        project, dataset, table = self.reference
        shown = {
            **self.resource,
            "kind": "bigquery#table",
            "id": f"{project}:{dataset}.{table}",
            "tableReference": {"projectId": project, "datasetId": dataset, "tableId": table},
            "type": "TABLE",
            "schema": {"fields": list(self.fields)},
        }
        shown["etag"] = hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:24]
        shown["numRows"] = str(self.rows)
        return shown

    def arrow_schema(self) -> pa.Schema:
        return pa.schema([(f["name"], arrow_type(f)) for f in self.fields])


@dataclass(kw_only=True)
class Lags:
    """Seconds after which the write path learns of a changed schema, and of a new table."""

    schema: float = 0.0
    table: float = 0.0


class Store:
    """Datasets and tables, and who is notified of rows that arrived. For several threads."""

    def __init__(self, lags: Lags, clock: Callable[[], float] = time.monotonic) -> None:
        self.lags = lags
        self.clock = clock
        self.calls: Counter[str] = Counter()
        self.datasets: dict[tuple[str, str], dict[str, Any]] = {}
        self.tables: dict[Reference, Table] = {}
        self.arrived: list[Callable[[Table, Chunk], None]] = []
        self.lock = threading.RLock()

    def count(self, what: str, by: int = 1) -> None:
        with self.lock:
            self.calls[what] += by

    # Datasets

    def create_dataset(self, project: str, dataset: str, resource: dict[str, Any] | None = None) -> dict[str, Any]:
        with self.lock:
            if (project, dataset) in self.datasets:
                raise RestError(409, "duplicate", f"Already Exists: Dataset {project}:{dataset}")
            made = {
                **(resource or {}),
                "kind": "bigquery#dataset",
                "id": f"{project}:{dataset}",
                "datasetReference": {"projectId": project, "datasetId": dataset},
                "location": "US",
            }
            made["etag"] = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:24]
            self.datasets[project, dataset] = made
            return made

    def dataset(self, project: str, dataset: str) -> dict[str, Any]:
        try:
            return self.datasets[project, dataset]
        except KeyError:
            raise RestError(404, "notFound", f"Not found: Dataset {project}:{dataset}") from None

    def drop_dataset(self, project: str, dataset: str, contents: bool) -> None:
        with self.lock:
            self.dataset(project, dataset)
            inside = [r for r in self.tables if r[:2] == (project, dataset)]
            if inside and not contents:
                raise RestError(400, "resourceInUse", f"Dataset {project}:{dataset} is still in use")
            for reference in inside:
                self.drop_table(reference)
            del self.datasets[project, dataset]

    # Tables

    def create_table(self, reference: Reference, resource: dict[str, Any]) -> Table:
        with self.lock:
            self.dataset(*reference[:2])
            if reference in self.tables:
                raise RestError(409, "duplicate", "Already Exists: Table {}:{}.{}".format(*reference))
            fields = normalised(resource.get("schema", {}).get("fields", []))
            _check_names(reference, fields)
            kept = {k: v for k, v in resource.items() if k not in ("schema", "tableReference", "etag", "numRows")}
            # Assumed: that the write path may learn late of a new table, as it does of a changed schema.
            made = Table(reference, kept, Version(fields, self.clock() + self.lags.table))
            self.tables[reference] = made
            return made

    def table(self, reference: Reference) -> Table:
        try:
            return self.tables[reference]
        except KeyError:
            raise RestError(404, "notFound", "Not found: Table {}:{}.{}".format(*reference)) from None

    def drop_table(self, reference: Reference) -> None:
        with self.lock:
            self.table(reference).dropped = True
            del self.tables[reference]

    def patch_table(self, reference: Reference, resource: dict[str, Any], if_match: str | None) -> Table:
        """Raises RestError 412 when `if_match` is not the etag: google-cloud-bigquery, `Client.update_table`."""
        with self.lock:
            table = self.table(reference)
            if if_match not in (None, "*", table.as_rest()["etag"]):
                raise RestError(412, "conditionNotMet", "Precondition check failed.")
            if "schema" in resource:
                self.change_schema(table, normalised(resource["schema"]["fields"]))
            table.resource |= {k: v for k, v in resource.items() if k not in ("schema", "tableReference", "etag")}
            return table

    def change_schema(self, table: Table, fields: tuple[dict[str, Any], ...]) -> None:
        if fields == table.fields:
            return
        _check_names(table.reference, fields)
        _check_change(table, fields)
        table.versions.append(Version(fields, self.clock() + self.lags.schema))

    # Rows

    def add(self, table: Table, batch: pa.RecordBatch, stream: str) -> Chunk:
        """Rows become visible to queries: "COMMITTED … data is visible immediately upon successful append"."""
        chunk = Chunk(time.time_ns(), batch, stream)
        with table.lock:
            table.chunks.append(chunk)
        for told in self.arrived:
            told(table, chunk)
        return chunk


def arrow_type(field: dict[str, Any]) -> pa.DataType:
    kind = ARROW[field["type"]]
    return pa.list_(kind) if field["mode"] == "REPEATED" else kind


def normalised(fields: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    return tuple(_normalised(f) for f in fields)


def _normalised(field: dict[str, Any]) -> dict[str, Any]:
    kind = field["type"].upper()
    shown = {**field, "type": _OLDER.get(kind, kind), "mode": (field.get("mode") or "NULLABLE").upper()}
    if shown["type"] not in ARROW:
        raise RestError(400, "invalid", f"The strict BigQuery has no type {kind} yet (field: {field['name']})")
    return shown


def _check_names(reference: Reference, fields: tuple[dict[str, Any], ...]) -> None:
    seen: set[str] = set()
    for one in fields:
        name = one["name"]
        folded = name.casefold()
        if folded in seen:
            raise RestError(400, "invalid", f"Duplicate column names in the schema: {name}")
        seen.add(folded)
        if not name or len(name) > 300 or _NOT_IN_NAMES.search(name) or folded.startswith(_RESERVED):
            raise RestError(400, "invalid", f'Invalid field name "{name}" in table {reference[1]}.{reference[2]}')
    if len(fields) > _MOST_COLUMNS:
        raise RestError(400, "invalid", f"Too many columns: {len(fields)}, at most {_MOST_COLUMNS}")


def _check_change(table: Table, fields: tuple[dict[str, Any], ...]) -> None:
    """cloud.google.com/bigquery/docs/managing-table-schemas: columns are added as NULLABLE or REPEATED, or relaxed."""

    def refused(why: str, name: str) -> RestError:
        text = "Provided Schema does not match Table {}:{}.{}. ".format(*table.reference)
        return RestError(400, "invalid", f"{text}{why} (field: {name})")

    new = {f["name"].casefold(): f for f in fields}
    for old in table.fields:
        kept = new.pop(old["name"].casefold(), None)
        if kept is None:
            raise refused("Field is missing in new schema", old["name"])
        if kept["type"] != old["type"]:
            raise refused(f"Field has changed type from {old['type']} to {kept['type']}", old["name"])
        if kept["mode"] != old["mode"] and (old["mode"], kept["mode"]) != ("REQUIRED", "NULLABLE"):
            raise refused(f"Field has changed mode from {old['mode']} to {kept['mode']}", old["name"])
    for added in new.values():
        if added["mode"] == "REQUIRED":
            raise refused("Cannot add required fields to an existing schema.", added["name"])
        if added.get("defaultValueExpression"):
            # cloud.google.com/bigquery/docs/default-values: a default is set on a column that exists.
            raise refused("Cannot add a field with a default value to an existing schema.", added["name"])


def table_rows(table: Table) -> Iterator[dict[str, Any]]:
    """Every row, with `_arrived_ns`."""
    for chunk in list(table.chunks):
        for row in chunk.batch.to_pylist():
            yield {**row, "_arrived_ns": chunk.arrived_ns}


def as_arrow(table: Table) -> pa.Table:
    """Every row, with all columns that REST shows, and `_arrived_ns`."""
    schema = table.arrow_schema().append(pa.field("_arrived_ns", pa.int64()))
    batches = []
    for chunk in list(table.chunks):
        arrays = [column_of(chunk.batch, f.name, f.type) for f in schema][:-1]
        arrays.append(pa.array([chunk.arrived_ns] * chunk.batch.num_rows, pa.int64()))
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return pa.Table.from_batches(batches, schema=schema)


def column_of(batch: pa.RecordBatch, name: str, kind: pa.DataType) -> pa.Array:
    """A column as the table has it; NULL in rows that are older than the column."""
    index = batch.schema.get_field_index(name)
    if index < 0:
        return pa.nulls(batch.num_rows, kind)
    found = batch.column(index)
    return found if found.type == kind else found.cast(kind)
