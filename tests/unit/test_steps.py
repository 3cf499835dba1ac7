"""What becomes of failures: a dead letter each, without a value, and the rest continues."""

import base64
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from apache_beam.pvalue import TaggedOutput
from apache_beam.utils.windowed_value import WindowedValue
from google.api_core.exceptions import OutOfRange, ServiceUnavailable

from contract import tables, timestamps
from contract.changes import Change, Column, Coordinates, DeadLetter, Reason, StepError
from contract.payments import PAYMENT_STATES
from pipeline.failures import dead_letter
from pipeline.sink import rows
from pipeline.sink.dead_letter_writer import WriteDeadLetters
from pipeline.sink.dead_letters import DeadLetterQueue
from pipeline.sink.encode import EncodeRows
from pipeline.source.completion import Completer
from pipeline.source.records import DataChange, Mod, ReadPosition
from pipeline.steps import CLOCK, POSITIONS, ToRows
from pipeline.transforms.erase import PAYMENT
from pipeline.transforms.erased import ReadTokens
from pipeline.transforms.filter import Ignored, IgnoredRecords
from pipeline.transforms.keys import MaskingKeys
from pipeline.transforms.settings import TransformSettings
from tests.erased import nobody
from tests.shipped import PAYMENT_TABLE, WATCHED
from tests.unit.test_rows import change

SECRET = "4111111111111111"
AT = Coordinates("S", "payment_audit_trail", "2026-11-23T09:00:00.000000000Z", "1", "00000000", 0)


def record(*mods: Mod) -> DataChange:
    some = change()
    return DataChange(
        stream="S",
        commit_timestamp=some.commit_timestamp,
        record_sequence="00000000",
        server_transaction_id="42",
        is_last_record_in_transaction_in_partition=True,
        table=PAYMENT_TABLE,
        columns=some.columns,
        mods=mods,
        mod_type="INSERT",
        value_capture_type="NEW_ROW_AND_OLD_VALUES",
        number_of_records_in_transaction=1,
        number_of_partitions_in_transaction=1,
        transaction_tag="",
        is_system_transaction=False,
    )


def letters(outputs: Any) -> list[DeadLetter]:
    tagged = [o.value.value for o in outputs if isinstance(o, TaggedOutput) and isinstance(o.value, WindowedValue)]
    return [value for value in tagged if isinstance(value, DeadLetter)]


def encoded(outputs: Any) -> list[dict[str, Any]]:
    """The rows of what was encoded."""
    batches = [o for o in outputs if not isinstance(o, TaggedOutput)]
    return [row for each in batches for row in rows.merge([each.value[1].data]).to_pylist()]


def settings(keys: str, erased: ReadTokens = nobody) -> TransformSettings:
    return TransformSettings(
        masking_keys=keys,
        new_columns="scan",
        payment_states=PAYMENT_STATES,
        ignored=Ignored(),
        watched=WATCHED,
        erased=erased,
    )


@pytest.fixture
def keys(tmp_path: Path) -> str:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"v1": base64.b64encode(b"k" * 32).decode()}))
    return f"file:{path}"


@pytest.fixture
def step(keys: str) -> ToRows:
    return ready(keys)


def ready(keys: str, ignored: IgnoredRecords | None = None, transforms: TransformSettings | None = None) -> ToRows:
    made = ToRows(transforms or settings(keys), EncodeRows(WATCHED, shards=1, most_rows=100), ignored=ignored)
    made.setup()
    made.start_bundle()
    return made


@pytest.mark.parametrize("left_out", [("PAYMENT_audit_trail",), ("", "INSERT"), ("", "", "nightly")])
def test_an_ignored_record_is_left_out_before_it_is_decoded(keys: str, left_out: tuple[str, ...]) -> None:
    step = ready(keys, IgnoredRecords.parse(*left_out))
    # It could not be decoded.
    assert list(step.process(record(Mod("[]", "", ""))._replace(transaction_tag="nightly"))) == []
    assert (
        list(step.process(record(Mod('{"PUID": "p1"}', "{}", ""))._replace(table="audit_logs", mod_type="UPDATE")))
        == []
    )
    assert [row["PUID"] for row in encoded(step.finish_bundle())] == ["p1"]


