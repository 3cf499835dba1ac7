"""Several readers share a stream: however partitions split, merge and move, each is read by exactly one of them."""

from __future__ import annotations

import pickle
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Final

import pytest
from apache_beam.utils.timestamp import MAX_TIMESTAMP
from hypothesis import given, settings
from hypothesis import strategies as st

from contract import timestamps
from pipeline.sink.track_position import _Reader, slowest
from pipeline.source.beam_source import ChangeStreamSource, PartitionSetMark
from pipeline.source.partition_threads import Reading
from pipeline.source.partitions import END, PartitionSet, Share
from pipeline.source.records import Child, Heartbeat, ReadPosition
from tests.unit.test_partitions import at as at_second
from tests.unit.test_partitions import change
from tests.unit.test_source_read import START, STREAM, FakeSpanner, bundle, changes, read_until, spanner

__all__ = ["spanner"]

_BEGAN: Final = timestamps.to_nanos("2026-11-23T09:00:00.000000000Z")
_STEP: Final = 1_000_000
_CHANGE: Final = change(0)


def at(moment: int) -> str:
    """A time of the model: a millisecond apart each."""
    return timestamps.from_nanos(_BEGAN + moment * _STEP)


@dataclass
class Node:
    """A partition of the model: its changes have start <= moment < end."""

    token: str
    start: int
    parents: tuple[str, ...] = ()
    end: int | None = None
    children: list[Child] = field(default_factory=list)
    commits: list[int] = field(default_factory=list)


class Tree:
    """A random history of partitions: what splits, merges, moves, and what is committed where."""

    LAST: Final = 10

    def __init__(self, chance: random.Random) -> None:
        self.nodes: dict[str, Node] = {}
        self._chance = chance
        for _ in range(chance.randint(1, 6)):
            self._add(0, ())
        for moment in range(1, self.LAST):
            while chance.random() < 0.35:
                self._replace(moment)
        for node in self.nodes.values():
            node.commits = [
                m for m in range(node.start, node.end or self.LAST) if m == node.start or chance.random() < 0.5
            ]

    def _add(self, start: int, parents: tuple[str, ...]) -> Child:
        token = f"{self._chance.getrandbits(40):010x}"
        self.nodes[token] = Node(token, start, parents)
        return Child(token, at(start), parents)

    def _replace(self, moment: int) -> None:
        live = sorted(n.token for n in self.nodes.values() if n.end is None and n.start < moment)
        if not live:
            return
        ended = self._chance.sample(live, min(len(live), self._chance.choice([1, 1, 1, 2, 2, 3])))
        children = [self._add(moment, tuple(ended)) for _ in range(self._chance.choice([1, 1, 2, 3]))]
        for token in ended:
            self.nodes[token].end = moment
            self.nodes[token].children = children

    def boundaries(self) -> list[int]:
        return sorted({node.start for node in self.nodes.values()})

    def roots(self, moment: int, *, parents: bool) -> list[Child]:
        """What a query without a token names. `parents`: also those that end at that very time, and fewer children."""
        ending = {n.token for n in self.nodes.values() if parents and n.end == moment}
        found = [n for n in self.nodes.values() if n.start <= moment and (n.end is None or n.end > moment)]
        # A child may be left out only where each of its parents announces it.
        kept = [n for n in found if not (ending and n.start == moment and self._chance.random() < 0.5)]
        return [Child(n.token, at(moment), ()) for n in [*kept, *(self.nodes[token] for token in sorted(ending))]]


