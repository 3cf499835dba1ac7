"""Staging and prod under the real Pulumi CLI, and an `up` that is interrupted. See test_pulumi.py, which is dev."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from clone import BREAKS_A_RULE, EMPTY, Clone, wanted

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_prod_refuses_to_lose_what_it_holds(clone: Clone) -> None:
    made = clone.deploy("up", "-s", "prod")
    assert made.code == 2, made.err + made.out
    assert clone.made("prod") == wanted("prod")
    assert clone.deploy("up", "-s", "prod").code == 0
    clone.configure("prod", dlqRetentionDays=120)
    assert clone.deploy("up", "-s", "prod").names("update") == {"dead-letters"}
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
    preview = clone.pulumi("preview", "--stack", "staging")
    assert preview.code == 0, preview.out + preview.err
    made = clone.pulumi("up", "--yes", "--skip-preview", "--stack", "staging")
    assert made.code == 0, made.out + made.err
    assert clone.made("staging") == wanted("staging")
    again = clone.pulumi("up", "--yes", "--skip-preview", "--stack", "staging", "--expect-no-changes")
    assert again.code == 0, again.out + again.err

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


@pytest.mark.parametrize(
    ("with_signal", "at"),
    [(signal.SIGKILL, "before temp"), (signal.SIGKILL, "after temp"), (signal.SIGINT, "before temp")],
    ids=["killed before it was made", "killed before it was known", "asked to end"],
)
def test_an_up_that_is_interrupted_half_way_is_run_again(clone: Clone, with_signal: signal.Signals, at: str) -> None:
    """Killed, the CLI does not hear whether what it was making was made: it is found by its name."""
    code = clone.interrupt("up", "-s", "dev", at=at, with_signal=with_signal)
    assert code == 1
    half = clone.made("dev")
    assert half < wanted("dev")
    if with_signal == signal.SIGKILL:
        refused = clone.deploy("up", "-s", "dev")
        assert refused.code == 1
        assert "`pulumi cancel --stack dev`" in refused.err + refused.out
        assert clone.pulumi("cancel", "--yes", "--stack", "dev").code == 0
    done = clone.deploy("up", "-s", "dev")
    assert done.code == 2, done.err + done.out
    assert ("The last run was ended by force" in done.err) is (with_signal == signal.SIGKILL)
    assert clone.made("dev") == wanted("dev")
    assert clone.exported("dev").get("pending_operations", []) == []
    assert clone.deploy("up", "-s", "dev").code == 0
