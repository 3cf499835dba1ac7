"""Starts the BigQuery emulator (`local-bigquery`): REST and the Storage Write API, on loopback.

It runs in its own environment (Python 3.13, newer Arrow and Protobuf than Beam's) and without a network: the two
DuckDB extensions that it would download are loaded from their wheels.

    python -m bigquery_launcher --rest 9050 --grpc 9060 --data DIR --project audit-local

Prints `READY` when both ports answer; ends on SIGTERM. With `--arrivals FILE` it writes one JSON line for each append
that queries can see, so that latency is measured where it counts without a query, which is slow here:

    {"table": "payment_audit.audit_logs", "stamp": …, "rows": 2, "queryable_at": …, "latencies_ms": [212, 209]}

`stamp` is the rows' `_metadata_big_query_commit_timestamp`, `latencies_ms` the time from each row's Spanner commit.
"""

import argparse
import datetime
import importlib
import json
import pathlib
import signal
import sys
import threading
from typing import Any

import duckdb

EXTENSIONS = ("spatial", "ducklake")
STAMP = "_metadata_big_query_commit_timestamp"
COMMIT = "_metadata_spanner_commit_timestamp"


def _extensions_from_wheels(directory: pathlib.Path) -> None:
    """Puts the two DuckDB extensions where DuckDB looks for them, and points every connection there."""
    [(version, platform)] = duckdb.sql(
        "SELECT library_version, (SELECT platform FROM pragma_platform()) FROM pragma_version()"
    ).fetchall()
    home = directory / version / platform
    home.mkdir(parents=True, exist_ok=True)
    for name in EXTENSIONS:
        package = importlib.import_module(f"duckdb_extension_{name}")
        wheel = next(pathlib.Path(next(iter(package.__path__))).rglob("*.duckdb_extension"))
        link = home / wheel.name
        link.unlink(missing_ok=True)
        link.symlink_to(wheel)

    connect = duckdb.connect

    def connect_offline(*args: Any, **kwargs: Any) -> Any:
        # With more threads a query takes half as much CPU again: the tables here are small.
        config = {"threads": 1, **(kwargs.pop("config", None) or {})}
        # DuckDB 1.5 takes the time zone only once the connection is open.
        time_zone = config.pop("TimeZone", None)
        config["extension_directory"] = str(directory)
        connection = connect(*args, config=config, **kwargs)
        if time_zone:
            connection.execute(f"SET TimeZone='{time_zone}'")
        for name in EXTENSIONS:
            connection.execute(f"LOAD {name}")
        return connection

    duckdb.connect = connect_offline


def _append_at_an_offset_atomically() -> None:
    """The emulator looks at the offset, inserts, and only then counts: two appends at one offset both land, and so does
    one beside a finalize, and a pending stream that two commit at once lands twice. BigQuery does each as one step,
    which is what exactly-once rests on."""
    from local_bigquery.grpc import write

    append, finalize, commit = write._append, write.finalize, write.commit
    locks: dict[str, threading.Lock] = {}
    commits = threading.Lock()

    def append_alone(stream: Any, rows: list[dict[str, Any]], offset: int | None) -> Any:
        with locks.setdefault(stream.name, threading.Lock()):
            return append(stream, rows, offset)

    def finalize_alone(request: Any) -> Any:
        with locks.setdefault(request.name, threading.Lock()):
            return finalize(request)

    def commit_alone(request: Any) -> Any:
        with commits:
            return commit(request)

    write._append, write.finalize, write.commit = append_alone, finalize_alone, commit_alone


def _take_requests_of_ten_megabytes() -> None:
    """gRPC takes messages of 4 MiB by default; BigQuery takes requests of 10 MB."""
    from local_bigquery.grpc import server

    made = server.grpc.server
    server.grpc.server = lambda pool: made(pool, options=[("grpc.max_receive_message_length", 10 * 1024 * 1024)])


