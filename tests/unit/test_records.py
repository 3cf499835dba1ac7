"""Change records from Spanner's wire messages."""

import base64
import json
from typing import Any

import pytest
from google.cloud.spanner_v1.types import change_stream, result_set
from google.cloud.spanner_v1.types import type as types

from contract.changes import Column
from pipeline.source import wire
from pipeline.source.proto_records import ProtoReader
from pipeline.source.records import ChildPartitions, DataChange, Heartbeat, RecordReader, UnreadableStream

PartialResultSet = result_set.PartialResultSet.pb()
ChangeStreamRecord = change_stream.ChangeStreamRecord.pb()


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


# Field names in the order of Spanner's documentation ("Change streams partitions, records, and queries"), outermost
# first: a name, or (name, fields of the struct in its array).
DATA_FIELDS: list[Any] = [
    "commit_timestamp",
    "record_sequence",
    "server_transaction_id",
    "is_last_record_in_transaction_in_partition",
    "table_name",
    ("column_types", ["name", "type", "is_primary_key", "ordinal_position"]),
    ("mods", ["keys", "new_values", "old_values"]),
    "mod_type",
    "value_capture_type",
    "number_of_records_in_transaction",
    "number_of_partitions_in_transaction",
    "transaction_tag",
    "is_system_transaction",
]
CHILD_FIELDS: list[Any] = [
    "start_timestamp",
    "record_sequence",
    ("child_partitions", ["token", "parent_partition_tokens"]),
]
RECORD_FIELDS: list[Any] = [
    ("data_change_record", DATA_FIELDS),
    ("heartbeat_record", ["timestamp"]),
    ("child_partitions_record", CHILD_FIELDS),
]


def describe(struct: Any, fields: list[Any]) -> None:
    """Writes fields into a google.spanner.v1.StructType."""
    for entry in fields:
        name, inner = entry if isinstance(entry, tuple) else (entry, None)
        field = struct.fields.add(name=name)
        if inner is None:
            field.type_.code = types.TypeCode.STRING
        else:
            field.type_.code = types.TypeCode.ARRAY
            field.type_.array_element_type.code = types.TypeCode.STRUCT
            describe(field.type_.array_element_type.struct_type, inner)


def described(fields: list[Any], *values: Any) -> Any:
    """A response with its metadata, as the first of a query is."""
    (response,) = responses((list(values), False))
    describe(response.metadata.row_type, [("ChangeRecord", fields)])
    return response


def everywhere(fields: list[Any], change: Any) -> list[Any]:
    """The fields with `change` applied to every struct, the inner ones first."""
    changed: list[Any] = change([(e[0], everywhere(e[1], change)) if isinstance(e, tuple) else e for e in fields])
    return changed


RECORDS: list[Any] = [row(data=DATA), row(heartbeat=HEARTBEAT), row(children=CHILDREN)]


def with_news(content: Any) -> Any:
    """Every struct of a value has one field more at its end: those are the lists that begin with a text or a list."""
    data, heartbeats, children = content[0]
    data = [[*d[:5], [[*c, "new"] for c in d[5]], [[*m, "new"] for m in d[6]], *d[7:], ["new", ["list"]]] for d in data]
    heartbeats = [[*h, "new"] for h in heartbeats]
    children = [[start, sequence, [[*c, "new"] for c in named], "new"] for start, sequence, named in children]
    return [[data, heartbeats, children, [["a record of another kind"]]]]


def test_a_field_that_spanner_adds_to_its_records_is_ignored() -> None:
    assert read(([with_news(r) for r in RECORDS], False)) == read((RECORDS, False))


def test_a_field_that_spanner_adds_is_ignored_by_name_wherever_it_stands() -> None:
    def first(content: Any) -> Any:
        data, heartbeats, children = content[0]
        return [[["new"], *(content[0])]] if data or heartbeats or children else content

    in_front = everywhere(RECORD_FIELDS, lambda fields: fields)
    reader = RecordReader("S")
    named = described(["a_new_record", *in_front], *map(first, RECORDS))
    assert list(reader.records([named])) == read((RECORDS, False))


def test_fields_in_another_order_are_found_by_their_names() -> None:
    backwards = everywhere(RECORD_FIELDS, lambda fields: fields[::-1])
    turned = [
        [
            [
                [[start, sequence, [c[::-1] for c in named]][::-1] for start, sequence, named in r[0][2]],
                r[0][1],
                [[*d[:5], [c[::-1] for c in d[5]], [m[::-1] for m in d[6]], *d[7:]][::-1] for d in r[0][0]],
            ]
        ]
        for r in RECORDS
    ]
    assert list(RecordReader("S").records([described(backwards, *turned)])) == read((RECORDS, False))


def test_the_documented_names_are_the_documented_places() -> None:
    assert list(RecordReader("S").records([described(RECORD_FIELDS, *RECORDS)])) == read((RECORDS, False))


