"""The SQL that the strict BigQuery answers: one table, conditions joined by AND, plain columns and a few aggregates.

    SELECT items FROM `p.d.t` [WHERE …] [GROUP BY columns] [ORDER BY …] [LIMIT n]
    UPDATE `p.d.t` SET column = expression, … WHERE …
    DELETE FROM `p.d.t` WHERE …
    INSERT [INTO] `p.d.t` (columns) VALUES (expressions), …

Anything else is refused: a test must not rest on SQL that nobody evaluates.
"""

from __future__ import annotations

import datetime
import decimal
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tests.strict.bigquery_store import ARROW, UTC_MICROS, Chunk, RestError, Store, Table, arrow_type, column_of

_TOKENS = re.compile(
    r"""\s*(?: (?:--[^\n]*|\#[^\n]*)
      | (?P<quoted>`[^`]*`)
      | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<param>@\w+)
      | (?P<number>-?\d+(?:\.\d+)?)
      | (?P<name>[A-Za-z_][\w.]*)
      | (?P<op><=|>=|!=|<>|[-=<>(),*;\[\]]) )""",
    re.X,
)
_KEYWORDS = {"from", "where", "group", "order", "limit", "and", "as", "having", "union", "join", "or", "qualify"}
_AGGREGATES = {"count", "max", "min", "sum"}


def unknown(why: str) -> RestError:
    return RestError(400, "invalidQuery", f"The strict BigQuery does not know this SQL ({why}); see tests/strict.")


@dataclass
class Condition:
    column: str
    op: str
    values: list[Any]


@dataclass
class Item:
    name: str
    column: str | None = None
    aggregate: str | None = None
    distinct: bool = False
    constant: Any = None


@dataclass
class Answer:
    """Rows as Arrow, with REST's fields; or how many rows a statement changed."""

    fields: list[dict[str, Any]] = field(default_factory=list)
    rows: pa.Table | None = None
    changed: int | None = None
    statement: str = "SELECT"
    scanned: int = 0
    table: str = ""
    looked_up: int = 0
    kind: str = "select"


