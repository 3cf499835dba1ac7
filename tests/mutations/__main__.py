"""Breaks the core on purpose, one small way at a time, and runs the test that must notice.

    python -m tests.mutations [--only TEXT] [--list] [--jobs 2]

Each mutation is applied to a copy of the tree in a temporary folder, where the tests passed before. A mutation that its
tests do not notice survives: then the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from tests.mutations.catalog import MUTATIONS, Mutation

ROOT: Final = Path(__file__).parents[2]
_NOT_COPIED: Final = shutil.ignore_patterns(".git", ".venv", ".audit", "__pycache__", ".*_cache", "build", "results")
_SECONDS: Final = 900
# A mutation that makes a fake clock tick forever is noticed by its test's time limit.
_SECONDS_EACH: Final = 120
# All the tests together, as they are.
_SECONDS_BEFORE: Final = 1800


@contextmanager
def tree() -> Iterator[Path]:
    """A copy of the tree that can be broken."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(ROOT, copy, ignore=_NOT_COPIED)
        yield copy


def passes(tests: Iterable[str], copy: Path, seconds: float = _SECONDS, *, each: int | None = None) -> bool:
    """Whether the tests pass in the copy. Raises RuntimeError where pytest could not run them."""
    limit = () if each is None else (f"--timeout={each}",)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *limit, *tests],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False  # a test that hangs is one that does not pass
    # 1: tests failed. 2: a module that they import did. Anything else (no such test) is not the mutation's doing.
    if done.returncode not in (0, 1, 2):
        raise RuntimeError(f"pytest ended with {done.returncode}\n{done.stdout[-2000:]}")
    return done.returncode == 0


def is_noticed(mutation: Mutation, copy: Path) -> bool:
    """Whether the mutation's tests fail with it. The copy is whole again afterwards."""
    path = copy / mutation.file
    sound = path.read_text()
    path.write_text(mutation.apply(sound))
    try:
        return not passes(mutation.tests, copy, each=_SECONDS_EACH)
    finally:
        path.write_text(sound)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="Only mutations with this text in their name or file.")
    parser.add_argument("--list", action="store_true", help="Show the mutations and their tests; run nothing.")
    parser.add_argument("--jobs", type=int, default=2, help="How many at once.")
    options = parser.parse_args()
    chosen = [m for m in MUTATIONS if options.only in f"{m.file} {m.name}"]
    if options.list:
        print("\n".join(f"{m.file}: {m.name}\n    {' '.join(m.tests)}" for m in chosen))
        return 0
    if not chosen:
        parser.error(f"no mutation has {options.only!r} in its name or file; --list shows them")
    with ExitStack() as stack:
        copies: SimpleQueue[Path] = SimpleQueue()
        for _ in range(options.jobs):
            copies.put(stack.enter_context(tree()))

        def broken(mutation: Mutation) -> tuple[Mutation, bool, float]:
            copy, began = copies.get(), time.monotonic()
            try:
                return mutation, is_noticed(mutation, copy), time.monotonic() - began
            finally:
                copies.put(copy)

        copy = copies.get()
        # A test that fails anyway notices nothing.
        if not passes(dict.fromkeys(test for m in chosen for test in m.tests), copy, _SECONDS_BEFORE):
            print("The mutations' tests must pass before anything is broken: make test")
            return 1
        copies.put(copy)
        survived = []
        with ThreadPoolExecutor(options.jobs) as pool:
            for number, (mutation, noticed, seconds) in enumerate(pool.map(broken, chosen), 1):
                outcome = f"{'noticed ' if noticed else 'SURVIVED'} {seconds:4.0f} s"
                print(f"[{number}/{len(chosen)}] {outcome}  {mutation.name}", flush=True)
                if not noticed:
                    survived.append(mutation)
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutations noticed")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