def test_trailing_fields_that_an_older_spanner_does_not_send_are_empty() -> None:
    (record,) = read(([row(data=DATA[:9])], False))
    assert record == read(([row(data=DATA)], False))[0]._replace(
        number_of_records_in_transaction=0, number_of_partitions_in_transaction=0
    )
    short = list(DATA)
    short[5] = [["PUID", '{"code":"STRING"}']]
    short[6] = [['{"PUID":"p1"}', "{}"]]
    (record,) = read(([row(data=short)], False))
    assert isinstance(record, DataChange)
    assert (record.columns, record.mods) == ((Column("PUID", "STRING", False),), (('{"PUID":"p1"}', "{}", ""),))
    assert read(([[[[DATA]]]], False)) == read(([row(data=DATA)], False))


def test_a_record_without_its_time_is_an_error_and_not_an_old_change() -> None:
    with pytest.raises(ValueError, match="must have its commit_timestamp"):
        read(([row(data=[])[:0] or [[[[]], [], []]]], False))


@pytest.mark.parametrize(
    "fields",
    [
        [
            ("data_change_record", DATA_FIELDS),
            ("heartbeat_record", ["timestamp"]),
            ("partition_start_record", ["start_timestamp"]),
            ("partition_end_record", ["end_timestamp"]),
            ("partition_event_record", ["commit_timestamp"]),
        ],
        [("data_change_record", DATA_FIELDS)],
        ["something", "else"],
    ],
)
def test_the_records_of_a_partition_mode_that_is_not_known_are_refused_with_the_remedy(fields: list[Any]) -> None:
    with pytest.raises(UnreadableStream, match="change stream S must have partition_mode IMMUTABLE_KEY_RANGE or"):
        list(RecordReader("S").records([described(fields)]))


@pytest.mark.parametrize("name", ["", "google.spanner.v2.ChangeStreamRecord"])
def test_a_record_in_the_form_of_a_proto_that_is_not_known_is_refused_and_not_read_as_nothing(name: str) -> None:
    (response,) = responses((["CgYKBAoCCAE="], False))
    if name:
        field = response.metadata.row_type.fields.add(name="ChangeRecord")
        field.type_.code = types.TypeCode.PROTO
        field.type_.proto_type_fqn = name
    with pytest.raises(UnreadableStream, match="create a second stream"):
        list(RecordReader("S").records([response]))


def test_a_record_is_the_same_from_either_form_of_its_response() -> None:
    as_library = responses(([row(data=DATA), row(heartbeat=HEARTBEAT), row(children=CHILDREN)], False))
    as_wire = [wire.Response.FromString(response.SerializeToString()) for response in as_library]
    assert list(RecordReader("S").records(as_wire)) == list(RecordReader("S").records(as_library))
    assert as_wire[0].values[0] == as_library[0].values[0].SerializeToString()


def test_fields_that_come_after_the_known_ones_are_passed_over() -> None:
    [record] = read(([row(data=[*DATA, "of a later version"])], False))
    assert record == read(([row(data=DATA)], False))[0]


# ---------------------------------------------------------------------- PostgreSQL: a record is a JSON text


def written(*records: dict[str, Any]) -> list[Any]:
    response = PartialResultSet()
    kind = response.metadata.row_type.fields.add(name="read_json_S").type_
    kind.code, kind.type_annotation = types.TypeCode.JSON, types.TypeAnnotationCode.PG_JSONB
    for record in records:
        put(response.values.add(), json.dumps(record))
    return [response]


WRITTEN: dict[str, Any] = {
    "data_change_record": {
        "column_types": [
            {"is_primary_key": True, "name": "PUID", "ordinal_position": 1, "type": {"code": "STRING"}},
            {
                "is_primary_key": False,
                "name": "Tags",
                "ordinal_position": 2,
                "type": {"array_element_type": {"code": "INT64"}, "code": "ARRAY"},
            },
        ],
        "commit_timestamp": "2026-11-23T09:00:01.5+00:00",
        "is_last_record_in_transaction_in_partition": True,
        "is_system_transaction": False,
        "mod_type": "INSERT",
        "mods": [
            {"keys": {"PUID": "p1"}, "new_values": {"Tags": ["1"]}, "old_values": {}},
            {"keys": '{"PUID":"p2"}', "new_values": {}, "old_values": {}},
        ],
        "number_of_partitions_in_transaction": 1,
        "number_of_records_in_transaction": 1,
        "record_sequence": "00000000",
        "server_transaction_id": "42",
        "table_name": "payment_audit_trail",
        "transaction_tag": "",
        "value_capture_type": "NEW_ROW_AND_OLD_VALUES",
    }
}


def test_a_record_in_json_is_the_same_record() -> None:
    (record,) = RecordReader("S").records(written(WRITTEN))
    assert record == read(([row(data=DATA)], False))[0]


