"""The commands of support, each over the views of the BigQuery emulator, as table, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.sink.dead_letters import DeadLetterQueue
from support import reports
from support.cli.main import main
from support.connection import load
from tests.emulators.changelog import CARD, Changelog, row
from tests.letters import letter


def audit(file: Path, *arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(main, ["--connection", str(file), *arguments], input=stdin)


def answer(file: Path, *arguments: str, stdin: str = "") -> Any:
    result = audit(file, *arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    assert CARD not in result.output
    return json.loads(result.stdout)


def table(file: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.setattr("support.cli.output.wants_json", lambda as_json: as_json)
    monkeypatch.setenv("COLUMNS", "250")
    return audit(file, *arguments).output


# Prebuilt query → the command that answers it, where its answer has rows, and how many there are.
COMMANDS: dict[str, tuple[tuple[str, ...], str, int]] = {
    "days_of_payment": (("payment", "done"), "transitions", 2),
    "failures": (("failures", "--since", "2h"), "rows", 1),
    "failures_by_reason": (("failures", "--by", "reason", "--since", "2h"), "rows", 1),
    "failures_by_service": (("failures", "--by", "service", "--since", "2h"), "rows", 1),
    "payment_by_id": (("search", "done"), "payments", 1),
    "payments_by_customer": (("search", "--customer", "C1"), "payments", 2),
    "stuck_payments": (("stuck",), "payments", 1),
    # Of each currency, and of none.
    "summary_by_customer": (("summary", "--by", "customer", "--since", "2h"), "rows", 3),
    "summary_by_method": (("summary", "--by", "method", "--since", "2h"), "rows", 2),
    "summary_by_period": (("summary", "--by", "period", "--since", "2h", "--period", "1d"), "rows", 1),
    "summary_by_region": (("summary", "--by", "region", "--since", "2h"), "rows", 2),
    "timeline_of_payment": (("timeline", "done"), "events", 2),
    "transitions_of_payment": (("payment", "done"), "transitions", 2),
}


def test_every_prebuilt_query_has_a_command_that_answers_it(payments: Changelog, connection_file: Path) -> None:
    payments.stuck(("slow", "PENDING", 3600))
    assert COMMANDS.keys() == set(reports.names())
    for name, (arguments, where, rows) in COMMANDS.items():
        found = answer(connection_file, *arguments, stdin=f"{CARD}\n")
        assert len(found[where]) == rows, name
        assert found.get("complete_until") or found["at"], name
        printed = audit(connection_file, *arguments, "--csv", stdin=f"{CARD}\n").stdout
        assert len(list(csv.DictReader(io.StringIO(printed)))) == rows, name


def test_a_report_is_in_the_words_of_the_description_and_is_csv_where_that_is_wanted(
    payments: Changelog, connection_file: Path
) -> None:
    payments.payments(row("x", "INSERT", 4, "DECLINED", customer_id="C5", ErrorDetails="=cmd()"))
    [bad, formula] = answer(connection_file, "failures", "--since", "2h")["rows"][::-1]
    assert (bad["puid"], bad["error"], bad["state_now"]) == ("bad", "no [funds]", "failed")
    assert formula["error"] == "=cmd()"
    lines = audit(connection_file, "failures", "--by", "reason", "--since", "2h", "--csv").stdout.splitlines()
    assert lines[0] == "service,error,to_status,failures,payments,last_at"
    assert {line.split(",")[1] for line in lines[1:]} == {"no [funds]", "'=cmd()"}


def test_a_report_with_more_rows_than_its_limit_says_so_and_bad_arguments_say_the_rule(
    payments: Changelog, connection_file: Path
) -> None:
    found = answer(connection_file, "summary", "--by", "customer", "--since", "2h", "--limit", "1")
    assert (len(found["rows"]), found["more"]) == (1, True)
    for arguments, rule in (
        (("failures", "--limit", "0"), "1 to 10,000"),
        (("failures", "--since", "1h", "--until", "2h"), "begin before it ends"),
        (("failures", "--by", "reason", "--limit", "5"), "takes since, until, got limit"),
        (("summary", "--by", "period", "--period", "soon"), "90s, 15m, 2h or 7d"),
        (("summary",), "--by"),
        (("stuck", "--limit", "0"), "1<=x<=10000"),
    ):
        result = audit(connection_file, *arguments)
        assert result.exit_code == 2 and rule in result.output, result.output
    assert audit(connection_file, "failures", "--until", "30d", "--since", "31d").exit_code == 1


def test_a_payment_is_what_it_is_now_and_how_it_came_there(
    payments: Changelog, connection_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = answer(connection_file, "payment", "done")
    assert (found["payment"]["status"], found["payment"]["amount"]) == ("CAPTURED", "10.25")
    assert [each["to_status"] for each in found["transitions"]] == ["INITIATED", "CAPTURED"]
    assert answer(connection_file, "payment", "gone")["payment"]["deleted_at"]
    shown = table(connection_file, monkeypatch, "payment", "done")
    assert "411111******1111" in shown and "Transitions" in shown and "Complete up to" in shown
    nobody = audit(connection_file, "payment", "nobody")
    assert nobody.exit_code == 1 and "No such payment" in nobody.output


def test_what_is_stuck_is_listed_with_its_limit_and_who_asks_learns_that_nobody_has_looked(
    payments: Changelog, connection_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = audit(connection_file, "stuck")
    assert nobody.exit_code == 1 and "Nobody has looked for stuck payments for an hour" in nobody.stderr
    payments.stuck(("slow", "PENDING", 3600), ago=400)
    late = audit(connection_file, "stuck")
    [slow] = json.loads(late.stdout)["payments"]
    assert (slow["puid"], slow["status"], slow["seconds"], slow["limit_seconds"]) == ("slow", "PENDING", 3600, 60)
    assert "The probe looks once a minute" in late.stderr
    payments.stuck(("slow", "PENDING", 3600))
    assert audit(connection_file, "stuck", "--csv").stdout.splitlines()[1].startswith("slow,PENDING,")
    shown = table(connection_file, monkeypatch, "stuck")
    assert "slow" in shown and "1m" in shown and "1 stuck payment." in shown
    payments.stuck()
    none = audit(connection_file, "stuck")
    assert (none.exit_code, none.stderr) == (1, "")


def test_health_is_one_screen_and_what_cannot_be_looked_at_hides_nothing(
    payments: Changelog, connection_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payments.stuck()
    DeadLetterQueue(load(connection_file).dead_letter_directory).put([letter(1)])
    # Prometheus answers nobody on this port.
    known = json.loads(connection_file.read_text()) | {"prometheusEndpoint": "http://127.0.0.1:9"}
    connection_file.write_text(json.dumps(known))
    result = audit(connection_file, "health")
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (found["stuck"], found["dead_letters"]) == (0, {"retry": 1, "severe": 0})
    assert found["complete_until"] and found["alerts"] is None and found["speed"] is None
    [problem] = found["problems"]
    assert problem.startswith("Prometheus does not answer")
    shown = table(connection_file, monkeypatch, "health")
    assert "complete up to" in shown and "1 retry, 0 severe" in shown and problem in shown
    connection_file.write_text(json.dumps(known | {"bigQueryEndpoint": "http://127.0.0.1:9"}))
    found = json.loads(audit(connection_file, "health", "--json").stdout)
    assert (found["stuck"], found["complete_until"], found["dead_letters"]["retry"]) == (None, None, 1)
    assert [problem.split()[0] for problem in found["problems"]] == ["BigQuery", "Prometheus"]
