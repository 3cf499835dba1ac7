"""A payments database that others own: attached while they write to it, and neither made nor changed."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from google.cloud.spanner_v1 import COMMIT_TIMESTAMP, KeySet

from contract import attached, schema
from contract.watched import WatchedTables
from local.emulators import launch
from local.machine.state import State
from pipeline.clients import bigquery_client
from tests.emulators.changelog import CARD
from tests.stack.commands import AUDIT, audit, run

TABLES = Path(__file__).parents[1] / "examples" / "bank" / "tables.toml"
WATCHED = WatchedTables.load(TABLES)
PLACE = "projects/bank-payments/instances/core/databases/ledger-db"
# A whole stack beside a database that is written to: minutes, where the machine has other work.
pytestmark = pytest.mark.timeout(900)
_BEFORE = 60
_COLUMNS = ("ledger_no", "customer_no", "stage", "pan", "amount", "iso_currency", "booked", "details", "touched")


@dataclass
class Bank:
    """Their database, and a service of theirs that writes to it until `stop`."""

    endpoint: str
    client: Any
    database: Any
    stopped: threading.Event = field(default_factory=threading.Event)
    # Their own book of what was committed: key, what, and when.
    commits: list[tuple[int, str, datetime]] = field(default_factory=list)

    def ddl(self) -> list[str]:
        return list(self.client.database_admin_api.get_database_ddl(database=PLACE).statements)

    def book(self, number: int) -> None:
        row = (number, number % 5, "NEW", CARD, Decimal("1.5"), "EUR", date(2026, 1, 1), '{"clerk": "ann"}')
        self._commit(number, "INSERT", lambda batch: batch.insert("ledger", _COLUMNS, [(*row, COMMIT_TIMESTAMP)]))

    def settle(self, number: int) -> None:
        values = [(number, "SETTLED", COMMIT_TIMESTAMP)]
        columns = ("ledger_no", "stage", "touched")
        self._commit(number, "UPDATE", lambda batch: batch.update("ledger", columns, values))

    def delete(self, number: int) -> None:
        self._commit(number, "DELETE", lambda batch: batch.delete("ledger", KeySet(keys=[[number]])))

    def _commit(self, number: int, what: str, write: Any) -> None:
        with self.database.batch() as batch:
            write(batch)
        self.commits.append((number, what, batch.committed))

    def write(self) -> None:
        number = 10_000
        while not self.stopped.wait(0.05):
            self.book(number)
            if number % 2:
                self.settle(number)
            if number % 7 == 0:
                self.delete(number)
            number += 1


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Bank]:
    emulator = launch.launch_spanner(logs=tmp_path)
    with emulator.process:
        launch.await_spanner(emulator)
        client = launch.spanner_client(emulator.endpoint, "bank-payments")
        config = "projects/bank-payments/instanceConfigs/emulator-config"
        instance = client.instance("core", configuration_name=config)
        instance.create().result(60)
        made = instance.database("ledger-db", ddl_statements=schema.statements(WATCHED.source_changelog))
        made.create().result(60)
        with made.batch() as batch:
            batch.insert("customers", ("customer_no", "full_name"), [(each, "Jo") for each in range(5)])
        yield Bank(emulator.endpoint, client, made)


def test_a_database_of_others_is_attached_while_it_is_written_to_and_stays_as_it_is(bank: Bank, state: State) -> None:
    theirs = bank.ddl()
    for number in range(_BEFORE):
        bank.book(number)
    service = threading.Thread(target=bank.write)
    service.start()
    try:
        # What its owners run, from the file for them; the emulator has no database roles.
        for need in attached.needs(WATCHED, roles=False):
            bank.database.update_ddl([need.statement]).result(60)
        with_needs = bank.ddl()
        assert [statement for statement in with_needs if statement not in theirs] != []
        assert set(theirs) <= set(with_needs)
        run("local", "up", f"--tables={TABLES}", f"--attach={bank.endpoint}/{PLACE}", "--state", state.root)
        traffic = ["local", "traffic", "--duration=1", f"--state={state.root}"]
        refused = subprocess.run([AUDIT, *traffic], capture_output=True, text=True, check=False)
        assert refused.returncode == 1 and "attached to a database of others" in refused.stderr
        # From here on the stream has it all; before, the backfill.
        begun = datetime.now(UTC)
        audit(state, "backfill", "start", "--reason", "the audit begins today")
        enough = len(bank.commits) + 100
        while len(bank.commits) < enough:
            time.sleep(0.1)
    finally:
        bank.stopped.set()
        service.join()
    streamed = sorted((key, what) for key, what, at in bank.commits if at > begun)
    assert _arrived(state, begun, len(streamed)) == streamed
    validated = audit(state, "validate", "--all")
    assert validated["findings"] == [] and validated["open"] == 0
    assert {(check["table"], check["missing"], check["extra"]) for check in validated["checks"]} == {
        ("ledger", 0, 0), ("ledger_steps", 0, 0),
    }  # fmt: skip
    older = audit(state, "search", "3")["payments"][0]
    assert (older["status"], older["customer_id"], older["acting_user"]) == ("NEW", "3", "ann")
    assert "****" in older["card"]
    # Nothing was made, changed or dropped by us: neither in their database nor beside it in their instance.
    assert bank.ddl() == with_needs
    assert [each.name for each in bank.client.list_instances()] == ["projects/bank-payments/instances/core"]
    instance = bank.client.instance("core")
    assert [each.name for each in instance.list_databases()] == [PLACE]


def _arrived(state: State, since: datetime, expected: int) -> list[tuple[int, str]]:
    """Keys and mod types of the changes that came by the stream, once there are as many as expected or a minute is
    over."""
    known = json.loads(state.connection.read_text())
    client = bigquery_client(known["bigQueryEndpoint"], known["project"])
    sql = (
        "SELECT ledger_no, _metadata_spanner_mod_type FROM bank_audit.ledger_log "
        f"WHERE _metadata_spanner_commit_timestamp > TIMESTAMP '{since.isoformat()}' "
        "AND _metadata_spanner_mod_type != 'REPLAY' ORDER BY 1, 2"
    )
    until = time.monotonic() + 60
    while True:
        rows = [(row[0], row[1]) for row in client.query(sql).result()]
        if len(rows) >= expected or time.monotonic() > until:
            return rows
        time.sleep(0.5)
