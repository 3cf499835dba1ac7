"""The watched tables, as `tables.toml` describes them: which they are, what masking does to their columns, what the
columns mean.

One description, read by everything: masking plan, BigQuery tables, policy tags, views and queries, enrichment, search,
probe, traffic and check. The stack reads the file; the job, the probe and the `audit` command get what it says as JSON.

    python -m contract.watched tables.toml         checks a description, and prints the JSON of the launch option
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, get_args

from contract import dialects, schema
from contract.errors import AuditError

SHIPPED: Final = Path(__file__).parents[1] / "tables.toml"

# What masking does to a column. `scan` passes the value with every card number in it replaced; `identifier` is never
# rewritten: a card number in it makes a dead letter. (What it was before is masked like any text: the change that
# corrects it must arrive.) `card` leaves first six and last four digits and a token, `token` only a token; `drop`
# leaves nothing; `hold` keeps the column, as NULL. A column that is not described is unclassified: see `newColumns`.
Policy = Literal["identifier", "scan", "card", "token", "drop", "hold"]

# What a column says of a payment. A table has at most one column for each.
Meaning = Literal[
    "payment", "customer", "acting_user", "status", "time", "action", "amount", "currency", "region", "method",
    "service", "error", "retries", "metadata", "created", "changed",
]  # fmt: skip
POLICIES: Final[tuple[Policy, ...]] = get_args(Policy)
MEANINGS: Final[tuple[Meaning, ...]] = get_args(Meaning)

# Spanner types that a column with a meaning can have, without their length; any where nothing is said.
_WHOLE: Final = ("INT64",)
_TEXT: Final = ("STRING",)
_AMOUNT: Final = ("NUMERIC", "PG_NUMERIC", "INT64", "FLOAT64")
_TIME: Final = ("TIMESTAMP",)
_TYPES: Final[Mapping[Meaning, tuple[str, ...]]] = {
    "payment": (*_TEXT, *_WHOLE),
    "customer": (*_TEXT, *_WHOLE),
    "acting_user": (*_TEXT, *_WHOLE),
    "status": _TEXT,
    "time": _TIME,
    "action": _TEXT,
    "amount": _AMOUNT,
    "currency": _TEXT,
    "region": _TEXT,
    "method": _TEXT,
    "service": _TEXT,
    "error": _TEXT,
    "retries": _WHOLE,
    "metadata": ("JSON", "PG_JSONB", *_TEXT),
    "created": _TIME,
    "changed": _TIME,
}
# A column with such a policy has no value that could mean anything.
_HIDDEN: Final = ("card", "token", "drop", "hold")

# The key of the changelog that makes the same tables in a PostgreSQL database.
_POSTGRESQL: Final = "changelog_postgresql"

# Where a description comes from that is not a file.
_DESCRIPTION: Final = "the description"

# Datasets and tables that the platform makes: views, access log, backups, what is beside the payments' changelog.
VIEWS_DATASET: Final = "payment_views"
ACCESS_DATASET: Final = "payment_access"
BACKUPS_DATASET: Final = "payment_backups"
RESTORED_DATASET: Final = "payment_restored"
_OWN_TABLES: Final = frozenset(
    {"payment_state", "payment_state_progress", "payment_lookup", "resume_positions", "stuck_payments_seen"}
    | {"audit_checks"}
)
# Columns that the views have beside those of the source, enrichment aside.
OF_TIMELINE: Final = frozenset(
    {"commit_timestamp", "commit_timestamp_nanos", "change_id", "source_table", "mod_type", "server_transaction_id"}
    | {"old_values", "exact_values", "card_tokens", "arrived_at"}
)
OF_TRANSITIONS: Final = frozenset(
    {"commit_timestamp", "change_id", "mod_type", "from_status", "to_status", "from_state", "to_state", "from_at"}
    | {"to_at", "seconds_in_from_state", "expected"}
)
# What a table can be clustered by, and by how many:
# https://cloud.google.com/bigquery/docs/clustered-tables#limitations
_CLUSTERING: Final = ("STRING", "INT64", "NUMERIC", "BOOL", "DATE", "TIMESTAMP")
_MOST_CLUSTERED: Final = 4

Partition = Literal["HOUR", "DAY", "MONTH", "YEAR"]
# What a table is: the payments themselves, or what else happened to them. Any other is carried, and no more.
Kind = Literal["payments", "events", "other"]


class WatchedError(AuditError, ValueError):
    """The description of the watched tables breaks rules; the message has one line for each, with its remedy."""


@dataclass(frozen=True, kw_only=True)
class WatchedColumn:
    """A column: its masking policy, whether it is personal, and what it means.

    `customer_in` and `acting_user_in` are for metadata: members in which the two are found, the first that has a value
    counts, such as `customer.id`.
    """

    policy: Policy
    means: Meaning | None = None
    personal: bool = False
    customer_in: tuple[str, ...] = ()
    acting_user_in: tuple[str, ...] = ()
    # Spanner's, without its length. The changelog says it, not the file.
    type: str = ""


@dataclass(frozen=True, kw_only=True)
class StatusIndex:
    """A Spanner index of the payments by status and time of change, in the schema of their table. `shard` is its first
    column, with values from 0."""

    name: str
    shard: str = ""
    shards: int = 1


@dataclass(frozen=True, kw_only=True)
class WatchedTable:
    """A Spanner table that a change stream watches, and its changelog: `dataset` and `table` in BigQuery. `name` is as
    change records have it: of a table in a named schema `schema.table`."""

    name: str
    kind: Kind = "other"
    change_stream: str = ""
    dataset: str = ""
    table: str = ""
    partition: Partition = "DAY"
    cluster_by: tuple[str, ...] = ()
    status_index: StatusIndex | None = None
    columns: Mapping[str, WatchedColumn] = field(default_factory=dict)

    # By its name: a table is a key of caches in the job's path.
    def __hash__(self) -> int:
        return hash(self.name)

    def policy_of(self, column: str) -> Policy | None:
        """What masking does to a column, by its name in any case; None for an unclassified one."""
        found = self._folded.get(column.casefold())
        return found.policy if found else None

    def column(self, meaning: Meaning) -> str | None:
        """The source column with this meaning, or None."""
        return self.meanings.get(meaning)

    def payment_in(self, *rows: Mapping[str, Any] | None) -> str | None:
        """The id of the payment that masked rows are about, as text; None where none of them says it."""
        column = self.column("payment")
        found = next((row[column] for row in rows if row and column and row.get(column) is not None), None)
        return None if found is None else str(found)

    def is_personal(self, column: str) -> bool:
        found = self._folded.get(column.casefold())
        return bool(found and found.personal)

    @property
    def id(self) -> str:
        """Its changelog in BigQuery: `dataset.table`."""
        return f"{self.dataset}.{self.table}"

    @property
    def payment_type(self) -> str:
        """The type of the column that means `payment`: STRING or INT64."""
        column = self.column("payment")
        return self.columns[column].type if column else "STRING"

    @cached_property
    def meanings(self) -> Mapping[Meaning, str]:
        """Meaning → column, of those that the table has."""
        return {column.means: name for name, column in self.columns.items() if column.means}

    @cached_property
    def metadata(self) -> WatchedColumn | None:
        """The column in whose JSON customer and acting user may be found."""
        name = self.column("metadata")
        return self.columns[name] if name else None

    @cached_property
    def _folded(self) -> dict[str, WatchedColumn]:
        return {name.casefold(): column for name, column in self.columns.items()}


@dataclass(frozen=True, kw_only=True)
class WatchedTables:
    """The description. `changelog` is the Liquibase changelog that makes the tables, or the DDL of the database that
    others own; None where only JSON is known. `prefix` is in front of the stack's datasets, the tables' own too."""

    tables: tuple[WatchedTable, ...]
    changelog: Path | None = field(default=None, compare=False)
    prefix: str = ""

    @cached_property
    def payments(self) -> WatchedTable:
        """The one table whose rows are the payments."""
        return next(table for table in self.tables if table.kind == "payments")

    @cached_property
    def events(self) -> tuple[WatchedTable, ...]:
        """The tables that say what else happened to a payment."""
        return tuple(table for table in self.tables if table.kind == "events")

    @property
    def attached(self) -> bool:
        """Whether the tables are in a database that others own: its DDL is known, and no changelog makes it."""
        return schema.is_dump(self.source_changelog)

    @property
    def source_changelog(self) -> Path:
        """The changelog, or the DDL. Raises WatchedError where the description was not read from a file."""
        if self.changelog is None:
            raise WatchedError("the columns of the watched tables are in their changelog: load tables.toml for it.")
        return self.changelog

    def with_prefix(self, prefix: str, kept: Collection[str] = ()) -> WatchedTables:
        """The description in a stack with that prefix: its changelogs are in datasets with it too, but for those of
        others, which are `kept`."""
        if not prefix:
            return self
        tables = tuple(
            t if t.dataset in kept else replace(t, dataset=_in_front(prefix, t.dataset)) for t in self.tables
        )
        return replace(self, tables=tables, prefix=prefix)

    def of_stack(self, dataset: str) -> str:
        """What a dataset of that name in the tables file is called in this stack; empty where there is no name."""
        kept = any(table.dataset == dataset for table in self.tables)
        return _in_front(self.prefix, dataset) if dataset and not kept else dataset

    def without_prefix(self, name: str) -> str:
        """What a dataset, or a table in one, is called in a stack without a prefix."""
        return name.removeprefix(_in_front(self.prefix, ""))

    @property
    def views_dataset(self) -> str:
        return _in_front(self.prefix, VIEWS_DATASET)

    @property
    def access_dataset(self) -> str:
        return _in_front(self.prefix, ACCESS_DATASET)

    @property
    def backups_dataset(self) -> str:
        return _in_front(self.prefix, BACKUPS_DATASET)

    @property
    def restored_dataset(self) -> str:
        return _in_front(self.prefix, RESTORED_DATASET)

    @property
    def change_streams(self) -> tuple[str, ...]:
        """The change streams that watch them, each once."""
        return tuple(dict.fromkeys(table.change_stream for table in self.tables))

    def of(self, name: str) -> WatchedTable:
        """The table of that name; one that is not described has no column that anybody has classified."""
        found = self._by_name.get(name)
        if found is None:
            found = self._by_name[name] = WatchedTable(name=name)
        return found

    @cached_property
    def _by_name(self) -> dict[str, WatchedTable]:
        return {table.name: table for table in self.tables}

    def source_statements(self, contexts: frozenset[str]) -> list[str]:
        """The DDL of the source as the connection file carries it: the changelog's statements of these contexts; of a
        database that others own, the tables that are watched, and nothing else of it. Raises WatchedError."""
        every = schema.statements(self.source_changelog, contexts=contexts)
        if not self.attached:
            return every
        names = self._by_name.keys()
        return [each for each in every if names & schema.read([each]).tables().keys()]

    def to_json(self) -> str:
        """The description as the launch option and the connection file carry it: on one line, without the defaults."""
        tables = {table.name: _without_defaults(table) for table in self.tables}
        prefix = {"prefix": self.prefix} if self.prefix else {}
        return json.dumps({**prefix, "tables": tables}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> WatchedTables:
        """Reads `to_json`. Raises WatchedError."""
        try:
            content = json.loads(text)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise WatchedError(
                "the description of the watched tables must be a JSON object: `python -m contract.watched tables.toml` "
                "prints it."
            )
        return _Read(_DESCRIPTION).tables(content)

    @classmethod
    def load(cls, path: Path = SHIPPED, dialect: str = dialects.GOOGLE_SQL) -> WatchedTables:
        """Reads a file, and checks it against the changelog of that dialect that it names, or against the DDL of a
        database that others own, of whichever dialect. Raises WatchedError."""
        try:
            content = tomllib.loads(path.read_text())
        except OSError as error:
            raise WatchedError(
                f"{path.name} cannot be read: {error.strerror}. Set `tables` in the stack's file."
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise WatchedError(f"{path.name} must be TOML: {error}.") from None
        read = _Read(path.name)
        changelog = read.changelog(content, path.parent, dialect)
        watched = read.tables(content)
        read.fits(watched, changelog)
        tables = (_with_types(table, schema.tables(changelog)[table.name]) for table in watched.tables)
        return WatchedTables(tables=tuple(tables), changelog=changelog)


def _in_front(prefix: str, dataset: str) -> str:
    """A dataset's name takes no hyphen: https://cloud.google.com/bigquery/docs/datasets#dataset-naming."""
    return f"{prefix.replace('-', '_')}_{dataset}" if prefix else dataset


