"""The `audit` command line without a stack: help, speed, wrong usage, dead letters."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from alerts.catalog import alerts
from alerts.thresholds import Thresholds, Watched
from contract.changes import REASONS, Reason
from local.monitoring import history as past
from local.stack.status import _show_alerts, _show_resources
from pipeline.sink.dead_letters import DeadLetterQueue
from support.cli import output
from support.cli import search as search_command
from support.cli.main import COMMANDS, main
from support.connection import Connection, ConnectionFileError, load
from support.search import Found, Payment
from tests.documents import ROOT
from tests.letters import letter
from tests.shipped import WATCHED

TEXTS = dict.fromkeys(
    (
        "project", "location", "bigQueryEndpoint", "spannerEndpoint", "spannerInstance", "spannerDatabase",
        "metadataDatabase", "maskingKeys", "deadLetterDirectory", "jobName",
    ),
    "x",
) | {"watchedTables": WATCHED.to_json()}  # fmt: skip


@pytest.fixture
def connection_file(tmp_path: Path) -> Path:
    file = tmp_path / "connection.json"
    file.write_text(json.dumps(TEXTS | {"deadLetterDirectory": str(tmp_path / "dead-letters"), "anotherOutput": 7}))
    return file


@pytest.fixture
def queue(connection_file: Path) -> DeadLetterQueue:
    return DeadLetterQueue(load(connection_file).dead_letter_directory)


def audit(file: Path | None, *arguments: str, stdin: str = "") -> Result:
    chosen = ["--connection", str(file)] if file else []
    return CliRunner().invoke(main, [*chosen, *arguments], input=stdin)


def commands(group: click.Group) -> list[tuple[str, click.Command]]:
    found = []
    ctx = click.Context(group)
    for name in COMMANDS if group is main else group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {inner}", each) for inner, each in commands(command)]
    return found


def test_every_command_says_what_it_does_and_every_option_has_help() -> None:
    for name, command in commands(main):
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"


def test_the_help_has_examples_and_the_commands_of_other_parts() -> None:
    help_text = audit(None, "--help").output
    assert "Examples:" in help_text
    for name in (*COMMANDS, "local"):
        assert f"\n  {name} " in help_text
    for name in COMMANDS.keys() - {"probe", "replay", "erase", "backup"}:
        assert "Examples:" in audit(None, name, "--help").output


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["dead-letters", "list", "--help"]])
def test_help_loads_no_heavy_library(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom support.cli.main import main\n"
        f"main({arguments!r}, standalone_mode=False)\n"
        "heavy = {'google.cloud.bigquery', 'google.cloud.spanner', 'apache_beam', 'pyarrow', 'rich', 'fsspec'}\n"
        "sys.exit(' '.join(sorted(heavy & sys.modules.keys())) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_without_a_connection_file_it_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for result in (audit(None, "search"), audit(tmp_path / "none.json", "timeline", "p1")):
        assert result.exit_code == 2
        assert "make run" in result.output and "pulumi stack output --json" in result.output


def test_the_connection_of_a_folder_above_is_found(
    tmp_path: Path, connection_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".audit").mkdir()
    connection_file.rename(tmp_path / ".audit" / "connection.json")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    assert load().job_name == "x"


def test_a_container_s_connection_is_in_its_environment_and_a_named_file_goes_before_it(
    connection_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = json.loads(connection_file.read_text()) | {"jobName": "in-the-environment"}
    monkeypatch.setenv("AUDIT_CONNECTION_JSON", json.dumps(texts))
    assert load().job_name == "in-the-environment"
    assert load(connection_file).job_name == "x"
    monkeypatch.setenv("AUDIT_CONNECTION_JSON", "{")
    with pytest.raises(ConnectionFileError, match="AUDIT_CONNECTION_JSON must hold JSON"):
        load()


def test_a_scheduled_run_of_the_probe_writes_its_series_and_says_one_line(
    connection_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cloud Monitoring and a cloud's Spanner cannot be here: what is between them is."""
    texts = json.loads(connection_file.read_text()) | {"spannerEndpoint": ""}
    connection_file.write_text(json.dumps(texts))
    [*_, last] = past.measurements(past.Past(end=datetime(2026, 1, 1, tzinfo=UTC), minutes=2, changes=5))
    written: list[Any] = []
    monkeypatch.setattr("probe.measure.Probe.run", lambda *_: last)
    monkeypatch.setattr("probe.series.write", lambda measurement, _: written.append(measurement))
    ran = audit(connection_file, "probe", "--once", "--write")
    assert ran.exit_code == 0, ran.output
    assert written == [last]
    [line] = ran.output.splitlines()
    assert "15 committed, 15 queryable" in line


