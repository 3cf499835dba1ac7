"""What the probe counts, without Spanner and BigQuery: totals that only grow, and what waits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any

import pytest
from google.api.metric_pb2 import MetricDescriptor
from google.cloud import monitoring_v3
from prometheus_client.parser import text_string_to_metric_families

from contract import metrics, payments, timestamps
from contract.changes import Column
from contract.metrics import LATENCY_BUCKETS
from pipeline.source.closed import changes_before
from pipeline.source.partitions import PartitionSet
from pipeline.source.records import Child, ChildPartitions, DataChange, Mod, Record
from pipeline.transforms.filter import Ignored, IgnoredRecords
from probe import series
from probe.committed import Commit, Window, count
from probe.measure import Measurement, arrivals_query
from probe.state import Span, Totals, Waiting, WaitingWindow, look_again, open_window
from support.connection import Connection
from tests.shipped import WATCHED

START = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
SPAN = Span(START, START + timedelta(minutes=1))
FIRST = int(START.timestamp()) * 1_000_000
A = Commit("payment_audit_trail", FIRST + 1)
B = Commit("audit_logs", FIRST + 2_000_000)
CONNECTION = Connection(
    watched_tables=WATCHED.to_json(),
    project="p", location="", big_query_endpoint="", spanner_endpoint="", spanner_instance="i", spanner_database="d",
    metadata_database="m", masking_keys="", dead_letter_directory="", job_name="audit-stream-job", region="r",
)  # fmt: skip


def after(commit: Commit, seconds: float) -> int:
    return commit.micros + int(seconds * 1_000_000)


def bucket(seconds: float) -> int:
    return next(i for i, bound in enumerate((*LATENCY_BUCKETS, float("inf"))) if seconds <= bound)


def counted(totals: Totals) -> dict[float, int]:
    return {bound: n for bound, n in zip((*LATENCY_BUCKETS, float("inf")), totals.latency, strict=True) if n}


def test_a_window_is_counted_and_what_is_missing_is_late_at_once() -> None:
    totals = Totals()
    window = open_window(SPAN, {A: 2, B: 1}, {A: [after(A, 10), after(A, 10.1)]}, {}, totals)
    assert (totals.committed, totals.queryable) == (3, 2)
    # Ten seconds is in time: the SLO includes it.
    assert counted(totals) == {10: 1, 15: 1, float("inf"): 1}
    assert list(window.commits) == [B]
    assert window.oldest_unaudited == START + timedelta(seconds=2)


def test_what_arrives_later_gets_its_true_latency_and_is_counted_once() -> None:
    totals = Totals()
    window = open_window(SPAN, {A: 3}, {A: [after(A, 1)]}, {}, totals)
    arrived = {A: [after(A, 200), after(A, 1), after(A, 50)]}
    before = list(accumulate(totals.latency))
    look_again(window, arrived, {}, totals)
    assert counted(totals) == {1: 1, 60: 1, 300: 1}
    assert (totals.committed, totals.queryable, totals.latency_seconds) == (3, 3, 251.0)
    assert not window.commits
    # Prometheus would take a number that shrinks for a restart.
    assert all(now >= then for now, then in zip(accumulate(totals.latency), before, strict=True))
    look_again(window, arrived, {}, totals)
    assert totals.queryable == 3


def test_without_an_answer_nothing_has_arrived() -> None:
    totals = Totals()
    window = open_window(SPAN, {A: 2}, None, {}, totals)
    assert (totals.queryable, counted(totals), window.changes) == (0, {float("inf"): 2}, 2)


def test_rows_that_nobody_committed_do_not_count() -> None:
    totals = Totals()
    window = open_window(SPAN, {A: 1}, {A: [after(A, 1), after(A, 1)], B: [after(B, 1)]}, {}, totals)
    assert (totals.committed, totals.queryable, window.commits) == (1, 1, {})


def test_a_dead_letter_waits_but_is_not_unaudited() -> None:
    totals = Totals()
    window = open_window(SPAN, {A: 1, B: 1}, {}, {A: 1}, totals)
    assert window.changes == 2
    assert window.oldest_unaudited == START + timedelta(seconds=2)


def test_a_dead_letter_that_was_discarded_waits_no_longer_and_stays_late() -> None:
    totals = Totals()
    window = open_window(SPAN, {A: 2}, {A: [after(A, 1)]}, {A: 1}, totals)
    look_again(window, {A: [after(A, 1)]}, {}, totals)
    assert not window.commits
    assert counted(totals) == {1: 1, float("inf"): 1}


def test_a_dead_letter_that_was_resolved_has_arrived() -> None:
    totals = Totals()
    window = open_window(SPAN, {A: 1}, {}, {A: 1}, totals)
    look_again(window, {A: [after(A, 700)]}, {}, totals)
    assert (window.commits, counted(totals)) == ({}, {900: 1})


def test_a_change_that_becomes_a_dead_letter_later_is_no_longer_unaudited() -> None:
    totals = Totals()
    window = open_window(SPAN, {A: 1}, {}, {}, totals)
    assert window.oldest_unaudited
    look_again(window, {}, {A: 1}, totals)
    assert window.oldest_unaudited is None


def test_a_window_that_waits_survives_its_encoding() -> None:
    window = WaitingWindow(SPAN, {A: Waiting(3, 1, 1), B: Waiting(2)})
    assert WaitingWindow.from_bytes(SPAN, window.to_bytes()) == window


def test_one_query_asks_for_days_by_constants_and_leaves_replays_out() -> None:
    later = Span(START + timedelta(days=1), START + timedelta(days=1, minutes=1))
    second = Span(SPAN.end, SPAN.end + timedelta(minutes=1))
    sql, parameters = arrivals_query("p", WATCHED, [later, second, SPAN])
    assert parameters == {"start0": START, "end0": second.end, "start1": later.start, "end1": later.end}
    assert sql.count("_metadata_spanner_mod_type IN ('INSERT', 'UPDATE', 'DELETE')") == 2
    assert sql.count("_metadata_spanner_commit_timestamp >= @start1") == 2


# ---------------------------------------------------------------------- the source


def moment(seconds: float) -> str:
    return timestamps.from_datetime(START + timedelta(seconds=seconds))


def change(seconds: float, table: str = "payment_audit_trail", mods: int = 1, **values: Any) -> DataChange:
    new, old = values.get("new", {}), values.get("old", {})
    mod = Mod('{"PUID":"p"}', json.dumps(new), json.dumps(old))
    columns = (Column("PUID", "STRING", True), *(Column(name, "STRING", False) for name in values.get("more", ())))
    return DataChange(
        "S", moment(seconds), f"{seconds:08.3f}", "tx", True, table, columns, (mod,) * mods,
        values.get("kind", "UPDATE"), "NEW_ROW_AND_OLD_VALUES", 1, 1, "", False,
    )  # fmt: skip


class Stream:
    """Partitions with their records, as queries of a change stream give them: from `start` to `end`, both included."""

    def __init__(self, partitions: dict[str, list[Record]]) -> None:
        self.partitions = partitions
        self.asked: list[tuple[str, str]] = []

    def roots(self, start: str) -> list[Child]:
        return [Child("a", start, ())]

    def run(self, start: str, *, token: str, end: str) -> Iterator[Record]:
        self.asked.append((token, start))
        for record in self.partitions[token]:
            at = record.commit_timestamp if isinstance(record, DataChange) else _start(record)
            if start <= at <= end:
                yield record


def _start(record: Any) -> str:
    return str(record.children[0].start)


def unclassified(*records: DataChange, known: dict[str, list[str]] | None = None) -> dict[str, list[str]]:
    window = Window(unclassified=known or {})
    count(window, iter(records), WATCHED, Ignored(), IgnoredRecords(), payments.PAYMENT_STATES)
    return window.unclassified


def test_columns_that_changes_carried_are_unclassified_until_an_insert_is_without_them() -> None:
    insert, update = change(1, kind="INSERT", more=("Status", "Odd")), change(2, kind="UPDATE", more=("Odder",))
    assert unclassified(insert) == {"payment_audit_trail": ["Odd"]}
    assert unclassified(insert, update) == {"payment_audit_trail": ["Odd", "Odder"]}
    # What an earlier window saw stays; an insert has every column, so the others are gone.
    known = {"payment_audit_trail": ["Gone"]}
    assert unclassified(update, known=dict(known)) == {"payment_audit_trail": ["Gone", "Odder"]}
    assert unclassified(update, insert, known=dict(known)) == {"payment_audit_trail": ["Odd"]}
    # A table that nobody described has no columns to classify.
    assert unclassified(change(1, table="other", kind="INSERT", more=("Odd",))) == {}


def test_children_are_followed_inside_a_window_and_each_change_comes_once() -> None:
    merged = ChildPartitions((Child("c", moment(40), ("b", "d")),))
    stream = Stream(
        {
            "a": [change(1), ChildPartitions((Child("b", moment(20), ("a",)), Child("d", moment(20), ("a",))))],
            "b": [change(25), merged],
            "d": [change(30), merged],
            "c": [change(50), change(70), change(90)],
        }
    )
    partitions = PartitionSet(moment(0))
    first = [c.commit_timestamp for c in changes_before(stream, partitions, moment(60))]
    assert sorted(first) == [moment(s) for s in (1, 25, 30, 50)]
    second = [c.commit_timestamp for c in changes_before(stream, partitions, moment(120))]
    assert sorted(second) == [moment(70), moment(90)]


def test_a_change_on_the_border_of_two_windows_belongs_to_the_second() -> None:
    stream = Stream({"a": [change(59.999999), change(60)]})
    partitions = PartitionSet(moment(0))
    assert [c.commit_timestamp for c in changes_before(stream, partitions, moment(60))] == [moment(59.999999)]
    assert [c.commit_timestamp for c in changes_before(stream, partitions, moment(120))] == [moment(60)]


def test_a_partition_that_ends_just_after_the_window_is_read_to_its_end() -> None:
    """The query asks a millisecond further: what lies between the window's end and the partition's is not lost."""
    ended = ChildPartitions((Child("b", moment(60.0009), ("a",)),))
    stream = Stream({"a": [change(1), change(60.0005), ended], "b": [change(61)]})
    partitions = PartitionSet(moment(0))
    list(changes_before(stream, partitions, moment(60)))
    rest = [c.commit_timestamp for c in changes_before(stream, partitions, moment(120))]
    assert rest == [moment(60.0005), moment(61)]


def test_the_positions_travel_as_text_from_run_to_run() -> None:
    stream = Stream({"a": [change(1), change(61)]})
    partitions = PartitionSet(moment(0))
    list(changes_before(stream, partitions, moment(60)))
    again = PartitionSet.from_bytes(partitions.to_bytes())
    assert [c.commit_timestamp for c in changes_before(stream, again, moment(120))] == [moment(61)]


def test_payments_are_counted_by_the_state_that_they_come_to() -> None:
    window = Window()
    records = [
        change(1, kind="INSERT", new={"Status": "INITIATED"}),
        change(2, new={"Status": "CAPTURED"}, old={"Status": "INITIATED"}),
        change(3, new={"Status": "SETTLED"}, old={"Status": "CAPTURED"}),
        change(4, new={"Status": "SETTLED"}, old={"UserId": "u"}),
        change(5, new={"Status": "FAILED"}, old={"Status": "ON_HOLD"}),
        change(6, kind="DELETE", old={"Status": "FAILED"}),
        change(7, table="audit_logs", new={"Status": "FAILED"}, kind="INSERT", mods=2),
    ]
    count(window, iter(records), WATCHED, Ignored(), IgnoredRecords(), payments.PAYMENT_STATES)
    assert window.outcomes == {"initiated": 1, "processed": 1, "failed": 1}
    assert sum(window.commits.values()) == 8


def test_what_the_pipeline_leaves_out_is_not_missed() -> None:
    window = Window()
    records = [
        change(1, table="audit_logs", mods=2),
        change(2, new={"Status": "S", "RetryCount": "2"}, old={"RetryCount": "1"}),
        change(3, new={"Status": "S", "RetryCount": "2"}, old={"Status": "R", "RetryCount": "1"}),
        change(4, kind="DELETE", old={"Status": "S"}),
        change(5, new={"Status": "S"}, old={"Status": "R"})._replace(transaction_tag="nightly"),
    ]
    left_out = IgnoredRecords.parse("audit_logs", "DELETE", "nightly")
    count(window, iter(records), WATCHED, Ignored.parse("RetryCount"), left_out, payments.PAYMENT_STATES)
    assert dict(+window.commits) == {Commit("payment_audit_trail", FIRST + 3_000_000): 1}


def test_a_change_that_cannot_be_read_counts_as_committed() -> None:
    window = Window()
    broken = change(1)._replace(mods=(Mod("[]", "", ""),))
    count(window, iter([broken]), WATCHED, Ignored(), IgnoredRecords(), payments.PAYMENT_STATES)
    assert sum(window.commits.values()) == 1


# ---------------------------------------------------------------------- limits


def test_limits_are_read_over_the_defaults_and_a_wrong_one_is_refused() -> None:
    assert payments.parse_limits("PENDING=60,*=5") == {**payments.STUCK_SECONDS, "PENDING": 60, "*": 5}
    for wrong in ("PENDING", "PENDING=0", "PENDING=1h", "=5"):
        with pytest.raises(ValueError, match=r"stuckLimits must be STATUS=seconds pairs.*Pulumi\.<stack>\.yaml"):
            payments.parse_limits(wrong)


def test_a_payment_may_stay_in_its_end_unless_a_limit_names_it() -> None:
    assert "CAPTURED" in payments.ends(payments.PAYMENT_STATES, payments.STUCK_SECONDS)
    assert "CAPTURED" not in payments.ends(payments.PAYMENT_STATES, payments.parse_limits("CAPTURED=60"))
    assert "INITIATED" not in payments.ends(payments.PAYMENT_STATES, {})


# ---------------------------------------------------------------------- series


def measurement(**changes: Any) -> Measurement:
    totals = Totals(committed=5, queryable=3, outcomes={"failed": 2}, dead_letters=1, latency_seconds=21.5)
    for seconds in (0.5, 9, 12, 5000, 5000):
        totals.latency[bucket(seconds)] += 1
    known: dict[str, Any] = {
        "at": START + timedelta(minutes=2), "started_at": START, "totals": totals, "windows": (SPAN,), "waiting": 2,
        "oldest_unaudited_seconds": 61.5, "dead_letters": {"card_number_in_key": 1, "unexpected_error": 0},
        "oldest_dead_letter_seconds": 3.0, "stuck": {"PENDING": 4, "INITIATED": 0}, "unclassified_columns": 0,
        "bytes_read": 10, "operations_failed": {"schema": True}, "operations_missed": {"schema": 3.5},
    }  # fmt: skip
    return Measurement(**known | changes)


def test_every_series_has_the_kind_type_and_labels_of_its_metric() -> None:
    for made in series.time_series(measurement(), CONNECTION):
        [metric] = [m for m in metrics.PROBE_METRICS if m.type == made.metric.type]
        assert MetricDescriptor.MetricKind.Name(made.metric_kind) == metric.kind
        assert MetricDescriptor.ValueType.Name(made.value_type) == metric.value
        assert made.resource.type == metric.resource
        assert set(made.metric.labels) == {name for name, _ in metric.labels}
        [point] = made.points
        assert ("start_time" in point.interval) == (metric.kind == "CUMULATIVE")
        # Google's own type survives its wire format.
        assert monitoring_v3.TimeSeries.deserialize(monitoring_v3.TimeSeries.serialize(made)) == made


def test_every_metric_of_the_contract_is_written() -> None:
    assert {sample.metric for sample in series.samples(measurement())} == set(metrics.PROBE_METRICS)


def test_what_validation_found_is_written_and_from_zero() -> None:
    for found in (0, 3):
        samples = list(series.samples(measurement(mismatches=found, cards_in_columns=found)))
        [mismatches] = [s.value for s in samples if s.metric == metrics.VALIDATION_MISMATCHES]
        cards = {dict(s.labels)["where"]: s.value for s in samples if s.metric == metrics.CARD_NUMBERS_FOUND}
        assert (mismatches, cards) == (found, {"key": 0, "column": found})


def test_how_old_validation_and_erasure_are_is_written() -> None:
    made = measurement(validation_age_seconds=90.0, erasure_age_seconds=30.0)
    values = {s.metric: s.value for s in series.samples(made)}
    assert [values[m] for m in (metrics.VALIDATION_AGE, metrics.ERASURE_AGE)] == [90.0, 30.0]


def test_what_is_recorded_of_backups_is_written() -> None:
    for failed in (False, True):
        made = measurement(backup_age_seconds=90.0, backup_drill_age_seconds=30.0, backup_drill_failed=failed)
        values = {s.metric: s.value for s in series.samples(made)}
        found = [values[m] for m in (metrics.BACKUP_AGE, metrics.BACKUP_DRILL_AGE, metrics.BACKUP_DRILL_FAILED)]
        assert found == [90.0, 30.0, int(failed)]


def test_the_distribution_has_google_s_buckets_and_its_mean() -> None:
    [made] = [s for s in series.time_series(measurement(), CONNECTION) if s.metric.type.endswith("queryable_seconds")]
    value = made.points[0].value.distribution_value
    assert list(value.bucket_options.explicit_buckets.bounds) == list(LATENCY_BUCKETS)
    assert (value.count, len(value.bucket_counts), value.mean) == (5, len(LATENCY_BUCKETS) + 1, pytest.approx(4.3))
    assert made.points[0].interval.start_time.timestamp() == START.timestamp()


def test_prometheus_reads_the_same_series_under_google_s_names() -> None:
    text = series.exposition(measurement(), CONNECTION).decode()
    found = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    names = {name for name, _ in found}
    assert metrics.SOURCE_COMMITTED.promql in names
    assert all(dict(labels)["monitored_resource"] == "generic_task" for _, labels in found)
    stem = metrics.COMMIT_TO_QUERYABLE.promql
    at = {dict(labels)["le"]: value for (name, labels), value in found.items() if name == f"{stem}_bucket"}
    assert (at["0.5"], at["10"], at["15"], at["3600"], at["+Inf"]) == (1, 2, 3, 3, 5)
    stuck = {dict(labels)["state"]: v for (name, labels), v in found.items() if name == metrics.STUCK_PAYMENTS.promql}
    assert stuck == {"PENDING": 4, "INITIATED": 0}
    name = metrics.PAYMENTS_BY_STATE.promql
    assert {dict(labels)["state"]: v for (n, labels), v in found.items() if n == name} == {
        "initiated": 0,
        "processed": 0,
        "failed": 2,
    }


def test_the_first_run_writes_nothing_for_its_counters_have_no_length() -> None:
    class Client:
        def create_time_series(self, **_: Any) -> None:
            raise AssertionError("nothing is to be written")

    assert series.write(measurement(at=START), CONNECTION, Client()) == 0


def test_writing_gives_the_client_every_series_of_the_project() -> None:
    requests: list[Any] = []

    class Client:
        def create_time_series(self, **request: Any) -> None:
            requests.append(monitoring_v3.CreateTimeSeriesRequest(**request))

    written = series.write(measurement(), CONNECTION, Client())
    assert [request.name for request in requests] == ["projects/p"]
    assert written == len(requests[0].time_series) == len(list(series.samples(measurement())))
