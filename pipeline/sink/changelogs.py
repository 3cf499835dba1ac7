"""The changelog tables as BigQuery has them: made when absent, widened when a change brings a new column.

Columns and tables are only ever added. Several workers may add the same one at once: the loser reads the table again.

BigQuery's two sides learn of a column at different times: the REST API, which adds it, at once, and the write path
within minutes. So a column that was added lately is remembered, until an append has brought a value into it.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from contract import tables
from contract.changes import Column
from contract.watched import WatchedTables

_LOG = logging.getLogger(__name__)
# How long the write path may take to learn of a column. Google says minutes.
LAG_SECONDS: Final = 15 * 60.0
# From this age on, what a new write stream says of a column is taken for true.
_SURE_SECONDS: Final = 60.0
# How long a refused widening is tried again before the caller is notified. Most are refused because another worker's
# came first.
_WIDENING_SECONDS: Final = 30.0
_PAUSES: Final = (0.2, 10.0)


class NotReady(Exception):
    """What must be there for a write is not there yet. The message says what, and how it gets there."""


@dataclass(frozen=True, kw_only=True)
class Destinations:
    """Where a source table's changelog is: a watched one where its description says, any other in `dataset`."""

    project: str
    watched: WatchedTables
    dataset: str
    name_template: str = "{_metadata_spanner_table_name}_changelog"

    def of(self, table: str) -> tuple[str, str]:
        """(dataset, table) of a source table. A named schema's dot becomes an underscore, as BigQuery has none."""
        described = self.watched.of(table)
        if described.dataset:
            return described.dataset, described.table
        name = self.name_template.replace("{" + tables.TABLE_NAME + "}", table)
        return self.dataset, name.replace(".", "_")

    def id(self, table: str) -> str:
        dataset, name = self.of(table)
        return f"{self.project}.{dataset}.{name}"