class Reader:
    """One reader over the model. `read` has what it was given, by partition and moment."""

    def __init__(self, tree: Tree, start: int, share: Share, roots: list[Child]) -> None:
        self.tree = tree
        self.read: Counter[tuple[str, int]] = Counter()
        self.set = PartitionSet(at(start), share=share)
        self.set.begin(roots)

    def step(self, chance: random.Random) -> None:
        """A little of one partition: some of its changes, a heartbeat, or its end with its children."""
        readable = sorted(self.set.readable())
        if not readable:
            return
        token = chance.choice(readable)
        node = self.tree.nodes[token]
        if chance.random() < 0.1:
            self.set = PartitionSet.from_bytes(self.set.to_bytes())
        position = self.set.readable()[token]
        upto = chance.choice([chance.randint(0, Tree.LAST), Tree.LAST])
        for moment in node.commits:
            asked = at(moment) >= self.set.ask_from(token) and moment <= upto
            if asked and self.set.claim(token, _CHANGE._replace(commit_timestamp=at(moment))):
                self.read[token, moment] += 1
        # A heartbeat at the very end may still come before the children.
        if node.end is not None and upto >= node.end and chance.random() < 0.8:
            self.set.end(token, tuple(node.children))
        elif at(upto) >= position:
            self.set.advance(token, at(min(upto, node.end or upto)))

    @property
    def behind(self) -> bool:
        return any(
            self.tree.nodes[token].end is not None or position <= at(Tree.LAST)
            for token, position in self.set.readable().items()
        )


def run(
    tree: Tree, start: int, readers: int, chance: random.Random, *, steps: int | None = None, parents: bool
) -> tuple[Counter[tuple[str, int]], str]:
    """Reads from `start` to the end, or for some steps. Returns what was read, and the slowest reader's position."""
    roots = tree.roots(start, parents=parents)
    share = [Reader(tree, start, Share(i, readers), chance.sample(roots, len(roots))) for i in range(readers)]
    positions = [at(start)] * readers
    while (behind := [i for i in range(readers) if share[i].behind]) and steps != 0:
        who = chance.choice(behind)
        share[who].step(chance)
        now = share[who].set.watermark()
        # By no more than the instant at which a child may begin, and only from a checkpoint.
        assert now >= timestamps.before(positions[who]), "a position went back"
        positions[who] = now
        steps = steps and steps - 1
    read = sum((r.read for r in share), Counter[tuple[str, int]]())
    owners: dict[str, set[int]] = defaultdict(set)
    for reader in share:
        for token, _ in reader.read:
            owners[token].add(reader.set.share.reader)
    assert all(len(of) == 1 for of in owners.values()), "a partition was read by two readers"
    # A child may begin an instant before the time that its parent was read through.
    return read, timestamps.before(min(reader.set.watermark() for reader in share))


def committed(tree: Tree, since: str, before: str = END) -> Counter[tuple[str, int]]:
    return Counter({(n.token, m): 1 for n in tree.nodes.values() for m in n.commits if since <= at(m) < before})


@settings(max_examples=1000)
@given(seed=st.integers(0, 2**32), readers=st.integers(1, 7), parents=st.booleans())
def test_each_partition_is_read_by_exactly_one_reader(seed: int, readers: int, parents: bool) -> None:
    chance = random.Random(seed)
    tree = Tree(chance)
    read, _ = run(tree, 0, readers, chance, parents=parents)
    assert read == committed(tree, at(0))


