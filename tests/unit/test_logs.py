"""The job's log: JSON, leveled, traceable, without card numbers; on a worker through Beam's own handler."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from alerts.metrics import JOB_TROUBLE, LOG_METRICS, OUT_OF_MEMORY
from contract.changes import Change, Coordinates, Reason, StepError
from contract.logs import ErrorClass
from contract.options import LOG_LEVELS
from pipeline import logs
from pipeline.failures import dead_letter
from pipeline.jobs import checks, stream
from pipeline.jobs.settings import parse
from pipeline.jobs.stream import main
from pipeline.sink import rows, shards
from pipeline.sink.append import AppendRows
from pipeline.sink.connection import NoAnswer
from pipeline.sink.dead_letter_writer import WriteDeadLetters
from pipeline.sink.encode import EncodeRows
from pipeline.sink.retry import report
from tests.shipped import PAYMENTS, WATCHED
from tests.unit.test_rows import change
from tests.unit.test_stream_settings import given

CARD = "4111111111111111"
AT = Coordinates("S", "payment_audit_trail", "2026-11-23T09:00:00.000000000Z", "6329047911", "00000000", 0)


@pytest.fixture
def lines() -> Iterator[Any]:
    """What the pipeline's loggers write from here on, parsed. Call it with a level to have that one."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    ours = logging.getLogger(logs.OURS)
    before = ours.level
    ours.addHandler(handler)
    logs.install_json_formatter(ours)

    def read(level: str = "INFO") -> list[dict[str, Any]]:
        ours.setLevel(level)
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    read()
    yield read
    ours.removeHandler(handler)
    ours.setLevel(before)


def test_a_line_is_json_with_severity_time_logger_and_fields(lines: Any) -> None:
    logging.getLogger("pipeline.x").warning(
        '%d "rows"\nwait', 2, extra=logs.fields(error_class=ErrorClass.SINK, tries=2)
    )
    [line] = lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "severity": "WARNING",
        "logger": "pipeline.x",
        "message": '2 "rows"\nwait',
        "error_class": "sink_unavailable",
        "tries": 2,
    }


def test_no_card_number_is_in_a_line_wherever_it_was(lines: Any) -> None:
    log = logging.getLogger("pipeline.x")
    log.warning("of %s", CARD, extra=logs.fields(PUID=CARD, number=int(CARD), many=[{"a": f"x {CARD} y"}, (CARD,)]))
    try:
        raise ValueError(f"invalid literal: {CARD}")
    except ValueError:
        log.exception("It failed.")
    told = json.dumps(lines())
    assert CARD not in told
    assert told.count("411111******1111") == 6
    assert lines()[1]["error_class"] == "ValueError"
    assert "Traceback (most recent call last)" in lines()[1]["trace"]


def test_a_change_s_id_stays_whole_though_its_digits_look_like_a_card(lines: Any) -> None:
    change_id = "2026-11-23T09:00:00.000000000Z/411111111111/1111/000000"
    assert logs._hidden(change_id) != change_id
    logging.getLogger("pipeline.x").warning("told", extra=logs.fields(changes=[logs.traced(change_id, "p1")]))
    assert lines()[0]["changes"] == [{"change_id": change_id, "PUID": "p1"}]


# ---------------------------------------------------------------------- lines that cannot be written


class Unspeakable:
    """What raises wherever somebody wants it as text, and names a card while it does."""

    def __str__(self) -> str:
        raise ValueError(f"of {CARD}")

    __repr__ = __str__


def circular() -> list[Any]:
    """A list that is in itself."""
    made: list[Any] = [CARD]
    made.append(made)
    return made