class Changelogs:
    """Reads and widens the changelog tables; remembers what it has seen. `clock` is in seconds since 1970."""

    def __init__(
        self,
        client: Any,
        destinations: Destinations,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._destinations = destinations
        self._clock = clock
        self._sleep = sleep
        self._known: dict[str, dict[str, Any]] = {}
        # The names that were found last, for which columns of the table and which fields.
        self._names: dict[str, tuple[dict[str, Any], tuple[tables.Field, ...], dict[str, str]]] = {}
        # By table: the columns that were there when it was last read, and when those that came since were added.
        self._seen: dict[str, set[str]] = {}
        self._added: dict[str, dict[str, float]] = {}

    def conform(self, table: str, columns: Iterable[Column], fields: Iterable[tables.Field]) -> dict[str, str]:
        """Makes BigQuery ready for rows with `fields`, and returns the name that each field has there.

        A field whose type differs from the table's goes to a separate column, `<name>_<type>`. Raises NotReady when
        the table can be neither made nor widened at the moment.
        """
        fields, columns = tuple(fields), tuple(columns)
        found = self._names.get(table)
        if found and found[0] is self._known.get(table) and found[1] == fields:
            return found[2]
        waited, pause = 0.0, _PAUSES[0]
        while True:
            known = self._columns(table, columns)
            names = names_in(known, fields)
            missing = [(names[f.name], f) for f in fields if names[f.name].casefold() not in known]
            if not missing:
                self._names[table] = known, fields, names
                return names
            refused = self._add(table, missing)
            if refused is None:
                continue
            if waited >= _WIDENING_SECONDS:
                raise NotReady(
                    f"the columns {', '.join(name for name, _ in missing)} to be added to "
                    f"{self._destinations.id(table)}, which BigQuery refuses ({refused}): a table has at most 10,000 "
                    "columns. Make room there, or leave columns out with ignoreFields"
                )
            waited += pause
            self._sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, _PAUSES[1])

    def forget(self, table: str) -> None:
        """The table is read again before its next rows: it may have been changed or dropped."""
        self._known.pop(table, None)

    def changed(self, table: str, columns: Iterable[Column]) -> bool:
        """Reads the table again; whether it is another one than it was known to be."""
        before = self._known.get(table)
        self.forget(table)
        after = self._columns(table, columns)
        return before is None or {n: _kind(f) for n, f in before.items()} != {n: _kind(f) for n, f in after.items()}

    def lagging(self, table: str) -> dict[str, float]:
        """Columns that the write path may not know yet, casefolded, and when they were added."""
        added = self._added.get(table)
        if not added:
            return {}
        now = self._clock()
        recent = {name: at for name, at in added.items() if now - at < LAG_SECONDS}
        self._added[table] = recent
        return recent

    def age(self, table: str, names: Iterable[str]) -> float:
        """Seconds since the newest of these columns was added."""
        lagging = self.lagging(table)
        return self._clock() - max((lagging[n.casefold()] for n in names), default=self._clock())

    def taken(self, table: str, names: Iterable[str]) -> None:
        """The write path has taken values of these columns: it knows them."""
        if added := self._added.get(table):
            for name in names:
                added.pop(name.casefold(), None)

    def write_path_has(self, table: str, names: Iterable[str]) -> None:
        """What the write path says a table's columns are. Those that it lacks count as added now.

        Those that it has are known, but for the newest ones: not all of its servers may have heard of them.
        """
        has = {name.casefold() for name in names}
        if has:
            added = self._added.setdefault(table, {})
            self.taken(table, [n for n in has & added.keys() if self._clock() - added[n] >= _SURE_SECONDS])
            for name in self._known.get(table, {}).keys() - has:
                added.setdefault(name, self._clock())

    def _columns(self, table: str, columns: Iterable[Column]) -> dict[str, Any]:
        """The table's columns by casefolded name: BigQuery's names do not differ by case."""
        from google.api_core.exceptions import NotFound

        if table not in self._known:
            name = self._destinations.id(table)
            try:
                found = self._client.get_table(name)
            except NotFound:
                found = self._create(table, columns)
                self._seen.pop(table, None)
                self._added.pop(table, None)
            self._known[table] = {f.name.casefold(): f for f in found.schema}
            self._note_new(table)
        return self._known[table]

    def _note_new(self, table: str) -> None:
        known, seen = self._known[table], self._seen.get(table)
        added = self._added.setdefault(table, {})
        now = self._clock()
        for name, column in known.items():
            at = now if seen is not None else _added_at(column.description or "")
            if at is not None and not (seen and name in seen):
                added.setdefault(name, at)
        self._seen[table] = set(known)

    def _create(self, table: str, columns: Iterable[Column]) -> Any:
        from google.api_core.exceptions import NotFound
        from google.cloud import bigquery

        place = self._destinations.of(table)
        columns = tuple(columns)
        watched = self._destinations.watched.of(table)
        planned = tables.changelog_table(watched, {c.name: c.type for c in columns}, place)
        made = bigquery.Table(self._destinations.id(table), schema=[schema_field(f) for f in planned.fields])
        made.description = planned.description
        made.time_partitioning = bigquery.TimePartitioning(type_=planned.partition, field=planned.partition_by)
        keys = {c.name for c in columns if c.is_primary_key}
        can_sort = {f.name: f.source for f in planned.fields if f.type in _CLUSTERING and f.mode != "REPEATED"}
        wanted = [name for name in planned.cluster_by if name in can_sort]
        sorted_by = [name for name, source in can_sort.items() if source in keys]
        made.clustering_fields = wanted or sorted_by[:4] or None
        _LOG.info("Table %s did not exist: made.", self._destinations.id(table))
        try:
            return self._client.create_table(made, exists_ok=True)
        except NotFound:
            raise NotReady(
                f"dataset {place[0]} must exist in {self._destinations.project}: run `pulumi up`. Rows wait for it."
            ) from None

    def _add(self, table: str, missing: list[tuple[str, tables.Field]]) -> str | None:
        """Adds the columns that the table lacks. Returns why BigQuery refused, if it did."""
        from google.api_core.exceptions import BadRequest, Conflict, Forbidden, NotFound, PreconditionFailed

        name = self._destinations.id(table)
        self.forget(table)
        try:
            current = self._client.get_table(name)
        except NotFound:
            return None
        there = {f.name.casefold() for f in current.schema}
        now = self._clock()
        added = [_added_field(f, name, now) for name, f in missing if name.casefold() not in there]
        if not added:
            return None
        current.schema = [*current.schema, *added]
        try:
            self._client.update_table(current, ["schema"])
        except Forbidden:
            raise NotReady(
                f"the columns {', '.join(f.name for f in added)} to be added to {name}, which is forbidden: give the "
                "job bigquery.tables.update on the dataset"
            ) from None
        except (BadRequest, Conflict, PreconditionFailed) as error:
            # Another worker was quicker; the next look at the table shows it.
            _LOG.info("Adding columns to %s was refused (%s); looking again.", name, error.code)
            return str(int(error.code or 0))
        self._seen.setdefault(table, set()).update(there)
        for field in added:
            self._added.setdefault(table, {})[field.name.casefold()] = now
        _LOG.info("Added to %s: %s.", name, ", ".join(f.name for f in added))
        return None