@settings(max_examples=1000)
@given(seed=st.integers(0, 2**32), runs=st.lists(st.integers(1, 7), min_size=2, max_size=4), parents=st.booleans())
def test_another_number_of_readers_resumes_where_the_slowest_was(seed: int, runs: list[int], parents: bool) -> None:
    """Nothing of before the position is lost, and nothing from it on is read twice in a run."""
    chance = random.Random(seed)
    tree = Tree(chance)
    start, done = 0, Counter[tuple[str, int]]()
    for readers in runs[:-1]:
        read, position = run(tree, start, readers, chance, steps=chance.randint(0, 60), parents=parents)
        assert set(read.values()) <= {1}
        done |= read
        assert committed(tree, at(0), position) - done == Counter(), "a change before the position was not read"
        # Rounded down to a time of the model, which may be a boundary.
        start = max(0, (timestamps.to_nanos(min(position, at(Tree.LAST))) - _BEGAN) // _STEP)
    read, _ = run(tree, start, runs[-1], chance, parents=parents)
    assert read == committed(tree, at(start))
    assert done | read == committed(tree, at(0))


@pytest.mark.parametrize("parents", [False, True])
@pytest.mark.parametrize("readers", range(1, 8))
def test_reading_from_any_boundary_reads_each_partition_once(readers: int, parents: bool) -> None:
    for seed in range(10):
        chance = random.Random(seed)
        tree = Tree(chance)
        for boundary in tree.boundaries():
            read, _ = run(tree, boundary, readers, chance, parents=parents)
            assert read == committed(tree, at(boundary))


# Mutable key ranges: keys move while partitions live on, and who says that a partition starts is not documented.


class Moving:
    """A random history: partitions start and end at any time, and some that live then say that one starts."""

    LAST: Final = 12

    def __init__(self, chance: random.Random) -> None:
        self.lives: dict[str, tuple[int, int | None]] = {f"r{i}": (0, None) for i in range(chance.randint(1, 4))}
        self.says: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for moment in range(1, self.LAST):
            live = sorted(t for t, (start, end) in self.lives.items() if end is None and start < moment)
            for _ in range(chance.choice([0, 0, 1, 2])):
                token = f"p{len(self.lives)}"
                for source in chance.sample(live, chance.randint(1, len(live))):
                    self.says[source].append((moment, token))
                self.lives[token] = moment, None
            for token in live[1:]:
                if chance.random() < 0.25:
                    self.lives[token] = self.lives[token][0], moment

    def moments(self, token: str) -> range:
        """When it has changes: also at its very end."""
        start, end = self.lives[token]
        return range(start, (self.LAST if end is None else end) + 1)

    def roots(self, moment: int) -> list[Child]:
        """What is live then, and what ends then."""
        lives = self.lives.items()
        return [
            Child(t, at(moment), ()) for t, (start, end) in lives if start <= moment and (end is None or end >= moment)
        ]


def read_moving(history: Moving, start: int, chance: random.Random) -> Counter[tuple[str, int]]:
    """What one reader reads from `start` to the end, with queries that repeat and checkpoints in between."""
    read: Counter[tuple[str, int]] = Counter()
    partitions = PartitionSet(at(start))
    partitions.begin(history.roots(start), shared=False)
    while behind := sorted(t for t, position in partitions.readable().items() if position <= at(history.LAST)):
        token = chance.choice(behind)
        if chance.random() < 0.2:
            partitions = PartitionSet.from_bytes(partitions.to_bytes())
        asked, upto = partitions.ask_from(token), chance.choice([chance.randint(0, history.LAST), history.LAST])
        _, end = history.lives[token]
        for moment in range(upto + 1):
            if at(moment) >= asked:
                partitions.add(Child(t, at(moment), ()) for m, t in history.says[token] if m == moment)
                if moment in history.moments(token) and partitions.claim(
                    token, _CHANGE._replace(commit_timestamp=at(moment))
                ):
                    read[token, moment] += 1
        if end is not None and end <= upto:
            partitions.end(token, ())
        elif at(upto) >= partitions.readable()[token]:
            partitions.advance(token, at(upto))
    return read


@settings(max_examples=300)
@given(seed=st.integers(0, 2**32))
def test_partitions_that_start_while_others_live_on_are_read_once_from_any_time(seed: int) -> None:
    chance = random.Random(seed)
    history = Moving(chance)
    for start in chance.sample(range(history.LAST), 4):
        wanted = {(t, m) for t in history.lives for m in history.moments(t) if m >= start}
        assert read_moving(history, start, chance) == Counter(wanted)


# As a Beam source: its parts, their checkpoints, and what dies.


def parts(readers: int) -> list[ChangeStreamSource]:
    """The parts of a source, each as another worker gets it."""
    whole = pickle.loads(pickle.dumps(ChangeStreamSource(STREAM, START, Reading(), readers)))
    return [pickle.loads(pickle.dumps(part)) for part in whole.split(20)]


def test_readers_share_a_stream_and_one_that_dies_reads_again_from_its_own_checkpoint(spanner: FakeSpanner) -> None:
    spanner.partitions = {
        token: [*(change(i / 10, f"{token}{i}") for i in range(20)), Heartbeat(at_second(20))] for token in "abcdefgh"
    }
    sources = parts(3)
    marks: list[PartitionSetMark | None] = [None] * 3
    found: Counter[str] = Counter()
    by_reader: dict[str, set[int]] = defaultdict(set)
    for turn in range(300):
        which = turn % 3
        if found.total() == 160:
            break
        reader = sources[which].create_reader(None, marks[which])
        records = bundle(reader, 7)
        if turn % 4 == 3:
            # The worker dies: neither its records nor its checkpoint count.
            reader.close()
            continue
        found.update(changes(records))
        for record in records:
            by_reader["position" if isinstance(record, ReadPosition) else record.server_transaction_id[0]].add(which)
            if isinstance(record, ReadPosition):
                assert (record.reader, record.readers) == (which, 3)
        marks[which] = reader.get_checkpoint_mark()
    assert found == Counter({change(0, f"{t}{i}").id: 1 for t in "abcdefgh" for i in range(20)})
    assert by_reader.pop("position") == {0, 1, 2}
    assert all(len(readers) == 1 for readers in by_reader.values()) and len(by_reader) == 8


def test_two_readers_in_one_process_do_not_take_turns_with_their_queries(spanner: FakeSpanner) -> None:
    tokens = [next(t for t in "abcdefgh" if Share(i, 2).has(t)) for i in range(2)]
    spanner.partitions = {token: [change(i / 10, f"{token}{i}") for i in range(40)] for token in tokens}
    readers = [part.create_reader(None, None) for part in parts(2)]
    found: Counter[str] = Counter()
    for turn in range(40):
        reader = readers[turn % 2]
        found.update(changes(bundle(reader, 5)))
        reader.get_checkpoint_mark()
    for reader in readers:
        reader.close()
    assert found.total() == len(found) == 80
    assert spanner.asked == Counter(dict.fromkeys(tokens, 1))


def test_a_reader_without_partitions_says_the_end_of_time_and_ends(spanner: FakeSpanner) -> None:
    token = next(iter(spanner.partitions))
    owner = next(i for i in range(5) if Share(i, 5).has(token))
    for index, part in enumerate(parts(5)):
        reader = part.create_reader(None, None)
        [first] = bundle(reader, 1)
        assert isinstance(first, ReadPosition) and first.reader == index
        if index != owner:
            assert first.position == END
            assert bundle(reader) == []
            assert reader.get_watermark() == MAX_TIMESTAMP
        else:
            assert first.position == START
            assert reader.get_watermark() < MAX_TIMESTAMP
        reader.close()


def test_one_reader_reads_a_stream_whose_source_is_not_split(spanner: FakeSpanner) -> None:
    """Beam goes on with the whole source where its split raises."""
    reader = ChangeStreamSource(STREAM, START, Reading(), 4).create_reader(None, None)
    found = read_until(reader, lambda found: len(changes(found)) >= 100)
    reader.close()
    assert {(p.reader, p.readers) for p in found if isinstance(p, ReadPosition)} == {(0, 1)}


def test_a_single_reader_keeps_the_checkpoint_that_it_always_had() -> None:
    assert PartitionSet(START).to_bytes() == f'["{START}",null,{{}}]'.encode()
    shared = PartitionSet(START, share=Share(1, 3))
    assert PartitionSet.from_bytes(shared.to_bytes()).share == Share(1, 3)


# The resume position.


def position(stream: str, reader: int, readers: int) -> _Reader:
    return _Reader(stream, reader, readers)


def test_the_resume_position_is_that_of_the_slowest_reader_of_any_stream() -> None:
    known = {
        position("A", 0, 2): at(7),
        position("A", 1, 2): at(5),
        position("B", 0, 2): at(6),
        position("B", 1, 2): END,
    }
    assert slowest(known, ("A", "B")) == at(5)


def test_there_is_no_resume_position_before_each_reader_of_each_stream_has_one() -> None:
    """Until then every reader begins at the same time, on which their shares depend."""
    known = {position("A", i, 3): at(7) for i in (0, 2)}
    assert slowest(known, ("A",)) is None
    known[position("A", 1, 3)] = at(9)
    assert slowest(known, ("A",)) == at(7)
    assert slowest(known, ("A", "B")) is None
