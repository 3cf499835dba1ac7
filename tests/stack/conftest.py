"""Where a stack keeps its state; it is ended with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.machine.state import State
from tests.stack.commands import run


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(tmp_path / "state")
    yield made
    run("local", "down", "--state", made.root)