@pytest.mark.parametrize(
    ("content", "rule"),
    [("{", "must hold JSON"), ("[]", "a JSON object"), ('{"project": "p"}', "must name bigQueryEndpoint")],
)
def test_a_connection_file_that_says_too_little_is_refused(tmp_path: Path, content: str, rule: str) -> None:
    file = tmp_path / "connection.json"
    file.write_text(content)
    with pytest.raises(ConnectionFileError, match=rule):
        load(file)


def test_a_connection_file_names_exactly_what_support_needs(connection_file: Path) -> None:
    optional = {name for name in Connection.__dataclass_fields__ if hasattr(Connection, name)}
    assert load(connection_file) == Connection(
        **dict.fromkeys(Connection.__dataclass_fields__.keys() - optional, "x")
        | {"watched_tables": WATCHED.to_json(), "dead_letter_directory": str(connection_file.parent / "dead-letters")},
    )


def test_what_a_connection_file_may_leave_out_is_taken_where_it_is_there(connection_file: Path) -> None:
    texts = json.loads(connection_file.read_text()) | {"stuckLimits": "PENDING=5", "prometheusEndpoint": "http://x"}
    connection_file.write_text(json.dumps(texts))
    assert (load(connection_file).stuck_limits, load(connection_file).prometheus_endpoint) == ("PENDING=5", "http://x")
    assert load(connection_file).ignore_tables == ""
    connection_file.write_text(json.dumps(texts | {"stuckLimits": 5}))
    with pytest.raises(ConnectionFileError, match="must name stuckLimits as texts"):
        load(connection_file)