class Query:
    """One statement, parsed and evaluated against the store."""

    def __init__(self, store: Store, project: str, sql: str, parameters: Mapping[str, Any]) -> None:
        self._store = store
        self._project = project
        self._parameters = parameters
        self._tokens = _tokens(sql)
        self._at = 0

    def run(self) -> Answer:
        statements: dict[str, Callable[[], Answer]] = {
            "select": self._select,
            "update": self._update,
            "delete": self._delete,
            "insert": self._insert,
        }
        verb = self._peek().lower()
        if verb not in statements:
            raise unknown(f"a statement that begins with {verb.upper()}")
        self._at += 1
        return statements[verb]()

    # Tokens

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _take(self, *words: str) -> bool:
        """Takes the words if they come next."""
        here = [t.lower() for t in self._tokens[self._at : self._at + len(words)]]
        if here == list(words):
            self._at += len(words)
            return True
        return False

    def _expect(self, *words: str) -> None:
        if not self._take(*words):
            raise unknown(f"{' '.join(words).upper()} expected at {self._peek()!r}")

    def _ended(self) -> None:
        self._take(";")
        if self._peek():
            raise unknown(f"at {self._peek()!r}")

    # Parts

    def _table(self) -> Table:
        parts = self._next().strip("`").split(".")
        if len(parts) == 2:
            parts = [self._project, *parts]
        if len(parts) != 3:
            raise unknown("a table is project.dataset.table")
        return self._store.table((parts[0], parts[1], parts[2]))

    def _value(self, row: Mapping[str, Any] | None = None) -> Any:
        token = self._next()
        low = token.lower()
        if token.startswith("@"):
            try:
                return self._parameters[token[1:].lower()]
            except KeyError:
                raise RestError(400, "invalidQuery", f"Query parameter '{token[1:]}' not found") from None
        if token[:1] in "'\"" and token:
            return _unquoted(token)
        if re.fullmatch(r"-?\d+", token):
            return int(token)
        if re.fullmatch(r"-?\d+\.\d+", token):
            return decimal.Decimal(token)
        if low in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[low]
        if low in ("timestamp", "date") and self._peek()[:1] in ("'", '"'):
            return timestamp(_unquoted(self._next())) if low == "timestamp" else _date(_unquoted(self._next()))
        if low == "current_timestamp":
            if self._take("("):
                self._expect(")")
            return datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
        if low in ("timestamp_sub", "timestamp_add"):
            return self._shifted(-1 if low.endswith("sub") else 1, row)
        if low in ("least", "greatest"):
            values = self._list(row)
            if any(v is None for v in values):
                return None
            return min(values) if low == "least" else max(values)
        if row is not None:
            return _of_row(row, token)
        raise unknown(f"the value {token!r}")

    def _shifted(self, sign: int, row: Mapping[str, Any] | None) -> Any:
        self._expect("(")
        moment = self._value(row)
        self._expect(",")
        self._expect("interval")
        number = self._value(row)
        unit = self._next().lower() + "s"
        self._expect(")")
        if unit not in ("microseconds", "milliseconds", "seconds", "minutes", "hours", "days"):
            raise unknown(f"an interval in {unit}")
        return moment + sign * datetime.timedelta(**{unit: number})

    def _list(self, row: Mapping[str, Any] | None = None) -> list[Any]:
        self._expect("(")
        values = [self._value(row)]
        while self._take(","):
            values.append(self._value(row))
        self._expect(")")
        return values

    def _where(self) -> list[Condition]:
        conditions: list[Condition] = []
        if not self._take("where"):
            return conditions
        while True:
            depth = 0
            while self._take("("):
                depth += 1
            conditions += self._condition()
            for _ in range(depth):
                self._expect(")")
            if not self._take("and"):
                return conditions

    def _condition(self) -> list[Condition]:
        if self._take("true"):
            return []
        column = self._next().strip("`")
        if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)?", column):
            raise unknown(f"a condition on {column!r}")
        column = column.split(".")[-1]
        if self._take("between"):
            low = self._value()
            self._expect("and")
            return [Condition(column, ">=", [low]), Condition(column, "<=", [self._value()])]
        if self._take("is", "not", "null"):
            return [Condition(column, "is not null", [])]
        if self._take("is", "null"):
            return [Condition(column, "is null", [])]
        negated = self._take("not")
        if self._take("in"):
            if self._take("unnest"):
                self._expect("(")
                values = self._value()
                self._expect(")")
            else:
                values = self._list()
            return [Condition(column, "not in" if negated else "in", list(values))]
        op = self._next()
        if op not in ("=", "<", ">", "<=", ">=", "!=", "<>"):
            raise unknown(f"the operator {op!r}")
        return [Condition(column, op, [self._value()])]

    # Statements

    def _select(self) -> Answer:
        distinct = self._take("distinct")
        items = [self._item(0)]
        while self._take(","):
            items.append(self._item(len(items)))
        if not self._take("from"):
            self._ended()
            return _constants(items)
        table = self._table()
        if self._take("as") or (self._peek() and self._peek().lower() not in _KEYWORDS | {";"}):
            self._next()
        conditions = self._where()
        groups: list[str] = []
        if self._take("group", "by"):
            groups = [name for name, _ in self._columns()]
        order = self._columns() if self._take("order", "by") else []
        limit = self._value() if self._take("limit") else None
        self._ended()
        return _selected(table, items, conditions, groups, order, limit, distinct)

    def _columns(self) -> list[tuple[str, str]]:
        found = []
        while True:
            name = self._next().strip("`")
            way = "descending" if self._take("desc") else "ascending"
            self._take("asc")
            found.append((name.split(".")[-1], way))
            if not self._take(","):
                return found

    def _item(self, position: int) -> Item:
        token = self._next()
        low = token.lower()
        if low in _AGGREGATES and self._take("("):
            distinct = self._take("distinct")
            column = self._next().strip("`").split(".")[-1]
            self._expect(")")
            item = Item(f"f{position}_", None if column == "*" else column, low, distinct)
        elif token == "*":
            item = Item("*")
        elif re.fullmatch(r"\d+", token):
            item = Item(f"f{position}_", constant=int(token))
        elif re.fullmatch(r"`?[A-Za-z_][\w.]*`?", token) and self._peek() != "(" and low not in _KEYWORDS:
            name = token.strip("`").split(".")[-1]
            item = Item(name, name)
        else:
            raise unknown(f"the expression {token!r}")
        if self._take("as"):
            item.name = self._next().strip("`")
        elif self._peek() and self._peek() not in (",", ";") and self._peek().lower() not in _KEYWORDS:
            item.name = self._next().strip("`")
        return item

    def _update(self) -> Answer:
        table = self._table()
        self._expect("set")
        start = self._at
        self._assignments({f["name"]: None for f in table.fields}, dry=True)
        after = self._at
        conditions = self._needed_where("UPDATE")

        def changed(row: dict[str, Any]) -> dict[str, Any]:
            self._at = start
            return row | self._assignments(row)

        count = _rewrite(table, conditions, changed)
        self._at = after
        return Answer(changed=count, statement="UPDATE", table=table.id, kind="update")

    def _assignments(self, row: Mapping[str, Any], dry: bool = False) -> dict[str, Any]:
        new = {}
        while True:
            column = self._next().strip("`")
            known = next((name for name in row if name.casefold() == column.casefold()), None)
            if known is None:
                raise RestError(400, "invalidQuery", f"Unrecognized name: {column}")
            self._expect("=")
            # A dry run only finds the end and unknown SQL.
            new[known] = self._value(row)
            if not self._take(","):
                return new

    def _needed_where(self, statement: str) -> list[Condition]:
        if self._peek().lower() != "where":
            raise RestError(400, "invalidQuery", f"{statement} must have a WHERE clause")
        conditions = self._where()
        self._ended()
        return conditions

    def _delete(self) -> Answer:
        self._take("from")
        table = self._table()
        count = _rewrite(table, self._needed_where("DELETE"), lambda row: None)
        return Answer(changed=count, statement="DELETE", table=table.id, kind="delete")

    def _insert(self) -> Answer:
        self._take("into")
        table = self._table()
        self._expect("(")
        names = [name for name, _ in self._columns()]
        self._expect(")")
        self._expect("values")
        rows = []
        while True:
            rows.append(dict(zip(names, self._list(), strict=True)))
            if not self._take(","):
                break
        self._ended()
        self._store.add(table, _batch(table, rows), "sql")
        return Answer(changed=len(rows), statement="INSERT", table=table.id, kind="insert")


