"""`audit cost`: what is multiplied with what, and that nothing of a stack is forgotten."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pulumi_gcp as gcp
import pytest
from click.testing import CliRunner, Result

from components.config import ROOT
from components.settings.pause import PAUSED
from delivery.assumptions import Assumptions
from delivery.cost import CHARGED, FREE, CostError, Estimate, Line, estimate
from delivery.prices import PriceError, Prices
from graph import resources
from support.cli.main import main
from tests.infra.asked_for import MORE
from tests.infra.graphs import graph_of
from tests.infra.test_existing_database import EXISTING
from tests.infra.test_settings import DECLARED

GIB = 2**30
ONE = Assumptions(
    tps=GIB / 2_628_000, row_bytes=1, changes_per_payment=1, source_months=1, retention_months=4, changelog_factor=1,
    stream_days=0, workers=0, queries_tib=0, dead_letter_share=0, log_bytes=1, log_share=1, secret_versions=7,
)  # fmt: skip
"""One GiB of changes a month."""


def of(assumed: Assumptions = ONE, stack: str = "dev", **config: Any) -> Estimate:
    return estimate(graph_of(stack, config), Prices.load(), assumed)


def line(estimated: Estimate, sku: str, what: str = "") -> Line:
    [found] = [each for each in estimated.lines if each.price.sku == sku and re.search(what, each.what)]
    return found


def audit(*args: str) -> Result:
    return CliRunner().invoke(main, ["cost", *args])


@pytest.mark.parametrize(
    ("sku", "what", "quantity", "dollars"),
    [
        ("spanner-node-standard", "audit-instance", 0.1 * 730, 65.70),
        ("spanner-storage", "payments", 1, 0.30),
        ("spanner-storage", "change records", 0, 0),
        ("dataflow-vcpu", "", 1 * 1 * 730, 50.37),
        # Backups and their drills, a quarter of an hour each, and two runs an hour come first: what is free is theirs.
        ("run-vcpu", "audit-probe", 730 * 22 * 60 - 240_000 + (900 * (1 + 1 / 7) + 60) * 730 / 24, 13.62),
        ("run-memory", "audit-probe", 730 * 22 * 60 - 450_000 + (900 * (1 + 1 / 7) + 2 * 60) * 730 / 24, 1.10),
        ("run-vcpu", "audit-schema", 730 * 60, 0.79),
        # A GiB of changes of a byte, and three million rows a day, 2,500 of either a second.
        ("run-vcpu", "audit-validation", (2**30 + 3e6 * 730 / 24) / 2500, 8.39),
        # Half a day 730 times, and a part of each of the days of four months every day, less than a block each.
        ("bigquery-queries", "audit-validation: changes", 12 / 1024, 0.07),
        ("bigquery-queries", "audit-validation: parts", (3e6 + 4 * 2**30) / 2**40 * 730 / 24, 0.74),
        ("scheduler-job", "audit-validation", 1, 0.10),
        # A day's part of that GiB: read on both sides and once for the export, with the new day's first hours.
        ("bigquery-queries", "audit-backup$", 3 * (1 + 160 / 1440) * 24 / 730 / 1024 * 730 / 24, 0.02),
        ("bigquery-queries", "audit-backup-drill", 4 / 1024 * 730 / 24 / 7, 0.11),
        ("storage-standard", "backups", 4 * 0.2, 0.016),
        ("dataflow-memory", "", 1 * 3.75 * 730, 9.74),
        ("dataflow-streaming-engine", "", 2, 0.036),
        ("bigquery-write-api", "", 0, 0),
        ("bigquery-active-storage", "payment_audit_trail_bq", 0, 0),
        ("bigquery-long-term-storage", "", 1, 0.01),
        # 4 GiB of states and a week of changes, once a week.
        ("bigquery-queries", "merge", (4 + 7 * 24 / 730) / 1024 * 730 / 168, 0.11),
        ("secret-version", "", 1, 0.06),
    ],
)
def test_a_month_of_dev_is_what_a_person_would_reckon(sku: str, what: str, quantity: float, dollars: float) -> None:
    found = line(of(), sku, what)
    assert found.quantity == pytest.approx(quantity)
    assert found.dollars == pytest.approx(dollars, abs=0.005)


def test_a_backfill_is_appended_made_and_compared_with_what_is_there() -> None:
    found = of(replace(ONE, backfill_rows=3e6))
    assert line(found, "dataflow-vcpu", "audit-replay").used == pytest.approx(1000 / 3600)
    assert line(found, "bigquery-write-api", "audit-replay").used == pytest.approx(3e6 / 2**30)
    keys = line(found, "bigquery-queries", "audit-replay: keys")
    assert keys.factors[0][0] == 3 and 0 < keys.used < 1
    assert not [each for each in of().lines if "audit-replay" in each.what]


def test_the_total_is_the_sum_of_the_lines() -> None:
    found = of(replace(ONE, tps=500, row_bytes=1000))
    assert found.dollars == pytest.approx(sum(each.quantity * each.price.dollars for each in found.lines))


def test_what_is_free_is_taken_off_once() -> None:
    found = of(replace(ONE, tps=ONE.tps * 8, retention_months=2))
    active = [each for each in found.lines if each.price.sku == "bigquery-active-storage"]
    assert sorted(each.used for each in active if "lookup" not in each.what) == pytest.approx([16, 16])
    assert sum(each.free for each in active) == 10


@pytest.mark.parametrize(
    ("config", "sku", "times"),
    [
        ({"spannerProcessingUnits": 200}, "spanner-node-standard", 2),
        ({"workers": 3, "maxWorkers": 3}, "dataflow-vcpu", 3),
        ({"machineType": "n1-standard-2"}, "dataflow-vcpu", 2),
        ({"machineType": "n1-standard-2"}, "dataflow-memory", 2),
        ({"probeMinutes": 1}, "run-vcpu", 3),
        ({"lookupMinutes": 30}, "bigquery-queries", 1 / 2),
    ],
)
def test_a_setting_scales_its_charge(config: dict[str, Any], sku: str, times: float) -> None:
    what = {"bigquery-queries": "fill", "run-vcpu": "audit-probe"}.get(sku, "")
    assert line(of(**config), sku, what).used == pytest.approx(times * line(of(), sku, what).used)


@pytest.mark.parametrize(
    ("assumed", "sku", "what"),
    [
        ({"tps": ONE.tps * 2}, "spanner-storage", "payments"),
        ({"row_bytes": 2}, "dataflow-streaming-engine", ""),
        ({"source_months": 2}, "spanner-storage", "payments"),
        ({"changelog_factor": 2}, "bigquery-write-api", ""),
        ({"retention_months": 5}, "bigquery-long-term-storage", ""),
        ({"workers": 2}, "dataflow-disk", ""),
        ({"secret_versions": 14}, "secret-version", ""),
    ],
)
def test_an_assumption_scales_its_charge(assumed: dict[str, float], sku: str, what: str) -> None:
    assert line(of(replace(ONE, **assumed)), sku, what).used == pytest.approx(2 * line(of(), sku, what).used)


def test_instances_that_wait_are_charged_for_all_of_the_month_and_others_by_no_line() -> None:
    assert not [each for each in of().lines if "audit-console" in each.what]
    waiting = of(consoleMinInstances=2)
    assert line(waiting, "run-idle-vcpu").quantity == line(waiting, "run-idle-memory").quantity == 2 * 730 * 3600
    assert waiting.dollars - of().dollars == pytest.approx(2 * 2 * 730 * 3600 * 0.0000025)


def _other_stores() -> None:
    """Resources in the shapes that a stack's config can give them."""
    gcp.spanner.Instance(
        "wide", name="wide", display_name="w", config="nam3", edition="ENTERPRISE_PLUS", processing_units=3000
    )
    gcp.spanner.Instance(
        "elastic",
        name="elastic",
        display_name="e",
        config="regional-us-east1",
        edition="ENTERPRISE",
        autoscaling_config={"autoscaling_limits": {"min_processing_units": 1000, "max_processing_units": 3000}},
    )
    for name, instance in (("audit-db", "wide"), ("other", "elastic")):
        gcp.spanner.Database(name, name=name, instance=instance)
    gcp.spanner.BackupSchedule(
        "full",
        instance="wide",
        database="audit-db",
        retention_duration="604800s",
        full_backup_spec=gcp.spanner.BackupScheduleFullBackupSpecArgs(),
    )
    gcp.spanner.BackupSchedule(
        "chain",
        instance="elastic",
        database="audit-db",
        retention_duration=f"{730 * 3600}s",
        incremental_backup_spec=gcp.spanner.BackupScheduleIncrementalBackupSpecArgs(),
    )
    gcp.projects.IAMAuditConfig(
        "access",
        project="p",
        service="spanner.googleapis.com",
        audit_log_configs=[{"log_type": "DATA_WRITE", "exempted_members": ["serviceAccount:dataflow-sa@p"]}],
    )
    gcp.dns.ManagedZone("zone", dns_name="googleapis.com.")
    gcp.kms.CryptoKey("turning", key_ring="r", rotation_period=f"{73 * 86400}s")
    gcp.kms.CryptoKey("still", key_ring="r")
    gcp.logging.ProjectBucketConfig("audit", project="p", location="us-central1", bucket_id="b", retention_days=395)


