"""The job's command line: checked whole, before anything is touched."""

import pytest

from contract.options import OPTIONS
from pipeline.jobs.settings import SettingsError, parse
from pipeline.jobs.stream import main

REQUIRED = {
    option.name: "file:/keys.json" if option.name == "maskingKeys" else "x" for option in OPTIONS if option.required
}


def given(**values: str) -> list[str]:
    return [f"--{name}={value}" for name, value in (REQUIRED | values).items()]


def test_required_options_are_enough() -> None:
    settings, rest = parse([*given(), "--runner=PrismRunner"])
    assert settings["writeMode"] == "exactly-once"
    assert settings.sink.exactly_once
    assert rest == ["--runner=PrismRunner", "--job_name=audit-stream-job"]


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        parse(["--writeMode=sometimes", "--startTimestamp=yesterday"])
    message = str(refused.value)
    for name in REQUIRED:
        assert f"--{name} is required" in message
    assert "--writeMode must match exactly-once|at-least-once, got 'sometimes'" in message
    assert "--startTimestamp must match" in message


def test_an_end_before_the_start_is_refused() -> None:
    with pytest.raises(SettingsError, match="endTimestamp must be after"):
        parse(given(startTimestamp="2026-11-23T09:00:00Z", endTimestamp="2026-11-23T09:00:00Z"))


def test_an_unknown_payment_state_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"paymentStates must be STATUS=state pairs"):
        parse(given(paymentStates="DONE=finished"))


def test_streams_are_split_and_carry_their_settings() -> None:
    settings, _ = parse(given(spannerChangeStreamNames="A, B", rpcPriority="LOW", spannerDatabaseRole="reader"))
    assert [s.name for s in settings.streams] == ["A", "B"]
    assert {(s.priority, s.role, s.database) for s in settings.streams} == {
        ("LOW", "reader", "projects/x/instances/x/databases/x")
    }


def test_bad_options_end_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "--maskingKeys is required" in capsys.readouterr().err


def test_every_option_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"--{option.name}" in shown for option in OPTIONS)