def test_changes_that_leave_columns_out_become_whole_rows_at_their_commit_timestamps(step: ToRows) -> None:
    class Table:
        def columns(self, *_: Any) -> Any:
            return change().columns

        def keyed(self, table: str, columns: Any, at: str, keys: Any) -> Any:
            if at.startswith("2020"):
                raise OutOfRange("too old")
            return [{"PUID": key, "Count": "7"} for (key,) in keys]

    mods = Mod('{"PUID": "p1"}', '{"Ok": true}', "{}"), Mod('{"PUID": "p2"}', '{"Ok": false}', "{}")
    partial = record(*mods)._replace(mod_type="UPDATE", value_capture_type="NEW_VALUES")
    old = partial._replace(commit_timestamp="2020-01-01T00:00:00.000000000Z", mods=mods[:1])
    step._completer = Completer(Table())
    assert [*step.process(partial), *step.process(old)] == []
    outputs = list(step.finish_bundle())
    assert [(row["PUID"], row["Count"], row["Ok"]) for row in encoded(outputs)] == [("p1", 7, True), ("p2", 7, False)]
    assert {each.timestamp.micros for each in outputs if isinstance(each, WindowedValue)} == {1795424401000000}
    [letter] = letters(outputs)
    assert (letter.step, letter.reason, letter.change) == ("Decode", Reason.GONE, None)
    assert letter.coordinates.mod_index == 0
    step.start_bundle()
    assert list(step.finish_bundle()) == []


@pytest.mark.parametrize(("later", "millis"), [(0, 0), (1_500_000, 1), (2_500_000_000, 2500), (-7_000_000_000, 0)])
def test_how_old_a_change_is_when_it_is_read_is_in_milliseconds_and_never_negative(
    step: ToRows, monkeypatch: pytest.MonkeyPatch, later: int, millis: int
) -> None:
    committed = record(Mod('{"PUID": "p1"}', "{}", ""))
    ages: list[int] = []
    monkeypatch.setattr(step._age, "update", ages.append)
    monkeypatch.setattr("pipeline.steps.time.time_ns", lambda: timestamps.to_nanos(committed.commit_timestamp) + later)
    list(step.process(committed))
    assert ages == [millis]


def test_one_unreadable_modification_does_not_stop_the_others(step: ToRows) -> None:
    good = Mod('{"PUID":"p1"}', "{}", "{}")
    outputs = [*step.process(record(good, Mod(f'{{"PUID": {SECRET}', "{}", "{}"), good)), *step.finish_bundle()]
    assert [row[tables.CHANGE_ID].rsplit("/", 1)[1] for row in encoded(outputs)] == ["000000", "000002"]
    [letter] = letters(outputs)
    assert (letter.step, letter.reason, letter.coordinates.mod_index) == ("Decode", Reason.UNREADABLE, 1)
    assert letter.change is None and SECRET not in repr(letter)