@pytest.fixture(scope="module")
def others() -> Estimate:
    return estimate(graph_of("dev", program=_other_stores), Prices.load(), ONE)


@pytest.mark.parametrize(
    ("sku", "what", "place", "used"),
    [
        ("spanner-node-enterprise-plus", "wide", "nam3", 3 * 730),
        ("spanner-node-enterprise", "elastic", "regional-us-east1", 2 * 730),
        ("spanner-storage", "audit-db: payments", "nam3", 1),
        ("spanner-backup", "full", "nam3", 7),
        ("spanner-backup", "chain", "regional-us-east1", 1 + 1),
        ("kms-key-version", "turning", "us-central1", 1 + 5),
        ("kms-key-version", "still", "us-central1", 1),
        # One entry a commit of the services, which are not exempted, and another: log_share.
        ("logging-storage", "audit", "us-central1", 2),
        ("logging-retention", "audit", "us-central1", 24),
        ("dns-zone", "zone", "us-central1", 1),
    ],
)
def test_what_other_stacks_have_is_charged(others: Estimate, sku: str, what: str, place: str, used: float) -> None:
    found = line(others, sku, what)
    assert found.place == place
    assert found.used == pytest.approx(used)


def test_prod_pays_for_one_copy_and_what_changed_and_staging_for_a_copy_a_day() -> None:
    assert line(of(stack="prod"), "spanner-backup").used == pytest.approx(1 + 35 / (730 / 24))
    assert line(of(stack="staging"), "spanner-backup").used == 7


