"""The page for who uses the source in another pipeline: its parameters, and the fields of what comes out."""

from __future__ import annotations

import dataclasses
import re

import pytest

from contract.changes import Column
from pipeline.source import records
from pipeline.source.partition_threads import Reading
from pipeline.source.query import ChangeStream
from tests.documents import ROOT

PAGE = (ROOT / "pipeline" / "source" / "README.md").read_text()
RECORDS = (
    *(records.DataChange, records.Mod, records.Heartbeat, records.Child, records.ChildPartitions),
    *(records.PartitionStart, records.PartitionEnd, records.ReadPosition),
)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_field_of_a_record_is_described(record: type) -> None:
    described = re.findall(r"^ *- `(\w+)`: \S", record.__doc__ or "", re.M)
    assert tuple(described) == record._fields  # type: ignore[attr-defined]


def test_every_record_type_of_the_module_is_among_them() -> None:
    named = {kind for kind in vars(records).values() if isinstance(kind, type) and hasattr(kind, "_fields")}
    assert named - {Column} == set(RECORDS)


@pytest.mark.parametrize("kind", [ChangeStream, Reading], ids=lambda kind: kind.__name__)
def test_every_parameter_is_in_the_table_with_its_default(kind: type) -> None:
    rows = dict(re.findall(rf"^\| `{kind.__name__}\.(\w+)` \| ([^|]+) \|", PAGE, re.M))
    assert list(rows) == [field.name for field in dataclasses.fields(kind)]
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING:
            assert rows[field.name] == "required"
        elif field.default:
            assert rows[field.name].strip("`") == str(field.default)
