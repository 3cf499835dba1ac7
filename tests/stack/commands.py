"""The `audit` command as a person runs it: the installed program, as a program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from local.machine.state import State

AUDIT: Final = Path(sys.executable).with_name("audit")


def run(*args: str | Path, code: int = 0) -> str:
    """What it prints. AssertionError with what it said, where it ends with another exit code."""
    done = subprocess.run([AUDIT, *args], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def audit(state: State, *args: str, code: int = 0) -> Any:
    """A command about a stack, by its JSON."""
    return json.loads(run("--connection", state.connection, *args, code=code) or "null")