# Evaluation


def _selected(
    table: Table,
    items: list[Item],
    conditions: list[Condition],
    groups: list[str],
    order: list[tuple[str, str]],
    limit: int | None,
    distinct: bool,
) -> Answer:
    fields = {f["name"].casefold(): f for f in table.fields}

    def known(name: str) -> dict[str, Any]:
        if name.casefold() not in fields:
            raise RestError(400, "invalidQuery", f"Unrecognized name: {name}")
        return fields[name.casefold()]

    shown: list[Item] = []
    for item in items:
        shown += [Item(f["name"], f["name"]) for f in table.fields] if item.name == "*" else [item]
    needed = {known(i.column)["name"] for i in shown if i.column} | {known(g)["name"] for g in groups}
    aliases = {i.name.casefold() for i in shown}
    # ORDER BY a number: the position of an item.
    order = [(shown[int(n) - 1].name if n.isdigit() else n, way) for n, way in order]
    sorted_by = {known(n)["name"] for n, _ in order if n.casefold() not in aliases}
    found, scanned = _filtered(table, conditions, [known(n) for n in sorted(needed | sorted_by)], known)
    aggregated = groups or any(i.aggregate for i in shown)
    if aggregated:
        result, out = _aggregated(found, shown, groups, known)
    else:
        names = [i.name for i in shown]
        result = pa.table([found[known(i.column or "")["name"]] for i in shown], names=names)
        extra = [n for n in sorted_by if n not in result.column_names]
        for name in extra:
            result = result.append_column(name, found[name])
        out = [{**known(i.column or ""), "name": i.name} for i in shown]
    if distinct:
        result = result.group_by(result.column_names).aggregate([])
    if order:
        lower = {n.casefold(): n for n in result.column_names}
        result = result.sort_by([(lower[n.casefold()], way) for n, way in order])
    result = result.select([f["name"] for f in out])
    if limit is not None:
        result = result.slice(0, limit)
    looked_up = sum(len(c.values) for c in conditions if c.op == "in")
    kinds = {i.aggregate for i in shown}
    kind = "lookup" if looked_up and not aggregated else next((k for k in ("max", "count") if k in kinds), "select")
    return Answer(out, result, scanned=scanned, table=table.id, looked_up=looked_up, kind=kind)


