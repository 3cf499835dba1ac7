"""Two that work on the dead letters at once: every order of their reads and writes, and real threads and processes.

An actor stops before each operation on a file; the schedule says who continues. Of the schedules with two changes of
actor some are run, in the case of the fault all, and random ones. What holds after every single operation: a dead
letter that nobody resolves or discards is in one of the two folders.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from contract.changes import Coordinates, DeadLetter, Reason
from pipeline.sink.dead_letters import DeadLetterQueue, decode
from pipeline.sink.files import Folder, Memory, Swap

# Of each kind, in each case. All of them take four minutes, and found nothing else.
_SCHEDULES = 20


def letter(number: int, **fields: Any) -> DeadLetter:
    at = Coordinates("S", "payment_audit_trail", f"2026-11-23T09:12:{number:02d}.000000000Z", "tx", "00", 0)
    values: dict[str, Any] = {
        "coordinates": at,
        "step": "AppendRows",
        "reason": Reason.REJECTED,
        "message": "fix the table.",
        "attempts": 4,
        "first_failed_at": "2026-11-23T09:13:00Z",
        "last_failed_at": "2026-11-23T09:13:00Z",
    }
    return DeadLetter(**(values | fields))


X, NEIGHBOUR = letter(1), letter(2)


class Actor:
    """Someone who works on the queue, one file operation at a time."""

    def __init__(self, files: Any, work: Callable[[DeadLetterQueue], Any]) -> None:
        self._files = files
        self._work = work
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self.error: BaseException | None = None
        self.finished = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self) -> bool:
        """One more operation. False once there is none."""
        if not self.finished:
            self._go.release()
            self._stopped.acquire()
        return not self.finished

    def _run(self) -> None:
        self._go.acquire()
        queue = DeadLetterQueue("memory://an-actor")
        queue._files = self
        try:
            self._work(queue)
        except BaseException as error:
            self.error = error
        self.finished = True
        self._stopped.release()

    def _stop(self) -> None:
        self._stopped.release()
        self._go.acquire()

    def exists(self) -> bool:
        return bool(self._files.exists())

    def list(self, folder: str) -> list[str]:
        self._stop()
        return self._files.list(folder)

    def read(self, name: str) -> tuple[bytes, Any]:
        self._stop()
        return self._files.read(name)

    def swap(self, name: str, version: Any, content: bytes | None) -> Swap:
        self._stop()
        return self._files.swap(name, version, content)


def job_retries(queue: DeadLetterQueue) -> None:
    """Reads, fails again, and parks what was tried often enough."""
    failed = [replace(each, message="again") for each in queue.letters("retry")]
    queue.set_aside([each for each in queue.update(failed) if each.attempts >= 5])


def job_resolves(queue: DeadLetterQueue) -> None:
    queue.resolve([each.id for each in queue.letters("retry") if each.id == X.id])


WORK: dict[str, Callable[[DeadLetterQueue], Any]] = {
    "put": lambda queue: queue.put([X, NEIGHBOUR]),
    "update": lambda queue: queue.update([X]),
    "set_aside": lambda queue: queue.set_aside([X]),
    "release": lambda queue: queue.release([X.id]),
    "resolve": lambda queue: queue.resolve([X.id]),
    "discard": lambda queue: queue.discard([X.id]),
    "a round of the job": job_retries,
    "a round that resolves": job_resolves,
}
REMOVES = {"resolve", "discard"}
ADDS = {"put", "set_aside"}  # of a queue that has not read before: what it is given is added


def in_retry(queue: DeadLetterQueue) -> None:
    queue.put([X, NEIGHBOUR])


def in_severe(queue: DeadLetterQueue) -> None:
    queue.put([X, NEIGHBOUR])
    queue.set_aside([X])


def in_both(queue: DeadLetterQueue) -> None:
    """As a crash between the two writes of a move leaves it."""
    in_severe(queue)
    queue.put([X, NEIGHBOUR])


def twice(queue: DeadLetterQueue) -> None:
    """As a bundle that is repeated with other rows leaves it."""
    queue.put([X, NEIGHBOUR])
    queue.put([X])


STARTS = {"in retry": in_retry, "in severe": in_severe, "in both": in_both, "twice": twice}


@cache
def _id(line: bytes) -> str:
    """Of a stored dead letter. It is asked after each operation, of the same few lines."""
    return decode(line).id


@dataclass
class Case:
    start: str
    first: str
    second: str
    runs: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"{self.first} and {self.second}, {self.start}"

    def files(self) -> Memory:
        files = Memory()
        queue = DeadLetterQueue("memory://a-case")
        queue._files = files
        STARTS[self.start](queue)
        return files

    def play(self, schedule: list[tuple[int, int]]) -> tuple[int, int]:
        """Runs (actor, operations) and then each to its end. Gives how many operations each took."""
        files = self.files()
        actors = [Actor(files, WORK[self.first]), Actor(files, WORK[self.second])]
        taken = [0, 0]
        for who, operations in [*schedule, (0, 1_000), (1, 1_000)]:
            for _ in range(operations):
                going_on = actors[who].step()
                taken[who] += 1
                self._always(files, schedule)
                if not going_on:
                    break
        assert all(actor.finished for actor in actors)
        for actor in actors:
            if actor.error:
                raise AssertionError(f"{self}: {schedule}") from actor.error
        self._at_the_end(files, schedule)
        self.runs += 1
        return taken[0], taken[1]

    def all_schedules(self) -> list[list[tuple[int, int]]]:
        """All with two changes of actor."""
        steps = max(self.play([]), self.play([(1, 1_000)]))
        return [
            [(who, first), (1 - who, second), (who, 1_000)]
            for who in (0, 1)
            for first in range(steps[who])
            for second in range(1, steps[1 - who] + 1)
        ]

    def some_schedules(self) -> Iterator[list[tuple[int, int]]]:
        chance = random.Random(str(self))
        every = self.all_schedules()
        yield from chance.sample(every, min(_SCHEDULES, len(every)))
        for _ in range(_SCHEDULES):
            yield [(chance.randrange(2), chance.randrange(1, 4)) for _ in range(40)]

    def _copies(self, files: Memory, of: DeadLetter) -> list[str]:
        return [
            name
            for folder in ("retry", "severe")
            for name in files.list(folder)
            for line in files.read(name)[0].splitlines()
            if _id(line) == of.id
        ]

    def _always(self, files: Memory, schedule: Any) -> None:
        assert self._copies(files, NEIGHBOUR), f"{self}: {schedule}: its neighbour is nowhere"
        if not {self.first, self.second} & {*REMOVES, "a round that resolves"}:
            assert self._copies(files, X), f"{self}: {schedule}: it is nowhere"

    def _at_the_end(self, files: Memory, schedule: Any) -> None:
        both = {self.first, self.second}
        if both & REMOVES and not both & ADDS:
            assert not self._copies(files, X), f"{self}: {schedule}: it came back"
        queue = DeadLetterQueue("memory://a-case")
        queue._files = files
        assert queue.resolve([X.id, NEIGHBOUR.id]) >= 1
        assert files.list("retry") + files.list("severe") == []


NAMES = sorted(WORK)
CASES = [
    Case(start, first, second)
    for start in STARTS
    for at, first in enumerate(NAMES)
    for second in NAMES[at:]
    # What a person and a job do to one dead letter at once.
    if {first, second} & {"release", "set_aside", "a round of the job", "put"}
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_none_is_lost_and_none_returns_whatever_the_order(case: Case) -> None:
    for schedule in case.some_schedules():
        case.play(schedule)
    assert case.runs > _SCHEDULES


def test_one_that_is_released_while_the_job_parks_it_is_tried_again() -> None:
    """The fault: the job wrote to severe, the person read both folders, the job removed from retry, the person from
    severe, and it was nowhere."""
    case = Case("in retry", "a round of the job", "release")
    for schedule in case.all_schedules():
        case.play(schedule)
    files = case.files()
    queue, person = DeadLetterQueue("memory://job"), DeadLetterQueue("memory://person")
    queue._files = person._files = files
    parked = queue.update(list(queue.letters("retry")))
    person.release([X.id])
    assert [each.id for each in queue.set_aside(parked)] == [NEIGHBOUR.id]
    assert [(each.id, each.attempts) for each in person.letters("retry")] == [(X.id, 0)]


def test_one_that_is_resolved_while_the_job_parks_it_does_not_return() -> None:
    files = Case("in retry", "put", "put").files()
    queue, person = DeadLetterQueue("memory://job"), DeadLetterQueue("memory://person")
    queue._files = person._files = files
    parked = queue.update(list(queue.letters("retry")))
    person.discard([X.id])
    assert [each.id for each in queue.set_aside(parked)] == [NEIGHBOUR.id]
    assert queue.find(X.id) is None


def test_one_that_was_parked_and_then_discarded_is_not_parked_again() -> None:
    files = Case("in severe", "put", "put").files()
    queue, person = DeadLetterQueue("memory://job"), DeadLetterQueue("memory://person")
    queue._files = person._files = files
    [parked] = queue.letters("severe")
    person.discard([X.id])
    assert (queue.set_aside([parked]), queue.find(X.id)) == ([], None)


def test_of_two_copies_one_that_is_parked_meanwhile_is_resolved_too() -> None:
    files = Case("twice", "put", "put").files()
    queue, other = DeadLetterQueue("memory://job"), DeadLetterQueue("memory://another-job")
    queue._files = other._files = files
    assert len(list(queue.letters("retry"))) == 2
    # The other job is between its two files.
    assert other._move(files.list("retry")[0], "severe", {X.id}, lambda stored: stored) == {X.id}
    assert (queue.resolve([X.id]), queue.find(X.id)) == (1, None)


# ---------------------------------------------------------------- real threads and processes, on a real directory

_PROCESS = """
import sys
from pipeline.sink.dead_letters import DeadLetterQueue
queue, what, ids = DeadLetterQueue(sys.argv[1]), sys.argv[2], sys.argv[3:]
for _ in range(6):
    if what == "park":
        queue.set_aside(list(queue.letters("retry")))
    elif what == "release":
        queue.release([letter.id for letter in queue.letters("severe")])
    else:
        for one in ids:
            queue.resolve([one])
