"""The whole job between the strict services, killed and cut off: nothing is lost, doubled or different."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.strict.soak import soak


# What was committed has minutes to arrive: as many as a busy machine takes to start the job three times.
@pytest.mark.timeout(900)
def test_nothing_is_lost_doubled_or_different_when_the_job_is_killed_between_strict_services(tmp_path: Path) -> None:
    said: list[str] = []
    found = soak(tmp_path / "soak", kills=3, duration=40, rate=30, seed=7, say=said.append)
    assert found.ok, "\n".join([*said, str(found), *found.missing[:5], *found.different[:5], *found.dead[:5]])
    assert found.committed > 500
    assert sum("killed" in line for line in said) >= 1


@pytest.mark.timeout(900)
def test_nothing_is_lost_doubled_or_different_when_four_readers_share_each_stream_and_are_killed(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    folder = tmp_path / "soak"
    found = soak(folder, kills=3, duration=30, rate=30, seed=7, readers=4, churn=1.0, say=said.append)
    assert found.ok, "\n".join([*said, str(found), *found.missing[:5], *found.different[:5], *found.dead[:5]])
    assert found.committed > 400
    assert sum("killed" in line for line in said) >= 1
    log = (folder / "logs" / "job.log").read_text()
    assert all(f"Reader {reader} of 4 of change stream" in log for reader in range(1, 5))