def _look_up_a_table_where_it_is_kept() -> None:
    """For each table of each query the emulator lists every table and binds every view of every project: most of what
    a query costs. DuckLake keeps both in tables, where one of them is a seek."""
    from local_bigquery.catalog import tables
    from local_bigquery.engine import database

    def objects(project: str, dataset: str, table: str | None = None) -> list[tuple[str, str, int]]:
        if project not in database._attached:
            return every(project, dataset, table)
        kept = database.quote(f"__ducklake_metadata_{project}")
        found: list[tuple[str, str, int]] = database.fetch(
            f"""
            WITH here AS (
              SELECT schema_id FROM {kept}.ducklake_schema WHERE end_snapshot IS NULL AND schema_name = $1
            )
            SELECT table_name, 'TABLE', COALESCE(record_count, 0)
            FROM {kept}.ducklake_table SEMI JOIN here USING (schema_id)
            LEFT JOIN {kept}.ducklake_table_stats USING (table_id)
            WHERE end_snapshot IS NULL AND table_name = COALESCE($2, table_name)
            UNION ALL
            SELECT view_name, 'VIEW', 0 FROM {kept}.ducklake_view SEMI JOIN here USING (schema_id)
            WHERE end_snapshot IS NULL AND view_name = COALESCE($2, view_name)
            ORDER BY 1
            """,
            [dataset, table],
        )
        return found

    def columns(project: str, dataset: str, table: str, condition: str) -> list[tuple[str]]:
        kept = database.quote(f"__ducklake_metadata_{project}")
        found: list[tuple[str]] = database.fetch(
            f"""
            SELECT column_name FROM {kept}.ducklake_column
            JOIN {kept}.ducklake_table AS t USING (table_id)
            JOIN {kept}.ducklake_schema AS s USING (schema_id)
            WHERE ducklake_column.end_snapshot IS NULL AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL
              AND schema_name = $1 AND table_name = $2 AND parent_column IS NULL AND {condition}
            """,
            [dataset, table],
        )
        return found

    every, fetch = database.objects, database.fetch

    def fetch_one_table(sql: str, params: list[Any] | None = None) -> list[Any]:
        if params and "FROM duckdb_columns()" in sql and params[0] in database._attached:
            condition = "NOT nulls_allowed" if len(params) == 3 else f"column_name = '{tables.INGESTION_TIME}'"
            return columns(*params[:3], condition)
        return fetch(sql, params)

    database.objects, database.fetch = objects, fetch_one_table


def _bind_a_query_once() -> None:
    """The emulator binds a query three times: for its columns, for their types, and to run it. Views make that slow."""
    from local_bigquery.catalog import tables

    class Bound:
        """A cursor that remembers the relation that `tables.write` has made of the query."""

        def __init__(self, cursor: Any) -> None:
            self._cursor, self._bound = cursor, {}

        def sql(self, query: str, params: Any = None) -> Any:
            if query not in self._bound:
                self._bound[query] = self._cursor.sql(query, params=params)
            return self._bound[query]

        def __getattr__(self, name: str) -> Any:
            return getattr(self._cursor, name)

    write = tables.write
    tables.write = lambda cursor, *args, **kwargs: write(Bound(cursor), *args, **kwargs)


def _remove_members_of_json() -> None:
    """JSON_REMOVE, which the emulator lacks, for members of an object: `JSON_REMOVE(value, '$."name"', …)`.
    Source: https://cloud.google.com/bigquery/docs/reference/standard-sql/json_functions#json_remove"""
    from local_bigquery.sql import dialect
    from sqlglot import exp

    def remove(args: list[Any]) -> Any:
        value, *paths = args
        names = [json.loads(path.this.removeprefix("$.")) for path in paths]
        return dialect.macro("_without_members", value, exp.Literal.string(json.dumps(dict.fromkeys(names))))

    dialect.FUNCTIONS.append(pathlib.Path(__file__).with_name("bigquery_functions.sql"))
    dialect.BigQueryDialect.Parser.FUNCTIONS["JSON_REMOVE"] = remove