def test_dev_costs_less_than_150_dollars_while_nothing_is_written_and_keeps_its_parts() -> None:
    found = of(Assumptions())
    assert found.idle < 150
    assert {"Dataflow", "Spanner", "Cloud Run", "Cloud KMS"} <= {each.service for each in found.lines if each.idle}


def test_an_estimate_says_what_is_paid_without_a_change_and_what_a_thousand_of_them_add() -> None:
    """Twice the changes: the same idle stack, and of what grows with them alone the same for a thousand."""
    one, two = of(replace(ONE, tps=100)), of(replace(ONE, tps=200))
    assert one.idle == pytest.approx(two.idle) == pytest.approx(of(ONE.idle).dollars)
    for sku, what, each in (("dataflow-vcpu", "", 0), ("dataflow-streaming-engine", "", 2 * 1000 / GIB * 0.018)):
        for found in (one, two):
            assert found.per_thousand(line(found, sku, what)) == pytest.approx(each)
    parts = sum(one.per_thousand(each) or 0 for each in one.lines)
    assert one.idle + parts * one.assumptions.changes / 1000 == pytest.approx(one.dollars)
    assert of(replace(ONE, tps=0)).per_thousand(line(one, "dataflow-vcpu")) is None


@pytest.mark.parametrize("stack", ["dev", "staging", "prod"])
def test_every_stack_can_be_estimated(stack: str) -> None:
    assert of(stack=stack).dollars > 0


@pytest.mark.parametrize("config", [MORE, EXISTING], ids=["more", "a database of others"])
def test_what_config_can_add_is_estimated_too(config: dict[str, Any]) -> None:
    """A kind of resource that is neither charged nor free is refused."""
    found = of(Assumptions(), **config)
    assert found.dollars > found.idle > 0
    assert [each.used for each in found.lines if each.service == "Cloud NAT"] == ([730] if "cloudNat" in config else [])


def test_what_the_defaults_cost_is_what_the_page_says() -> None:
    """Of Pulumi.yaml alone, at one change a second: nothing is charged by surprise."""
    defaults = {key: value["default"] for key, value in DECLARED.items() if "default" in value and "mage" not in key}
    found = of(Assumptions(tps=1), **defaults)
    page = (ROOT / "docs" / "cost.md").read_text()
    assert f"a stack of defaults alone costs ${found.idle:,.0f} a month idle" in page
    added = sum(found.per_thousand(each) or 0 for each in found.lines)
    assert f"and ${added:.3f} more for each 1,000 changes" in page
    assert f"| dev, idle | ${of(Assumptions()).idle:.0f} |" in page
    passed = {PAUSED: "2026-11-30T09:00:00+00:00"}
    paused = estimate(resources.graph_of("dev", passed=passed), Prices.load(), Assumptions())
    assert f"| dev, paused | ${paused.idle:.0f} |" in page