def _filtered(
    table: Table, conditions: list[Condition], needed: list[dict[str, Any]], known: Callable[[str], dict[str, Any]]
) -> tuple[pa.Table, int]:
    schema = pa.schema([(f["name"], arrow_type(f)) for f in needed])
    batches, scanned = [], 0
    counted = None
    for chunk in list(table.chunks):
        if not all(_may_hold(chunk, c, known(c.column)) for c in conditions):
            continue
        scanned += chunk.batch.num_rows
        mask = _mask(chunk.batch, conditions, known)
        arrays = [column_of(chunk.batch, f.name, f.type) for f in schema]
        if not arrays:
            # COUNT(*): no column is needed, but the number of rows is.
            kept = chunk.batch.num_rows if mask is None else pc.sum(mask).as_py() or 0
            counted = (counted or 0) + kept
            continue
        batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
        batches.append(batch if mask is None else batch.filter(mask))
    if not schema.names:
        return pa.table({"": pa.nulls(counted or 0)}), scanned
    return pa.Table.from_batches(batches, schema=schema), scanned


def _scalar(value: Any, kind: pa.DataType) -> pa.Scalar:
    if kind == UTC_MICROS and isinstance(value, str):
        value = timestamp(value)
    return pa.scalar(value, kind)


def _may_hold(chunk: Chunk, condition: Condition, to: dict[str, Any]) -> bool:
    """Pruning by a TIMESTAMP, as partitions are: a batch that has nothing in the range is not read."""
    if to["type"] != "TIMESTAMP" or condition.op not in ("=", "<", ">", "<=", ">="):
        return True
    bounds = chunk.bounds(to["name"])
    value = condition.values[0]
    if bounds is None or value is None:
        return False
    if isinstance(value, str):
        value = timestamp(value)
    low, high = bounds
    return bool(
        {"=": low <= value <= high, "<": low < value, "<=": low <= value, ">": high > value, ">=": high >= value}[
            condition.op
        ]
    )


_COMPARE = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<>": pc.not_equal,
    "<": pc.less,
    ">": pc.greater,
    "<=": pc.less_equal,
    ">=": pc.greater_equal,
}


def _mask(
    batch: pa.RecordBatch, conditions: list[Condition], known: Callable[[str], dict[str, Any]]
) -> pa.BooleanArray | None:
    mask = None
    for condition in conditions:
        to = known(condition.column)
        values = column_of(batch, to["name"], arrow_type(to))
        kind = values.type
        if condition.op == "is null":
            one = values.is_null()
        elif condition.op == "is not null":
            one = values.is_valid()
        elif condition.op in ("in", "not in"):
            if kind == UTC_MICROS:
                condition.values[:] = [timestamp(v) if isinstance(v, str) else v for v in condition.values]
            one = pc.is_in(values, pa.array(condition.values, kind))
            if condition.op == "not in":
                one = pc.invert(one)
        else:
            one = _COMPARE[condition.op](values, _scalar(condition.values[0], kind))
        one = pc.fill_null(one, False)
        mask = one if mask is None else pc.and_(mask, one)
    return mask


def _aggregated(
    found: pa.Table, items: list[Item], groups: list[str], known: Callable[[str], dict[str, Any]]
) -> tuple[pa.Table, list[dict[str, Any]]]:
    keys = [known(g)["name"] for g in groups]
    whole = pa.chunked_array([pa.array([0] * found.num_rows, pa.int8())])
    asked: list[Any] = []
    for item in items:
        if item.aggregate is None:
            if item.column is None or known(item.column)["name"] not in keys:
                raise unknown(f"{item.name} is neither grouped nor aggregated")
            continue
        if item.column is None:
            asked.append(("__all", "count", pc.CountOptions(mode="all")))
        else:
            name = {"count": "count_distinct" if item.distinct else "count"}.get(item.aggregate, item.aggregate)
            asked.append((known(item.column)["name"], name))
    table = found.append_column("__all", whole)
    result = table.group_by(keys).aggregate(asked)
    columns, out = [], []
    for item in items:
        if item.aggregate is None:
            to = known(item.column or "")
            columns.append(result[to["name"]])
            out.append({**to, "name": item.name})
            continue
        source = known(item.column)["name"] if item.column else "__all"
        name = "count_distinct" if item.distinct else item.aggregate
        columns.append(result[f"{source}_{name}"])
        kind = "INTEGER" if item.aggregate == "count" else known(item.column or "")["type"]
        out.append({"name": item.name, "type": kind, "mode": "NULLABLE"})
    return pa.table(columns, names=[f["name"] for f in out]), out


