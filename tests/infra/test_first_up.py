"""The first `up` of each stack, with its file exactly as shipped, in the order of docs/deployment.md.

The real Pulumi CLI, and a provider that is strict (`tests/infra/README.md`): it refuses what Google's would, and reads
a resource as Google gives it back. So a second `up` without a change means something.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from bootstrap.__main__ import main as bootstrap
from guardrails.iam import STACKS
from tests.infra import given_back
from tests.infra.clone import Clone, Done, Made
from tests.infra.test_existing_database import EXISTING

JOB = "audit-stream-job"
# A dozen runs of the CLI, each half a minute where the machine has other work.
pytestmark = pytest.mark.timeout(900)


def test_a_stack_on_a_database_of_others_comes_up_and_then_changes_nothing(tmp_path: Path) -> None:
    clone = Clone(tmp_path)
    clone.configure("dev", **EXISTING)
    foundation = clone.deploy("up", "-s", "dev", "--without-job")
    _changed(foundation)
    made = foundation.names("create")
    assert {"audit-metadata", "audit-metadata-instance"} <= made
    assert not made & {"audit-db", "audit-instance"}
    _changed(clone.deploy("up", "-s", "dev"))
    _unchanged(clone.deploy("refresh", "-s", "dev", "--accept"))
    _unchanged(clone.deploy("preview", "-s", "dev"))
    # Nothing that was made is theirs.
    theirs = [EXISTING["spannerInstance"], EXISTING["spannerDatabase"]]
    spanner = [r for r in clone.exported("dev")["resources"] if r["type"].startswith("gcp:spanner/")]
    assert spanner and not [r["urn"] for r in spanner if any(name in theirs for name in r["inputs"].values())]
    # A living stack cannot give its database up, nor take one.
    clone.configure("dev", schemaOwner="pulumi", spannerProject="", spannerInstance="", spannerDatabase="",
                    tables="tables.toml")  # fmt: skip
    refused = clone.deploy("preview", "-s", "dev")
    assert any("schemaOwner must stay 'existing'" in error for error in refused.report["errors"]), refused.out


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_as_shipped_comes_up_in_the_documented_order_and_then_changes_nothing(
    made: Callable[[str], Made], tmp_path: Path, stack: str
) -> None:
    said = CliRunner().invoke(bootstrap, ["--stack", stack, "--dry-run"]).output
    assert said.rstrip().endswith(f"-m delivery.deploy up -s {stack} --without-job"), "bootstrap says what comes next"

    # Without an image: all but the job. The whole stack is refused, with the way out.
    steps = made(stack)
    preview = steps.foundation_preview
    assert (preview.code, preview.report["errors"], preview.report["counts"].keys()) == (2, [], {"create"})
    assert JOB not in preview.names("create")
    assert any("image must be the job's image by its digest" in error for error in steps.preview.report["errors"])
    _changed(steps.foundation)

    # The images come, by the documented command, and with them the job.
    _changed(steps.up)
    assert JOB in steps.up.names("create")

    clone = steps.copy(tmp_path)
    # What is read is what was asked for: a look at the cloud finds no drift, and what comes after it no change.
    _unchanged(clone.deploy("refresh", "-s", stack, "--accept"))
    _unchanged(clone.deploy("preview", "-s", stack))
    if stack != "dev":
        return  # The rest is the same of each, and half a minute of CPU.

    # The foundation goes up alone, with what tries the next launch; a change of the job replaces it.
    clone.configure(stack, dlqRetentionDays=120, batchRows=100)
    foundation = clone.deploy("up", "-s", stack, "--without-job")
    names = {change["name"] for change in foundation.report["changes"]}
    assert names == {"dead-letters", "audit-launch-check"}, foundation.out
    last = clone.deploy("preview", "-s", stack)
    assert [(change["op"], change["name"]) for change in last.report["changes"]] == [("replace", JOB)]


def test_composer_takes_the_operations_and_the_job_over_and_then_nothing_changes(dev: Clone) -> None:
    """From the shipped form to that of Composer: the jobs stay, who starts them changes."""
    dev.configure("dev", orchestration="composer", pipelineOwner="composer", composerWebRanges=["203.0.113.0/24"])
    taken = dev.deploy("up", "-s", "dev")
    _changed(taken)
    assert {"audit-composer", "composer", "operations"} <= taken.names("create")
    assert {JOB, "audit-backup", "audit-validation"} <= taken.names("delete")
    schedules = [r for r in dev.exported("dev")["resources"] if r["type"] == "gcp:cloudscheduler/job:Job"]
    assert [r["urn"].rpartition("::")[2] for r in schedules] == ["audit-probe"]
    _unchanged(dev.deploy("refresh", "-s", "dev", "--accept"))
    # An `up`, for the lock that a stack takes whose job somebody else launches: nobody is signed in here.
    last = dev.deploy("up", "-s", "dev")
    _unchanged(last)
    assert "cannot be held up" in last.err


def _changed(done: Done) -> None:
    assert (done.code, done.report["errors"]) == (2, []), done.err + done.out


def _unchanged(done: Done) -> None:
    assert (done.code, done.report["changes"]) == (0, []), done.err + done.out


def test_a_job_that_a_failed_start_left_is_taken_over(dev: Clone) -> None:
    [urn] = [r["urn"] for r in dev.exported("dev")["resources"] if r["type"] == given_back.JOB]
    assert dev.pulumi("state", "delete", urn, "--stack", "dev", "--yes").code == 0
    again = dev.deploy("up", "-s", "dev")
    _changed(again)
    assert again.names("create") == {JOB}
    _unchanged(dev.deploy("preview", "-s", "dev"))