def test_writes_of_exempted_services_leave_no_log() -> None:
    assert line(of(auditLogExemptions=["application-sa"]), "logging-storage").used == pytest.approx(1)
    assert line(of(auditLogExemptions=[]), "logging-storage").used == pytest.approx(2)


def test_every_price_is_used(others: Estimate) -> None:
    airflow: dict[str, Any] = {"orchestration": "composer", "composerWebRanges": ["203.0.113.0/24"]}
    more = of(consoleMinInstances=2, cloudNat=True, **airflow)
    used = {each.price.sku for found in (more, others) for each in found.lines}
    assert used == Prices.load().skus


def test_a_resource_that_nobody_has_priced_is_refused() -> None:
    graph = graph_of("dev", program=lambda: gcp.redis.Instance("cache", memory_size_gb=1))
    with pytest.raises(CostError, match=r"gcp:redis/instance:Instance costs: add it to CHARGED or FREE"):
        estimate(graph, Prices.load(), ONE)


def test_no_type_is_both_charged_and_free() -> None:
    assert not CHARGED.keys() & FREE


def test_a_place_without_a_price_is_refused_with_a_way_out_that_works(tmp_path: Path) -> None:
    region = {"region": "europe-north1", "spannerInstanceConfig": "regional-europe-north1"}
    config = {**region, "warehouseLocation": "europe-north1"}
    over = tmp_path / "prices.yaml"
    skus = 0
    prices = Prices.load()
    while True:
        try:
            estimate(graph_of("dev", config), prices, ONE)
        except PriceError as refused:
            assert re.match(r"no price of \S+ at (regional-)?europe-north1: there are .*us-central1", str(refused))
            way = str(refused).partition("with\n")[2]
            over.write_text(way.replace("<the day>", "2026-11-24").replace("<where>", "here").replace("<dollars>", "2"))
            prices = prices.with_(over)
            skus += 1
            continue
        break
    assert skus > 5


def test_a_machine_of_an_unknown_family_is_refused() -> None:
    with pytest.raises(CostError, match="machineType must be of a family whose memory is known"):
        of(machineType="z9-standard-4")


def test_the_command_tells_every_line_with_its_formula_and_marks_what_nobody_has_seen() -> None:
    done = audit("-s", "prod", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["dollars_a_month"] == pytest.approx(sum(each["dollars"] for each in report["lines"]), abs=0.1)
    for each in report["lines"]:
        assert each["formula"]
        assert each["page"].startswith("https://cloud.google.com/")
        price = f"{each['sku']} at {each['place']}"
        assert (price in report["prices_nobody_has_seen"]) == (not each["seen"])
    assert set(report["assumptions"]) == {each.name for each in fields(Assumptions)}


def test_a_price_file_changes_only_what_it_names(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("as_of: 2027-01-01\nskus:\n  dataflow-vcpu: {seen: our contract, places: {us-central1: 0.05}}\n")
    ours = json.loads(audit("-s", "dev", "--json").stdout)
    theirs = json.loads(audit("-s", "dev", "--json", "--prices", str(mine)).stdout)
    changed = [a["sku"] for a, b in zip(ours["lines"], theirs["lines"], strict=True) if a != b]
    assert changed == ["dataflow-vcpu"]
    assert theirs["as_of"] == "2027-01-01"
    assert "dataflow-vcpu at us-central1" in ours["prices_nobody_has_seen"]
    assert "dataflow-vcpu at us-central1" not in theirs["prices_nobody_has_seen"]


def test_a_figure_seen_at_one_place_is_not_seen_at_another() -> None:
    assert Prices.load().of("bigquery-active-storage", "US").seen
    assert not Prices.load().of("bigquery-active-storage", "us-central1").seen


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list", "must have as_of, a date, and skus"),
        ("as_of: 2027-01-01\nskus: {kms-key-version: {price: 1}}", "kms-key-version must have only"),
        ("as_of: [", "cannot be read as YAML"),
    ],
)
def test_a_price_file_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    done = audit("-s", "dev", "--prices", str(file))
    assert done.exit_code == 1
    assert message in done.output


def test_a_stack_that_is_not_there_is_refused() -> None:
    done = audit("-s", "production")
    assert done.exit_code == 1
    assert "production" in done.output
    assert "Traceback" not in done.output


def test_the_price_list_ships_with_the_program() -> None:
    assert (ROOT / "delivery" / "prices.yaml").is_file()
