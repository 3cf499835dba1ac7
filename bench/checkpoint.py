"""How large a source's checkpoint is, by the partitions that are live: python -m bench.checkpoint

It is the whole partition set: each with its token, its start, its position, and the ids of what was read at it.
"""

from __future__ import annotations

import argparse
from typing import Any, Final

from bench.results import keep, machine
from pipeline.source.partitions import Partition, PartitionSet

PARTITIONS: Final = (1, 100, 10_000)
_AT: Final = "2026-11-23T09:00:00.000000000Z"


def checkpoint(partitions: int) -> bytes:
    """Of this many partitions. Their tokens have 160 characters, and one change was read at each position."""
    seen = ["MTIzNDU2Nzg5MDEyMzQ1Njc4/00000001"]
    live = {f"{i:0160x}": Partition(_AT, seen=list(seen), start=_AT) for i in range(partitions)}
    return PartitionSet(_AT, live).to_bytes()


def measure() -> dict[str, Any]:
    """Bytes by number of partitions."""
    return {"machine": machine(), "bytes": {str(n): len(checkpoint(n)) for n in PARTITIONS}}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    result = measure()
    for partitions, size in result["bytes"].items():
        print(f"{int(partitions):>7,} partitions: {size:>9,} bytes")
    print(f"Kept in {keep('checkpoint', result)}")


if __name__ == "__main__":
    main()
