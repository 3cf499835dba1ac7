"""What the probe seeks in Spanner's status index, and what it keeps of it; tests/emulators/test_probe.py seeks."""

from __future__ import annotations

import re
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

from contract import dialects, payments, schema
from support import stuck
from tests.shipped import PAYMENTS

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
LIMITS = {"PENDING": 60, payments.ANY: 120}


class Index:
    """A database that answers a query with given rows: (Status, payment, since)."""

    def __init__(self, *rows: tuple[str, str, datetime], dialect: str = dialects.GOOGLE_SQL) -> None:
        self.rows, self.sql, self.dialect = rows, "", dialect

    def snapshot(self, **_: Any) -> Any:
        return nullcontext(self)

    def execute_sql(self, sql: str, **_: Any) -> Any:
        if sql == dialects.WHICH:
            return [[self.dialect]]
        self.sql = sql
        return self.rows


def seek(*rows: tuple[str, str, datetime]) -> stuck.Found:
    return stuck.seek(Index(*rows), PAYMENTS, LIMITS, frozenset(), NOW)


def ago(status: str, number: int, seconds: int) -> list[tuple[str, str, datetime]]:
    return [(status, f"{status}-{i}", NOW - timedelta(seconds=seconds + i)) for i in range(number)]


def test_every_column_that_is_sought_is_in_the_index_so_no_row_of_the_table_is_read() -> None:
    index = Index()
    stuck.seek(index, PAYMENTS, LIMITS, payments.ends(payments.PAYMENT_STATES, LIMITS), NOW)
    assert PAYMENTS.status_index
    statements = " ".join(schema.statements())
    [columns] = re.findall(rf"INDEX {PAYMENTS.status_index.name} ON \w+ \(([^)]+)\)", statements)
    [key] = re.findall(rf"CREATE TABLE {PAYMENTS.name} .*?PRIMARY KEY \((\w+)\)", statements, re.S)
    places = {PAYMENTS.name, PAYMENTS.status_index.name}
    assert set(re.findall(r"`(\w+)`", index.sql)) - places == {*columns.split(", "), key}
    arms = index.sql.split(" UNION ALL ")
    # A seek of each shard that ends at its limit, in the order of the index.
    for arm in arms:
        assert f"FORCE_INDEX=`{PAYMENTS.status_index.name}`" in arm
        assert "GENERATE_ARRAY(0, 15)" in arm and "`StatusShard` = shard AND `Status` " in arm
        assert "ORDER BY `Status`, `UpdatedAt` LIMIT 625" in arm


def test_a_look_keeps_a_thousand_and_the_longest_stuck_of_every_status() -> None:
    found = seek(*ago("HELD", 1500, 90_000), *ago("PENDING", 3, 61))
    assert found.counts == {"HELD": 1500, "PENDING": 3}
    assert len(found.payments) == stuck.MOST
    kept = [each.puid for each in found.payments]
    assert kept[:4] == ["HELD-1499", "PENDING-2", "HELD-1498", "PENDING-1"]
    assert {"PENDING-0", "HELD-503"} <= set(kept) and "HELD-502" not in kept
    assert [(each.seconds, each.limit_seconds) for each in found.payments[:2]] == [(91_499, 120), (63, 60)]


def test_a_card_number_in_a_status_or_an_id_is_kept_nowhere() -> None:
    card = "4111111111111111"
    # By chance a valid number, and of no card's range: an id like any other.
    other = "7999999999999991"
    found = seek(*((f"S {card}", puid, NOW) for puid in (card, other, "cvv: 123", "p1")))
    assert found.counts == {"PENDING": 0, "S 411111******1111": 4}
    assert [each.puid for each in found.payments] == [other, "p1"]