def test_the_probe_s_options_that_exclude_each_other_are_refused(connection_file: Path) -> None:
    local = json.loads(connection_file.read_text()) | {"spannerEndpoint": "127.0.0.1:1"}
    connection_file.write_text(json.dumps(local))
    for arguments, rule in (
        (["--once", "--every", "60"], "exclude each other"),
        (["--listen", "9100"], "--listen needs --every"),
        (["--write"], "for a stack in the cloud"),
    ):
        result = audit(connection_file, "probe", *arguments)
        assert result.exit_code == 2
        assert rule in result.output


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["search", "--since", "yesterday"], "15m, 2h, 7d"),
        (["search", "--limit", "0"], "must be 1 to 10,000"),
        (["search", "--state", "lost"], "initiated"),
        (["dead-letters", "retry"], "--all"),
        (["dead-letters", "retry", "--all", "id"], "--all"),
        (["timeline"], "PUID"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_the_rule(connection_file: Path, arguments: list[str], rule: str) -> None:
    result = audit(connection_file, *arguments)
    assert result.exit_code == 2
    assert rule in result.output


def test_dead_letters_are_listed_and_shown(connection_file: Path, queue: DeadLetterQueue) -> None:
    queue.put([letter(2, "p2"), letter(1)])
    queue.park([letter(2, "p2")])
    listed = json.loads(audit(connection_file, "dead-letters", "list").stdout)
    assert [(each["puid"], each["kind"], each["reason"]) for each in listed] == [
        ("p1", "retry", Reason.ENRICHMENT),
        ("p2", "severe", Reason.ENRICHMENT),
    ]
    severe = json.loads(audit(connection_file, "dead-letters", "list", "--severe").stdout)
    assert [each["puid"] for each in severe] == ["p2"]
    shown = json.loads(audit(connection_file, "dead-letters", "show", listed[0]["id"]).stdout)
    assert shown["change"]["keys"] == {"PUID": "p1"}


def test_every_dead_letter_shows_its_payment_and_its_remedy(connection_file: Path, queue: DeadLetterQueue) -> None:
    row = {"PUID": "p3", "Status": "FAILED"}
    queue.put(
        [
            letter(1),
            replace(letter(2), reason=Reason.CARD_IN_KEY, payment=None, change=None),
            replace(letter(3, "p3"), reason=Reason.REJECTED, change={"row": row}),
            replace(letter(4, "p4"), reason="of_a_newer_version"),
        ]
    )
    queue.park([replace(letter(2), reason=Reason.CARD_IN_KEY, payment=None, change=None)])
    listed = json.loads(audit(connection_file, "dead-letters", "list").stdout)
    assert [(each["puid"], each["retry"]) for each in listed] == [
        ("p1", "after_fix"),
        (None, "never"),
        ("p3", "automatic"),
        ("p4", "automatic"),
    ]
    assert all(each["remedy"] for each in listed)
    shown = json.loads(audit(connection_file, "dead-letters", "show", listed[2]["id"]).stdout)
    assert (shown["puid"], shown["change"], shown["remedy"]) == ("p3", {"row": row}, REASONS[Reason.REJECTED].remedy)


def test_a_dead_letter_on_a_terminal_says_why_its_payment_is_not_shown(
    connection_file: Path, queue: DeadLetterQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.cli.output.wants_json", lambda as_json: as_json)
    monkeypatch.setenv("COLUMNS", "500")
    queue.put([replace(letter(2), reason=Reason.CARD_IN_KEY, payment=None, change=None)])
    shown = audit(connection_file, "dead-letters", "list").output
    assert "not readable before it is masked" in shown
    assert "correct it in Spanner" in shown
    assert "1 dead letter." in shown


def test_a_report_of_dead_letters_ends_with_one_where_a_person_must_decide(
    connection_file: Path, queue: DeadLetterQueue
) -> None:
    def report(*more: str) -> Any:
        return audit(connection_file, "dead-letters", *more)

    queue.put([letter(1), letter(2)])
    waits = report("report", "--json")
    assert waits.exit_code == 0 and json.loads(waits.stdout)["severe"] == 0
    queue.park(list(queue.letters()))
    parked = report("report", "--json")
    assert parked.exit_code == 1 and json.loads(parked.stdout)["severe"] == 2
    # As a job: nothing asks, and there may be nothing to do.
    assert report("retry", "--all").exit_code == 0 and report("report").exit_code == 0
    assert report("retry", "--all").exit_code == 0


def test_a_dead_letter_set_aside_is_handed_to_the_next_retry(connection_file: Path, queue: DeadLetterQueue) -> None:
    queue.put([letter(1), letter(2), letter(3)])
    queue.park([letter(1), letter(2)])
    assert "1 dead letter handed" in audit(connection_file, "dead-letters", "retry", letter(1).id).output
    assert "1 dead letter handed" in audit(connection_file, "dead-letters", "retry", "--all").output
    assert [stored.attempts for stored in queue.letters()] == [0, 0, 5]


def test_discarding_asks_first(connection_file: Path, queue: DeadLetterQueue) -> None:
    queue.put([letter(1)])
    assert audit(connection_file, "dead-letters", "discard", letter(1).id, stdin="n\n").exit_code == 1
    assert queue.counts()["retry"] == 1
    result = audit(connection_file, "dead-letters", "discard", "--yes", letter(1).id, "unknown")
    assert "1 dead letter discarded; 1 not found" in result.output
    assert queue.counts()["retry"] == 0


@pytest.mark.parametrize("arguments", [["list"], ["show", "none"], ["retry", "none"], ["discard", "--yes", "none"]])
def test_no_such_dead_letter_is_exit_code_1(connection_file: Path, arguments: list[str]) -> None:
    assert audit(connection_file, "dead-letters", *arguments).exit_code == 1


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        (["./audit", "sum"], ["summary"]),
        (["./audit", "dead-letters", "re"], ["report", "retry"]),
        (["./audit", "summary", "--by", "r"], ["region"]),
        (["./audit", "search", "--cu"], ["--customer"]),
        (["./audit", "completion", ""], ["bash", "zsh", "fish"]),
    ],
)
def test_bash_completes_commands_options_and_their_values(typed: list[str], completed: list[str]) -> None:
    words = " ".join(f"'{word}'" for word in typed)
    script = (
        'eval "$(./audit completion bash)" && complete -p audit >&2 && '
        f"COMP_WORDS=({words}) COMP_CWORD={len(typed) - 1} && _audit_completion ./audit && "
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    ended = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "complete -o nosort -F _audit_completion audit" in ended.stderr
    assert ended.stdout.split() == completed


@pytest.mark.parametrize(
    ("shell", "line"), [("zsh", "#compdef audit"), ("fish", "complete --no-files --command audit")]
)
def test_other_shells_get_their_own_script(shell: str, line: str) -> None:
    assert line in audit(None, "completion", shell).output


def test_a_card_number_is_no_argument(connection_file: Path) -> None:
    # `--card` takes no value: the number would be in the shell's history and the process list.
    search = main.get_command(click.Context(main), "search")
    assert search is not None
    [card] = [parameter for parameter in search.params if parameter.name == "card"]
    assert isinstance(card, click.Option) and card.is_flag


def test_eighty_columns_show_whole_what_a_person_asks_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC)
    payment = Payment(
        puid="7d0f2c9e-1b1f-4222-8333-000000000001",
        customer_id="cus_00042",
        state="processed",
        status="SETTLED",
        status_since=now - timedelta(minutes=12, seconds=5),
        amount=Decimal("1234.50"),
        currency="EUR",
        region="EU",
        method="CARD",
        card="411111******1111",
        service="settlement",
        acting_user="svc-settlement",
        retries=0,
        error=None,
        changed_at=now,
        deleted_at=None,
    )
    found = Found(
        payments=(payment, replace(payment, puid="p2", deleted_at=now - timedelta(days=3), currency=None)),
        more=False,
        complete_until=now,
    )
    monkeypatch.setenv("COLUMNS", "80")
    search_command._print(found)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert ["payment", "customer", "amount", "state"] in lines
    assert [payment.puid, "cus_00042", "1,234.50", "EUR", "processed", "12m"] in lines
    assert ["p2", "cus_00042", "1,234.50", "deleted", "3d"] in lines
    monkeypatch.setenv("COLUMNS", "100")
    search_command._print(found)
    assert ["payment", "customer", "amount", "state", "status"] in map(str.split, capsys.readouterr().out.splitlines())


def test_a_state_has_its_colour_with_its_age_and_no_other_text_has_it() -> None:
    assert output._style("state", "failed 12m") == output._style("state", "failed") == "red"
    assert output._style("error", "failed to reach the bank") == ""


def test_the_names_of_alerts_are_never_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    firing = [
        {
            "name": alert.name,
            "severity": "ticket",
            "since": "2026-11-29T03:00:00Z",
            "title": alert.title,
            "runbook": f"runbooks/{alert.name}.md",
            "notifies": ["on-call"],
            "silenced": False,
        }
        for alert in alerts(Thresholds(), Watched())
    ]
    _show_alerts(Console(), {"monitoring": True, "alerts": firing})
    shown = capsys.readouterr().out
    assert "…" not in shown
    monkeypatch.setenv("COLUMNS", "30")
    name = "a-resource-whose-name-is-longer-than-the-terminal"
    _show_resources(Console(), [{"type": "gcp:storage/bucket:Bucket", "name": name, "outcome": "created here"}])
    resources = capsys.readouterr().out
    assert "…" not in resources and name in re.sub(r"\s|Bucket", "", resources)
    assert all(re.search(rf"^{alert['name']}\b", shown, re.M) for alert in firing)
