"""The partition set: what is new, what waits, how far everything was read."""

import random
from collections import Counter

import pytest

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


def test_a_root_that_a_parent_still_announces_is_not_read_a_second_time() -> None:
    """Reading from a boundary on: the child is among the first partitions, and so is a parent that ends there."""
    found = partitions("parent", "child")
    found.end("child", (Child("grandchild", at(40), ("child",)),))
    found.end("parent", (Child("child", START, ("parent",)),))
    assert set(found.readable()) == {"grandchild"}


def test_what_has_ended_is_remembered_in_the_checkpoint_until_nobody_can_name_it() -> None:
    found = partitions("parent", "child")
    found.end("child", (Child("grandchild", at(40), ("child",)),))
    restored = PartitionSet.from_bytes(found.to_bytes())
    restored.end("parent", (Child("child", START, ("parent",)),))
    assert set(restored.readable()) == {"grandchild"}
    restored.advance("grandchild", at(50))
    assert b"child" not in restored.to_bytes().replace(b"grandchild", b"")


def test_a_child_does_not_wait_for_a_parent_that_ended_without_naming_it() -> None:
    found = partitions("a", "b")
    found.end("a", (Child("x", at(10), ("a",)),))
    found.end("b", (Child("m", at(10), ("a", "b")),))
    assert set(found.readable()) == {"x", "m"}


def test_a_child_whose_parent_was_never_discovered_is_known() -> None:
    found = partitions("a")
    found.end("a", (Child("m", at(10), ("a", "unknown")),))
    assert found.orphans() == {"m": ("unknown",)}
    found = partitions("a", "b")
    found.end("a", (Child("m", at(10), ("a", "b")),))
    assert found.orphans() == {}


def test_a_checkpoint_from_before_ended_partitions_were_kept_is_read() -> None:
    old = '["2026-11-23T09:00:00.000000000Z",{"a":{"position":"2026-11-23T09:00:05.000000001Z",'
    old += '"seen":[],"waiting_for":[]}}]'
    found = PartitionSet.from_bytes(old.encode())
    assert found.watermark() == found.ask_from("a") == "2026-11-23T09:00:05.000000001Z"


def test_a_query_asks_an_instant_before_what_was_read_through_but_never_before_the_partition() -> None:
    found = partitions("a")
    assert found.ask_from("a") == START
    found.advance("a", at(5))
    assert found.ask_from("a") == at(5)
    assert PartitionSet.from_bytes(found.to_bytes()).ask_from("a") == at(5)


def test_the_watermark_does_not_go_back_when_a_child_begins_where_its_parent_was_read_through() -> None:
    found = partitions("a")
    found.advance("a", at(5))
    before = found.watermark()
    found.end("a", (Child("x", at(5), ("a",)),))
    assert found.watermark() == before
    assert found.claim("x", change(5))


@pytest.mark.parametrize("seed", range(20))
def test_the_watermark_is_the_plain_minimum_over_any_history(seed: int) -> None:
    rng = random.Random(seed)
    found = partitions(*(f"r{i}" for i in range(rng.randint(1, 8))))
    made, checked, last = 0, 0, START
    for _ in range(600):
        if not found.partitions:
            break
        token = rng.choice(sorted(found.readable()))
        partition = found.partitions[token]
        moment = float(partition.position[-13:-1]) + rng.choice([0, 0.02, 0.1])
        step = rng.random()
        if moment >= 59:
            found.end(token, ())
        elif step < 0.4:
            found.claim(token, change(moment, rng.choice("xy")))
        elif step < 0.7:
            found.advance(token, at(moment))
        elif step < 0.8 and len(found.readable()) > 1:
            # A merge: one ends now, the others find out when they end.
            other = rng.choice(sorted(set(found.readable()) - {token}))
            start = at(max(moment, float(found.partitions[other].position[-13:-1])))
            made += 1
            merged = (Child(f"c{made}", start, (token, other)),)
            found.end(token, merged)
            if rng.random() < 0.5:
                found.end(other, merged)
            else:
                found.end(other, ())
        else:
            made += 2
            found.end(token, tuple(Child(f"c{made + i}", at(moment), (token,)) for i in range(rng.choice([1, 2]))))
        if rng.random() < 0.1:
            found = PartitionSet.from_bytes(found.to_bytes())
        if rng.random() < 0.6:
            plain = min((p.position for p in (found.partitions or {}).values()), default=END)
            assert found.watermark() == plain >= last
            last, checked = plain, checked + 1
    assert checked > 5


def test_the_watermark_of_thousands_of_partitions_compares_few_positions() -> None:
    """Beam asks for it with every record."""

    compared: Counter[str] = Counter()

    class Counting(str):
        __slots__ = ()

        def __lt__(self, other: str) -> bool:
            compared["positions"] += 1
            return str.__lt__(self, other)

        def __gt__(self, other: str) -> bool:
            compared["positions"] += 1
            return str.__gt__(self, other)

    found = PartitionSet(START)
    found.begin([Child(f"p{i}", Counting(START), ()) for i in range(5000)])
    for partition in (found.partitions or {}).values():
        partition.position = Counting(partition.position)
    found.watermark()
    compared.clear()
    for i in range(1000):
        found.claim(f"p{i}", change(1)._replace(commit_timestamp=Counting(at(1))))
        found.watermark()
    assert 0 < compared["positions"] < 100 * 1000