"""


def test_processes_that_park_release_and_resolve_at_once_lose_none(tmp_path: Path) -> None:
    letters = [letter(number) for number in range(40)]
    queue = DeadLetterQueue(str(tmp_path))
    queue.put(letters[:25])
    queue.put(letters[25:])
    resolved = [each.id for each in letters[::4]]
    running = [
        subprocess.Popen([sys.executable, "-c", _PROCESS, str(tmp_path), what, *resolved])
        for what in ("park", "park", "release", "release", "resolve")
    ]
    assert [each.wait(timeout=120) for each in running] == [0] * len(running)
    left = {each.id for kind in ("retry", "severe") for each in queue.letters(kind)}
    assert left == {each.id for each in letters} - set(resolved)


def test_threads_that_swap_one_file_take_turns(tmp_path: Path) -> None:
    """The store's own guarantee, on a directory: of those that read one version, one writes."""

    def count(files: Folder) -> None:
        for _ in range(20):
            while True:
                content, version = files.read("retry/one.jsonl")
                if files.swap("retry/one.jsonl", version, content + b"x") is Swap.DONE:
                    break

    threads = [threading.Thread(target=count, args=(Folder(str(tmp_path)),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Folder(str(tmp_path)).read("retry/one.jsonl")[0] == b"x" * 80
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["one.jsonl"]


def test_in_a_directory_one_compares_and_renames_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most = [], []
    read = Folder.read

    def lingering(self: Folder, name: str) -> tuple[bytes, bytes]:
        inside.append(name)
        most.append(len(inside))
        threading.Event().wait(0.02)
        inside.pop()
        return read(self, name)

    monkeypatch.setattr(Folder, "read", lingering)
    threads = [threading.Thread(target=Folder(str(tmp_path)).swap, args=("retry/a.jsonl", b"", b"x")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(most), max(most)) == (8, 1)


def test_a_lock_whose_holder_was_killed_holds_nobody_up(tmp_path: Path) -> None:
    holder = (
        "import os, sys\n"
        "from pipeline.sink.files import Folder\n"
        "with Folder(sys.argv[1])._locked():\n"
        "    print('held', flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", holder, str(tmp_path)], stdout=subprocess.PIPE, check=False)
    assert (done.stdout, done.returncode) == (b"held\n", -9)
    name = f"retry/{uuid.uuid4().hex}.jsonl"
    assert Folder(str(tmp_path)).swap(name, b"", b"x") is Swap.DONE