def _with_types(table: WatchedTable, made: schema.Table) -> WatchedTable:
    types = {column.name: _base(column.type) for column in made.columns}
    return replace(table, columns={name: replace(c, type=types[name]) for name, c in table.columns.items()})


def _base(spanner_type: str) -> str:
    """A type without its length: a longer STRING is no other description, and no reason for another job."""
    return re.sub(r"\([^)]*\)", "", spanner_type)


def _without_defaults(table: WatchedTable) -> dict[str, Any]:
    said = {
        each.name: getattr(table, each.name)
        for each in fields(table)
        if each.name not in ("name", "columns") and getattr(table, each.name) != each.default
    }
    if table.status_index:
        said["status_index"] = {key: value for key, value in asdict(table.status_index).items() if value != ""}
    return said | {"columns": {name: _column_json(column) for name, column in table.columns.items()}}


def _column_json(column: WatchedColumn) -> Any:
    more = {key: value for key, value in asdict(column).items() if value and key != "policy"}
    return {"policy": column.policy, **more} if more else column.policy


class _Read:
    """Reads a description, and gathers every rule that it breaks."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._attached = False
        self._problems: list[str] = []

    def _refuse(self, what: str, rule: str, got: object, remedy: str = "") -> None:
        self._problems.append(f"{self._where}: {what} must {rule}, got {got!r}.{f' {remedy}' if remedy else ''}")

    def _finish(self) -> None:
        if self._problems:
            raise WatchedError("\n".join(dict.fromkeys(self._problems)))

    # ------------------------------------------------------------------ the file alone

    def changelog(self, content: dict[str, Any], folder: Path, dialect: str) -> Path:
        """The changelog of the tables in a dialect, or the DDL of a database that others own."""
        given = [key for key in ("changelog", "ddl") if key in content]
        if len(given) != 1:
            rule = "have `changelog` (tables that this stack makes) or `ddl` (a database that others own), and not both"
            self._refuse("the description", rule, ", ".join(given) or "neither")
            self._finish()
        key: str = given[0]
        if key == "changelog" and dialect == dialects.POSTGRESQL and _POSTGRESQL in content:
            key = _POSTGRESQL
        named = content[key]
        rule, remedy = "name the Liquibase changelog of the tables, relative to the file", ""
        if key == "ddl":
            rule = f"name a file *{schema.DUMP} with the database's DDL, relative to the file"
            remedy = "`python -m delivery.schema fetch` writes it."
        if (
            not isinstance(named, str)
            or not (folder / named).is_file()
            or (key == "ddl") != named.endswith(schema.DUMP)
        ):
            self._refuse(key, rule, named, remedy)
            self._finish()
        found = folder / str(named)
        if key != "ddl" and (written := schema.dialect_of(found).name) != dialect:
            self._refuse(
                key,
                f"name a changelog of the dialect {dialect} (spannerDialect)",
                written,
                f"`{_POSTGRESQL}` names one for PostgreSQL beside it.",
            )
            self._finish()
        return found

    def tables(self, content: dict[str, Any]) -> WatchedTables:
        """The tables of the content. Raises WatchedError."""
        of_stack = ("prefix",) if self._where == _DESCRIPTION else ("changelog", _POSTGRESQL, "ddl")
        self._known(content, (*of_stack, "tables"), "the description")
        prefix = content.get("prefix", "")
        if not isinstance(prefix, str) or not re.fullmatch(r"|[a-z][a-z0-9-]*", prefix):
            self._refuse("prefix", "be a stack's: lower case, digits and hyphens", prefix)
            prefix = ""
        described = content.get("tables")
        if not isinstance(described, dict) or not described:
            self._refuse("tables", "describe at least the table of the payments, as [tables.NAME]", described)
            self._finish()
            raise AssertionError("unreachable")
        tables = tuple(self._table(name, values) for name, values in described.items())
        kinds = [table.name for table in tables if table.kind == "payments"]
        if len(kinds) != 1:
            self._refuse("kind", 'be "payments" for one table, whose rows are the payments', kinds)
        for table in tables:
            self._place(table, tables, prefix)
        places = [table.id.casefold() for table in tables if table.table]
        for place in sorted({place for place in places if places.count(place) > 1}):
            self._refuse("dataset and table", "be another place for each table", place)
        self._finish()
        return WatchedTables(tables=tables, prefix=prefix)

    def _place(self, table: WatchedTable, tables: tuple[WatchedTable, ...], prefix: str) -> None:
        what = f"tables.{table.name}"
        for taken, by in (
            (VIEWS_DATASET, "the views"),
            (ACCESS_DATASET, "the access log"),
            (BACKUPS_DATASET, "the snapshots"),
            (RESTORED_DATASET, "what is restored"),
        ):
            if table.dataset.casefold() == _in_front(prefix, taken):
                self._refuse(f"{what}.dataset", f"not be {table.dataset}, which has {by}", table.dataset)
        of_payments = {other.dataset for other in tables if other.kind == "payments"}
        if table.dataset in of_payments and table.table.casefold() in _OWN_TABLES:
            self._refuse(f"{what}.table", f"not be one of {', '.join(sorted(_OWN_TABLES))} there", table.table)

    def _table(self, name: str, values: Any) -> WatchedTable:
        what, keys = f"tables.{name}", [f.name for f in fields(WatchedTable) if f.name != "name"]
        self._table_name(name, what)
        if not isinstance(values, dict):
            self._refuse(what, "be a table, as [tables.NAME]", values)
            return WatchedTable(name=name)
        if inner := [key for key, value in values.items() if key not in keys and isinstance(value, dict)]:
            # TOML reads a dot without quotes as a table in a table.
            remedy = f'Of the schema {name} write [tables."{name}.{inner[0]}"].'
            self._refuse(what, "have the name of its schema before its own in quotes", f"[{what}.{inner[0]}]", remedy)
            return WatchedTable(name=name)
        self._known(values, keys, what)
        table = WatchedTable(
            name=name,
            kind=self._one_of(values, what, "kind", get_args(Kind), "other"),
            change_stream=self._named(values, what, "change_stream"),
            dataset=self._named(values, what, "dataset"),
            table=self._named(values, what, "table"),
            partition=self._one_of(values, what, "partition", get_args(Partition), "DAY"),
            cluster_by=self._texts(values, what, "cluster_by"),
            status_index=self._index(values.get("status_index"), what),
            columns=self._columns(values.get("columns"), what),
        )
        self._meanings(table, what)
        return table

    def _table_name(self, name: str, what: str) -> None:
        of_schema, _, table = name.rpartition(".")
        if of_schema.lower() in dialects.DEFAULT_SCHEMAS:
            self._refuse(what, "have no schema before its name in the default one", name, f'Write [tables."{table}"].')
        elif not all(map(schema.is_name, name.split(".", 1))):
            rule = "be a name: A-Z, a-z, 0-9 and underscores, that of its schema and a dot before it"
            self._refuse(what, rule, name, 'A table of a named schema is [tables."sales.orders"].')

    def _columns(self, values: Any, what: str) -> dict[str, WatchedColumn]:
        if not isinstance(values, dict) or not values:
            self._refuse(f"{what}.columns", "name the columns, each with its policy", values)
            return {}
        columns = {name: self._column(described, f"{what}.columns.{name}") for name, described in values.items()}
        folded = [name.casefold() for name in columns]
        for name in sorted({name for name in folded if folded.count(name) > 1}):
            self._refuse(f"{what}.columns", "name each column once: Spanner's names do not differ by case", name)
        return columns

    def _column(self, values: Any, what: str) -> WatchedColumn:
        values = {"policy": values} if isinstance(values, str) else values
        if not isinstance(values, dict):
            self._refuse(what, f"be a policy ({', '.join(POLICIES)}) or a table with one", values)
            return WatchedColumn(policy="hold")
        from_file = self._where != _DESCRIPTION
        self._known(values, [f.name for f in fields(WatchedColumn) if not (from_file and f.name == "type")], what)
        personal = values.get("personal", False)
        if not isinstance(personal, bool):
            self._refuse(f"{what}.personal", "be true or false", personal)
        column = WatchedColumn(
            policy=self._one_of(values, what, "policy", POLICIES, None),
            means=self._one_of(values, what, "means", MEANINGS, "") or None,
            personal=bool(personal),
            customer_in=self._texts(values, what, "customer_in"),
            acting_user_in=self._texts(values, what, "acting_user_in"),
            type=str(values.get("type", "")),
        )
        if column.means and column.policy in _HIDDEN:
            self._refuse(
                f"{what}.policy", "leave a value, identifier or scan, for a column with a meaning", column.policy
            )
        if (column.customer_in or column.acting_user_in) and column.means != "metadata":
            self._refuse(f"{what}.means", 'be "metadata" for a column in which others are found', column.means)
        return column

    def _meanings(self, table: WatchedTable, what: str) -> None:
        means = [column.means for column in table.columns.values() if column.means]
        for twice in sorted({meaning for meaning in means if means.count(meaning) > 1}):
            self._refuse(f"{what}.columns", f"have one column that means {twice!r}", means.count(twice))
        for name, column in table.columns.items():
            if column.means and name.casefold() in OF_TIMELINE | OF_TRANSITIONS:
                self._refuse(
                    f"{what}.columns.{name}", "mean nothing: the views have a column of that name", column.means
                )
            base = name[: -len("_token")]
            if column.means and name.casefold().endswith("_token") and table.policy_of(base) in ("card", "token"):
                self._refuse(f"{what}.columns.{name}", f"not be the name of {base}'s token", name)
        required: dict[Kind, tuple[Meaning, ...]] = {"payments": ("payment", "status"), "events": ("payment",)}
        for meaning in required.get(table.kind, ()):
            if table.columns and meaning not in means:
                self._refuse(
                    f"{what}.columns",
                    f'have a column with means = "{meaning}": it is a table of kind {table.kind}',
                    sorted(filter(None, means)),
                )
        if table.status_index and table.kind != "payments":
            self._refuse(f"{what}.status_index", "be of the table of the payments", table.kind)

    def _index(self, values: Any, what: str) -> StatusIndex | None:
        if values is None:
            return None
        what = f"{what}.status_index"
        if not isinstance(values, dict):
            self._refuse(what, "have a name and, where it is sharded, shard and shards", values)
            return None
        self._known(values, tuple(StatusIndex.__dataclass_fields__), what)
        shards = values.get("shards", 1)
        if not isinstance(shards, int) or isinstance(shards, bool) or not 1 <= shards <= 1000:
            self._refuse(f"{what}.shards", "be a whole number from 1 to 1000", shards)
            shards = 1
        shard = self._named(values, what, "shard") if "shard" in values else ""
        if "." in str(values.get("name")):
            self._refuse(f"{what}.name", "have no schema before it: an index is in that of its table", values["name"])
        return StatusIndex(name=self._named(values, what, "name"), shard=shard, shards=shards)

    # ------------------------------------------------------------------ values

    def _known(self, values: Mapping[str, Any], names: Iterable[str], what: str) -> None:
        for key in values.keys() - set(names):
            self._refuse(what, f"have only {', '.join(names)}", key)

    def _one_of(self, values: Mapping[str, Any], what: str, key: str, allowed: tuple[str, ...], default: Any) -> Any:
        value = values.get(key, default)
        if value not in allowed and not (value == "" and default == "" and key not in values):
            self._refuse(f"{what}.{key}", f"be one of {', '.join(allowed)}", value)
            return allowed[0]
        return value

    def _named(self, values: Mapping[str, Any], what: str, key: str) -> str:
        value = values.get(key)
        if not isinstance(value, str) or not schema.is_name(value):
            self._refuse(f"{what}.{key}", "be a name: A-Z, a-z, 0-9 and underscores", value)
            return ""
        return value

    def _texts(self, values: Mapping[str, Any], what: str, key: str) -> tuple[str, ...]:
        value = values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
            self._refuse(f"{what}.{key}", "be a list of names", value)
            return ()
        return tuple(value)

    # ------------------------------------------------------------------ against the database

    def fits(self, watched: WatchedTables, changelog: Path) -> None:
        """Compares the description with what the changelog makes. Raises WatchedError, and SchemaError."""
        made, streams = schema.tables(changelog), schema.change_streams(changelog)
        self._attached = schema.is_dump(changelog)
        for table in watched.tables:
            if table.name not in made:
                rule, remedy = (
                    f"be made by the changelog, which makes {', '.join(sorted(made))}",
                    "Add a changeset for it",
                )
                if self._attached:
                    rule = f"be a table of {changelog.name} that is understood: {', '.join(sorted(made))}"
                    remedy = f"Run `python -m delivery.schema fetch` if {changelog.name} is out of date"
                self._refuse(f"tables.{table.name}", rule, table.name, f"{remedy}, or take it out of the description.")
                continue
            self._stream(table, streams)
            self._status_index(table, changelog)
            self._fits(table, made[table.name])
        self._finish()

    def _stream(self, table: WatchedTable, streams: Mapping[str, tuple[str, ...]]) -> None:
        if self._attached and table.change_stream not in streams:
            # Its owners are yet to make it: `delivery.schema owners` says how.
            return
        if table.name not in streams.get(table.change_stream, ()):
            by = sorted(name for name, tables in streams.items() if table.name in tables)
            self._refuse(
                f"tables.{table.name}.change_stream",
                f"be a change stream that watches {table.name}: {', '.join(by) or 'the changelog has none'}",
                table.change_stream,
            )

    def _status_index(self, table: WatchedTable, changelog: Path) -> None:
        index = table.status_index
        made = schema.catalog(changelog).indexes.get(dialects.beside(table.name, index.name)) if index else None
        if index and self._attached and made is None and not index.shard:
            # As for a change stream. Not where it is sharded: that takes a column, which its owners would have to fill.
            return
        if index and (made is None or made.table != table.name):
            self._refuse(
                f"tables.{table.name}.status_index.name",
                f"be an index on {table.name} that the changelog makes",
                index.name,
                "Add a changeset for it, or take the line out: the table is then scanned.",
            )

    def _fits(self, table: WatchedTable, made: schema.Table) -> None:
        what = f"tables.{table.name}.columns"
        types = {column.name: column.type for column in made.columns}
        for name, column in table.columns.items():
            if name not in types:
                self._refuse(
                    what,
                    f"be columns of {table.name}, which has {', '.join(types)}",
                    name,
                    "Add a changeset for the column, or take the line out.",
                )
            elif problem := type_problem(column, types[name]):
                self._refuse(f"{what}.{name}", problem, types[name])
        if len(table.cluster_by) > _MOST_CLUSTERED:
            self._refuse(f"tables.{table.name}.cluster_by", "be at most four columns", len(table.cluster_by))
        for name in table.cluster_by:
            if name not in table.columns:
                self._refuse(f"tables.{table.name}.cluster_by", "be described columns", name)
            elif table.columns[name].policy in ("token", "drop") or _base(types.get(name, "")) not in _CLUSTERING:
                rule = f"be columns that stay, of type {', '.join(_CLUSTERING)}"
                self._refuse(f"tables.{table.name}.cluster_by", rule, name)
        if table.kind == "payments" and made.primary_key != (table.column("payment"),):
            self._refuse(
                f"{what}",
                f'mean "payment" by the primary key of {table.name}, {", ".join(made.primary_key)}, alone: '
                "the state of a payment is that of its row",
                table.column("payment"),
            )


def type_problem(column: WatchedColumn, spanner_type: str) -> str | None:
    """The rule that a column's type breaks, or None. A `card` or `token` can be an ARRAY of texts too."""
    base = _base(spanner_type)
    if column.means and base not in _TYPES[column.means]:
        return f"be of type {' or '.join(_TYPES[column.means])} to mean {column.means!r}"
    if column.policy == "token" and "STRING" not in base:
        return "be a STRING to be replaced by a token"
    return None


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 the description is right, 2 it is not."""
    parser = argparse.ArgumentParser(
        prog="python -m contract.watched",
        description="Checks a description of the watched tables, and prints the job's option watchedTables.",
    )
    parser.add_argument("file", type=Path, nargs="?", default=SHIPPED, help="A description.  [tables.toml]")
    try:
        sys.stdout.write(f"{WatchedTables.load(parser.parse_args(argv).file).to_json()}\n")
    except (WatchedError, schema.SchemaError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