@pytest.mark.parametrize(
    ("message", "args", "extra"),
    [
        ("sent %d rows of %s", ("pan=" + CARD,), {}),
        ("sent %d rows", (CARD, CARD), {}),
        ("sent %d rows", ("many of " + CARD,), {}),
        ("sent %(rows)d rows", ({"row": CARD},), {}),
        ("sent %y rows", (CARD,), {}),
        ("sent 100% of %s", (CARD,), {}),
        ("sent %s rows", (Unspeakable(),), {}),
        (Unspeakable(), (), {}),
        (Unspeakable(), (CARD,), {}),
        ("sent", (CARD,), {}),
        ("sent", (), {"fields": {"row": Unspeakable()}}),
        ("sent", (), {"fields": {Unspeakable(): CARD}}),
        ("sent", (), {"fields": circular()}),
        ("sent", (), {"fields": {"rows": circular()}}),
        ("sent", (), {"fields": CARD}),
        ("sent", (), {"fields": {"rows": {(CARD, 1): {CARD}, CARD: CARD.encode()}}}),
        (f"sent {CARD} to %s and %s", (1,), {}),
    ],
    ids=range(17),
)
def test_a_line_that_cannot_be_written_names_nothing_of_its_arguments(
    lines: Any, capfd: pytest.CaptureFixture[str], message: Any, args: tuple[Any, ...], extra: dict[str, Any]
) -> None:
    logging.getLogger("pipeline.x").info(message, *args, extra=extra)
    [line] = lines()
    assert line["logger"] == "pipeline.x"
    assert CARD not in json.dumps(line)
    assert capfd.readouterr() == ("", "")


def test_a_line_that_cannot_be_written_is_an_error_that_says_which_line_of_the_code_it_was(lines: Any) -> None:
    log, *args = logging.getLogger("pipeline.x"), "pan=" + CARD
    log.info("sent %d rows of %s", *args)
    [line] = lines()
    assert (line["severity"], line["error_class"]) == ("ERROR", "TypeError")
    assert "'sent %d rows of %s'" in line["message"]
    assert re.search(r"test_logs\.py:\d+", line["message"])


