"""The dead-letter queue on a real folder: nothing lost, nothing twice, after any repeat or interruption."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.changes import Coordinates, DeadLetter, Reason
from pipeline.sink import dead_letters
from pipeline.sink import files as store
from pipeline.sink.dead_letters import DeadLetterError, DeadLetterQueue, decode, encode


def letter(second: int, *, table: str = "payment_audit_trail", **fields: Any) -> DeadLetter:
    return DeadLetter(
        **{
            "coordinates": Coordinates(
                "PaymentAuditTrailChangeStream",
                table,
                f"2026-11-23T09:12:{second:02d}.123456789Z",
                "tx1",
                "00000000",
                0,
            ),
            "step": "WriteChanges",
            "reason": Reason.REJECTED,
            "message": "the row is larger than an append takes.",
            "attempts": 1,
            "first_failed_at": "2026-11-23T09:13:00Z",
            "last_failed_at": "2026-11-23T09:13:00Z",
            "change": {"new": {"Amount": "12.340000001", "Metadata": '{"big": 12345678901234567890}'}, "old": {}},
            **fields,
        }
    )


@pytest.fixture
def queue(tmp_path: Path) -> DeadLetterQueue:
    return DeadLetterQueue(str(tmp_path))


def files(queue: DeadLetterQueue) -> list[str]:
    root = Path(queue.directory)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_letter_comes_back_as_it_was_put(queue: DeadLetterQueue) -> None:
    unmasked = letter(2, change=None, step="Mask", reason=Reason.NOT_MASKABLE)
    queue.put([unmasked, letter(1)])
    assert list(queue.letters()) == [letter(1), unmasked]
    assert decode(encode(unmasked)) == unmasked


def test_a_file_lies_in_the_folder_of_the_first_commit_minute(queue: DeadLetterQueue) -> None:
    queue.put([letter(9), letter(1)])
    assert [name.rsplit("/", 1)[0] for name in files(queue)] == ["retry/2026/11/23/09/12"]


def test_putting_the_same_letters_again_changes_nothing(queue: DeadLetterQueue) -> None:
    queue.put([letter(1), letter(2)])
    queue.update([letter(1)])
    queue.put([letter(2), letter(1)])
    assert len(files(queue)) == 1
    assert [stored.attempts for stored in queue.letters()] == [2, 1]


def test_two_tables_can_have_letters_with_one_change_id(queue: DeadLetterQueue) -> None:
    both = [letter(1), letter(1, table="audit_logs")]
    assert both[0].coordinates.change_id == both[1].coordinates.change_id
    queue.put(both)
    queue.resolve([both[0].id])
    assert list(queue.letters()) == [both[1]]


def test_resolving_takes_only_the_resolved_letters_out_of_a_file(queue: DeadLetterQueue) -> None:
    queue.put([letter(second) for second in range(5)])
    assert queue.resolve([letter(1).id, letter(3).id, "unknown"]) == 2
    assert list(queue.letters()) == [letter(0), letter(2), letter(4)]


def test_a_file_without_letters_is_removed(queue: DeadLetterQueue) -> None:
    queue.put([letter(1)])
    list(queue.letters())
    assert queue.discard([letter(1).id]) == 1
    assert files(queue) == []


def test_a_letter_put_again_after_others_of_its_file_were_resolved_is_kept(queue: DeadLetterQueue) -> None:
    queue.put([letter(1), letter(2)])
    queue.resolve([letter(1).id])
    queue.put([letter(1), letter(2)])
    assert list(queue.letters()) == [letter(1), letter(2)]


def test_a_failed_retry_adds_an_attempt_and_keeps_when_it_first_failed(queue: DeadLetterQueue) -> None:
    queue.put([letter(1), letter(2)])
    again = replace(letter(1), first_failed_at="later", last_failed_at="later", message="the table is gone.")
    assert queue.update([again]) == [
        replace(letter(1), attempts=2, last_failed_at="later", message="the table is gone.")
    ]
    assert [stored.attempts for stored in queue.letters()] == [2, 1]


def test_a_letter_set_aside_is_retried_no_more(queue: DeadLetterQueue) -> None:
    queue.put([letter(1), letter(2)])
    queue.set_aside([letter(1)])
    assert list(queue.letters()) == [letter(2)]
    assert list(queue.letters("severe")) == [letter(1)]
    assert queue.counts() == {"retry": 1, "severe": 1}
    assert queue.find(letter(1).id) == ("severe", letter(1))


def test_a_released_letter_is_retried_with_no_attempts_behind_it(queue: DeadLetterQueue) -> None:
    queue.put([letter(1), letter(2, attempts=4)])
    queue.set_aside([letter(1, attempts=5)])
    assert queue.release([letter(1).id, letter(2).id, "unknown"]) == 2
    assert [(stored.id, stored.attempts) for stored in queue.letters()] == [(letter(1).id, 0), (letter(2).id, 0)]
    assert queue.counts() == {"retry": 2, "severe": 0}


@pytest.mark.parametrize("step", ["set_aside", "release"])
def test_a_crash_between_writing_and_removing_loses_no_letter(
    queue: DeadLetterQueue, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.put([letter(1), letter(2)])
    if step == "release":
        queue.set_aside([letter(1)])

    def crash(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as broken:
        broken.setattr(queue, "_remove", crash)
        with pytest.raises(SystemExit):
            queue.set_aside([letter(1)]) if step == "set_aside" else queue.release([letter(1).id])
    # It is in both folders: severe counts, so that nobody retries what was given up.
    assert len(files(queue)) > 1
    assert list(queue.letters()) == [letter(2)]
    assert list(queue.letters("severe")) == [letter(1)]
    assert queue.counts() == {"retry": 1, "severe": 1}
    # Doing it again completes it, and resolving it removes every copy.
    queue.release([letter(1).id])
    assert queue.counts() == {"retry": 2, "severe": 0}
    queue.resolve([letter(1).id, letter(2).id])
    assert files(queue) == []


def test_a_crash_while_writing_leaves_the_old_file_whole(
    queue: DeadLetterQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.put([letter(1), letter(2)])

    def crash(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as broken:
        broken.setattr("pipeline.sink.files.os.fsync", crash)
        with pytest.raises(SystemExit):
            queue.resolve([letter(1).id])
    assert list(queue.letters()) == [letter(1), letter(2)]


def test_of_two_copies_the_one_with_more_attempts_counts(queue: DeadLetterQueue) -> None:
    queue.put([letter(1, attempts=3)])
    queue.put([letter(1), letter(2)])
    assert [stored.attempts for stored in queue.letters()] == [3, 1]
    queue.resolve([letter(1).id])
    assert list(queue.letters()) == [letter(2)]


def test_a_line_that_is_no_dead_letter_is_kept_and_counted(queue: DeadLetterQueue) -> None:
    queue.put([letter(1), letter(2)])
    path = Path(queue.directory) / files(queue)[0]
    path.write_bytes(path.read_bytes() + b'{"id": "half a li\n')
    queue.resolve([letter(1).id])
    assert list(queue.letters()) == [letter(2)]
    assert queue.unreadable() == 1
    assert b"half a li" in path.read_bytes()


def test_an_unreadable_line_is_not_repeated_in_the_error() -> None:
    with pytest.raises(DeadLetterError) as raised:
        decode(b'{"coordinates": "4111111111111111"}')
    assert "4111" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_another_process_may_have_moved_a_letter_since_it_was_listed(queue: DeadLetterQueue) -> None:
    queue.put([letter(1), letter(2)])
    assert len(list(queue.letters())) == 2
    other = DeadLetterQueue(queue.directory)
    other.set_aside([letter(1)])
    assert queue.resolve([letter(1).id]) == 1
    assert queue.counts() == {"retry": 1, "severe": 0}


def test_many_letters_are_resolved_with_one_write_a_file(
    queue: DeadLetterQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for minute in range(3):
        queue.put(
            [
                replace(
                    letter(0), coordinates=letter(0).coordinates._replace(mod_index=index, record_sequence=f"{minute}")
                )
                for index in range(1000)
            ]
        )
    stored = list(queue.letters())
    assert len(stored) == 3000
    writes = []
    swap = queue._files.swap

    def counted(name: str, version: Any, content: bytes | None) -> store.Swap:
        writes.append(name)
        return swap(name, version, content)

    monkeypatch.setattr(queue._files, "swap", counted)
    assert queue.resolve([each.id for each in stored[:2999]]) == 2999
    assert sorted(writes) == sorted(set(writes))
    assert len(writes) == 3
    assert list(queue.letters()) == stored[2999:]


def test_a_queue_travels_to_a_worker(queue: DeadLetterQueue) -> None:
    pickle.loads(pickle.dumps(queue)).put([letter(1)])
    assert list(queue.letters()) == [letter(1)]


def test_a_queue_in_an_object_store_behaves_the_same(tmp_path: Path) -> None:
    # Whole objects, no folders and no renaming, as in Cloud Storage.
    queue = DeadLetterQueue(f"memory://{tmp_path.name}/dead-letters")
    assert queue.counts() == {"retry": 0, "severe": 0}
    queue.put([letter(1), letter(2), letter(3)])
    queue.set_aside([letter(2)])
    queue.resolve([letter(1).id])
    assert list(queue.letters()) == [letter(3)]
    assert queue.release([letter(2).id]) == 1
    assert [(stored.id, stored.attempts) for stored in queue.letters()] == [(letter(2).id, 0), (letter(3).id, 1)]
    queue.discard([letter(2).id, letter(3).id])
    assert queue.counts() == {"retry": 0, "severe": 0}


def test_two_streams_that_watch_one_table_overwrite_no_letter_of_each_other(queue: DeadLetterQueue) -> None:
    first = letter(1)
    second = replace(first, coordinates=first.coordinates._replace(stream="AnotherStream"), message="another")
    assert first.id == second.id
    queue.put([first, second])
    queue.put([second, first])
    assert sorted(queue.letters(), key=lambda x: x.message) == sorted([first, second], key=lambda x: x.message)
    queue.set_aside([second])
    assert sum(queue.counts().values()) == 2


def test_files_are_bounded(queue: DeadLetterQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "MOST_BYTES", 5_000)
    monkeypatch.setattr(dead_letters, "_KEPT_BYTES", 5_000)
    many = [letter(second, change={"keys": {"PUID": f"p{second}"}, "new": {"A": "x" * 1_000}}) for second in range(30)]
    large = letter(40, change={"keys": {}, "new": {"A": "x" * 9_000}})
    queue.put([large, *many])
    queue.put([*many, large])
    sizes = [(Path(queue.directory) / name).stat().st_size for name in files(queue)]
    assert len(sizes) == 11
    assert sorted(sizes)[-2] <= 5_000
    assert list(queue.letters()) == [*many, large]
    queue.set_aside(queue.letters())
    assert list(queue.letters("severe")) == [*many, large]
    assert queue.release(each.id for each in many) == 30
    assert [each.id for each in queue.letters()] == [each.id for each in many]
    assert max((Path(queue.directory) / name).stat().st_size for name in files(queue) if "retry" in name) <= 5_000


def test_a_listing_keeps_few_files_and_reads_them_twice_at_most(
    queue: DeadLetterQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "_KEPT_BYTES", 20_000)
    # Two writers, whose dead letters alternate; a file a minute would be read again for each.
    for start in range(2):
        for at in range(start, 60, 10):
            queue.put([letter(second) for second in range(at, at + 10, 2) if second < 60])
    names = files(queue)
    reads: list[str] = []
    read = queue._files.read

    def counted(name: str) -> tuple[bytes, Any]:
        reads.append(name)
        return read(name)

    monkeypatch.setattr(queue._files, "read", counted)
    assert [each.id for each in queue.letters()] == [letter(second).id for second in range(60)]
    assert len(reads) <= 2 * len(names)


def test_a_directory_of_another_kind_is_refused_with_the_rule() -> None:
    with pytest.raises(ValueError, match="must be a path or a gs:// URL"):
        DeadLetterQueue("s3://bucket")


def test_a_letter_of_a_version_without_the_newer_fields_is_read() -> None:
    line = encode(letter(1)).replace(b',"released":""', b"")
    assert b"released" not in line
    assert decode(line) == letter(1)


@pytest.mark.parametrize(
    ("change", "payment"),
    [
        ({"keys": {"PUID": "p1"}, "new": {}, "old": {}}, "p1"),
        ({"row": {"PUID": "p1", "Amount": 3}}, "p1"),
        ({"keys": {"Id": 3}, "new": {"PUID": "p1"}, "old": {"PUID": "p0"}}, "p1"),
        ({"keys": {"Id": 3}, "new": {}, "old": {"PUID": "p1"}}, "p1"),
        ({"keys": {"PUID": 17}}, "17"),
        ({"row": None}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_payment_of_a_dead_letter_of_version_0_1_is_found_whatever_it_holds(
    change: Any, payment: str | None
) -> None:
    line = json.loads(encode(letter(1, change=change)))
    del line["payment"]
    assert decode(json.dumps(line).encode()).payment == payment


def test_a_dead_letter_keeps_its_payment() -> None:
    assert decode(encode(replace(letter(1), payment="p1"))).payment == "p1"
