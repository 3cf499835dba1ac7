"""What happens to every alert: series as the probe and Google's services write them, and what must come of it.

Steps are minutes unless a scenario says otherwise. Numbers are the defaults of `alerts/thresholds.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from alerts import metrics
from contract.metrics import (
    BACKUP_AGE,
    BACKUP_DRILL_AGE,
    BACKUP_DRILL_FAILED,
    CARD_NUMBERS_FOUND,
    COMMIT_TO_QUERYABLE,
    DLQ_OLDEST,
    DLQ_OPEN,
    DLQ_WRITTEN,
    ERASURE_AGE,
    OLDEST_UNAUDITED,
    OPERATION_FAILED,
    OPERATION_MISSED,
    PAYMENTS_TERMINAL,
    PROBE_RESOURCE,
    QUERYABLE,
    SOURCE_COMMITTED,
    STUCK_PAYMENTS,
    UNCLASSIFIED_COLUMNS,
    VALIDATION_AGE,
    VALIDATION_MISMATCHES,
    Metric,
)
from tests.monitoring.promtool import Firing, Scenario, Series, counter, gauge, series

FULL = 30_000  # a minute: 500 a second
QUIET: Firing = ()
FIRES: Firing = ({},)
_GIB = 2**30
JOB = "audit-stream-job"


def _scenario(alert: str, title: str, values: Series, at: Mapping[int, Firing], *shows: str, step: int = 1) -> Scenario:
    return Scenario(alert=alert, title=title, series=values, at=at, shows=shows, step_minutes=step)


def _nothing(alert: str, at: int = 30, firing: Firing = QUIET) -> Scenario:
    other = {series(CARD_NUMBERS_FOUND, where="key"): counter((at, 0))}
    if alert == "CardNumberFound":
        other = {series(OLDEST_UNAUDITED): gauge((at, 1))}
    return _scenario(alert, "nothing is measured", other, {at: firing}, "no data")


def latency(*segments: tuple[int, float, float], le: str = "10") -> Series:
    """`(steps, events a step, share that is late)`."""
    return {
        series(COMMIT_TO_QUERYABLE, "_bucket", le=le): counter(*((n, rate * (1 - late)) for n, rate, late in segments)),
        series(COMMIT_TO_QUERYABLE, "_bucket", le="3600"): counter(*((n, rate) for n, rate, _ in segments)),
        series(COMMIT_TO_QUERYABLE, "_count"): counter(*((n, rate) for n, rate, _ in segments)),
    }


def flow(*segments: tuple[int, float, float]) -> Series:
    """`(steps, committed, queryable)` a step."""
    return {
        series(SOURCE_COMMITTED): counter(*((n, committed) for n, committed, _ in segments)),
        series(QUERYABLE): counter(*((n, queryable) for n, _, queryable in segments)),
    }


def two(values: Series) -> Series:
    """The same from two probes, half of it each: nothing may depend on one series having it all."""
    halves: dict[str, list[float | None]] = {}
    for name, whole in values.items():
        half = [None if value is None else value / 2 for value in whole]
        halves[name] = half
        halves[name.replace('task_id="a"', 'task_id="b"')] = half
    return halves


def bursts(times: int, rate: float, first: float, zeros: int) -> list[tuple[int, float, float]]:
    """Late changes, or missing ones, in one step of every few: `first` of it, then none for `zeros` steps."""
    return [(1, rate, first), (zeros, rate, 0)] * times


def _fast_burn() -> list[Scenario]:
    name = "AuditLatencyFastBurn"
    return [
        _scenario(
            name,
            "all are late for 15 minutes",
            two(latency((65, FULL, 0), (15, FULL, 1), (15, FULL, 0))),
            {0: QUIET, 64: QUIET, 73: QUIET, 74: FIRES, 80: FIRES, 85: QUIET, 94: QUIET},
            "fires",
            "quiet",
            "recovers",
        ),
        _scenario(
            name,
            "all are late for one minute",
            two(latency((40, FULL, 0), (1, FULL, 1), (5, FULL, 0))),
            dict.fromkeys(range(40, 46), QUIET),
            "quiet",
        ),
        _scenario(
            name,
            "after half an hour, one minute in five is bad",
            latency((30, FULL, 1), *bursts(4, FULL, 0.65, 4)),
            {30: FIRES, 41: QUIET, 46: QUIET},
            "boundary",
        ),
        _scenario(name, "14.3 % late, forever", latency((15, FULL, 0.143)), {14: QUIET}, "boundary"),
        _scenario(name, "14.6 % late, forever", latency((15, FULL, 0.146)), {14: FIRES}, "boundary"),
        _scenario(name, "990 events an hour, all late", latency((65, 16.5, 1)), {64: QUIET}, "low traffic", "boundary"),
        _scenario(name, "1,020 an hour, all late", two(latency((65, 17, 1))), {64: FIRES}, "low traffic", "boundary"),
        _scenario(
            name,
            "nothing was ever in time: no bucket says so",
            {series(COMMIT_TO_QUERYABLE, "_count"): counter((20, FULL))},
            {10: FIRES, 19: FIRES},
            "fires",
        ),
        _scenario(
            name,
            "a Prometheus client writes the bound as 10.0",
            latency((20, FULL, 0), le="10.0"),
            {19: QUIET},
            "quiet",
        ),
        _scenario(
            name, "nobody pays at night", latency((5, FULL, 0), (20, 0, 0)), {15: QUIET, 24: QUIET}, "low traffic"
        ),
        _nothing(name),
    ]


def _slow_burn() -> list[Scenario]:
    """Steps of ten minutes."""
    name, hour = "AuditLatencySlowBurn", 6
    return [
        _scenario(
            name,
            "all are late for 40 minutes",
            two(latency((6 * hour, FULL, 0), (4, FULL, 1), (6, FULL, 0))),
            {6 * hour: QUIET, 6 * hour + 2: QUIET, 6 * hour + 3: FIRES, 6 * hour + 4: FIRES, 7 * hour + 3: QUIET},
            "fires",
            "quiet",
            "recovers",
            step=10,
        ),
        _scenario(
            name,
            "most are late for ten minutes, after a slow hour, and all were seven hours ago",
            two(latency((hour, FULL, 1), (5 * hour, FULL, 0), (hour, FULL, 0.2), (1, FULL, 0.65), (2, FULL, 0))),
            {7 * hour + 1: QUIET, 7 * hour + 2: QUIET},
            "quiet",
            step=10,
        ),
        _scenario(
            name,
            "after two hours, one time in three is bad",
            latency((2 * hour, FULL, 1), *bursts(4, FULL, 0.165, 2)),
            {2 * hour: FIRES, 2 * hour + 7: QUIET, 2 * hour + 10: QUIET},
            "boundary",
            step=10,
        ),
        _scenario(name, "5.9 % late", latency((12, FULL, 0.059)), {11: QUIET}, "boundary", step=10),
        _scenario(name, "6.2 % late", latency((12, FULL, 0.062)), {11: FIRES}, "boundary", step=10),
        _scenario(name, "972 events in 6 h, all late", latency((40, 27, 1)), {39: QUIET}, "low traffic", step=10),
        _scenario(name, "1,044 in 6 h, all late", two(latency((40, 29, 1))), {39: FIRES}, "low traffic", step=10),
        _scenario(
            name,
            "nothing was ever in time: no bucket says so",
            {series(COMMIT_TO_QUERYABLE, "_count"): counter((12, FULL))},
            {11: FIRES},
            "fires",
            step=10,
        ),
        _nothing(name),
    ]


def _budget() -> list[Scenario]:
    """Steps of an hour."""
    name, day = "AuditLatencyBudgetTicket", 24
    return [
        _scenario(
            name,
            "all are late for two hours",
            two(latency((3 * day, FULL, 0), (2, FULL, 1), (8, FULL, 0))),
            {3 * day: QUIET, 3 * day + 1: FIRES, 3 * day + 2: FIRES, 3 * day + 9: QUIET},
            "fires",
            "quiet",
            "recovers",
            step=60,
        ),
        _scenario(
            name,
            "most are late for an hour, and all were for three hours, four days ago",
            two(latency((3, FULL, 1), (3 * day + 6, FULL, 0), (1, FULL, 0.65), (2, FULL, 0))),
            {3 * day + 10: QUIET, 3 * day + 12: QUIET},
            "quiet",
            step=60,
        ),
        _scenario(
            name,
            "after a day, one hour in six is bad",
            latency((day, FULL, 1), *bursts(3, FULL, 0.055, 5)),
            {day: FIRES, day + 7: QUIET, day + 13: QUIET},
            "boundary",
            step=60,
        ),
        _scenario(name, "0.98 % late", latency((20, FULL, 0.0098)), {19: QUIET}, "boundary", step=60),
        _scenario(name, "1.03 % late", latency((20, FULL, 0.0103)), {19: FIRES}, "boundary", step=60),
        _scenario(
            name, "972 in 3 d, all late", latency((76, 13.5, 1)), {75: QUIET}, "low traffic", "boundary", step=60
        ),
        _scenario(name, "1,037 in 3 d, all late", two(latency((76, 14.4, 1))), {75: FIRES}, "low traffic", step=60),
        _scenario(
            name,
            "nothing was ever in time: no bucket says so",
            {series(COMMIT_TO_QUERYABLE, "_count"): counter((12, FULL))},
            {11: FIRES},
            "fires",
            step=60,
        ),
        _nothing(name),
    ]


def _throughput_burn() -> list[Scenario]:
    burn = "AuditThroughputBurn"
    return [
        _scenario(
            burn,
            "nothing arrives for ten minutes",
            two(flow((62, FULL, FULL), (10, FULL, 0), (12, FULL, FULL))),
            {61: QUIET, 62: QUIET, 63: FIRES, 72: FIRES, 78: QUIET, 83: QUIET},
            "fires",
            "quiet",
            "recovers",
        ),
        _scenario(
            burn,
            "four tenths are missing for one minute",
            two(flow((62, FULL, FULL), (1, FULL, 0.6 * FULL), (5, FULL, FULL))),
            {63: QUIET, 65: QUIET, 67: QUIET},
            "quiet",
        ),
        _scenario(
            burn,
            "after half an hour, one minute in five is bad",
            flow((20, FULL, FULL), (10, FULL, 0), *[(1, FULL, 0.935 * FULL), (4, FULL, FULL)] * 4),
            {30: FIRES, 41: QUIET, 46: QUIET},
            "boundary",
        ),
        _scenario(
            burn,
            "a bad hour gets worse",
            flow((62, FULL, 0.988 * FULL), (5, FULL, 0.97 * FULL)),
            {66: QUIET},
            "boundary",
        ),
        _scenario(burn, "1.4 % are missing", flow((15, FULL, 0.986 * FULL)), {14: QUIET}, "boundary"),
        _scenario(burn, "1.5 % are missing", flow((15, FULL, 0.985 * FULL)), {14: FIRES}, "boundary"),
        _scenario(
            burn,
            "after an outage, 750 a second, and 500 arrive",
            flow((20, FULL, FULL), (10, FULL, 0), (20, 1.5 * FULL, FULL)),
            {30: FIRES, 45: QUIET},
            "quiet",
        ),
        _scenario(
            burn,
            "750 a second and 500 arrive, and for one minute fewer",
            flow((62, 1.5 * FULL, FULL), (1, 1.5 * FULL, 0.6 * FULL), (3, 1.5 * FULL, FULL)),
            {62: QUIET, 64: QUIET},
            "quiet",
        ),
        _scenario(burn, "750 a second, and 480 arrive", flow((65, 1.5 * FULL, 0.96 * FULL)), {64: FIRES}, "fires"),
        _scenario(burn, "990 an hour, none arrives", flow((65, 16.5, 0)), {64: QUIET}, "low traffic", "boundary"),
        _scenario(burn, "1,020 an hour, none arrives", two(flow((65, 17, 0))), {64: FIRES}, "low traffic", "boundary"),
        _nothing(burn),
    ]


def _throughput() -> list[Scenario]:
    deficit, stalled, load = "AuditThroughputDeficit", "AuditThroughputStalled", "AuditLoadAboveDesign"
    return [
        _scenario(
            deficit,
            "an eighth is missing for half an hour",
            two(flow((30, FULL, FULL), (30, FULL, 0.88 * FULL), (25, FULL, FULL))),
            {29: QUIET, 36: QUIET, 39: QUIET, 40: FIRES, 60: FIRES, 66: QUIET, 80: QUIET},
            "fires",
            "quiet",
            "recovers",
        ),
        _scenario(deficit, "4.9 % are missing", two(flow((50, FULL, 0.951 * FULL))), {49: QUIET}, "boundary"),
        _scenario(deficit, "5.2 % are missing", flow((50, FULL, 0.948 * FULL)), {40: FIRES, 49: FIRES}, "boundary"),
        _scenario(deficit, "590 in 10 m, none arrives", flow((50, 59, 0)), {45: QUIET}, "low traffic", "boundary"),
        _scenario(deficit, "610 in 10 m, none arrives", two(flow((50, 61, 0))), {45: FIRES}, "low traffic", "boundary"),
        _nothing(deficit),
        _scenario(
            stalled,
            "nothing arrives any more",
            flow((30, FULL, FULL), (20, FULL, 0), (20, FULL, FULL)),
            {29: QUIET, 36: QUIET, 37: FIRES, 50: FIRES, 51: QUIET, 60: QUIET},
            "fires",
            "quiet",
            "recovers",
        ),
        _scenario(
            stalled,
            "nobody pays at night",
            flow((30, FULL, FULL), (30, 0, 0)),
            {38: QUIET, 40: QUIET, 42: QUIET, 50: QUIET},
            "low traffic",
        ),
        _scenario(
            stalled,
            "one in four minutes, none arrives",
            flow(*[(1, 1, 0), (3, 0, 0)] * 15),
            dict.fromkeys(range(50, 54), FIRES),
            "low traffic",
            "boundary",
        ),
        _scenario(stalled, "one arrives in three minutes", flow((60, FULL, 1 / 3)), {50: QUIET}, "boundary"),
        _nothing(stalled),
        _scenario(
            load,
            "540 a second for half an hour",
            two(flow((30, FULL, FULL), (30, 540 * 60, FULL), (30, FULL, FULL))),
            {29: QUIET, 46: QUIET, 47: FIRES, 60: FIRES, 70: QUIET},
            "fires",
            "recovers",
        ),
        _scenario(load, "exactly 500 a second", flow((60, FULL, FULL)), {50: QUIET}, "quiet"),
        _scenario(load, "524 a second", flow((60, 524 * 60, FULL)), {50: QUIET}, "boundary"),
        _scenario(load, "527 a second", flow((60, 527 * 60, FULL)), {50: FIRES}, "boundary"),
        _scenario(load, "one a minute", flow((60, 1, 1)), {50: QUIET}, "low traffic"),
        _nothing(load),
    ]


def _gauge_alert(
    name: str, metric: Metric, quiet: float, loud: float, *, holds: int, labels: Firing = FIRES, **of: str
) -> list[Scenario]:
    """An alert on a gauge: at `quiet` it is silent forever, at `loud` it fires after `holds` minutes."""
    one, other = series(metric, **of), series(metric, task_id="b", **of)
    return [
        _scenario(
            name,
            f"{quiet:g}, then {loud:g}, then {quiet:g}",
            {one: gauge((30, quiet), (20, loud), (30, quiet))},
            {29: QUIET, 29 + holds: QUIET, 30 + holds: labels, 49: labels, 50: QUIET, 70: QUIET},
            "fires",
            "recovers",
            "boundary",
        ),
        _scenario(name, f"always {quiet:g}", {one: gauge((60, quiet))}, {30: QUIET, 59: QUIET}, "quiet", "boundary"),
        _scenario(
            name,
            "one of two says so",
            {one: gauge((60, quiet)), other: gauge((60, loud))},
            {50: labels},
            "fires",
        ),
        _nothing(name),
    ]


def _audited() -> list[Scenario]:
    name, clock = "AuditPaymentsNotAudited", "AuditRetentionClock"
    half = 84 * 3600
    growing = [float(4)] * 10 + [60.0 * minute for minute in range(1, 21)]
    return [
        *_gauge_alert(name, OLDEST_UNAUDITED, 120, 121, holds=2),
        _scenario(
            name,
            "the pipeline stops at minute 10",
            {series(OLDEST_UNAUDITED): growing},
            {11: QUIET, 13: QUIET, 14: FIRES, 20: FIRES},
            "fires",
        ),
        *_gauge_alert(clock, OLDEST_UNAUDITED, half, half + 60, holds=0),
        _scenario(
            clock,
            "a dead letter waits half of the retention",
            {
                series(DLQ_OLDEST): gauge((30, half), (30, half + 60)),
                series(DLQ_OLDEST, task_id="b"): gauge((60, 4)),
                series(OLDEST_UNAUDITED): gauge((60, 4)),
            },
            {29: QUIET, 30: FIRES},
            "fires",
        ),
    ]


def _failures() -> list[Scenario]:
    name = "PaymentFailureRateHigh"

    def ended(*segments: tuple[int, float, float]) -> Series:
        """`(minutes, ended a minute, share that failed)`."""
        return {
            series(PAYMENTS_TERMINAL, outcome="failed"): counter(*((n, rate * bad) for n, rate, bad in segments)),
            series(PAYMENTS_TERMINAL, outcome="processed"): counter(
                *((n, rate * (1 - bad)) for n, rate, bad in segments)
            ),
        }

    return [
        _scenario(
            name,
            "a fifth fails for half an hour",
            two(ended((65, 600, 0.01), (30, 600, 0.2), (20, 600, 0.01))),
            {64: QUIET, 77: QUIET, 78: FIRES, 95: FIRES, 106: QUIET, 112: QUIET},
            "fires",
            "quiet",
            "recovers",
        ),
        _scenario(
            name,
            "three tenths fail for five minutes",
            two(ended((65, 600, 0.01), (5, 600, 0.3), (10, 600, 0.01))),
            {67: QUIET, 70: QUIET, 75: QUIET},
            "quiet",
        ),
        _scenario(
            name,
            "after half an hour, one minute in ten is bad",
            ended((30, 600, 0.5), *bursts(3, 600, 0.45, 9)),
            {30: FIRES, 42: QUIET, 52: QUIET},
            "boundary",
        ),
        _scenario(name, "4.9 % fail", ended((15, 600, 0.049)), {14: QUIET}, "boundary"),
        _scenario(name, "5.2 % fail", two(ended((15, 600, 0.052))), {14: FIRES}, "boundary"),
        _scenario(name, "19 of 38 fail in 10 m", ended((65, 3.8, 0.5)), {64: QUIET}, "low traffic", "boundary"),
        _scenario(name, "21 of 42 fail in 10 m", two(ended((65, 4.2, 0.5))), {64: FIRES}, "low traffic", "boundary"),
        _nothing(name),
    ]


def _dead_letters() -> list[Scenario]:
    rate, growth = "AuditRecordFailureRateHigh", "AuditDlqGrowth"

    def letters(*segments: tuple[int, float, float]) -> Series:
        """`(minutes, committed a minute, share that becomes a dead letter)`."""
        return {
            series(SOURCE_COMMITTED): counter(*((n, committed) for n, committed, _ in segments)),
            series(DLQ_WRITTEN): counter(*((n, committed * bad) for n, committed, bad in segments)),
        }

    def open_letters(values: list[float | None], reason: str = "unreadable_record") -> Series:
        return {series(DLQ_OPEN, reason=reason): values}

    rising = [3.0 + 2 * minute for minute in range(20)]
    return [
        _scenario(
            rate,
            "two of a hundred for half an hour",
            two(letters((30, FULL, 0), (30, FULL, 0.02), (30, FULL, 0))),
            {29: QUIET, 35: QUIET, 37: FIRES, 60: FIRES, 67: QUIET, 80: QUIET},
            "fires",
            "quiet",
            "recovers",
        ),
        _scenario(rate, "0.9 %", letters((50, FULL, 0.009)), {45: QUIET}, "boundary"),
        _scenario(rate, "1.1 %", letters((50, FULL, 0.011)), {45: FIRES}, "boundary"),
        _scenario(rate, "nine of twenty", letters((50, 2, 0.45)), {45: QUIET}, "low traffic", "boundary"),
        _scenario(rate, "eleven of twenty", two(letters((50, 2, 0.55))), {45: FIRES}, "low traffic", "boundary"),
        _nothing(rate),
        _scenario(
            growth,
            "they grow for 20 minutes, then stay",
            open_letters([*gauge((20, 3)), *rising, *gauge((40, 43))]),
            {19: QUIET, 28: QUIET, 29: FIRES, 40: FIRES, 48: FIRES, 60: QUIET, 75: QUIET},
            "fires",
            "recovers",
        ),
        _scenario(
            growth, "retried, they get fewer", open_letters([100.0 - 2 * n for n in range(40)]), {30: QUIET}, "quiet"
        ),
        _scenario(growth, "a hundred that stay", open_letters(gauge((60, 100))), {50: QUIET}, "quiet"),
        _scenario(growth, "from 1 to 9", open_letters([*gauge((20, 1)), *gauge((20, 9))]), {30: QUIET}, "boundary"),
        _scenario(growth, "from 1 to 10", open_letters([*gauge((20, 1)), *gauge((20, 10))]), {30: FIRES}, "boundary"),
        _scenario(
            growth,
            "five more of each of two reasons",
            {
                **open_letters([*gauge((20, 1)), *gauge((20, 6))]),
                **open_letters([*gauge((20, 1)), *gauge((20, 6))], "rejected_by_bigquery"),
            },
            {30: FIRES},
            "fires",
        ),
        _scenario(
            growth, "one more than ten", open_letters([*gauge((20, 10)), *gauge((20, 11))]), {30: FIRES}, "boundary"
        ),
        _scenario(
            growth,
            "more are resolved than come",
            {
                **open_letters([*gauge((20, 20)), *gauge((20, 10))]),
                **open_letters([*gauge((20, 5)), *gauge((20, 9))], "rejected_by_bigquery"),
            },
            {30: QUIET},
            "quiet",
        ),
        _nothing(growth),
        *_gauge_alert("AuditDlqUnresolved", DLQ_OLDEST, 14_400, 14_460, holds=5),
    ]


def _correctness() -> list[Scenario]:
    card, silent = "CardNumberFound", "AuditProbeSilent"
    gone: Firing = ({"monitored_resource": PROBE_RESOURCE},)
    return [
        *_gauge_alert(
            "PaymentsStuckInState", STUCK_PAYMENTS, 0, 1, holds=5, labels=({"state": "PENDING"},), state="PENDING"
        ),
        _scenario(
            "PaymentsStuckInState",
            "two states at once",
            {series(STUCK_PAYMENTS, state=state): gauge((60, 2)) for state in ("PENDING", "HELD")},
            {30: ({"state": "HELD"}, {"state": "PENDING"})},
            "fires",
        ),
        *_gauge_alert("AuditValidationMismatch", VALIDATION_MISMATCHES, 0, 1, holds=0),
        *_gauge_alert("AuditValidationSilent", VALIDATION_AGE, 4 * 3600, 4 * 3600 + 60, holds=0),
        *_gauge_alert("AuditErasureUnfinished", ERASURE_AGE, 24 * 3600, 24 * 3600 + 60, holds=0),
        *_gauge_alert("AuditBackupTooOld", BACKUP_AGE, 50 * 3600, 50 * 3600 + 60, holds=0),
        *_gauge_alert("AuditBackupTooOld", BACKUP_DRILL_AGE, 15 * 86_400, 15 * 86_400 + 60, holds=0)[:-1],
        *_gauge_alert("AuditBackupDrillFailed", BACKUP_DRILL_FAILED, 0, 1, holds=0),
        *_gauge_alert(
            "AuditOperationFailed",
            OPERATION_FAILED,
            0,
            1,
            holds=5,
            labels=({"operation": "schema"},),
            operation="schema",
        ),
        *_gauge_alert(
            "AuditOperationOverdue",
            OPERATION_MISSED,
            3,
            3.1,
            holds=5,
            labels=({"operation": "schema"},),
            operation="schema",
        ),
        _scenario(
            "AuditOperationOverdue",
            "of what another alert says",
            {
                series(OPERATION_MISSED, operation=name): gauge((30, 9))
                for name in ("validation", "backup", "backup-drill")
            },
            {29: QUIET},
            "quiet",
        ),
        *_gauge_alert("UnclassifiedColumn", UNCLASSIFIED_COLUMNS, 0, 1, holds=5),
        _scenario(
            card,
            "one is found in a key",
            {
                series(CARD_NUMBERS_FOUND, where="key"): counter((70, 0), (1, 1), (120, 0)),
                series(CARD_NUMBERS_FOUND, where="column"): counter((191, 0)),
            },
            {69: QUIET, 70: QUIET, 72: ({"where": "key"},), 120: ({"where": "key"},), 140: QUIET},
            "fires",
            "recovers",
            "boundary",
        ),
        _scenario(
            card,
            "of each one",
            {series(CARD_NUMBERS_FOUND, where=where): counter((30, 0), (1, 1), (9, 0)) for where in ("key", "column")},
            {35: ({"where": "column"}, {"where": "key"})},
            "fires",
        ),
        _scenario(
            card,
            "none since one long ago",
            {series(CARD_NUMBERS_FOUND, where="key"): gauge((90, 3))},
            {80: QUIET},
            "quiet",
        ),
        _nothing(card),
        _scenario(
            silent,
            "the probe stops at minute 30 and comes back",
            {series(OLDEST_UNAUDITED): gauge((31, 4), (30, None), (30, 4))},
            {0: QUIET, 30: QUIET, 39: QUIET, 41: gone, 60: gone, 61: QUIET},
            "fires",
            "quiet",
            "recovers",
        ),
        _scenario(
            silent,
            "the probe misses eight minutes",
            {series(OLDEST_UNAUDITED): gauge((31, 4), (8, None), (30, 4))},
            dict.fromkeys(range(30, 50), QUIET),
            "quiet",
            "boundary",
        ),
        _nothing(silent, firing=gone),
    ]


def _dataflow() -> list[Scenario]:
    down, watermark, memory = "DataflowJobDown", "DataflowWatermarkStalled", "WorkerOutOfMemory"
    vcpus = series(metrics.JOB_VCPUS, job_name=JOB)
    gone: Firing = ({"monitored_resource": "dataflow_job", "job_name": JOB},)
    oom = series(metrics.OUT_OF_MEMORY.metric)
    return [
        _scenario(
            down,
            "the job stops, another runs, and it comes back",
            {
                vcpus: gauge((31, 4), (40, None), (20, 4)),
                series(metrics.JOB_VCPUS, job_name="another-job"): gauge((91, 8)),
            },
            {30: QUIET, 44: QUIET, 46: gone, 70: gone, 71: QUIET},
            "fires",
            "quiet",
            "recovers",
        ),
        _scenario(
            down,
            "it is replaced within 13 minutes",
            {
                series(metrics.JOB_VCPUS, task_id="1", job_name=JOB): gauge((31, 4)),
                series(metrics.JOB_VCPUS, task_id="2", job_name=JOB): gauge((44, None), (40, 4)),
            },
            dict.fromkeys(range(30, 60), QUIET),
            "quiet",
            "boundary",
        ),
        _nothing(down, firing=gone),
        _scenario(
            watermark,
            "300 s, then 301 s, then 300 s",
            {series(metrics.JOB_WATERMARK_AGE, job_name=JOB): gauge((30, 300), (20, 301), (30, 300))},
            {29: QUIET, 34: QUIET, 35: FIRES, 50: FIRES, 56: QUIET},
            "fires",
            "quiet",
            "boundary",
            "recovers",
        ),
        _scenario(
            watermark,
            "another job stands",
            {
                series(metrics.JOB_WATERMARK_AGE, job_name=JOB): gauge((40, 5)),
                series(metrics.JOB_WATERMARK_AGE, job_name="another-job"): gauge((40, 5000)),
            },
            {35: QUIET},
            "quiet",
        ),
        _scenario(
            watermark,
            "it goes up and down, and a second series is well",
            {
                series(metrics.JOB_WATERMARK_AGE, job_name=JOB): [310.0 if n % 3 == 0 else 5.0 for n in range(60)],
                series(metrics.JOB_WATERMARK_AGE, task_id="b", job_name=JOB): gauge((60, 5)),
            },
            {40: FIRES, 50: FIRES},
            "fires",
        ),
        _nothing(watermark),
        _scenario(
            memory,
            "twice in ten minutes",
            {oom: counter((30, 0), (1, 1), (4, 0), (1, 1), (30, 0))},
            {30: QUIET, 35: QUIET, 37: FIRES, 44: FIRES, 50: QUIET},
            "fires",
            "recovers",
            "boundary",
        ),
        _scenario(memory, "never", {oom: counter((60, 0))}, {50: QUIET}, "quiet"),
        _nothing(memory),
    ]


def cpu(
    *, location: str = "us-central1", priority: str = "high", instance_id: str = "audit-instance", **of: str
) -> str:
    return series(metrics.SPANNER_CPU, location=location, priority=priority, instance_id=instance_id, **of)


def _spanner() -> list[Scenario]:
    name = "SpannerHighPriorityCpu"
    return [
        _scenario(
            name,
            "two databases of 35 %, for 20 minutes",
            {
                cpu(database="a"): gauge((30, 0.3), (20, 0.35), (30, 0.3)),
                cpu(database="b"): gauge((80, 0.35)),
            },
            {29: QUIET, 39: QUIET, 40: FIRES, 49: FIRES, 50: QUIET},
            "fires",
            "quiet",
            "recovers",
        ),
        _scenario(name, "65 %", {cpu(): gauge((60, 0.65))}, {50: QUIET}, "boundary"),
        _scenario(name, "66 %", {cpu(): gauge((60, 0.66))}, {50: FIRES}, "boundary"),
        _scenario(name, "work of low priority", {cpu(priority="low"): gauge((60, 0.9))}, {50: QUIET}, "quiet"),
        _scenario(name, "another instance", {cpu(instance_id="other"): gauge((60, 0.9))}, {50: QUIET}, "quiet"),
        _scenario(
            name,
            "40 % in each of two places",
            {cpu(location=place): gauge((60, 0.4)) for place in ("a", "b")},
            {50: QUIET},
            "quiet",
        ),
        _scenario(
            name,
            "one of two places",
            {cpu(location="a"): gauge((60, 0.1)), cpu(location="b"): gauge((60, 0.7))},
            {50: FIRES},
            "fires",
        ),
        _nothing(name),
    ]


def _big_query() -> list[Scenario]:
    name = "BigQueryWriteErrors"

    def answers(growth: float, code: str = "503", minutes: int = 60, **changed: str) -> Series:
        labels = {
            "service": "bigquerystorage.googleapis.com",
            "method": "google.cloud.bigquery.storage.v1.BigQueryWrite.AppendRows",
            "response_code": code,
            "response_code_class": f"{code[0]}xx",
            **changed,
        }
        return {series(metrics.API_REQUESTS, **labels): counter((30, 0), (minutes, growth), (30, 0))}

    fires: Firing = ({"response_code": "503"},)
    return [
        _scenario(
            name,
            "three a minute for 20 minutes",
            answers(3, minutes=20),
            {30: QUIET, 41: QUIET, 43: fires, 50: fires, 57: QUIET},
            "fires",
            "recovers",
        ),
        _scenario(name, "20 in ten minutes", answers(2), {60: QUIET}, "boundary", "low traffic"),
        _scenario(name, "21 in ten minutes", answers(2.1), {60: fires}, "boundary"),
        _scenario(name, "409", answers(9, "409"), {60: ({"response_code": "409"},)}, "fires"),
        _scenario(name, "15 each of two codes", {**answers(1.5), **answers(1.5, "500")}, {60: QUIET}, "quiet"),
        _scenario(name, "15 each of two callers", two(answers(3)), {60: fires}, "fires"),
        _scenario(name, "all is well", answers(900, "200"), {60: QUIET}, "quiet"),
        _scenario(name, "another service", answers(900, service="bigquery.googleapis.com"), {60: QUIET}, "quiet"),
        _scenario(name, "another method", answers(900, method="a.BigQueryRead.ReadRows"), {60: QUIET}, "quiet"),
        _nothing(name),
    ]


def _console() -> list[Scenario]:
    name = "AuditConsoleErrors"

    def answers(growth: float, code: str = "503", minutes: int = 60, service: str = "audit-console") -> Series:
        labels = {"service_name": service, "response_code": code, "response_code_class": f"{code[0]}xx"}
        return {series(metrics.RUN_REQUESTS, **labels): counter((30, 0), (minutes, growth), (30, 0))}

    return [
        _scenario(
            name,
            "three a minute for 20 minutes",
            answers(3, minutes=20),
            {30: QUIET, 36: QUIET, 40: FIRES, 50: FIRES, 62: QUIET},
            "fires",
            "recovers",
        ),
        _scenario(name, "10 in ten minutes", answers(1), {60: QUIET}, "boundary", "low traffic"),
        _scenario(name, "11 in ten minutes", answers(1.1), {60: FIRES}, "boundary"),
        _scenario(name, "6 each of two codes", {**answers(0.6), **answers(0.6, "500")}, {60: FIRES}, "fires"),
        _scenario(name, "6 each of two revisions", two(answers(1.2)), {60: FIRES}, "fires"),
        _scenario(name, "people without a right", answers(9, "403"), {60: QUIET}, "quiet"),
        _scenario(name, "all is well", answers(900, "200"), {60: QUIET}, "quiet"),
        _scenario(name, "another service", answers(900, service="audit-card-tokens"), {60: QUIET}, "quiet"),
        _nothing(name),
    ]


def _cost() -> list[Scenario]:
    """Steps of an hour for what is billed, of five minutes for what is used."""
    name, limit, hour = "AuditCostAnomaly", 300 * _GIB / 24, 12

    def billed(*segments: tuple[int, float]) -> Series:
        return {series(metrics.BYTES_BILLED): counter(*segments)}

    def used(*segments: tuple[int, float | None], job: str = JOB) -> Series:
        return {series(metrics.JOB_VCPUS, job_name=job): gauge(*segments)}

    return [
        _scenario(
            name,
            "queries bill thrice the limit for a day",
            billed((25, limit / 2), (24, 3 * limit), (28, limit / 2)),
            {25: QUIET, 29: QUIET, 30: FIRES, 49: FIRES, 75: QUIET},
            "fires",
            "quiet",
            "recovers",
            step=60,
        ),
        _scenario(name, "97 % of the limit", billed((30, 0.97 * limit)), {29: QUIET}, "boundary", step=60),
        _scenario(name, "103 % of the limit", two(billed((30, 1.03 * limit))), {29: FIRES}, "boundary", step=60),
        _scenario(name, "12 vCPUs", used((7 * hour, 12)), {80: QUIET}, "boundary", step=5),
        _scenario(name, "13 vCPUs", used((7 * hour, 13)), {80: FIRES}, "boundary", step=5),
        _scenario(
            name,
            "60 vCPUs for an hour",
            used((7 * hour, 4), (hour, 60), (hour, 4)),
            {7 * hour: QUIET, 7 * hour + 9: QUIET, 7 * hour + 10: FIRES, 8 * hour: FIRES},
            "fires",
            step=5,
        ),
        _scenario(name, "40 vCPUs for an hour", used((7 * hour, 4), (hour, 40), (4, 4)), {98: QUIET}, "quiet", step=5),
        _scenario(
            name,
            "two workers of 7 vCPUs each",
            {series(metrics.JOB_VCPUS, task_id=worker, job_name=JOB): gauge((7 * hour, 7)) for worker in ("a", "b")},
            {80: FIRES},
            "fires",
            step=5,
        ),
        _scenario(
            name, "another job", used((7 * hour, 500), job="another-job"), {80: QUIET}, "quiet", "low traffic", step=5
        ),
        _nothing(name),
    ]


SCENARIOS: tuple[Scenario, ...] = (
    *_fast_burn(),
    *_slow_burn(),
    *_budget(),
    *_throughput_burn(),
    *_throughput(),
    *_audited(),
    *_failures(),
    *_dead_letters(),
    *_correctness(),
    *_dataflow(),
    *_spanner(),
    *_big_query(),
    *_console(),
    *_cost(),
)
