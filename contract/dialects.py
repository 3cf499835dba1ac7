"""The two dialects of a Spanner database, and all that differs between them in what is run against the source.

SQL is written once, in GoogleSQL, with `@names` of parameters and backticks round every name of a table or column. A
dialect makes of it what its databases take. Which of both a database has, it says itself (`WHICH`).
https://cloud.google.com/spanner/docs/reference/postgresql/overview
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from contract.errors import AuditError

GOOGLE_SQL: Final = "GOOGLE_STANDARD_SQL"
POSTGRESQL: Final = "POSTGRESQL"
# What a person types → Spanner's name.
TYPED: Final[Mapping[str, str]] = {"googlesql": GOOGLE_SQL, "postgresql": POSTGRESQL}

# The same in both dialects; it answers with one of the two names above. Google's Java client finds it so, as any role.
# https://cloud.google.com/spanner/docs/information-schema#database_options
WHICH: Final = "SELECT option_value FROM information_schema.database_options WHERE option_name = 'database_dialect'"
# The database's own time, in both.
NOW: Final = "SELECT CURRENT_TIMESTAMP"
# What a statement calls the schema of what is in none of a name; no schema can be made that is called so.
DEFAULT_SCHEMAS: Final = ("default", "public")


class UnknownDialect(AuditError):
    """A dialect that is not known here; the message says the remedy."""


class ReadFunction(NamedTuple):
    """The query of a change stream, and the names of its parameters: start, end, token and heartbeat."""

    sql: str
    start: str
    end: str
    token: str
    heartbeat: str


def quoted(name: str) -> str:
    """A name as SQL has it; of what is in a named schema each part: `sales`.`orders`."""
    return ".".join(f"`{part}`" for part in name.split("."))


def schema_of(table: str) -> str:
    """The named schema of a table; empty of one in the default schema."""
    return table.rpartition(".")[0]


def beside(table: str, name: str) -> str:
    """The whole name of what is in the schema of a table, as its indexes are.

    https://cloud.google.com/spanner/docs/named-schemas
    """
    schema = schema_of(table)
    return f"{schema}.{name}" if schema else name


class Dialect:
    """GoogleSQL: what is written here is what runs."""

    name = GOOGLE_SQL
    # What INFORMATION_SCHEMA calls the schema of a table that is in none of a name.
    default_schema = ""

    def read_function(self, stream: str, *, mutable: bool) -> str:
        """The name of a change stream's read function; `mutable`: its partition_mode is MUTABLE_KEY_RANGE."""
        return f"READ_{stream}"

    def read(self, function: str) -> ReadFunction:
        """The query of a change stream, by its read function.

        https://cloud.google.com/spanner/docs/change-streams/details#query
        """
        sql = (
            f"SELECT ChangeRecord FROM {function}(start_timestamp => @start, end_timestamp => @end, "
            "partition_token => @token, heartbeat_milliseconds => @heartbeat)"
        )
        return ReadFunction(sql, "start", "end", "token", "heartbeat")

    def query(
        self, sql: str, values: Mapping[str, Any] | None = None, types: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """A query as the client library's `execute_sql` takes it, by names."""
        return {"sql": sql, "params": dict(values or {}) or None, "param_types": dict(types or {}) or None}

    def columns(self, tables: Iterable[str]) -> str:
        """The query of all columns in the schemas of these tables; `by_table` takes its rows."""
        schemas = ", ".join(f"'{schema}'" for schema in sorted({self.of_table(table)[0] for table in tables}))
        return (
            "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, SPANNER_TYPE FROM INFORMATION_SCHEMA.COLUMNS "
            f"WHERE TABLE_SCHEMA IN ({schemas})"
        )

    def by_table(self, rows: Iterable[Sequence[str]]) -> dict[str, dict[str, str]]:
        """Table → column → Spanner type, from the rows of `columns`."""
        found: dict[str, dict[str, str]] = {}
        for schema, table, column, kind in rows:
            found.setdefault(self.table(schema, table), {})[column] = self.type(kind)
        return found

    def ddl(self, statement: str, mutable: Collection[str] = ()) -> str:
        """A statement of `contract.attached` in this dialect; `mutable`: the change streams of MUTABLE_KEY_RANGE."""
        return statement

    def type(self, described: str) -> str:
        """The Spanner type of a column, from SPANNER_TYPE of INFORMATION_SCHEMA: `STRING(36)`, `ARRAY<INT64>`."""
        return described

    def table(self, schema: str, name: str) -> str:
        """A table's name as change records and descriptions have it, from those of INFORMATION_SCHEMA."""
        return name if schema == self.default_schema else f"{schema}.{name}"

    def of_table(self, table: str) -> tuple[str, str]:
        """What INFORMATION_SCHEMA calls a table: its schema and its name."""
        return schema_of(table) or self.default_schema, table.rpartition(".")[2]

    def first_of_shards(self, rows: str, condition: str, shard: str, shards: int, most: int) -> str:
        """The first rows of an index that begins with a shard, if it has one: `rows` before the WHERE, `condition` with
        its ORDER BY, by the rest of the index. A seek of each shard, so that nothing is sorted."""
        own = f"`{shard}` = shard AND " if shard else ""
        rows = rows.replace("SELECT ", "SELECT AS STRUCT ", 1)
        return (
            f"SELECT found.* FROM UNNEST(GENERATE_ARRAY(0, {shards - 1})) AS shard, "
            f"UNNEST(ARRAY({rows} WHERE {own}{condition} LIMIT {most // shards})) AS found"
        )


# What is written in GoogleSQL here and otherwise in PostgreSQL. Strings stay as they are.
_IN_POSTGRESQL: Final = re.compile(
    r"""
      (?P<string> '(?:[^'\\]|\\.)*' )
    | IN\ UNNEST\(@(?P<any>\w+)\)
    | @\{FORCE_INDEX=`(?P<index>[\w.]+)`\}
    | `(?P<quoted>\w+)`
    | @(?P<parameter>\w+)
    """,
    re.X,
)
# Types as PostgreSQL's DDL and INFORMATION_SCHEMA write them → Spanner's. Lengths are kept.
# https://cloud.google.com/spanner/docs/reference/postgresql/data-types
TYPES: Final[Mapping[str, str]] = {
    "bool": "BOOL",
    "boolean": "BOOL",
    "bigint": "INT64",
    "int8": "INT64",
    "oid": "INT64",
    "real": "FLOAT32",
    "float4": "FLOAT32",
    "double precision": "FLOAT64",
    "float8": "FLOAT64",
    "numeric": "PG_NUMERIC",
    "decimal": "PG_NUMERIC",
    "character varying": "STRING",
    "varchar": "STRING",
    "text": "STRING",
    "bytea": "BYTES",
    "date": "DATE",
    "timestamp with time zone": "TIMESTAMP",
    "timestamptz": "TIMESTAMP",
    "spanner.commit_timestamp": "TIMESTAMP",
    "jsonb": "PG_JSONB",
    "uuid": "UUID",
    "interval": "INTERVAL",
    "spanner.tokenlist": "TOKENLIST",
}
_TYPE: Final = re.compile(r"(?P<name>[a-z0-9_. ]+?)\s*(?P<length>\(\d+\))?\s*(?P<array>\[\d*\])?", re.I)
# Words that only one dialect's tables are written with.
_STRINGS_AND_NAMES: Final = re.compile(r"'(?:[^'\\]|\\.)*'|\"[^\"]*\"|`[^`]*`|--[^\n]*")
_OF_POSTGRESQL: Final = re.compile(
    r"\b(character varying|varchar|text|bigint|int8|boolean|double precision|float4|float8|bytea|jsonb|timestamptz"
    r"|timestamp with time zone)\b",
    re.I,
)
_OF_GOOGLE_SQL: Final = re.compile(r"\b(STRING|BYTES)\s*\(|\b(INT64|FLOAT64|FLOAT32)\b", re.I)


class _PostgreSql(Dialect):
    name = POSTGRESQL
    default_schema = "public"

    def read_function(self, stream: str, *, mutable: bool) -> str:
        # Google's page has read_json alone. Its emulator (backend/query/change_stream/change_stream_query_validator.cc,
        # since 2026) and Beam's ChangeStreamDao (https://github.com/apache/beam/pull/36667) have both.
        return f"read_proto_bytes_{stream}" if mutable else f"read_json_{stream}"

    def read(self, function: str) -> ReadFunction:
        return ReadFunction(f'SELECT * FROM spanner."{function}"($1, $2, $3, $4, NULL)', "p1", "p2", "p3", "p4")

    def query(
        self, sql: str, values: Mapping[str, Any] | None = None, types: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        # Parameters have numbers, in the order in which they first come; the client calls them p1, p2, …
        places: dict[str, int] = {}

        def replaced(found: re.Match[str]) -> str:
            if name := found["any"] or found["parameter"]:
                place = f"${places.setdefault(name, len(places) + 1)}"
                return f"= ANY({place})" if found["any"] else place
            if found["quoted"]:
                return f'"{found["quoted"]}"'
            if found["index"]:
                return f' /*@ FORCE_INDEX = "{found["index"]}" */'
            return found[0]

        translated = _IN_POSTGRESQL.sub(replaced, sql)
        given = {f"p{place}": (values or {})[name] for name, place in places.items()}
        kinds = {f"p{place}": types[name] for name, place in places.items() if types and name in types}
        return super().query(translated, given, kinds)

    def ddl(self, statement: str, mutable: Collection[str] = ()) -> str:
        def function(found: re.Match[str]) -> str:
            return f'spanner."{self.read_function(found[1], mutable=found[1] in mutable)}"'

        statement = re.sub(r"`READ_(\w+)`", function, statement)
        for found, written in (
            (r" OPTIONS \(", " WITH ("),
            (r"\bTO ROLE ", "TO "),
            # Of tables alone, SELECT (columns) is given of the table.
            (r"\bON TABLE FUNCTION ", "ON FUNCTION "),
            # An index takes its table's schema, and no other name before its own.
            (r"\bCREATE INDEX `\w+`\.", "CREATE INDEX "),
            (r"`(\w+)`", r'"\1"'),
        ):
            statement = re.sub(found, written, statement)
        return statement

    def type(self, described: str) -> str:
        found = _TYPE.fullmatch(described.strip())
        name = " ".join(found["name"].lower().split()) if found else ""
        if not found or name not in TYPES:
            # One of tomorrow is carried as text.
            return described.upper()
        kind = TYPES[name]
        if kind == "STRING":
            kind += found["length"] or "(MAX)"
        elif kind == "BYTES":
            kind += "(MAX)"
        return f"ARRAY<{kind}>" if found["array"] else kind

    def first_of_shards(self, rows: str, condition: str, shard: str, shards: int, most: int) -> str:
        # No lateral subquery, and at most 75 predicates in a query: the seeks of all shards are one condition.
        own = f"`{shard}` = ANY(ARRAY[{', '.join(map(str, range(shards)))}]) AND " if shard else ""
        return f"({rows} WHERE {own}{condition} LIMIT {most})"


_DIALECTS: Final[Mapping[str, Dialect]] = {GOOGLE_SQL: Dialect(), POSTGRESQL: _PostgreSql()}


def named(name: str) -> Dialect:
    """A dialect by Spanner's name of it. Raises UnknownDialect."""
    if name not in _DIALECTS:
        raise UnknownDialect(
            f"a database must be of the dialect {' or '.join(_DIALECTS)}, got {name}. Update the audit: this version "
            "knows no other."
        )
    return _DIALECTS[name]


def answered(rows: Iterable[Any]) -> Dialect:
    """The dialect that a database answers `WHICH` with. One that says nothing is older than the other dialect."""
    found = [str(value) for (value,) in rows]
    return named(found[0] if found else GOOGLE_SQL)


def of_ddl(text: str) -> Dialect:
    """The dialect in which statements are written, by the types of their columns: each has some of the other's not."""
    words = _STRINGS_AND_NAMES.sub(" ", text)
    google, postgresql = _OF_GOOGLE_SQL.search(words), _OF_POSTGRESQL.search(words)
    return named(POSTGRESQL if postgresql and not google else GOOGLE_SQL)
