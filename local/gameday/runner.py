"""What a game day does to its stack: the commands that a person would type, and what no command does."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import orjson
import psutil

from contract.changes import DeadLetter
from local.emulators.launch import spanner_client
from local.gameday.faults import Commits
from local.machine.state import State
from local.traffic.commits import Committer
from local.traffic.ledger import Entry
from local.traffic.simulator import Mutation, Operation
from pipeline.sink.dead_letters import DeadLetterQueue
from support import connection as connections
from support.connection import Connection
from support.warehouse import Warehouse, WarehouseError

_AUDIT: Final = Path(sys.executable).with_name("audit")
_DDL_SECONDS: Final = 120
# The machine may be busy with the traffic.
_QUERY_SECONDS: Final = 180.0
_PAUSES: Final = (1, 2, 4, 8)


class Runner(Protocol):
    """Acts on one stack."""

    def audit(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs `audit …` to its end, and answers yes where it asks."""

    def burst(self, tps: float, seconds: float) -> None:
        """Starts more traffic, and does not wait for its end."""

    def kill(self, process: str) -> None:
        """Kills a process of the stack."""

    def change_schema(self, statements: Sequence[str]) -> None:
        """Runs DDL on the source, as a service's release does."""

    def commit(self, commits: Commits, *, recorded: bool = True) -> list[Mutation]:
        """Commits to Spanner and writes it into the ledger, as traffic does. Returns what was committed.

        Not `recorded`: the ledger does not know it, and the check does not look for it.
        """

    @property
    def connection(self) -> Connection:
        """The stack's addresses."""

    def query(self, sql: str, **parameters: str) -> list[dict[str, Any]]:
        """Runs SQL in the warehouse, as somebody with access to the tables does."""

    def park(self, letter: DeadLetter) -> None:
        """Puts a dead letter among those that are parked."""

    def alter_snapshot(self, backup_id: str) -> str:
        """Puts another snapshot in the place of a backup's, with altered payments; says which."""


class StackRunner:
    """Acts on the stack of a state folder."""

    def __init__(self, state: State) -> None:
        self._state = state

    def audit(self, *command: str) -> subprocess.CompletedProcess[str]:
        at = [f"--state={self._state.root}"] if command[0] == "local" else []
        return subprocess.run(
            [_AUDIT, f"--connection={self._state.connection}", *command, *at],
            check=False,
            capture_output=True,
            text=True,
            # What a person answers who is asked whether they are sure.
            input="y\n",
        )

    def burst(self, tps: float, seconds: float) -> None:
        subprocess.Popen(
            [
                _AUDIT, "local", "traffic", f"--tps={tps}", f"--duration={seconds}", "--no-dead-letters",
                f"--state={self._state.root}", f"--seed={time.time_ns() % 2**31}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self, process: str) -> None:
        psutil.Process(self._state.pids()[process]).kill()

    def change_schema(self, statements: Sequence[str]) -> None:
        stack = self.connection
        client = spanner_client(stack.spanner_endpoint, stack.project)
        database = client.instance(stack.spanner_instance).database(stack.spanner_database)
        database.update_ddl(list(statements)).result(_DDL_SECONDS)

    def commit(self, commits: Commits, *, recorded: bool = True) -> list[Mutation]:
        stack = self.connection
        database = f"projects/{stack.project}/instances/{stack.spanner_instance}/databases/{stack.spanner_database}"
        committer = Committer(stack.spanner_endpoint, database, lambda: False)
        made: list[Mutation] = []
        try:
            for number, mutations in enumerate(commits):
                at = committer.commit(Operation(number=number, mutations=tuple(mutations)), attempting=lambda _: None)
                # One write of whole lines: the traffic appends to the same file.
                if recorded:
                    with self._state.ledger.open("ab") as ledger:
                        ledger.write(b"".join(_line(mutation, number, at) for mutation in mutations))
                made += mutations
        finally:
            committer.close()
        return made

    @property
    def connection(self) -> Connection:
        return connections.load(self._state.connection)

    def query(self, sql: str, **parameters: str) -> list[dict[str, Any]]:
        for pause in (*_PAUSES, None):
            try:
                return Warehouse(self.connection, seconds=_QUERY_SECONDS).rows(sql, **parameters)
            except WarehouseError:
                # The emulator refuses DML on a table that an append or a merge writes to.
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable")

    def park(self, letter: DeadLetter) -> None:
        DeadLetterQueue(self.connection.dead_letter_directory).park([letter])

    def alter_snapshot(self, backup_id: str) -> str:
        from support.backup.store import Backups
        from support.backup.tables import Tables

        connection = self.connection
        backup, tables = Backups(connection).get(backup_id), Tables(connection, Warehouse(connection))
        kept = backup.table(connection.watched.payments.id)
        other = f"{connection.watched.restored_dataset}.altered"
        tables.drop(other)
        tables.restore(kept.snapshot, other)
        self.query(f"UPDATE `{connection.project}.{other}` SET Region = 'moon' WHERE TRUE")
        # It cannot be written over: who alters one deletes it first.
        tables.drop(kept.snapshot)
        tables.snapshot(other, kept.snapshot, datetime.now(UTC), backup.expires_at)
        tables.drop(other)
        return kept.snapshot


def _line(mutation: Mutation, number: int, at: str) -> bytes:
    """The ledger's line of a modification. No traffic has its seed."""
    entry = Entry(
        seed=-1,
        operation=number,
        table=mutation.table,
        puid=mutation.puid,
        mod_type=mutation.mod_type,
        commit_timestamp=at,
        status=mutation.status,
        dead_letter=mutation.dead_letter,
    )
    return orjson.dumps(asdict(entry)) + b"\n"