def test_types_that_postgresql_alone_has_are_read_by_their_annotations() -> None:
    data = WRITTEN["data_change_record"]
    numeric, jsonb = ({"code": c, "type_annotation": a} for c, a in (("NUMERIC", "PG_NUMERIC"), ("JSON", "PG_JSONB")))
    kinds = [
        numeric,
        jsonb,
        {"code": "ARRAY", "array_element_type": numeric},
        {"code": "INT64", "type_annotation": "PG_OID"},
    ]
    columns = [{"name": f"c{n}", "type": kind, "is_primary_key": False} for n, kind in enumerate(kinds)]
    (record,) = RecordReader("S").records(written({"data_change_record": data | {"column_types": columns}}))
    assert isinstance(record, DataChange)
    assert [column.type for column in record.columns] == ["PG_NUMERIC", "PG_JSONB", "ARRAY<PG_NUMERIC>", "INT64"]


def test_heartbeats_and_children_in_json_are_the_same() -> None:
    child = {"token": "token", "parent_partition_tokens": ["parent-1", "parent-2"]}
    children = {"start_timestamp": "2026-11-23T09:00:02Z", "record_sequence": "00000001", "child_partitions": [child]}
    found = RecordReader("S").records(
        written(
            {"heartbeat_record": {"timestamp": "2026-11-23T09:00:03.123456789+00:00"}},
            {"child_partitions_record": children},
        )
    )
    assert list(found) == read(([row(heartbeat=HEARTBEAT), row(children=CHILDREN)], False))


def test_a_json_text_that_a_response_cuts_is_put_together() -> None:
    text = json.dumps(WRITTEN)
    head, tail = written()[0], PartialResultSet()
    head.chunked_value = True
    put(head.values.add(), text[:100])
    put(tail.values.add(), text[100:])
    assert list(RecordReader("S").records([head, tail])) == read(([row(data=DATA)], False))


def test_json_records_of_another_partition_mode_are_refused_and_one_without_its_time() -> None:
    with pytest.raises(UnreadableStream, match="its records have partition_start_record"):
        list(RecordReader("S").records(written({"partition_start_record": {"start_timestamp": "x"}})))
    with pytest.raises(ValueError, match="must have its commit_timestamp"):
        list(RecordReader("S").records(written({"data_change_record": {"table_name": "t"}})))


# ---------------------------------------------------------------------- MUTABLE_KEY_RANGE: a record is a PROTO


def in_bytes(record: Any, code: int = types.TypeCode.BYTES, name: str = "") -> Any:
    """A response with one record; a PROTO has a name, BYTES are PostgreSQL's."""
    response = PartialResultSet()
    kind = response.metadata.row_type.fields.add(name="read_proto_bytes_S").type_
    kind.code, kind.proto_type_fqn = code, name
    put(response.values.add(), base64.b64encode(record.SerializeToString()).decode())
    return wire.Response.FromString(response.SerializeToString())


def test_types_of_a_record_in_bytes_are_read_by_their_annotations() -> None:
    record = ChangeStreamRecord()
    data = record.data_change_record
    data.mods.add()
    values = ["NaN", '{"a": 1.10}', ["1.2345678901", None], "4294967295"]
    for name, code, annotation, value in (
        ("n", types.TypeCode.NUMERIC, types.TypeAnnotationCode.PG_NUMERIC, values[0]),
        ("j", types.TypeCode.JSON, types.TypeAnnotationCode.PG_JSONB, values[1]),
        ("a", types.TypeCode.NUMERIC, types.TypeAnnotationCode.PG_NUMERIC, values[2]),
        ("o", types.TypeCode.INT64, types.TypeAnnotationCode.PG_OID, values[3]),
    ):
        kind = data.column_metadata.add(name=name).type_
        if isinstance(value, list):
            kind.code = types.TypeCode.ARRAY
            kind = kind.array_element_type
        kind.code, kind.type_annotation = code, annotation
        added = data.mods[0].new_values.add(column_metadata_index=len(data.column_metadata) - 1).value
        if isinstance(value, list):
            put(added, value[:1])
            added.list_value.values.add().null_value = 0
        else:
            put(added, value)
    (found,) = ProtoReader("S").records([in_bytes(record)])
    assert isinstance(found, DataChange)
    assert [column.type for column in found.columns] == ["PG_NUMERIC", "PG_JSONB", "ARRAY<PG_NUMERIC>", "INT64"]
    assert json.loads(found.mods[0].new_values) == dict(zip("njao", values, strict=True))


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (types.TypeCode.PROTO, "google.spanner.v2.ChangeStreamRecord"),
        (types.TypeCode.STRING, ""),
        (types.TypeCode.JSON, ""),
    ],
)
def test_a_form_that_is_neither_the_proto_nor_its_bytes_is_refused_with_the_remedy(code: int, name: str) -> None:
    record = ChangeStreamRecord()
    record.heartbeat_record.timestamp.seconds = 1_780_000_000
    with pytest.raises(UnreadableStream, match="create a second stream"):
        list(ProtoReader("S").records([in_bytes(record, code, name)]))
    for known in (in_bytes(record), in_bytes(record, types.TypeCode.PROTO, "google.spanner.v1.ChangeStreamRecord")):
        assert list(ProtoReader("S").records([known])) == [Heartbeat("2026-05-28T20:26:40.000000000Z")]
    with pytest.raises(UnreadableStream):
        list(ProtoReader("S").records([wire.Response()]))