def test_positions_go_their_own_way_and_the_clock_ticks_now_and_then(
    step: ToRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("pipeline.steps.time.monotonic", lambda: now[0])
    position = ReadPosition("S", AT.commit_timestamp)
    ticks = []
    for second in range(12):
        now[0] = 100.0 + second
        output, *tick = step.process(position)
        assert (output.tag, output.value) == (POSITIONS, (b"", position))
        ticks += [(second, each.tag, each.value) for each in tick]
    assert ticks == [(0, CLOCK, (b"", None)), (5, CLOCK, (b"", None)), (10, CLOCK, (b"", None))]


def test_what_cannot_be_masked_keeps_only_where_it_is(step: ToRows) -> None:
    [letter] = letters([*step.process(record(Mod(json.dumps({"PUID": SECRET}), "{}", "{}")))])
    assert (letter.step, letter.reason, letter.change) == ("Mask", Reason.CARD_IN_KEY, None)
    assert SECRET not in repr(letter)
    assert list(step.finish_bundle()) == []


def test_an_unexpected_error_says_where_and_never_quotes(step: ToRows, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Change) -> None:
        raise ValueError(f"invalid literal: {SECRET}")

    monkeypatch.setattr(step._masker, "mask", broken)
    [letter] = letters(list(step.process(record(Mod('{"PUID": "p1"}', "{}", "{}")))))
    assert letter.reason == Reason.UNEXPECTED
    assert "ValueError in Mask" in letter.message
    assert SECRET not in repr(letter)


def test_a_failure_after_masking_keeps_the_masked_change(step: ToRows, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise StepError(Reason.ENRICHMENT, "fix it")

    monkeypatch.setattr("pipeline.steps.enrich", broken)
    [letter] = letters(list(step.process(record(Mod('{"PUID": "p1"}', json.dumps({"Metadata": SECRET}), "{}")))))
    assert (letter.step, letter.reason) == ("Enrich", Reason.ENRICHMENT)
    assert letter.change is not None
    assert letter.change["keys"] == {"PUID": "p1"}
    assert SECRET not in repr(letter)


def test_a_payment_that_was_erased_becomes_a_row_without_what_is_personal(keys: str) -> None:
    token = MaskingKeys({"v1": b"k" * 32}).token(PAYMENT, "p7")
    step = ready(keys, transforms=settings(keys, lambda _: {token: datetime.now(UTC)}))
    values = json.dumps({"Metadata": '{"note": "Jo"}', "Count": "7"})
    for puid in ("p7", "p8"):
        assert list(step.process(record(Mod(json.dumps({"PUID": puid}), values, "{}")))) == []
    found = {row["PUID"]: (row["Metadata"], row["Count"]) for row in encoded(step.finish_bundle())}
    assert found == {"p7": (None, 7), "p8": ('{"note": "Jo"}', 7)}


def test_nothing_is_written_while_it_is_not_known_who_was_erased_and_a_bundle_begins_empty(keys: str) -> None:
    known: list[bool] = [True]

    def read(_: Any) -> Mapping[str, datetime]:
        if not known[0]:
            raise ServiceUnavailable("away")
        return {}

    step = ready(keys, transforms=settings(keys, read))
    assert list(step.process(record(Mod('{"PUID": "p1"}', "{}", "{}")))) == []
    known[0] = False
    step.setup()
    with pytest.raises(ServiceUnavailable):
        list(step.process(record(Mod('{"PUID": "p2"}', "{}", "{}"))))
    # The runner tries the bundle again: what the one that failed had taken in is not in it.
    known[0] = True
    step.start_bundle()
    assert list(step.process(record(Mod('{"PUID": "p3"}', "{}", "{}")))) == []
    assert [row["PUID"] for row in encoded(step.finish_bundle())] == ["p3"]


def test_an_ignored_column_is_left_out_of_the_row_and_what_happened_is_counted(keys: str) -> None:
    ignored = Ignored.parse(fields=f"{PAYMENT_TABLE}.Count", tables="audit_logs")
    step = ready(keys, transforms=replace(settings(keys), ignored=ignored))
    counts: Counter[str] = Counter()
    for name in ("_read", "_filtered", "_unclassified", "_unknown"):
        counter = SimpleNamespace(inc=lambda n=1, name=name: counts.update({name: n}))
        setattr(step, name, counter)
    mods = [
        Mod(json.dumps({"PUID": puid}), json.dumps({"Count": "7", "Ok": True, "Status": status}), "{}")
        for puid, status in (("p1", "CAPTURED"), ("p2", "NOBODY MAPPED THIS"))
    ]
    columns = (*change().columns, Column("Status", "STRING(20)", False))
    made = record(*mods)._replace(columns=columns)
    assert list(step.process(made)) == list(step.process(made._replace(table="audit_logs"))) == []
    found = [(row["PUID"], row["Count"], row["Ok"]) for row in encoded(step.finish_bundle())]
    assert found == [("p1", None, True), ("p2", None, True)]
    # Two changes of each table: those of the ignored one are read, and left out.
    assert (counts["_read"], counts["_filtered"], counts["_unknown"]) == (4, 2, 2)
    assert counts["_unclassified"] > 0


def test_rows_of_a_bundle_leave_as_one_batch_a_shard_at_the_time_of_the_earliest() -> None:
    step = EncodeRows(WATCHED, shards=1, most_rows=100)
    step.begin()
    late, early = change("p1"), change("p2")
    early.commit_timestamp = "2026-11-23T08:00:00.000000000Z"
    assert list(step.add(late)) == list(step.add(early)) == []
    [output] = step.end()
    assert isinstance(output, WindowedValue)
    assert output.value[0] == "payment_audit_trail|0"
    assert output.timestamp.to_rfc3339() == "2026-11-23T08:00:00Z"


def test_a_change_that_no_row_can_hold_leaves_alone_as_a_dead_letter() -> None:
    step = EncodeRows(WATCHED, shards=1, most_rows=100)
    step.begin()
    assert [*step.add(change("p1")), *step.add(change("p2", Count=SECRET + "x")), *step.add(change("p3"))] == []
    outputs = list(step.end())
    [letter] = letters(outputs)
    assert (letter.step, letter.reason, letter.payment) == ("EncodeRows", Reason.VALUE, "p2")
    assert [row["PUID"] for row in encoded(outputs)] == ["p1", "p3"]


def test_a_full_batch_leaves_before_the_bundle_ends() -> None:
    step = EncodeRows(WATCHED, shards=1, most_rows=2)
    step.begin()
    assert len([o for i in range(4) for o in step.add(change(f"p{i}"))]) == 2
    assert list(step.end()) == []


def test_a_payments_changes_stay_in_one_shard() -> None:
    step = EncodeRows(WATCHED, shards=4, most_rows=100)
    assert len({step._key(change("p1")) for _ in range(5)}) == 1
    assert len({step._key(change(f"p{i}")) for i in range(50)}) == 4


def test_dead_letters_are_durable_when_the_bundle_ends(tmp_path: Path) -> None:
    step = WriteDeadLetters(str(tmp_path))
    step.setup()
    step.start_bundle()
    step.process(dead_letter(AT, "Mask", StepError(Reason.NOT_MASKABLE, "fix it")))
    step.finish_bundle()
    assert [x.coordinates for x in DeadLetterQueue(str(tmp_path)).letters()] == [AT]
