"""The set of partitions of a change stream and how far each one has been read: the source's checkpoint.

Pure: no Spanner, no Beam. Every record passes through `PartitionSet`, which says whether it is new, moves positions on,
takes in children and releases them once all their parents have ended. Because the whole set is the checkpoint, it is
saved and restored in one piece with the records that a bundle emitted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson

from contract.timestamps import after
from pipeline.source.records import Child, DataChange

END = "9999-12-31T23:59:59.999999999Z"


@dataclass(slots=True)
class Partition:
    """How far one partition has been read.

    Every change before `position` has been emitted, and of those at `position` just the ones in `seen`. `waiting_for`
    are the parents that have not ended: while there are any, the partition must not be read.
    """

    position: str
    seen: list[str] = field(default_factory=list)
    waiting_for: list[str] = field(default_factory=list)


class PartitionSet:
    """The live partitions of one change stream. `partitions` is None until the first ones are known."""

    def __init__(self, start: str, partitions: dict[str, Partition] | None = None) -> None:
        self.start = start
        self.partitions = partitions

    @property
    def discovered(self) -> bool:
        return self.partitions is not None

    @property
    def finished(self) -> bool:
        return self.partitions is not None and not self.partitions

    def begin(self, roots: list[Child]) -> None:
        """Takes in the partitions that the query without a token named. They are read from the start on."""
        self.partitions = {root.token: Partition(max(self.start, root.start)) for root in roots}

    def readable(self) -> dict[str, str]:
        """The partitions to read now, each with the position to read from."""
        return {token: p.position for token, p in (self.partitions or {}).items() if not p.waiting_for}

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
        """The partition has ended; its children wait for their other parents, which announce them again."""
        live = self._live()
        for child in children:
            if child.token not in live:
                # All the parents, not only those known so far: one that is still to be discovered has not ended either,
                # and a child that ran before it would be announced, and read, a second time.
                live[child.token] = Partition(max(self.start, child.start), [], list(child.parents))
        del live[token]
        for partition in live.values():
            if token in partition.waiting_for:
                partition.waiting_for.remove(token)

    def watermark(self) -> str:
        """No change before this time is still to come."""
        if self.partitions is None:
            return self.start
        return min((p.position for p in self.partitions.values()), default=END)

    def to_bytes(self) -> bytes:
        return orjson.dumps(
            [self.start, None if self.partitions is None else self.partitions], option=orjson.OPT_SORT_KEYS
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> PartitionSet:
        start, partitions = orjson.loads(data)
        if partitions is None:
            return cls(start)
        return cls(start, {token: Partition(**fields) for token, fields in partitions.items()})

    def _live(self) -> dict[str, Partition]:
        if self.partitions is None:
            raise RuntimeError("a change stream's partitions were used before they were discovered")
        return self.partitions

    def _of(self, token: str) -> Partition:
        return self._live()[token]
