"""A first description of the watched tables, from the DDL of a database: to be read, corrected, and then kept.

What a column means and holds is guessed by its name and type. A name that says card data has its policy; any other text
is scanned for card numbers. Who reads the draft knows what a name does not say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from contract.ddl import Column, Table
from contract.errors import AuditError
from contract.watched import Meaning, WatchedColumn, type_problem
from pipeline.transforms.names import policy_of, words_of

# In this order: the first column that fits has the meaning.
_MEANINGS: Final[Mapping[Meaning, frozenset[str]]] = {
    "customer": frozenset({"customer", "client", "payer", "account", "cust"}),
    "status": frozenset({"status", "state", "stage", "phase"}),
    "amount": frozenset({"amount", "total", "cents", "value", "sum"}),
    "currency": frozenset({"currency", "ccy"}),
    "method": frozenset({"method", "scheme", "instrument"}),
    "region": frozenset({"region", "branch", "country"}),
    "service": frozenset({"service", "component", "origin"}),
    "acting_user": frozenset({"user", "clerk", "operator", "agent"}),
    "error": frozenset({"error", "refusal", "failure", "reason"}),
    "retries": frozenset({"retries", "retry", "attempts", "attempt"}),
    "action": frozenset({"action", "event", "what", "operation"}),
    "metadata": frozenset({"metadata", "details", "attributes", "extra"}),
    "created": frozenset({"created", "inserted", "booked"}),
    "changed": frozenset({"updated", "changed", "modified", "touched"}),
    "time": frozenset({"timestamp", "time", "at", "happened"}),
}
_PERSONAL: Final = frozenset({"customer", "acting_user", "metadata"})
_PERSON: Final = frozenset({"name", "holder", "email", "mail", "phone", "address", "passport", "birth", "iban", "ssn"})


class DraftError(AuditError):
    """No description can be drafted; the message says the remedy."""


def draft(
    tables: Mapping[str, Table], payments: str, events: Sequence[str], *, ddl: str, stream: str, dataset: str
) -> str:
    """The text of the file. `ddl` is the name of the DDL's file, `stream` that of the change stream. DraftError."""
    lines = [
        "# Drafted from the names and types of the columns. Read each line: what a column means, and what may stay of",
        "# its values, you know better. `python -m contract.watched FILE` checks it; docs/tables.md says what is what.",
        "",
        f'ddl = "{ddl}"',
    ]
    for name, kind in ((payments, "payments"), *((each, "events") for each in events)):
        if name not in tables:
            raise DraftError(f"{name} must be a table of {ddl}, which has {', '.join(sorted(tables))}. Fix its name.")
        lines += ["", *_table(tables[name], kind, payments, tables[payments], stream, dataset)]
    return "\n".join([*lines, ""])


def _table(table: Table, kind: str, payments: str, of: Table, stream: str, dataset: str) -> Iterator[str]:
    if kind == "payments" and len(table.primary_key) != 1:
        raise DraftError(
            f"{table.name} must have one column as its key, which is the payment's id, got "
            f"{', '.join(table.primary_key)}. Name the table whose rows are the payments."
        )
    [key] = of.primary_key
    yield f"[tables.{_name(table.name)}]"
    yield f'kind = "{kind}"'
    yield f'change_stream = "{stream}"'
    yield f'dataset = "{dataset}"'
    # BigQuery's names have no dot.
    yield f'table = "{table.name.replace(".", "_")}_log"'
    if key in {column.name for column in table.columns}:
        yield f'cluster_by = ["{key}"]'
    yield ""
    yield f"[tables.{_name(table.name)}.columns]"
    meanings = _meanings(table, key)
    for column in table.columns:
        yield f"{_name(column.name)} = {_described(column, meanings.get(column.name))}"


def _meanings(table: Table, key: str) -> dict[str, Meaning]:
    """Column → what it seems to mean."""
    found: dict[str, Meaning] = {key: "payment"} if key in {column.name for column in table.columns} else {}
    for meaning, words in _MEANINGS.items():
        for column in table.columns:
            fits = type_problem(WatchedColumn(policy="scan", means=meaning), column.type) is None
            if column.name not in found and fits and policy_of(column.name) is None and words & set(_words(column)):
                found[column.name] = meaning
                break
    return found


def _words(column: Column) -> tuple[str, ...]:
    return words_of(column.name)


def _described(column: Column, meaning: Meaning | None) -> str:
    if meaning:
        kept = "identifier" if meaning in ("payment", "customer") else "scan"
        personal = ", personal = true" if meaning in _PERSONAL else ""
        return f'{{ policy = "{kept}", means = "{meaning}"{personal} }}'
    if (policy := policy_of(column.name)) and type_problem(WatchedColumn(policy=policy), column.type) is None:
        return f'{{ policy = "{policy}", personal = true }}' if policy == "token" else f'"{policy}"'
    if _PERSON & set(_words(column)):
        return '{ policy = "token", personal = true }' if "STRING" in column.type else '"hold"'
    return '"scan"'


def _name(name: str) -> str:
    """A key as TOML has it."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'