def _constants(items: list[Item]) -> Answer:
    if any(i.constant is None for i in items):
        raise unknown("a SELECT without a table")
    out = [{"name": i.name, "type": "INTEGER", "mode": "NULLABLE"} for i in items]
    return Answer(out, pa.table([[i.constant] for i in items], names=[i.name for i in items]))


def _rewrite(
    table: Table, conditions: list[Condition], change: Callable[[dict[str, Any]], dict[str, Any] | None]
) -> int:
    fields = {f["name"].casefold(): f for f in table.fields}

    def known(name: str) -> dict[str, Any]:
        if name.casefold() not in fields:
            raise RestError(400, "invalidQuery", f"Unrecognized name: {name}")
        return fields[name.casefold()]

    count = 0
    with table.lock:
        for position, chunk in enumerate(table.chunks):
            mask = _mask(chunk.batch, conditions, known)
            hit = [True] * chunk.batch.num_rows if mask is None else mask.to_pylist()
            if not any(hit):
                continue
            rows = []
            for row, matched in zip(chunk.batch.to_pylist(), hit, strict=True):
                new = change({f["name"]: row.get(f["name"]) for f in table.fields}) if matched else row
                if new is not None:
                    rows.append(new)
            count += sum(hit)
            table.chunks[position] = Chunk(chunk.arrived_ns, _batch(table, rows), chunk.stream)
        table.chunks[:] = [c for c in table.chunks if c.batch.num_rows]
    return count


def _batch(table: Table, rows: list[dict[str, Any]]) -> pa.RecordBatch:
    lower = [{name.casefold(): value for name, value in row.items()} for row in rows]
    arrays = []
    for f in table.fields:
        values = [row.get(f["name"].casefold()) for row in lower]
        if f["type"] == "TIMESTAMP":
            values = [timestamp(v) if isinstance(v, str) else v for v in values]
        arrays.append(pa.array(values, arrow_type(f)))
    return pa.RecordBatch.from_arrays(arrays, names=[f["name"] for f in table.fields])


def _of_row(row: Mapping[str, Any], token: str) -> Any:
    for name, value in row.items():
        if name.casefold() == token.strip("`").split(".")[-1].casefold():
            return value
    raise RestError(400, "invalidQuery", f"Unrecognized name: {token}")


def _tokens(sql: str) -> list[str]:
    tokens, at = [], 0
    text = sql.rstrip()
    while at < len(text):
        found = _TOKENS.match(text, at)
        if found is None or found.end() == at:
            raise unknown(f"at character {at}")
        if found.lastgroup:
            tokens.append(found[found.lastgroup])
        at = found.end()
    if not tokens:
        raise RestError(400, "invalidQuery", "Query text is empty")
    return tokens


def _unquoted(token: str) -> str:
    return re.sub(r"\\(.)", r"\1", token[1:-1])


def timestamp(text: str) -> datetime.datetime:
    """A TIMESTAMP as parameters and literals write it; what is finer than a microsecond is cut."""
    cleaned = re.sub(r"\s*(UTC|Z)$", "+00:00", text.strip())
    cleaned = re.sub(r"(\.\d{6})\d+", r"\1", cleaned)
    moment = datetime.datetime.fromisoformat(cleaned)
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _date(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)


_FROM_TEXT: dict[str, Callable[[str], Any]] = {
    "INTEGER": int,
    "FLOAT": float,
    "NUMERIC": decimal.Decimal,
    "BIGNUMERIC": decimal.Decimal,
    "BOOLEAN": lambda text: text.lower() == "true",
    "TIMESTAMP": timestamp,
    "DATE": _date,
}


def parameters(given: list[Mapping[str, Any]]) -> dict[str, Any]:
    """REST's `queryParameters` → values by lower-case name."""
    return {p["name"].lower(): _parameter(p["parameterType"], p.get("parameterValue", {})) for p in given}


def _parameter(kind: Mapping[str, Any], value: Mapping[str, Any]) -> Any:
    if kind["type"] == "ARRAY":
        return [_parameter(kind["arrayType"], v) for v in value.get("arrayValues", [])]
    text = value.get("value")
    older = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}.get(kind["type"], kind["type"])
    return None if text is None else _FROM_TEXT.get(older, str)(text)


__all__ = ["ARROW", "Answer", "Query", "parameters", "timestamp", "unknown"]