def names_in(known: Mapping[str, Any], fields: Iterable[tables.Field]) -> dict[str, str]:
    """The column that carries each field in a table with the columns `known` (by casefolded name): each its own.

    A field keeps its name where the table's column has its type, or there is none. Otherwise it goes to
    `<name>_<type>`, or `<name>_<type>_2` and so on where another field goes by that name: the description of such a
    column says whose it is, so it stays with its field.
    """
    fields = tuple(fields)
    own = {f.name.casefold() for f in fields}
    names: dict[str, str] = {}
    taken: set[str] = set()
    for field in fields:
        for candidate in _candidates(field):
            folded = candidate.casefold()
            theirs = folded != field.name.casefold() and folded in own
            there = known.get(folded)
            if folded in taken or (there is None and theirs):
                continue
            if there is not None:
                stands_for = _stands_for(there.description or "")
                if _kind(there) != (field.type, field.mode == "REPEATED"):
                    continue
                if stands_for != field.name.casefold() if stands_for else theirs:
                    continue
            names[field.name] = there.name if there is not None else candidate
            taken.add(folded)
            break
    return names


def field_of(column: Any) -> str:
    """The casefolded name of the field whose values a table's column has."""
    return _stands_for(column.description or "") or str(column.name).casefold()


def _candidates(field: tables.Field) -> Iterable[str]:
    yield field.name
    typed = f"{field.name}_{field.type.lower()}"
    yield typed
    for number in range(2, 10_000):
        yield f"{typed}_{number}"


# In the description of a column that the job has added: whose values it has, and since when it is there.
_STANDS_FOR = re.compile(r"Column (\S+) since it is ")
_ADDED_AT = re.compile(r"Added by the job at (\S+Z)")


def _stands_for(description: str) -> str:
    found = _STANDS_FOR.search(description)
    return found[1].casefold() if found else ""


def _added_at(description: str) -> float | None:
    found = _ADDED_AT.search(description)
    try:
        return datetime.fromisoformat(found[1]).timestamp() if found else None
    except ValueError:
        return None


def _added_field(field: tables.Field, name: str, now: float) -> Any:
    kind = f"ARRAY<{field.type}>" if field.mode == "REPEATED" else field.type
    notes = [
        field.description,
        f"Column {field.name} since it is {kind}" if name != field.name else "",
        f"Added by the job at {datetime.fromtimestamp(now, UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}",
    ]
    return schema_field(replace(field, description=". ".join(n for n in notes if n)), name)


# What a table can be clustered by: https://cloud.google.com/bigquery/docs/clustered-tables#limitations
_CLUSTERING: Final = frozenset({"STRING", "INT64", "NUMERIC", "BOOL", "DATE", "TIMESTAMP"})

# The REST API writes the older names of two types.
_KINDS = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}


def _kind(column: Any) -> tuple[str, bool]:
    """(type, whether it is REPEATED) of a table's column."""
    return _KINDS.get(column.field_type, column.field_type), column.mode == "REPEATED"


def schema_field(field: tables.Field, name: str | None = None) -> Any:
    """The client library's column. Columns of a living table can only be added without REQUIRED and without default."""
    from google.cloud import bigquery

    return bigquery.SchemaField(
        name or field.name,
        field.type,
        mode=field.mode,
        description=field.description or None,
        default_value_expression=None if name else field.default,
    )
