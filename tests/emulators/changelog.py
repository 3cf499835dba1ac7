"""Rows as the pipeline writes them, put into the BigQuery emulator by hand, in any order."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from contract import changes, payments, queries, tables
from pipeline.transforms.keys import MaskingKeys
from tests.shipped import AUDIT_LOG_DATASET, AUDIT_LOG_TABLE, PAYMENT_DATASET, PAYMENT_TABLE, WATCHED

CARD = "4111111111111111"
KEYS = {"v1": bytes(range(32)), "v2": bytes(range(1, 33))}
OLD_TOKEN, NEW_TOKEN = (MaskingKeys({v: KEYS[v]}).token("card", CARD) for v in ("v1", "v2"))


class _Clock:
    """Where `at` counts from, a recent whole second: the overview reads the last hour, and many tests take longer."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.start = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)


_CLOCK = _Clock()


def at(second: float) -> datetime:
    """A time of this test; one after `clear` is of the next."""
    return _CLOCK.start + timedelta(seconds=second)


def row(
    puid: str, mod: str, second: float, status: str | None = None, old: Any = None, **fields: Any
) -> dict[str, Any]:
    """A changelog row of `payment_audit_trail` (or, with `table`, of audit_logs), committed at that second."""
    table = fields.pop("table", PAYMENT_TABLE)
    commit = at(second).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
    before = (old or {}).get("Status", status if mod == "UPDATE" else None)
    return {
        "PUID": puid,
        "Status": status,
        tables.MOD_TYPE: mod,
        tables.TABLE_NAME: table,
        tables.COMMIT_TIMESTAMP: at(second).isoformat(),
        tables.COMMIT_TIMESTAMP_NANOS: str(int(at(second).timestamp() * 1e6) * 1000),
        tables.CHANGE_ID: changes.change_id(commit, "tx", "00000000", 0),
        tables.BIG_QUERY_COMMIT_TIMESTAMP: at(second + 0.5).isoformat(),
        tables.OLD_VALUES: None if old is None else json.dumps(old),
        tables.PAYMENT_STATE: payments.PAYMENT_STATES.get(status or ""),
        tables.PAYMENT_STATE_AT: at(second).isoformat(),
        tables.PREVIOUS_PAYMENT_STATE: payments.PAYMENT_STATES.get(before or ""),
        **fields,
    }


@dataclass(frozen=True)
class Changelog:
    """Writes rows and runs scripts in one test's warehouse."""

    client: Any
    project: str

    def create(self) -> None:
        """Makes the tables, views and table functions."""
        from google.cloud import bigquery

        places = (tables.VIEWS_DATASET, tables.ACCESS_DATASET, tables.BACKUPS_DATASET, tables.RESTORED_DATASET)
        for dataset in (PAYMENT_DATASET, AUDIT_LOG_DATASET, *places):
            self.client.create_dataset(f"{self.project}.{dataset}")
        for table in tables.all_tables(WATCHED):
            fields = [bigquery.SchemaField(f.name, f.type, f.mode) for f in table.fields]
            made = bigquery.Table(f"{self.project}.{table.id}", schema=fields)
            if table.partition_by and not table.buckets:
                made.time_partitioning = bigquery.TimePartitioning(table.partition, field=table.partition_by)
            self.client.create_table(made)
        for name in queries.views():
            view = bigquery.Table(f"{self.project}.{tables.VIEWS_DATASET}.{name}")
            view.view_query = queries.view(name, self.project, WATCHED)
            self.client.create_table(view)

    def clear(self) -> None:
        """Takes every row out of every table, and begins to count the seconds from now."""
        _CLOCK.begin()
        every = (f"DELETE FROM `{self.project}.{table.id}` WHERE TRUE" for table in tables.all_tables(WATCHED))
        self.client.query("; ".join(every)).result()

    def payments(self, *rows: dict[str, Any]) -> None:
        self._insert(tables.changelogs(WATCHED)[PAYMENT_TABLE].id, rows)

    def audit_logs(self, *rows: dict[str, Any]) -> None:
        self._insert(tables.changelogs(WATCHED)[AUDIT_LOG_TABLE].id, rows)

    def position(self, second: float, *, job: str = "audit-stream-job") -> None:
        written = {"written_at": datetime.now(UTC).isoformat(), "position": at(second).isoformat()}
        self._insert(tables.resume_positions(WATCHED).id, [{"job_name": job, "generation": 1, **written}])

    def stuck(self, *payments: tuple[str, str, int], ago: float = 0) -> None:
        """What the probe writes at a look, so many seconds ago, of payments (id, Status, seconds in it), or of none."""
        seen = datetime.now(UTC) - timedelta(seconds=ago)
        rows = [
            {"puid": p, "status": s, "status_since": (seen - timedelta(seconds=n)).isoformat(), "limit_seconds": 60}
            for p, s, n in payments
        ]
        look = [{"seen_at": seen.isoformat(), **row} for row in rows or [{}]]
        self._insert(tables.stuck_payments_seen(WATCHED).id, look)

    def merge(self) -> None:
        self.client.query(queries.merge_script(self.project, WATCHED)).result()

    def fill(self) -> None:
        self.client.query(queries.fill_script(self.project, WATCHED)).result()

    def rewind(self, second: float, *, arrived: datetime | None = None) -> None:
        script = queries.rewind_script(self.project, WATCHED)
        self.query(script, commit_timestamp=at(second), arrived=arrived or datetime.now(UTC))

    def query(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(
            query_parameters=[_parameter(name, value) for name, value in parameters.items()],
            default_dataset=f"{self.project}.{PAYMENT_DATASET}",
        )
        return [dict(found) for found in self.client.query(sql, job_config=config).result()]

    def current(self) -> dict[str, str]:
        return {
            found["PUID"]: found["Status"]
            for found in self.query("SELECT PUID, Status FROM payment_views.payment_current")
        }

    def _insert(self, table: str, rows: Any) -> None:
        assert self.client.insert_rows_json(self.client.get_table(f"{self.project}.{table}"), list(rows)) == []


def _parameter(name: str, value: Any) -> Any:
    from google.cloud.bigquery import ArrayQueryParameter, ScalarQueryParameter

    if isinstance(value, list | tuple):
        return ArrayQueryParameter(name, "STRING", list(value))
    kind = {str: "STRING", int: "INT64", datetime: "TIMESTAMP"}[type(value)]
    return ScalarQueryParameter(name, kind, value)