@pytest.mark.parametrize("exc_info", [("a", CARD, "c"), (ValueError, ValueError(CARD), None), (1, 2), Unspeakable()])
def test_an_exception_that_is_none_stops_no_line_and_shows_no_card(
    lines: Any, capfd: pytest.CaptureFixture[str], exc_info: Any
) -> None:
    record = logging.LogRecord("pipeline.x", logging.ERROR, "x.py", 1, "sent", (), exc_info)
    logging.getLogger("pipeline.x").handle(record)
    [line] = lines()
    assert CARD not in json.dumps(line)
    assert not record.exc_info, "Beam's handler would send it as it is"
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_written_is_nothing_to_the_next_handler_either(lines: Any) -> None:
    seen: list[str] = []

    class Plain(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(logging.Formatter().format(record))

    plain, ours = Plain(), logging.getLogger(logs.OURS)
    ours.addHandler(plain)
    try:
        logging.getLogger("pipeline.x").info("sent %d rows of %s", "pan=" + CARD, exc_info=ValueError(CARD))
    finally:
        ours.removeHandler(plain)
    assert len(seen) == len(lines()) == 1
    assert CARD not in str(seen)


def test_a_card_is_hidden_in_the_name_of_a_field_too(lines: Any) -> None:
    logging.getLogger("pipeline.x").info("sent", extra=logs.fields(rows={CARD: 1}))
    assert lines()[0]["rows"] == {"411111******1111": 1}


def test_a_long_text_is_cut_and_no_card_with_it(lines: Any) -> None:
    log = logging.getLogger("pipeline.x")
    for before in range(logs.LONGEST_TEXT - 40, logs.LONGEST_TEXT + 1040, 7):
        log.info("%s", "x" * before + " " + CARD + " " + "y" * 5000)
    for line in lines():
        assert len(line["message"]) <= logs.LONGEST_TEXT + 1
        assert not re.search(r"\d{7}", line["message"])
        assert line["message"].endswith("…")


UNCAUGHT = """
import logging, sys, threading, warnings
from pipeline import logs
logs.configure("INFO", sys.stderr)
PAN = "4111111111111111"
log = logging.getLogger("pipeline.x")
class Bad(logging.Handler):
    def emit(self, record):
        try:
            raise ValueError(PAN)
        except ValueError:
            self.handleError(record)
log.addHandler(Bad())
log.info("sent %d rows of %s", "pan=" + PAN)
warnings.warn("of " + PAN)
class Gone:
    def __del__(self):
        raise ValueError(PAN)
Gone()
thread = threading.Thread(target=lambda: int(PAN + "x"), name="reader " + PAN)
thread.start()
thread.join()
def fail():
    raise KeyError(PAN)
fail()
"""


def test_what_nobody_catches_is_a_line_without_a_card_as_well() -> None:
    said = subprocess.run([sys.executable, "-c", UNCAUGHT], check=False, capture_output=True, text=True, timeout=60)
    assert said.returncode == 1
    assert CARD not in said.stdout + said.stderr
    told = [json.loads(line) for line in said.stderr.splitlines()]
    assert [(line["severity"], line.get("error_class")) for line in told] == [
        ("ERROR", "TypeError"),
        ("WARNING", None),
        ("ERROR", "ValueError"),
        ("ERROR", "ValueError"),
        ("CRITICAL", "KeyError"),
    ]
    assert "Traceback (most recent call last)" in told[-1]["trace"]


def written(folder: Path, *letters: Any) -> None:
    step = WriteDeadLetters(str(folder))
    step.setup()
    step.start_bundle()
    for letter in letters:
        step.process(letter)
    step.finish_bundle()


def mixed() -> list[Any]:
    unmaskable = StepError(Reason.CARD_IN_KEY, "correct it")
    return [
        dead_letter(AT._replace(mod_index=0), "Mask", unmaskable),
        dead_letter(AT._replace(mod_index=1), "Mask", unmaskable),
        dead_letter(AT._replace(mod_index=2), "Enrich", StepError(Reason.ENRICHMENT, "fix it"), change("p3"), PAYMENTS),
    ]


def test_dead_letters_of_a_bundle_are_one_line_with_their_classes_and_changes(lines: Any, tmp_path: Path) -> None:
    written(tmp_path, *mixed())
    [line] = lines()
    assert (line["severity"], line["error_class"]) == ("WARNING", Reason.CARD_IN_KEY)
    assert line["reasons"] == {Reason.CARD_IN_KEY: 2, Reason.ENRICHMENT: 1}
    assert [(c["change_id"], c.get("PUID"), c["error_class"]) for c in line["changes"]] == [
        (AT.change_id, None, Reason.CARD_IN_KEY),
        (AT._replace(mod_index=1).change_id, None, Reason.CARD_IN_KEY),
        (AT._replace(mod_index=2).change_id, "p3", Reason.ENRICHMENT),
    ]


def test_a_line_about_many_dead_letters_is_cut(lines: Any, tmp_path: Path) -> None:
    error = StepError(Reason.NOT_MASKABLE, "fix it")
    written(tmp_path, *(dead_letter(AT._replace(mod_index=i), "Mask", error) for i in range(logs.MOST_CHANGES + 1)))
    [line] = lines()
    assert line["message"].startswith("101 dead letters written")
    assert len(line["changes"]) == logs.MOST_CHANGES


def encoded(changes: int) -> list[Any]:
    step = EncodeRows(WATCHED, shards=1, most_rows=1000)
    step.begin()
    made = [change(f"p{i}") for i in range(changes)]
    for index, each in enumerate(made):
        each.mod_index = index
    return [out for each in made for out in step.add(each)] + list(step.end())


def test_a_bundle_in_which_nothing_happened_has_no_line(lines: Any, tmp_path: Path) -> None:
    encoded(3)
    written(tmp_path)
    assert lines() == []


def test_debug_names_each_change_and_its_payment_a_hundred_a_line(lines: Any) -> None:
    lines("DEBUG")
    encoded(101)
    first, second = lines()
    assert (first["severity"], first["message"], first["table"]) == (
        "DEBUG",
        "Encoded 100 changes of payment_audit_trail.",
        "payment_audit_trail",
    )
    assert [c["PUID"] for c in first["changes"] + second["changes"]] == [f"p{i}" for i in range(101)]
    assert first["changes"][0]["change_id"] == change("p0").change_id


def test_a_line_names_nothing_of_a_payment_but_its_id(lines: Any, tmp_path: Path) -> None:
    """Masked values may be in dead letters, which few read; a log is read by more."""
    lines("DEBUG")
    told: Change = change("p1")
    told.new["Name"] = "Ada Lovelace"
    written(tmp_path, dead_letter(told.coordinates, "Enrich", StepError(Reason.ENRICHMENT, "fix it"), told, PAYMENTS))
    assert "p1" in json.dumps(lines())
    assert "Lovelace" not in json.dumps(lines())


def test_a_try_of_dead_letters_is_one_line_and_a_warning_where_some_are_set_aside(lines: Any) -> None:
    report(3, 2, mixed()[:1], [])
    report(3, 0, mixed(), mixed()[2:])
    again, aside = lines()
    assert (again["severity"], again["message"]) == (
        "INFO",
        "Dead letters: 3 tried, 2 resolved, 1 failed again.",
    )
    assert "error_class" not in again
    assert (aside["severity"], aside["error_class"]) == ("WARNING", Reason.ENRICHMENT)
    assert [c["PUID"] for c in aside["changes"]] == ["p3"]
    assert aside["reasons"] == {Reason.CARD_IN_KEY: 2, Reason.ENRICHMENT: 1}


def test_a_launch_that_is_refused_and_a_job_that_fails_are_lines_too(
    lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Any) -> None:
        raise checks.CheckFailed(f"one {CARD}\ntwo")

    def fail(*_: Any) -> None:
        raise RuntimeError(CARD)

    monkeypatch.setattr(logs, "configure", lambda *_: None)
    monkeypatch.setattr(checks, "require", refuse)
    assert main(given()) == 1
    monkeypatch.setattr(checks, "require", lambda _: None)
    monkeypatch.setattr(stream, "launch", fail)
    assert main(given()) == 1
    refused, failed = lines()
    assert (refused["severity"], refused["error_class"]) == ("ERROR", ErrorClass.REFUSED)
    assert refused["message"] == "The job cannot start:\none 411111******1111\ntwo"
    assert (failed["severity"], failed["error_class"]) == ("ERROR", "RuntimeError")
    assert CARD not in failed["trace"]


@pytest.mark.parametrize("level", LOG_LEVELS)
def test_a_job_s_level_is_that_of_its_workers(level: str) -> None:
    settings, rest = parse(given(logLevel=level))
    options = stream.beam_options(settings, rest).get_all_options()
    assert options["default_sdk_harness_log_level"] == ("INFO" if level == "DEBUG" else level)
    assert options["sdk_harness_log_level_overrides"] == ({"pipeline": "DEBUG"} if level == "DEBUG" else None)
    assert options["beam_plugins"] == ["pipeline.jobs.worker"]
    assert importlib.util.find_spec(logs.WORKER_PLUGIN)


def test_a_job_s_own_log_is_at_its_level_and_its_libraries_are_never_at_debug() -> None:
    said = subprocess.run(
        [sys.executable, "-c", LAUNCHER, "DEBUG"], check=True, capture_output=True, text=True, timeout=60
    )
    assert [(line["logger"], line["severity"]) for line in map(json.loads, said.stderr.splitlines())] == [
        ("pipeline.x", "DEBUG"),
        ("pipeline.x", "INFO"),
        ("google.library", "INFO"),
    ]


LAUNCHER = """
import logging, sys
from pipeline import logs
logs.configure(sys.argv[1], sys.stderr)
for log in (logging.getLogger("pipeline.x"), logging.getLogger("google.library")):
    log.debug("debug")
    log.info("info")
"""


class Held:
    """What the state of a key holds."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def read(self) -> Any:
        return self.value

    def write(self, value: Any) -> None:
        self.value = value

    def clear(self) -> None:
        self.value = None


class Answering:
    """A shard that appends on request; the real one is tried against the emulator."""

    def __init__(self, outcome: shards.Outcome) -> None:
        self.outcome = outcome

    def append(self, position: Any, batch: Any, columns: Any) -> tuple[Any, shards.Outcome]:
        return position, self.outcome


def flushed(*outcomes: shards.Outcome, elements: int = 1) -> None:
    """One bundle with an append for each outcome, each of its own shard, which has so many elements."""
    step = AppendRows(settings=None)  # type: ignore[arg-type]
    step._clients = cast(Any, SimpleNamespace(destinations=SimpleNamespace(watched=WATCHED)))
    step.start_bundle()
    [out] = encoded(2)
    step._shards = {f"payment_audit_trail|{i}": Answering(outcome) for i, outcome in enumerate(outcomes)}  # type: ignore[misc]
    for key in step._shards:
        for _ in range(elements):
            list(step.process((key, out.value[1]), Held()))
    list(step.finish_bundle())


def test_appends_that_went_well_have_no_line_and_doubtful_ones_of_a_bundle_have_one(lines: Any) -> None:
    flushed(shards.Outcome(appended=2))
    assert lines() == []
    flushed(shards.Outcome(appended=1, already_there=1), shards.Outcome(appended=2), shards.Outcome(retries=3))
    [line] = lines()
    assert line["severity"] == "INFO"
    assert line["shards"].keys() == {"payment_audit_trail|0", "payment_audit_trail|2"}
    assert line["shards"]["payment_audit_trail|0"] == {"appended": 1, "already_there": 1, "rejected": 0, "retries": 0}


def test_a_shard_s_doubtful_appends_of_a_bundle_are_counted_together(
    lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each element is too many bytes to wait for the bundle's end.
    monkeypatch.setattr("pipeline.sink.append._MOST_BYTES", 0)
    flushed(shards.Outcome(appended=2, retries=1), elements=3)
    [line] = lines()
    assert line["shards"] == {
        "payment_audit_trail|0": {"appended": 6, "already_there": 0, "rejected": 0, "retries": 3},
    }


def test_debug_names_what_is_in_bigquery_and_not_what_it_refused(lines: Any) -> None:
    lines("DEBUG")
    [out] = encoded(2)
    refused = rows.merge([out.value[1].data]).to_pylist()[0]
    assert refused["PUID"] == "p0"
    flushed(shards.Outcome(appended=1, rejected=[shards.Rejected(row=refused, message="no")]))
    said = [line for line in lines() if line["message"].startswith("In BigQuery now:")]
    assert [c["PUID"] for line in said for c in line["changes"]] == ["p1"]


# ---------------------------------------------------------------------- what reaches Cloud Logging


class Received(beam_fn_api_pb2_grpc.BeamFnLoggingServicer):
    """Where a worker sends its log: on Dataflow, what hands it to Cloud Logging."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    def Logging(self, request_iterator: Any, context: Any) -> Iterator[Any]:  # noqa: N802 - Beam's name
        for batch in request_iterator:
            self.entries += batch.log_entries
        yield from ()


WORKER = """
import logging, os
from apache_beam.runners.worker import sdk_worker_main
sdk_worker_main.create_harness(os.environ, dry_run=True)
from pipeline import logs
ours, theirs = logging.getLogger("pipeline.steps"), logging.getLogger("google.library")
for log in (ours, theirs):
    log.debug("debug of 4111111111111111")
    log.info("info")
try:
    raise KeyError("4111111111111111")
except KeyError:
    ours.exception("error")
ours.error("error in %d rows of %s", "pan=4111111111111111")
import threading
thread = threading.Thread(target=lambda: int("4111111111111111x"))
thread.start()
thread.join()
for handler in logging.getLogger().handlers:
    handler.close()
"""


def worker_entries(level: str) -> list[tuple[str, dict[str, Any], str]]:
    """Severity, line and trace of what a worker sends, which is started as Beam starts it with the job's options."""
    options = PipelineOptions(logs.worker_options(level)).get_all_options(drop_default=True)
    received = Received()
    server = grpc.server(ThreadPoolExecutor(4))
    beam_fn_api_pb2_grpc.add_BeamFnLoggingServicer_to_server(received, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    address = f'url: "127.0.0.1:{port}"'
    environment = {
        **os.environ,
        "LOGGING_API_SERVICE_DESCRIPTOR": address,
        "CONTROL_API_SERVICE_DESCRIPTOR": address,
        "PIPELINE_OPTIONS": json.dumps(options),
    }
    try:
        said = subprocess.run(
            [sys.executable, "-c", WORKER], env=environment, check=True, capture_output=True, timeout=120
        )
        while not any("ValueError" in entry.message for entry in received.entries):
            time.sleep(0.05)
    finally:
        server.stop(None)
    assert CARD not in str((said.stdout, said.stderr, received.entries))
    names = beam_fn_api_pb2.LogEntry.Severity.Enum.Name
    # What the worker says before it has imported the plugin is Beam's own, and plain.
    ours = [entry for entry in received.entries if entry.message.startswith("{")]
    return [(names(entry.severity), json.loads(entry.message), entry.trace) for entry in ours]


@pytest.mark.parametrize(
    ("level", "ours", "theirs"),
    [
        # A client library at DEBUG writes what it sends and gets: it never is.
        ("DEBUG", ["DEBUG", "INFO", "ERROR", "ERROR"], ["INFO"]),
        ("WARNING", ["ERROR", "ERROR"], []),
    ],
)
def test_a_worker_sends_json_from_its_level_on_and_no_card_number(
    level: str, ours: list[str], theirs: list[str]
) -> None:
    entries = worker_entries(level)
    assert [severity for severity, line, _ in entries if line["logger"] == "pipeline.steps"] == ours
    assert [severity for severity, line, _ in entries if line["logger"] == "google.library"] == theirs
    assert CARD not in str(entries)
    assert [line["error_class"] for _, line, _ in entries if "error_class" in line] == [
        "KeyError",
        "TypeError",
        "ValueError",
    ]
    assert all(line["severity"] == severity for severity, line, _ in entries)


# ---------------------------------------------------------------------- log metrics


def fields_that_match(condition: str, entry: dict[str, Any]) -> bool:
    """Whether an entry has one of the texts that a filter asks for, as Cloud Logging looks: anywhere, in any case."""
    payload = entry["jsonPayload"]["message"].lower()
    asked = re.findall(r'(?:(\w+)(?:\.message)?:)?"((?:\\.|[^"\\])*)"', condition)
    return any(
        re.sub(r"\\(.)", r"\1", text).lower() in payload for where, text in asked if where in ("", "jsonPayload")
    )


def entry_of(line: dict[str, Any]) -> dict[str, Any]:
    return {"jsonPayload": {"message": json.dumps(line)}}


def test_trouble_is_counted_by_the_class_that_the_line_has(lines: Any, tmp_path: Path) -> None:
    written(tmp_path, *mixed())
    shards._wait_out(NoAnswer("no answer"), 2, "d.t")
    try:
        raise RuntimeError
    except RuntimeError:
        logging.getLogger("pipeline.x").exception("It failed.")
    flushed(shards.Outcome(retries=1))
    _, condition = JOB_TROUBLE.filter.rsplit(" AND ", 1)
    [extract] = re.findall(r'REGEXP_EXTRACT\(jsonPayload\.message, "(.*)"\)', JOB_TROUBLE.extractors["error_class"])
    expression = re.compile(extract.replace('\\"', '"'))
    classes = []
    for entry in map(entry_of, lines()):
        found = expression.search(entry["jsonPayload"]["message"])
        assert fields_that_match(condition, entry) == bool(found)
        classes.append(found and found[1])
    assert classes == [Reason.CARD_IN_KEY, ErrorClass.SINK, "RuntimeError", None]


def test_memory_is_counted_by_what_the_kernel_says_and_not_by_our_lines(lines: Any, tmp_path: Path) -> None:
    written(tmp_path, *mixed())
    _, condition = OUT_OF_MEMORY.filter.rsplit(" AND ", 1)
    kernel = {"jsonPayload": {"message": "Out of memory: Killed process 4711 (python) total-vm:16777216kB"}}
    assert fields_that_match(condition, kernel)
    assert not any(fields_that_match(condition, entry_of(line)) for line in lines())


def test_every_log_metric_has_a_test_of_what_it_counts() -> None:
    assert set(map(id, LOG_METRICS)) == {id(JOB_TROUBLE), id(OUT_OF_MEMORY)}
    for log in LOG_METRICS:
        assert {key for key, _ in log.metric.labels} == set(log.extractors)
