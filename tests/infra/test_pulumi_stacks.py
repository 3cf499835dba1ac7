"""Staging and prod under the real Pulumi CLI, and an `up` that is interrupted. See test_pulumi.py, which is dev."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.infra.clone import BREAKS_A_RULE, EMPTY, Clone, Done, Made, wanted

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_prod_refuses_to_lose_what_it_holds(made: Callable[[str], Made], tmp_path: Path) -> None:
    clone = made("prod").copy(tmp_path)
    assert clone.made("prod") == wanted("prod")
    clone.configure("prod", dlqRetentionDays=120)
    changed = clone.deploy("up", "-s", "prod").report["changes"]
    assert [(change["op"], change["name"]) for change in changed] == [("update", "dead-letters")]
    assert clone.deploy("refresh", "-s", "prod").code == 0
    done = clone.cloud.journal

    # A replacement: by the engine's protection, whoever runs it.
    location = clone.setting("prod", "warehouseLocation")
    clone.configure("prod", warehouseLocation="us-east4")
    refused = clone.deploy("up", "-s", "prod")
    assert refused.code == 1
    assert any("protect" in error for error in refused.report["errors"]), refused.out

    # A deletion likewise.
    clone.configure("prod", warehouseLocation=location)
    with clone.program(EMPTY):
        refused = clone.deploy("up", "-s", "prod")
    assert refused.code == 1
    assert any("protect" in error for error in refused.report["errors"]), refused.out

    # A destroy without the name, with another one, and with it: the engine is the last to refuse.
    for confirmation in ([], ["--confirm", "dev"]):
        refused = clone.deploy("destroy", "-s", "prod", *confirmation)
        assert refused.code == 1
        assert "must be confirmed with its name" in refused.err
        assert "Nothing was deleted" in refused.err
    refused = clone.deploy("destroy", "-s", "prod", "--confirm", "prod")
    assert refused.code == 1
    assert any("protect" in error for error in refused.report["errors"]), refused.out
    assert clone.cloud.journal == done


def test_staging_by_pulumi_in_a_shell(clone: Clone) -> None:
    """Bare `pulumi`: the language host runs the program in its own process, as it does for a person."""
    assert clone.pulumi("stack", "init", "staging").code == 0
    # With the policy pack, as a person gives it: a stack that keeps the rules passes, one that breaks a rule does not.
    guarded = ("preview", "--stack", "staging", "--policy-pack", "guardrails")
    kept = clone.pulumi(*guarded)
    assert kept.code == 0, kept.out + kept.err
    assert "payment-audit@v0.1.0" in kept.out, "the pack was not run"
    with clone.program(clone.text_of_the_program + BREAKS_A_RULE):
        refused = clone.pulumi(*guarded)
    assert refused.code != 0
    assert "no-primitive-role" in refused.out + refused.err
    assert "Grant the role of the one task" in refused.out + refused.err

    made = clone.pulumi("up", "--yes", "--skip-preview", "--stack", "staging")
    assert made.code == 0, made.out + made.err
    assert clone.made("staging") == wanted("staging")
    again = clone.pulumi("up", "--yes", "--skip-preview", "--stack", "staging", "--expect-no-changes")
    assert again.code == 0, again.out + again.err

    # The state survives its backend: exported, and imported elsewhere, it is the same stack.
    exported = clone.pulumi("stack", "export", "--stack", "staging").out
    elsewhere = Clone(clone.folder.parent, backend="elsewhere")
    assert elsewhere.pulumi("stack", "init", "staging").code == 0
    assert elsewhere.pulumi("stack", "import", "--stack", "staging", input=exported).code == 0
    elsewhere.configure("staging", dlqRetentionDays=15)
    moved = elsewhere.deploy("up", "-s", "staging")
    assert moved.report["errors"] == []
    assert [(change["op"], change["name"]) for change in moved.report["changes"]] == [("update", "dead-letters")]

    # It is what the cloud has, and protected as prod is.
    assert elsewhere.deploy("refresh", "-s", "staging").code == 0
    with elsewhere.program(EMPTY):
        refused = elsewhere.deploy("up", "-s", "staging")
    assert refused.code == 1
    assert any("protect" in error for error in refused.report["errors"]), refused.out


def test_an_up_that_is_interrupted_half_way_is_run_again(clone: Clone) -> None:
    """Each of these is the run after the one before; the last comes to its end."""
    # Killed, the CLI does not hear whether what it was making was made: it is found by its name.
    first = clone.interrupt("up", "-s", "dev", at="before temp", with_signal=signal.SIGKILL)
    _must_be_unlocked(clone, first)
    second = clone.interrupt("up", "-s", "dev", at="after temp", with_signal=signal.SIGKILL)
    _must_be_unlocked(clone, second)
    # Asked to end, it ends what it has begun. It comes so far only if the bucket `temp` is not made again: a 409.
    third = clone.interrupt("up", "-s", "dev", at="before temp-pipeline", with_signal=signal.SIGINT)
    assert third.code == 1, third.out
    assert clone.made("dev") < wanted("dev")
    done = clone.deploy("up", "-s", "dev")
    assert done.code == 2, done.err + done.out
    told = ["The last run was ended by force" in run.err for run in (first, second, third, done)]
    assert told == [False, True, True, False]
    assert clone.made("dev") == wanted("dev")
    assert clone.exported("dev").get("pending_operations", []) == []
    assert clone.deploy("preview", "-s", "dev").code == 0


def _must_be_unlocked(clone: Clone, killed: Done) -> None:
    """A run that was killed leaves its lock: the next is refused, with the way out, which is then taken."""
    assert killed.code == 1, killed.out
    assert clone.made("dev") < wanted("dev")
    refused = clone.deploy("up", "-s", "dev")
    assert refused.code == 1
    assert "`pulumi cancel --stack dev`" in refused.err + refused.out
    assert clone.pulumi("cancel", "--yes", "--stack", "dev").code == 0