def _snapshots_of_a_moment() -> None:
    """Copy jobs: the emulator's snapshot has neither the moment in the source's name nor the layout of its base, and a
    table that is restored loses its partitions. A snapshot cannot be written over, a restored table is an ordinary one.

    Source: cloud.google.com/bigquery/docs/table-snapshots-create, /table-snapshots-restore.
    """
    from local_bigquery.catalog import datasets, metadata, tables
    from local_bigquery.engine import database
    from local_bigquery.errors import already_exists
    from local_bigquery.jobs import copy, runner
    from local_bigquery.models import JobStatistics5, Table

    laid_out = ("description", "schema", "timePartitioning", "rangePartitioning", "clustering")
    copied = copy.run

    def run(cursor: Any, config: Any, upload: str | None) -> Any:
        if config.operationType not in ("SNAPSHOT", "RESTORE"):
            return copied(cursor, config, upload)
        project, dataset, name = tables.reference(config.sourceTable or config.sourceTables[0])
        base, _, moment = name.partition("@")
        target = tables.reference(config.destinationTable)
        datasets.get(*target[:2])
        kept = tables.load(project, dataset, base).dump()
        there = tables.exists(*target)
        if there and (config.operationType == "SNAPSHOT" or config.writeDisposition != "WRITE_TRUNCATE"):
            raise already_exists("Table", f"{target[0]}:{target[1]}.{target[2]}")
        source = copy._source((project, dataset, name))
        with database.writing(*target):
            cursor.execute(f"CREATE OR REPLACE TABLE {tables.name(*target)} AS SELECT * FROM {source}")
        made: dict[str, Any] = {"type": "TABLE"}
        if config.operationType == "SNAPSHOT":
            at = datetime.datetime.fromtimestamp(int(moment or metadata.now()) / 1000, datetime.UTC)
            reference = {"projectId": project, "datasetId": dataset, "tableId": base}
            definition = {"baseTableReference": reference, "snapshotTime": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
            made = {"type": "SNAPSHOT", "snapshotDefinition": definition}
        layout = {key: kept[key] for key in laid_out if key in kept}
        tables.record(*target, tables.defaults(*target).merged(Table.model_validate(layout | made)))
        [(rows,)] = cursor.sql(f"SELECT count(*) FROM {tables.name(*target)}").fetchall()
        return JobStatistics5(copiedRows=str(rows), copiedLogicalBytes="0")

    runner.HANDLERS["copy"] = run


def _say_when_partitions_changed() -> None:
    """INFORMATION_SCHEMA.PARTITIONS has `last_modified_time`, which the emulator leaves out. DuckLake knows it of a
    table, not of a part of it: here every partition changed when its table did.

    Source: cloud.google.com/bigquery/docs/information-schema-partitions.
    """
    from local_bigquery.engine import database
    from local_bigquery.sql.rules import information_schema

    plain = information_schema.VIEWS["PARTITIONS"]

    def changed(project: str, dataset: str, table: str) -> str | None:
        kept = database.quote(f"__ducklake_metadata_{project}")
        files = " UNION ALL ".join(
            f"SELECT table_id, unnest([begin_snapshot, end_snapshot]) AS snapshot_id FROM {kept}.{name}"
            for name in ("ducklake_data_file", "ducklake_delete_file")
        )
        [(moment,)] = database.fetch(
            f"""
            SELECT max(epoch_us(snapshot_time)) FROM ({files}) JOIN {kept}.ducklake_snapshot USING (snapshot_id)
            WHERE table_id = (
              SELECT table_id FROM {kept}.ducklake_table JOIN {kept}.ducklake_schema AS s USING (schema_id)
              WHERE ducklake_table.end_snapshot IS NULL AND s.end_snapshot IS NULL
                AND schema_name = $1 AND table_name = $2
            )
            """,
            [dataset, table],
        )
        # As microseconds: with its zone it would need a library that is not there.
        return (datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=moment)).isoformat() if moment else None

    def partitions(project: str, dataset: str | None) -> tuple[list[str], list[list[Any]]]:
        columns, rows = plain(project, dataset)
        moments = {key: changed(*key) for key in {tuple(row[:3]) for row in rows}}
        return [*columns, "last_modified_time TIMESTAMP"], [[*row, moments[tuple(row[:3])]] for row in rows]

    information_schema.VIEWS["PARTITIONS"] = partitions


