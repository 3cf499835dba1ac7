"""The job's command line: checked whole, before anything is touched."""

import pytest
from apache_beam.options.pipeline_options import DebugOptions

from contract.options import OPTIONS
from pipeline.jobs.settings import SettingsError, parse
from pipeline.jobs.stream import beam_options, main
from pipeline.source import beam_source
from tests.shipped import REQUIRED_OPTIONS


def given(**values: str) -> list[str]:
    return [f"--{name}={value}" for name, value in (REQUIRED_OPTIONS | values).items()]


def test_required_options_are_enough() -> None:
    settings, rest = parse([*given(), "--runner=PrismRunner"])
    assert settings["writeMode"] == "exactly-once"
    assert settings.sink.exactly_once
    assert rest == ["--runner=PrismRunner", "--job_name=audit-stream-job"]


def test_changes_gather_at_the_source_for_no_longer_than_a_bundle_lasts() -> None:
    settings, _ = parse(given(batchMillis="50"))
    assert settings.reading.gather_millis == 50
    most = int(beam_source._MAX_BUNDLE_SECONDS * 1000)
    assert parse(given(batchMillis=str(most)))[0].reading.gather_millis == most
    with pytest.raises(SettingsError, match="--batchMillis must be a whole number from 0 to 1000"):
        parse(given(batchMillis=str(most + 1)))


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        parse(["--writeMode=sometimes", "--startTimestamp=yesterday"])
    message = str(refused.value)
    for name in REQUIRED_OPTIONS:
        assert f"--{name} is required" in message
    assert "--writeMode must be exactly-once|at-least-once, got 'sometimes'" in message
    assert "--startTimestamp must be a valid time" in message


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


@pytest.mark.parametrize(
    ("given_values", "says"),
    [
        ({"ignoreFields": "payment_audit_trail.Error Details"}, "ignoreFields must be table.column"),
        ({"ignoreFields": "a.b.c.d"}, "ignoreFields must be table.column"),
        ({"ignoreFields": "Status;Amount"}, "ignoreFields must be table.column"),
        ({"ignoreTables": "payment audit trail"}, "ignoreTables must be tables"),
        ({"startTimestamp": "2026-13-23T09:00:00Z"}, "--startTimestamp must be a valid time"),
        ({"startTimestamp": "2026-02-30T09:00:00.5Z"}, "--startTimestamp must be a valid time"),
        ({"endTimestamp": "2026-11-23T25:00:00Z"}, "--endTimestamp must be a valid time"),
        ({"endTimestamp": "9999-12-31T23:59:59.999999999Z"}, "--endTimestamp must be a valid time"),
        ({"startTimestamp": "0001-01-01T00:00:00Z"}, "--startTimestamp must be a valid time"),
        ({"heartbeatMillis": "10"}, "--heartbeatMillis must be a whole number from 1000 to 300000, got '10'"),
        ({"heartbeatMillis": "300001"}, "--heartbeatMillis must be a whole number from 1000 to 300000"),
        ({"windowMillis": "0"}, "--windowMillis must be a whole number from 1 to"),
        ({"batchRows": "99999999999999999999"}, "--batchRows must be a whole number from 1 to"),
        ({"batchRows": "0"}, "--batchRows must"),
        ({"batchMillis": "9" * 400}, "--batchMillis must be a whole number from 0 to"),
        ({"changeStreamReaders": "101"}, "--changeStreamReaders must be a whole number from 0 to 100, got '101'"),
        ({"numStorageWriteApiStreams": "100000"}, "--numStorageWriteApiStreams must be a whole number from 1 to"),
        ({"dlqRetryMinutes": "9" * 400}, "--dlqRetryMinutes must be a number of minutes from 0.01 to"),
        ({"dlqMaxRetries": "9" * 40}, "--dlqMaxRetries must be a whole number from 0 to"),
        ({"spannerChangeStreamNames": "A,a"}, "must name each change stream once"),
        ({"spannerChangeStreamNames": "A,B,A"}, "must name each change stream once"),
        ({"spannerChangeStreamNames": "A B"}, "must be names of change streams"),
        ({"spannerChangeStreamNames": "A(x)"}, "must be names of change streams"),
        ({"spannerChangeStreamNames": ","}, "must be names of change streams"),
        ({"spannerDatabase": ""}, "--spannerDatabase is required"),
        ({"job_name": ""}, "--job_name must match"),
        ({"job_name": "Audit Job"}, "--job_name must match"),
        ({"job_name": "a" * 129}, "--job_name must match"),
    ],
)
def test_what_is_parsed_where_it_is_used_is_refused_with_the_options(given_values: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse(given(**given_values))
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "sampling",
    [
        "--experiments=enable_data_sampling",
        "--experiments=use_runner_v2,enable_data_sampling",
        "--experiment=enable_data_sampling",
        "--experiments=data_sampling",
        "--experiments=enable_always_on_exception_sampling",
        "--dataflow_service_options=enable_data_sampling",
        "--enable_data_sampling",
        "--enable_data_sampling=true",
    ],
)
def test_sampling_of_elements_is_refused_before_anything(capsys: pytest.CaptureFixture[str], sampling: str) -> None:
    assert main([*given(), sampling]) == 2
    assert "Dataflow would keep samples of elements" in capsys.readouterr().err


def test_two_values_of_a_beam_option_do_not_hide_the_sampling() -> None:
    settings, rest = parse([*given(), "--experiments", "enable_data_sampling", "--experiments=use_runner_v2"])
    with pytest.raises(SettingsError, match="must not have enable_data_sampling"):
        beam_options(settings, rest)


def test_exception_sampling_is_off_whatever_else_is_asked_for() -> None:
    settings, rest = parse([*given(), "--experiments=use_runner_v2", "--labels=team=sampling"])
    experiments = beam_options(settings, rest).view_as(DebugOptions).experiments
    assert {"use_runner_v2", "disable_always_on_exception_sampling"} <= set(experiments)


@pytest.mark.parametrize(
    ("runner", "is_asked"),
    [
        (["--runner=PrismRunner"], True),
        (["--runner=prismrunner"], True),
        (["--runner", "DirectRunner"], True),
        ([], True),
        (["--runner=DataflowRunner"], False),
    ],
)
def test_only_dataflow_may_split_a_slow_bundle(runner: list[str], is_asked: bool) -> None:
    settings, rest = parse([*given(), *runner])
    experiments = beam_options(settings, rest).view_as(DebugOptions).experiments
    assert ("prism_disable_sdf_split" in experiments) is is_asked


def test_a_table_that_is_not_described_goes_beside_the_payments_unless_the_option_says_where() -> None:
    for chosen, dataset in (("", "payment_audit"), ("elsewhere", "elsewhere")):
        settings, _ = parse(given(bigQueryDataset=chosen))
        assert settings.sink.destinations.of("others") == (dataset, "others_changelog")
