"""How long a person waits for a page of the console, and what of it is the query.

    python -m bench.console [--changes 200000] [--rounds 15]

It starts a local stack without traffic, writes changes of a quarter as many payments into the changelog, merges and
fills as the stack does, and opens pages in turn with the function below each page: the difference is
the console's own time.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from bench.live import local_stack
from bench.results import keep, machine
from contract import changes, payments, queries, tables
from contract.watched import SHIPPED, WatchedTables
from local.machine.state import State
from pipeline import clients
from pipeline.sink.connection import AppendConnection
from pipeline.transforms.cards import card_tokens
from pipeline.transforms.keys import MaskingKeys
from support.connection import Connection, load
from support.search import Search, search
from support.timeline import timeline
from support.warehouse import Warehouse

CARD: Final = "4111111111111111"
_BATCH: Final = 10_000
_STATUSES: Final = ("INITIATED", "AUTHORIZED", "CAPTURED", "SETTLED")


def fill(connection: Connection, number: int) -> None:
    """Writes changes into the changelog: four of each payment, one payment in a thousand with the card."""
    watched = connection.watched
    table = tables.Table(dataset=watched.payments.dataset, name=watched.payments.table, fields=())
    parent = f"projects/{connection.project}/datasets/{table.dataset}/tables/{table.name}/streams/_default"
    client = clients.write_client(connection.big_query_storage_endpoint)
    [token] = card_tokens(CARD, MaskingKeys.load(connection.masking_keys))
    began = datetime.now(UTC) - timedelta(hours=2)
    appending = None
    for first in range(0, number, _BATCH):
        batch = pa.RecordBatch.from_pylist(
            [_row(i, began, token) for i in range(first, min(number, first + _BATCH))], _SCHEMA
        )
        appending = appending or AppendConnection(client, parent, batch.schema)
        response = appending.append(batch, None, timeout=120)
        assert not response.error.code, response.error.message
    if appending:
        appending.close()


_SCHEMA: Final = pa.schema(
    [
        ("PUID", pa.string()),
        ("CustomerId", pa.string()),
        ("Status", pa.string()),
        ("Region", pa.string()),
        ("CardNumber", pa.string()),
        (tables.MOD_TYPE, pa.string()),
        (tables.TABLE_NAME, pa.string()),
        (tables.COMMIT_TIMESTAMP, pa.timestamp("us", tz="UTC")),
        (tables.COMMIT_TIMESTAMP_NANOS, pa.int64()),
        (tables.CHANGE_ID, pa.string()),
        (tables.OLD_VALUES, pa.string()),
        (tables.CARD_TOKENS, pa.list_(pa.string())),
        (tables.CUSTOMER_ID, pa.string()),
        (tables.PAYMENT_STATE, pa.string()),
        (tables.PAYMENT_STATE_AT, pa.timestamp("us", tz="UTC")),
        (tables.PREVIOUS_PAYMENT_STATE, pa.string()),
        (tables.BIG_QUERY_COMMIT_TIMESTAMP, pa.timestamp("us", tz="UTC")),
    ]
)


def _row(number: int, began: datetime, token: str) -> dict[str, Any]:
    payment, step = divmod(number, len(_STATUSES))
    at = began + timedelta(milliseconds=number * 30)
    status, before = _STATUSES[step], _STATUSES[step - 1] if step else None
    with_card = payment % 1000 == 0
    return {
        "PUID": f"payment-{payment:06d}",
        "CustomerId": f"C-{payment % 5000}",
        "Status": status,
        "Region": ("EU", "US")[payment % 2],
        "CardNumber": "411111******1111" if with_card else None,
        tables.MOD_TYPE: "UPDATE" if step else "INSERT",
        tables.TABLE_NAME: "payment_audit_trail",
        tables.COMMIT_TIMESTAMP: at,
        tables.COMMIT_TIMESTAMP_NANOS: int(at.timestamp() * 1e6) * 1000,
        tables.CHANGE_ID: changes.change_id(at.strftime("%Y-%m-%dT%H:%M:%S.%f000Z"), "tx", "00000000", 0),
        tables.OLD_VALUES: f'{{"Status":"{before}"}}' if before else None,
        tables.CARD_TOKENS: [token] if with_card else [],
        tables.CUSTOMER_ID: f"C-{payment % 5000}",
        tables.PAYMENT_STATE: payments.PAYMENT_STATES[status],
        tables.PAYMENT_STATE_AT: at,
        tables.PREVIOUS_PAYMENT_STATE: payments.PAYMENT_STATES.get(before or ""),
        tables.BIG_QUERY_COMMIT_TIMESTAMP: at,
    }


def measure(connection: Connection, address: str, rounds: int) -> dict[str, Any]:
    """Milliseconds of each page and of what is below it, in turn: median and 95th percentile."""
    warehouse = Warehouse(connection)
    tokens = tuple(card_tokens(CARD, MaskingKeys.load(connection.masking_keys)))
    # Page → (its request, the function below it). The first page waits for nothing: the poller has looked.
    pages: dict[str, tuple[Callable[[], None], Callable[[], object] | None]] = {
        "search by id": (
            lambda: _get(address, "/search?puid=payment-000777"),
            lambda: search(warehouse, Search(puid="payment-000777")),
        ),
        "search by customer": (
            lambda: _get(address, "/search?customer=C-777"),
            lambda: search(warehouse, Search(customer_id="C-777")),
        ),
        "search by card": (
            lambda: _post(address, "/find", {"q": CARD}),
            lambda: search(warehouse, Search(card_tokens=tokens)),
        ),
        "payment": (
            lambda: _get(address, "/payments/payment-000777"),
            lambda: timeline(warehouse, "payment-000777"),
        ),
        "first page": (lambda: _get(address, "/"), None),
    }
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in pages}
    for _ in range(rounds):
        for name, (request, below) in pages.items():
            taken[name][0].append(_timed(request))
            if below:
                taken[name][1].append(_timed(below))
    return {name: _figures(*both) for name, both in taken.items()}


def _figures(page: list[float], query: list[float]) -> dict[str, float]:
    found = {"page_ms": statistics.median(page), "page_p95_ms": statistics.quantiles(page, n=20)[-1]}
    if query:
        below = statistics.median(query)
        found |= {"query_ms": below, "own_ms": found["page_ms"] - below, "ratio": found["page_ms"] / below}
    return {name: round(value, 2) for name, value in found.items()}


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return (time.monotonic() - began) * 1000


def _get(address: str, path: str) -> None:
    with urllib.request.urlopen(address + path, timeout=60) as answer:  # noqa: S310 - the stack's own address
        answer.read()


def _post(address: str, path: str, form: dict[str, str]) -> None:
    request = urllib.request.Request(  # noqa: S310
        address + path, urllib.parse.urlencode(form).encode(), {"Sec-Fetch-Site": "same-origin"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        answer.read()


def first_byte(connection: Path) -> float:
    """Seconds from the start of `audit console` to the first byte of a page."""
    audit = Path(sys.executable).with_name("audit")
    began = time.monotonic()
    process = subprocess.Popen(
        [audit, f"--connection={connection}", "console", "--port=0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        address = process.stdout.readline().split()[1]
        while True:
            try:
                _get(address, "/healthz")
                return time.monotonic() - began
            except OSError:
                time.sleep(0.02)
    finally:
        process.terminate()
        process.wait(10)


def _stack() -> Iterator[State]:
    with tempfile.TemporaryDirectory() as folder:
        state = State(Path(folder))
        with local_stack(state, []):
            yield state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    for state in _stack():
        connection, before = load(state.connection), machine()
        began = time.monotonic()
        fill(connection, given.changes)
        client = clients.bigquery_client(connection.big_query_endpoint, connection.project)
        for script in (queries.merge_script, queries.fill_script):
            client.query(script(connection.project, WatchedTables.load(SHIPPED))).result(timeout=600)
        print(f"{given.changes:,} changes written and merged in {time.monotonic() - began:.0f} s")
        start = first_byte(state.connection)
        address = state.read()["processes"]["console"]["url"]
        _get(address, "/")
        time.sleep(20)
        found = measure(connection, address, given.rounds)
    print(f"first byte after the start: {start:.2f} s")
    for name, figures in found.items():
        below = f", the query {figures['query_ms']:6,.0f}, own {figures['own_ms']:5,.0f}" if "own_ms" in figures else ""
        print(f"{name:20} {figures['page_ms']:6,.0f} ms, p95 {figures['page_p95_ms']:6,.0f}{below}")
    result = {
        "machine": before,
        "changes": given.changes,
        "rounds": given.rounds,
        "first_byte_s": start,
        "taken": found,
    }
    print(keep("console", result))


if __name__ == "__main__":
    main()
