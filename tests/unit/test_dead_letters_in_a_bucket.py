"""The dead-letter queue in Cloud Storage, over HTTP: preconditions, pages, lost answers, two that work at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from google.api_core import exceptions

from contract.changes import Coordinates, DeadLetter, Reason
from pipeline.sink.dead_letters import DeadLetterQueue
from pipeline.sink.files import Bucket, Swap
from tests.strict.storage import StrictStorage, storage

BUCKET = "audit-dead-letters"


def letter(number: int, **fields: Any) -> DeadLetter:
    at = Coordinates("S", "payment_audit_trail", f"2026-11-23T09:12:{number:02d}.000000000Z", "tx", "00", 0)
    values: dict[str, Any] = {"step": "AppendRows", "reason": Reason.REJECTED, "message": "fix the table."}
    times = {"first_failed_at": "2026-11-23T09:13:00Z", "last_failed_at": "2026-11-23T09:13:00Z"}
    return DeadLetter(coordinates=at, **(values | times | {"attempts": 4} | fields))


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictStorage]:
    with storage(BUCKET) as served:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", served.url)
        yield served
        assert served.unconditional == [], "a write that named no generation"


def opened(directory: str = f"gs://{BUCKET}/letters") -> DeadLetterQueue:
    queue = DeadLetterQueue(directory)
    # Nobody waits for a service that fails at once.
    assert isinstance(queue._files, Bucket)
    queue._files._sleep = lambda _: None
    return queue


def ids(letters: list[DeadLetter]) -> list[str]:
    return [each.id for each in letters]


@pytest.mark.parametrize("directory", [f"gs://{BUCKET}", f"gs://{BUCKET}/", f"gs://{BUCKET}/a/b/"])
def test_a_bucket_holds_the_queue_as_a_folder_does(cloud: StrictStorage, directory: str) -> None:
    queue = opened(directory)
    assert (queue.exists(), queue.counts()) == (True, {"retry": 0, "severe": 0})
    for number in range(10):  # more than a page
        queue.put([letter(number)])
    assert ids(list(queue.letters())) == ids([letter(number) for number in range(10)])
    queue.set_aside([letter(3)])
    assert queue.release([letter(3).id]) == 1
    assert [each.attempts for each in queue.update([letter(4)])] == [5]
    queue.resolve(letter(number).id for number in range(9))
    assert ids(list(queue.letters())) == [letter(9).id]
    assert cloud.names(BUCKET)[0].startswith(f"{directory[5:].strip('/')}/retry/2026/11/23/09/12/"[len(BUCKET) + 1 :])
    queue.discard([letter(9).id])
    assert cloud.names(BUCKET) == []


def test_a_bucket_that_is_not_there_is_said(cloud: StrictStorage) -> None:
    assert not opened("gs://another").exists()
    with pytest.raises(exceptions.NotFound):
        opened("gs://another").put([letter(1)])


def test_an_object_of_more_than_eight_megabytes_is_written_on_its_condition_too(cloud: StrictStorage) -> None:
    queue = opened()
    large = letter(1, change={"keys": {"PUID": "p1"}, "new": {"A": "x" * 9_000_000}})
    queue.put([large])
    assert cloud.uploads
    assert list(queue.letters()) == [large]
    files = queue._files
    [name] = files.list("retry")
    _, version = files.read(name)
    assert files.swap(name, version, b"y" * 9_000_000) is Swap.DONE
    assert files.swap(name, version, b"z" * 9_000_000) is Swap.CHANGED
    assert cloud.content(BUCKET, f"letters/{name}")[:1] == b"y"


def test_a_write_that_was_refused_decides_anew_on_what_is_there_now(cloud: StrictStorage) -> None:
    """The generation is read with the content: what another wrote in between is never overwritten."""
    job, person = opened(), opened()
    job.put([letter(1), letter(2)])
    stale = job._load(job._files.list("retry")[0])
    person.update([letter(1)])
    assert job._swap(stale, [letter(2)]) is Swap.CHANGED
    assert job._swap(stale, []) is Swap.CHANGED
    assert [each.attempts for each in job.letters()] == [5, 4]


@pytest.mark.parametrize("status", [503, 500, 429])
def test_a_service_that_fails_for_a_moment_is_asked_again(cloud: StrictStorage, status: int) -> None:
    queue = opened()
    cloud.refuse.extend([status, status])
    queue.put([letter(1)])
    cloud.refuse.extend([status, status])
    assert queue.resolve([letter(1).id]) == 1
    cloud.refuse.extend([status] * 20)
    with pytest.raises(exceptions.GoogleAPICallError):
        queue.put([letter(2)])
    cloud.refuse.clear()
    assert cloud.names(BUCKET) == []


@pytest.mark.parametrize("lost", range(1, 4))
@pytest.mark.parametrize("step", ["put", "update", "set_aside", "release", "resolve"])
def test_a_lost_answer_loses_no_letter_and_counts_none_twice(cloud: StrictStorage, step: str, lost: int) -> None:
    queue = opened()
    if step != "put":
        queue.put([letter(1), letter(2)])
    if step == "release":
        queue.set_aside([letter(1)])
    # The first, the second or the third write of the step is done, and its answer lost.
    plan = iter(range(1, 100))
    answered = cloud.answered

    def lose() -> None:
        cloud.lose = int(next(plan) == lost)
        answered()

    cloud.answered = lose  # type: ignore[method-assign]
    match step:
        case "put":
            queue.put([letter(1), letter(2)])
        case "update":
            assert [each.attempts for each in queue.update([letter(1)])] == [5]
        case "set_aside":
            assert ids(queue.set_aside([letter(1)])) == [letter(1).id]
            assert ids(list(queue.letters("severe"))) == [letter(1).id]
        case "release":
            assert queue.release([letter(1).id]) == 1
        case "resolve":
            assert queue.resolve([letter(1).id]) == 1
    left = sorted(ids([*queue.letters("retry"), *queue.letters("severe")]))
    assert left == ids([letter(2)] if step == "resolve" else [letter(1), letter(2)])


def test_an_answer_that_is_lost_while_another_changes_the_object_loses_no_letter(cloud: StrictStorage) -> None:
    """The removal that ends a move was done, its answer lost, and the object changed since: the copy stays."""
    job, person = opened(), opened()
    job.put([letter(1), letter(2)])
    [name] = job._files.list("retry")

    def meanwhile(_: float) -> None:
        person.update([letter(2)])

    job._files._sleep = meanwhile  # type: ignore[attr-defined]
    parked = list(job.letters())[:1]
    answered = cloud.answered

    def lose() -> None:
        cloud.lose = int(cloud.calls[-1] == f"insert letters/{name}" and not meanwhile_done)
        meanwhile_done.append(1) if cloud.lose else None
        answered()

    meanwhile_done: list[int] = []
    cloud.answered = lose  # type: ignore[method-assign]
    assert ids(job.set_aside(parked)) == [letter(1).id]
    assert meanwhile_done
    assert ids(list(job.letters("severe"))) == [letter(1).id]
    assert [(each.id, each.attempts) for each in job.letters("retry")] == [(letter(2).id, 5)]


def test_threads_that_park_release_and_resolve_in_a_bucket_lose_none(cloud: StrictStorage) -> None:
    letters = [letter(number) for number in range(12)]
    opened().put(letters)
    resolved = ids(letters[::4])
    errors: list[BaseException] = []

    def work(what: str) -> None:
        queue = opened()
        try:
            for at in range(3):
                if what == "park":
                    queue.set_aside(list(queue.letters("retry")))
                elif what == "release":
                    queue.release(ids(list(queue.letters("severe"))))
                else:
                    queue.resolve([resolved[at]])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(what,)) for what in ("park", "park", "release", "resolve")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    queue = opened()
    left = {each.id for kind in ("retry", "severe") for each in queue.letters(kind)}
    assert left == set(ids(letters)) - set(resolved)


def test_a_released_letter_is_not_taken_by_a_job_that_read_it_before(cloud: StrictStorage) -> None:
    job, person = opened(), opened()
    job.put([letter(1)])
    parked = job.update(list(job.letters()))
    person.release([letter(1).id])
    assert job.set_aside(parked) == []
    [left] = job.letters()
    assert replace(left, released="") == replace(parked[0], attempts=0)
