"""The partition set: what is new, what waits, how far everything was read."""

from contract.changes import Column
from pipeline.source.partitions import END, PartitionSet
from pipeline.source.records import Child, DataChange, Mod

START = "2026-11-23T09:00:00.000000000Z"


def at(seconds: float) -> str:
    return f"2026-11-23T09:00:{seconds:012.9f}Z"


def change(seconds: float, transaction: str = "t1", sequence: str = "00000000") -> DataChange:
    return DataChange(
        stream="S",
        commit_timestamp=at(seconds),
        record_sequence=sequence,
        server_transaction_id=transaction,
        is_last_record_in_transaction_in_partition=True,
        table="payment_audit_trail",
        columns=(Column("PUID", "STRING", True),),
        mods=(Mod('{"PUID":"p"}', "{}", "{}"),),
        mod_type="INSERT",
        value_capture_type="NEW_ROW_AND_OLD_VALUES",
        number_of_records_in_transaction=1,
        number_of_partitions_in_transaction=1,
        transaction_tag="",
        is_system_transaction=False,
    )


def partitions(*tokens: str) -> PartitionSet:
    found = PartitionSet(START)
    found.begin([Child(token, START, ()) for token in tokens])
    return found


def test_a_change_is_claimed_once() -> None:
    found = partitions("a")
    assert found.claim("a", change(1))
    assert not found.claim("a", change(1))


def test_changes_of_one_commit_timestamp_are_told_apart() -> None:
    found = partitions("a")
    assert found.claim("a", change(1, "t1"))
    assert found.claim("a", change(1, "t2"))
    assert found.claim("a", change(1, "t1", "00000001"))
    assert not found.claim("a", change(1, "t2"))


def test_a_change_before_the_position_is_not_new() -> None:
    found = partitions("a")
    found.advance("a", at(5))
    assert not found.claim("a", change(5))
    assert found.claim("a", change(5.000000001))


def test_the_position_does_not_go_back() -> None:
    found = partitions("a")
    found.advance("a", at(5))
    found.advance("a", at(3))
    assert found.watermark() == "2026-11-23T09:00:05.000000001Z"


def test_the_watermark_is_the_slowest_partitions_position() -> None:
    found = partitions("a", "b")
    found.advance("a", at(9))
    assert found.watermark() == START
    found.advance("b", at(2))
    assert found.watermark() == "2026-11-23T09:00:02.000000001Z"


def test_a_child_waits_for_all_its_parents() -> None:
    found = partitions("a", "b")
    merged = (Child("m", at(10), ("a", "b")),)
    found.end("a", merged)
    assert "m" not in found.readable()
    found.end("b", merged)
    assert found.readable() == {"m": at(10)}


def test_a_child_waits_for_a_parent_that_is_still_to_be_discovered() -> None:
    found = partitions("a", "c")
    found.end("a", (Child("m", at(10), ("a", "b")),))
    assert "m" not in found.readable()
    found.end("c", (Child("b", at(5), ("c",)),))
    assert set(found.readable()) == {"b"}
    found.end("b", (Child("m", at(10), ("a", "b")),))
    assert set(found.readable()) == {"m"}


def test_a_child_that_is_announced_again_keeps_its_position() -> None:
    found = partitions("a", "b")
    child = (Child("m", at(10), ("a",)),)
    found.end("a", child)
    found.advance("m", at(20))
    found.end("b", child)
    assert found.readable() == {"m": "2026-11-23T09:00:20.000000001Z"}


def test_a_waiting_child_holds_the_watermark() -> None:
    found = partitions("a", "b")
    found.advance("b", at(30))
    found.end("a", (Child("m", at(10), ("a", "b")),))
    assert found.watermark() == at(10)


def test_a_split_makes_its_children_readable_at_once() -> None:
    found = partitions("a")
    found.end("a", (Child("x", at(10), ("a",)), Child("y", at(10), ("a",))))
    assert set(found.readable()) == {"x", "y"}


def test_the_end_of_the_last_partition_finishes_the_stream() -> None:
    found = partitions("a")
    assert not found.finished
    found.end("a", ())
    assert found.finished
    assert found.watermark() == END


def test_a_child_from_before_the_start_is_read_from_the_start() -> None:
    found = PartitionSet(at(30))
    found.begin([Child("a", at(10), ())])
    assert found.readable() == {"a": at(30)}


def test_the_checkpoint_restores_everything() -> None:
    found = partitions("a", "b")
    found.claim("a", change(1))
    found.end("b", (Child("m", at(10), ("a", "b")),))
    restored = PartitionSet.from_bytes(found.to_bytes())
    assert restored.partitions == found.partitions
    assert not restored.claim("a", change(1))
    undiscovered = PartitionSet.from_bytes(PartitionSet(START).to_bytes())
    assert not undiscovered.discovered
    assert undiscovered.watermark() == START
