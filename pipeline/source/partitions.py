"""The set of partitions of a change stream and how far each one has been read: the source's checkpoint.

Pure: no Spanner, no Beam. Every record passes through `PartitionSet`, which says whether it is new, moves positions on,
takes in children and releases them once all their parents have ended. Because the whole set is the checkpoint, it is
saved and restored in one piece with the records that a bundle emitted.

Several readers share a stream and never communicate: each takes the first partitions whose hash is its own, and
the children whose smallest parent it has. A child then waits for no other parent: those belong to others.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace
from typing import Any, Final, NamedTuple

import orjson

from contract.timestamps import after, before
from pipeline.source.records import Child, DataChange

END = "9999-12-31T23:59:59.999999999Z"


class Share(NamedTuple):
    """Which of how many readers of a stream: `reader` counts from 0."""

    reader: int = 0
    readers: int = 1

    def has(self, root: str) -> bool:
        """Whether one of the first partitions is this reader's: the same answer on every worker."""
        return zlib.crc32(root.encode()) % self.readers == self.reader


WHOLE: Final = Share()


@dataclass(slots=True)
class Partition:
    """How far one partition has been read.

    Every change before `position` has been emitted, and of those at `position` just the ones in `seen`. `waiting_for`
    are the parents that have not ended: while there are any, the partition must not be read. It begins at `start`.
    """

    position: str
    seen: list[str] = field(default_factory=list)
    waiting_for: list[str] = field(default_factory=list)
    start: str = ""


