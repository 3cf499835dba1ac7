"""`audit validate --every`: a run that fails is said without what it read."""

from __future__ import annotations

from typing import Any

import pytest

from contract.errors import AuditError
from support.cli import validate


class Failing:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def run(self, *, repair: bool) -> Any:
        raise self._error


class Enough(Exception):
    """Ends the loop."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("row p-1 has 4111111111111111"), "RuntimeError"),
        (AuditError("Spanner is away."), "Spanner is away."),
    ],
)
def test_a_run_that_fails_quotes_no_row_and_the_next_one_comes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise Enough

    monkeypatch.setattr("support.cli.validate.time.sleep", sleep)
    failing: Any = Failing(error)
    with pytest.raises(Enough):
        validate._loop(failing, 0.01, repair=False)
    printed = capsys.readouterr().err
    assert printed.count(f"nothing compared: {said}") == 2 and "4111" not in printed
