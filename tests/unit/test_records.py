"""Change records from Spanner's wire messages."""

from typing import Any

from google.cloud.spanner_v1.types import result_set

from contract.changes import Column
from pipeline.source.records import ChildPartitions, DataChange, Heartbeat, RecordReader

PartialResultSet = result_set.PartialResultSet.pb()


def put(value: Any, content: Any) -> None:
    """Writes Python content into a google.protobuf.Value."""
    if isinstance(content, list):
        value.list_value.SetInParent()
        for item in content:
            put(value.list_value.values.add(), item)
    elif isinstance(content, bool):
        value.bool_value = content
    else:
        value.string_value = content


def responses(*parts: tuple[list[Any], bool]) -> list[Any]:
    made = []
    for values, chunked in parts:
        response = PartialResultSet(chunked_value=chunked)
        for content in values:
            put(response.values.add(), content)
        made.append(response)
    return made


DATA: list[Any] = [
    "2026-11-23T09:00:01.5Z",
    "00000000",
    "42",
    True,
    "payment_audit_trail",
    [
        ["PUID", '{"code":"STRING"}', True, "1"],
        ["Tags", '{"code":"ARRAY","array_element_type":{"code":"INT64"}}', False, "2"],
    ],
    [['{"PUID":"p1"}', '{"Tags":["1"]}', "{}"], ['{"PUID":"p2"}', "{}", "{}"]],
    "INSERT",
    "NEW_ROW_AND_OLD_VALUES",
    "1",
    "1",
    "",
    False,
]
CHILDREN: list[Any] = ["2026-11-23T09:00:02Z", "00000001", [["token", ["parent-1", "parent-2"]]]]
HEARTBEAT: list[Any] = ["2026-11-23T09:00:03.123456789Z"]


def row(data: list[Any] | None = None, heartbeat: list[Any] | None = None, children: list[Any] | None = None) -> Any:
    """One row of a change stream query: its only column, an array of change records."""
    return [[[data] if data else [], [heartbeat] if heartbeat else [], [children] if children else []]]


def read(*parts: tuple[list[Any], bool]) -> list[Any]:
    return list(RecordReader("S").records(responses(*parts)))


def test_a_data_change_record_is_read_whole() -> None:
    (record,) = read(([row(data=DATA)], False))
    assert isinstance(record, DataChange)
    assert record.commit_timestamp == "2026-11-23T09:00:01.500000000Z"
    assert record.columns == (Column("PUID", "STRING", True), Column("Tags", "ARRAY<INT64>", False))
    assert [m.keys for m in record.mods] == ['{"PUID":"p1"}', '{"PUID":"p2"}']
    assert (record.stream, record.table, record.mod_type, record.id) == (
        "S",
        "payment_audit_trail",
        "INSERT",
        "42/00000000",
    )
    assert record.is_last_record_in_transaction_in_partition
    assert record.number_of_records_in_transaction == 1


def test_heartbeats_and_children_are_read() -> None:
    heartbeat, children = read(([row(heartbeat=HEARTBEAT), row(children=CHILDREN)], False))
    assert heartbeat == Heartbeat("2026-11-23T09:00:03.123456789Z")
    assert isinstance(children, ChildPartitions)
    (child,) = children.children
    assert child == ("token", "2026-11-23T09:00:02.000000000Z", ("parent-1", "parent-2"))


def test_a_record_cut_at_a_response_boundary_is_put_together() -> None:
    head, tail = list(DATA), list(DATA)
    head[4:] = ["payment_au"]
    tail[:5] = ["dit_trail"]
    first: Any = [[[head]]]
    rest: Any = [[[tail], [], []]]
    (record,) = read(([first], True), ([rest], False))
    assert record == read(([row(data=DATA)], False))[0]


def test_a_text_cut_over_three_responses_is_put_together() -> None:
    one: Any = [[[["2026-11-23T"]]]]
    two: Any = [[[["09:00:0"]]]]
    three: Any = [
        [
            [
                ["1.5Z", *DATA[1:]],
            ],
            [],
            [],
        ]
    ]
    (record,) = read(([one], True), ([two], True), ([three], False))
    assert record == read(([row(data=DATA)], False))[0]


def test_column_types_are_remembered_by_what_they_say_and_not_by_place() -> None:
    other = list(DATA)
    other[5] = [["PUID", '{"code":"STRING"}', True, "1"]]
    reader = RecordReader("S")
    first, second, third = reader.records(responses(([row(data=DATA), row(data=other), row(data=DATA)], False)))
    assert isinstance(first, DataChange) and isinstance(second, DataChange) and isinstance(third, DataChange)
    assert first.columns == third.columns
    assert second.columns == (Column("PUID", "STRING", True),)