class PartitionSet:
    """The live partitions of one change stream, or a reader's share. `partitions` is None until the first are known.

    `ended` are partitions that a record may still name and that are not to be taken in, each with the time of its end:
    those read to their end, and where there are several readers the first partitions of the others.
    """

    def __init__(
        self,
        start: str,
        partitions: dict[str, Partition] | None = None,
        ended: dict[str, str] | None = None,
        share: Share = WHOLE,
    ) -> None:
        self.start = start
        self.share = share
        self.partitions = partitions
        self._ended = ended or {}
        # One entry per partition, never ahead of its position: only the front is ever corrected. The minimum is needed
        # for every record, and there can be thousands of partitions.
        self._slowest: list[tuple[str, str]] = []
        self._enqueue((partitions or {}).keys())
        self._reported = start

    @property
    def discovered(self) -> bool:
        return self.partitions is not None

    @property
    def finished(self) -> bool:
        return self.partitions is not None and not self.partitions

    def begin(self, roots: list[Child], *, shared: bool = True) -> None:
        """Takes in the partitions that the query without a token named. They are read from the start on.

        Where the start is a boundary, a child can be among them together with parents that still announce it. Every
        reader knows all of them: they belong to their hash, not to their smallest parent. Not `shared`: the first
        reader has them all, and what follows.
        """
        self.partitions = {}
        for root in roots:
            at = max(self.start, root.start)
            if self.share.has(root.token) if shared else self.share.reader == 0:
                self.partitions[root.token] = Partition(at, start=at)
            else:
                self._ended[root.token] = at
        self._enqueue(self.partitions)

    def add(self, started: Iterable[Child]) -> None:
        """Partitions that a live one's record says have started. Several may name one, and a query again: it is taken
        in once."""
        live = self._live()
        for child in started:
            if child.token not in live and child.token not in self._ended:
                at = max(self.start, child.start)
                live[child.token] = Partition(at, start=at)
                self._enqueue((child.token,))

    def readable(self) -> dict[str, str]:
        """The partitions to read now, each with the position to read from."""
        return {token: p.position for token, p in (self.partitions or {}).items() if not p.waiting_for}

    def orphans(self) -> dict[str, tuple[str, ...]]:
        """Partitions that wait for parents that no record has named yet, with these parents. Few, and not for long."""
        live = self.partitions or {}
        waiting = {token: tuple(p for p in at.waiting_for if p not in live) for token, at in live.items()}
        return {token: parents for token, parents in waiting.items() if parents}

    def ask_from(self, token: str) -> str:
        """Where a query of the partition begins: an instant before its position.

        Children may begin at the very time that the partition was read through, and a query that starts later would
        not name them. What it returns a second time is not claimed.
        """
        partition = self._of(token)
        return max(before(partition.position), partition.start or partition.position)

    def claim(self, token: str, change: DataChange) -> bool:
        """Whether the change is new. A query that was started again returns some that are not."""
        partition = self._of(token)
        at, record_id = change.commit_timestamp, change.id
        if at < partition.position or (at == partition.position and record_id in partition.seen):
            return False
        if at > partition.position:
            partition.position = at
            partition.seen = [record_id]
        else:
            partition.seen.append(record_id)
        return True

    def advance(self, token: str, read_through: str) -> None:
        """Everything up to and including `read_through` has been emitted."""
        partition = self._of(token)
        # Not a nanosecond back: a watermark that retreats stops the pipeline.
        if read_through >= partition.position:
            partition.position = after(read_through)
            partition.seen = []

    def end(self, token: str, children: tuple[Child, ...]) -> None:
        """The partition has ended; its children wait for their other parents, which announce them again.

        A child that has ended already is not read again: where reading starts at a boundary, a child can be among the
        first partitions together with a parent that still announces it. Among several readers a child is taken in once,
        when its smallest parent ends, by whoever has that one.
        """
        live = self._live()
        ended = self._of(token)
        shared = self.share.readers > 1
        for child in children:
            if child.token in live or child.token in self._ended or (shared and token != min(child.parents)):
                continue
            at = max(self.start, child.start)
            # All the parents, not only those known so far: one that is still to be discovered has not ended either,
            # and a child that ran before it would be announced, and read, a second time.
            waiting_for = [] if shared else [p for p in child.parents if p not in self._ended]
            live[child.token] = Partition(at, [], waiting_for, at)
            self._enqueue((child.token,))
        del live[token]
        for partition in live.values():
            if token in partition.waiting_for:
                partition.waiting_for.remove(token)
        self._ended[token] = max((child.start for child in children), default=ended.position)
        self._forget_ended()

    def watermark(self) -> str:
        """No change before this time is still to come. Never goes back."""
        if self.partitions is None:
            return self.start
        slowest = self._slowest
        while slowest:
            position, token = slowest[0]
            partition = self.partitions.get(token)
            if partition is None:
                heappop(slowest)
            elif partition.position != position:
                heapreplace(slowest, (partition.position, token))
            else:
                # A child may begin an instant before the time that its parent was read through.
                self._reported = max(self._reported, position)
                return self._reported
        return END

    def to_bytes(self) -> bytes:
        self._forget_ended()
        share = [] if self.share == WHOLE else [list(self.share)]
        return orjson.dumps([self.start, self.partitions, self._ended, *share], option=orjson.OPT_SORT_KEYS)

    @classmethod
    def from_bytes(cls, data: bytes) -> PartitionSet:
        return cls.of(*orjson.loads(data))

    @classmethod
    def of(
        cls,
        start: str,
        partitions: dict[str, dict[str, Any]] | None,
        ended: dict[str, str] | None = None,
        share: tuple[int, int] = WHOLE,
    ) -> PartitionSet:
        """From what `to_bytes` wrote, or wrote before it kept what has ended."""
        found = None if partitions is None else {token: Partition(**fields) for token, fields in partitions.items()}
        return cls(start, found, ended, Share(*share))

    def _forget_ended(self) -> None:
        # A partition is named by its parents, which end when it begins, and by its siblings' records: at its end at the
        # latest. Behind the watermark nobody is left to do so.
        if self._ended:
            latest = before(self.watermark())
            self._ended = {token: end for token, end in self._ended.items() if end >= latest}

    def _enqueue(self, tokens: Iterable[str]) -> None:
        live = self._live() if self.partitions is not None else {}
        for token in tokens:
            heappush(self._slowest, (live[token].position, token))

    def _live(self) -> dict[str, Partition]:
        if self.partitions is None:
            raise RuntimeError("a change stream's partitions were used before they were discovered")
        return self.partitions

    def _of(self, token: str) -> Partition:
        return self._live()[token]