def _avro_with_every_type() -> None:
    """DuckDB would download its writer of Avro. Each type is written as BigQuery does with its logical types.

    Source: cloud.google.com/bigquery/docs/exporting-data#avro_export_details and, of JSON,
    /loading-data-cloud-storage-avro#extract_json_data_from_avro_data.
    """
    import fastavro
    from local_bigquery.engine import database, types
    from local_bigquery.jobs import extract, load

    kinds: dict[str, Any] = {
        "STRING": "string",
        "BYTES": "bytes",
        "INTEGER": "long",
        "FLOAT": "double",
        "BOOLEAN": "boolean",
        "NUMERIC": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 9},
        "DATE": {"type": "int", "logicalType": "date"},
        "TIMESTAMP": {"type": "long", "logicalType": "timestamp-micros"},
        "JSON": {"type": "string", "sqlType": "JSON"},
    }
    plain = extract.write

    def typed(field: Any) -> Any:
        kind = kinds[field.type]
        # An array that is NULL, which BigQuery has none of, stays one here: so a load gives what there was.
        return ["null", {"type": "array", "items": kind} if field.mode == "REPEATED" else kind]

    def write(cursor: Any, sql: str, params: Any, config: Any) -> int:
        if (config.destinationFormat or "").upper() != "AVRO":
            return int(plain(cursor, sql, params, config))
        relation = cursor.sql(sql, params=params)
        names = relation.columns
        fields = [types.field(name, kind) for name, kind in zip(names, relation.types, strict=True)]
        schema = {
            "type": "record",
            "name": "Root",
            "fields": [{"name": field.name, "type": typed(field)} for field in fields],
        }
        records = relation.to_arrow_table().to_pylist()
        codec = extract.AVRO_CODECS.get((config.compression or "").upper(), "null")
        for uri in extract._uris(config):
            with extract.written(uri.replace("*", "000000000000")) as target, pathlib.Path(target).open("wb") as file:
                fastavro.writer(file, schema, records, codec=codec)
        return len(records)

    decoded = load._projection

    def projection(config: Any, fields: list[Any], columns: list[str]) -> Any:
        # Bytes in a file with types are bytes; the emulator takes them for a text that stands for some.
        if not fields or config.sourceFormat != "AVRO":
            return decoded(config, fields, columns)
        # A column that the file lacks stays NULL.
        there = {name.casefold() for name in columns}
        known = [field for field in fields if field.name.casefold() in there]
        named = [(database.quote(field.name), types.duckdb_type(field)) for field in known]
        return ", ".join(f"CAST({name} AS {kind}) AS {name}" for name, kind in named), "false"

    extract.write, load._projection = write, projection


def _record_arrivals(file: pathlib.Path) -> None:
    """Writes a line to `file` after each insert that the Storage Write API has made visible."""
    from local_bigquery.grpc import write

    insert = write._insert
    out = file.open("a", buffering=1)

    def insert_and_record(stream: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        errors: list[dict[str, Any]] = insert(stream, rows)
        if rows and not errors:
            _, dataset, table = stream.table
            out.write(json.dumps(arrival(f"{dataset}.{table}", rows, datetime.datetime.now(datetime.UTC))) + "\n")
        return errors

    write._insert = insert_and_record


def arrival(table: str, rows: list[dict[str, Any]], queryable_at: datetime.datetime) -> dict[str, Any]:
    """What is recorded of an append: counts and times, nothing of a payment."""
    commits = (_time(row[COMMIT]) for row in rows if row.get(COMMIT))
    return {
        "table": table,
        "stamp": rows[0].get(STAMP),
        "rows": len(rows),
        "queryable_at": queryable_at.isoformat(),
        "latencies_ms": [round((queryable_at - commit).total_seconds() * 1000) for commit in commits],
    }


def _time(value: Any) -> datetime.datetime:
    """A TIMESTAMP of an appended row: ISO text from Arrow, microseconds since 1970 from protobuf."""
    if str(value).lstrip("-").isdigit():
        return datetime.datetime.fromtimestamp(int(value) / 1e6, datetime.UTC)
    return datetime.datetime.fromisoformat(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rest", type=int, required=True)
    parser.add_argument("--grpc", type=int, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--project", required=True)
    parser.add_argument("--arrivals", type=pathlib.Path)
    args = parser.parse_args()

    _extensions_from_wheels(args.data / "extensions")
    _append_at_an_offset_atomically()
    _take_requests_of_ten_megabytes()
    _look_up_a_table_where_it_is_kept()
    _bind_a_query_once()
    _remove_members_of_json()
    _snapshots_of_a_moment()
    _say_when_partitions_changed()
    _avro_with_every_type()
    import uvicorn
    from local_bigquery import app
    from local_bigquery.grpc import server
    from local_bigquery.settings import settings

    args.data.mkdir(parents=True, exist_ok=True)
    settings.data_dir = args.data
    settings.default_project_id = args.project
    settings.gcs_local_root = args.data / "gcs"
    if args.arrivals:
        _record_arrivals(args.arrivals)
    storage, _ = server.start("127.0.0.1", args.grpc)
    rest = uvicorn.Server(
        uvicorn.Config(getattr(app, "app", app), host="127.0.0.1", port=args.rest, log_level="warning")
    )
    thread = threading.Thread(target=rest.run, daemon=True)
    thread.start()
    while not rest.started:
        if not thread.is_alive():
            sys.exit(f"BigQuery emulator: port {args.rest} could not be opened.")
        thread.join(0.01)
    print("READY", flush=True)

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
    rest.should_exit = True
    thread.join(5)
    storage.stop(None)


if __name__ == "__main__":
    main()
