"""dev under the real Pulumi CLI: each test is a life of the stack. The other stacks: test_pulumi_stacks.py. What comes
first: test_first_up.py.

The provider is ours (`tests/infra/plugin.py`) and the cloud a file, so this shows what the program and Pulumi's engine
do: order, state, secrets, protection, replacement, drift, adoption, interruption. What Google refuses is met only
there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from graph.google import TAKEN_OVER
from guardrails.stores import RETAINED, holds_data
from tests.infra.clone import BREAKS_A_RULE, EMPTY, Clone, Made, wanted
from tests.infra.graphs import graph_of

TABLE = "gcp:bigquery/table:Table"
BUCKET = "gcp:storage/bucket:Bucket"
DATASET = "gcp:bigquery/dataset:Dataset"
# A life is a dozen runs of the CLI: half a minute each where the machine has other work.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def _project(stack: str) -> str:
    return f"payment-audit-{stack}"


def test_dev_is_made_changed_mended_destroyed_and_made_again(made: Callable[[str], Made], tmp_path: Path) -> None:
    # Up makes what the program says: what the graph under mocks has, no more and no less.
    clone, first = made("dev").copy(tmp_path), made("dev").up
    assert clone.made("dev") == wanted("dev")
    assert first.report["outputs"]["project"] == _project("dev")
    assert clone.deploy("outputs", "-s", "dev").report == first.report["outputs"]

    # Again: nothing changes.
    again = clone.deploy("up", "-s", "dev")
    assert (again.code, again.report["changes"]) == (0, [])

    # Nor does a preview of what is there change the state: the account that previews may write nothing but its lock.
    before = clone.state_files()
    assert clone.deploy("preview", "-s", "dev").code == 0
    assert clone.state_files() == before

    # A change in place. A column that the job added meanwhile stays: the provider gets the living table's.
    widened = [*_columns(clone), {"name": "ByTheJob", "type": "STRING", "mode": "NULLABLE"}]
    clone.cloud.edit(_project("dev"), TABLE, _changelog(clone), schema=json.dumps(widened))
    clone.configure("dev", dlqRetentionDays=8)
    changed = clone.deploy("up", "-s", "dev")
    assert (changed.code, changed.report["errors"]) == (2, [])
    assert {(change["op"], change["name"]) for change in changed.report["changes"]} == {
        ("update", name) for name in ("dead-letters", "payment_audit.payment_audit_trail_bq")
    }
    assert [column["name"] for column in _columns(clone)] == [column["name"] for column in widened]
    [bucket] = [id for id in clone.cloud.ids(_project("dev"), BUCKET) if id.endswith("dead-letters")]
    assert _read(clone, BUCKET, bucket)["lifecycleRules"][0]["condition"]["age"] == 8

    _drifts_and_is_mended(clone, bucket)

    # Destroyed, each before what it needs; what Google keeps is reported.
    state = clone.exported("dev")
    done_before = len(clone.cloud.journal)
    destroyed = clone.deploy("destroy", "-s", "dev")
    assert destroyed.code == 2, destroyed.err + destroyed.out
    deleted = [(kind, id) for verb, kind, id in clone.cloud.journal[done_before:] if verb == "delete"]
    assert set(deleted) == {(r["type"], r["id"]) for r in _of_google(state) if r["type"] not in RETAINED}
    late = [(a, b) for a, b in _dependencies(state) if b in deleted and a in deleted[deleted.index(b) :]]
    assert late == []
    kept = {node.name for node in graph_of("dev").nodes if node.type in RETAINED}
    assert set(destroyed.report["retained"]) == kept

    # Made again: what Google kept has the names, and is taken over, a log bucket by the provider's own create.
    again = clone.deploy("up", "-s", "dev")
    assert again.code == 2, again.err + again.out
    assert "of a stack that was destroyed: taking it over." in again.err
    assert again.names("import") == kept - {node.name for node in graph_of("dev").nodes if node.type in TAKEN_OVER}
    assert clone.made("dev") == wanted("dev")
    assert clone.deploy("preview", "-s", "dev").code == 0
    assert clone.deploy("preview", "-s", "dev", "--refresh").code == 0
    assert clone.setting("dev", "adoptRetained") is None, "the stack's file stays as it was"


def _drifts_and_is_mended(clone: Clone, bucket: str) -> None:
    """Drift is seen, reported, and fixed only on request."""
    clone.cloud.edit(_project("dev"), BUCKET, bucket, publicAccessPrevention="inherited")
    [view] = [id for id in clone.cloud.ids(_project("dev"), TABLE) if id.endswith("payment_current")]
    clone.cloud.lose(_project("dev"), TABLE, view)
    before = clone.exported("dev")["resources"]
    drift = clone.deploy("refresh", "-s", "dev")
    assert drift.code == 2, drift.err + drift.out
    assert drift.names("update") == {"dead-letters"}
    assert drift.names("delete") == {"payment_views.payment_current"}
    assert clone.exported("dev")["resources"] == before, "a refresh that only looks leaves the state alone"
    mended = clone.deploy("up", "-s", "dev", "--refresh")
    assert (mended.code, mended.report["errors"]) == (2, [])
    assert _read(clone, BUCKET, bucket)["publicAccessPrevention"] == "enforced"
    assert _read(clone, TABLE, view)
    assert clone.deploy("refresh", "-s", "dev").code == 0


def _changelog(clone: Clone) -> str:
    [id] = [id for id in clone.cloud.ids(_project("dev"), TABLE) if id.endswith("/payment_audit_trail_bq")]
    return id


def _columns(clone: Clone) -> list[dict[str, Any]]:
    return list(json.loads(_read(clone, TABLE, _changelog(clone))["schema"]))


def _dependencies(state: dict[str, Any]) -> set[tuple[tuple[str, str], tuple[str, str]]]:
    """(a, b): the resource a needs b, each by type and id. A job of Cloud Run and its schedule have one id."""
    those = {r["urn"]: (r["type"], r["id"]) for r in _of_google(state)}
    return {
        (those[urn], those[other])
        for urn, other in ((r["urn"], other) for r in _of_google(state) for other in r.get("dependencies", []))
        if other in those
    }


def _read(clone: Clone, kind: str, id: str) -> Mapping[str, Any]:
    found = clone.cloud.read(_project("dev"), kind, id)
    assert found is not None, id
    return found


def _of_google(state: dict[str, Any]) -> list[dict[str, Any]]:
    return [r for r in state["resources"] if r["custom"] and r["type"].startswith("gcp:")]


def test_a_store_without_protection_goes_only_when_it_is_named(dev: Clone) -> None:
    """In dev the engine would replace it without a word: deploy.py is what refuses."""
    done = dev.cloud.journal
    dev.configure("dev", warehouseLocation="US")
    refused = dev.deploy("up", "-s", "dev")
    assert (refused.code, refused.report["result"]) == (1, "refused")
    assert {"payment_audit", "audit_service_dataset"} <= set(refused.report["refused"])
    assert dev.cloud.journal == done
    told = dev.deploy("preview", "-s", "dev", as_json=False)
    assert told.code == 1
    assert "Dataset payment_audit (location)  ← its data is lost" in told.out
    allowed = [option for name in refused.report["refused"] for option in ("--allow-loss", name)]
    assert dev.deploy("preview", "-s", "dev", *allowed[:2]).code == 1, "the others are still refused"
    assert dev.deploy("preview", "-s", "dev", *allowed).report["result"] == "changed"

    # Named, they go; and only then come those with the same name, which would be a 409 while the old ones are there.
    replaced = dev.deploy("up", "-s", "dev", *allowed)
    assert replaced.code == 2, replaced.err + replaced.out
    [dataset] = [id for id in dev.cloud.ids(_project("dev"), DATASET) if id.endswith("/payment_audit")]
    assert _read(dev, DATASET, dataset)["location"] == "US"
    assert [verb for verb, _, id in dev.cloud.journal[len(done) :] if id == dataset] == ["delete", "create"]
    assert dev.deploy("preview", "-s", "dev").code == 0

    # What the program no longer has would be deleted: refused by the same rule, scratch space and views excepted.
    with dev.program(EMPTY):
        refused = dev.deploy("preview", "-s", "dev")
    graph = graph_of("dev", {"warehouseLocation": "US"})
    stores = {node.name for node in graph.nodes if holds_data(node.type, node.name, node.inputs)}
    assert (refused.code, set(refused.report["refused"])) == (1, stores)


def test_a_secret_is_not_in_the_state_in_plain_text_and_a_fresh_checkout_keeps_it_so(tmp_path: Path) -> None:
    clone = Clone(tmp_path, passphrase=True)
    secret = "a-token-that-nobody-must-read"
    with clone.program(f'import pulumi\npulumi.export("token", pulumi.Output.secret("{secret}"))\n'):
        made = clone.deploy("up", "-s", "dev")
    assert made.report["outputs"] == {"token": "[secret]"}
    assert secret not in clone.state_file("dev") + made.out + made.err
    assert '"ciphertext"' in clone.state_file("dev")
    assert clone.deploy("outputs", "-s", "dev", "--show-secrets").report == {"token": secret}

    # A build's file of the stack does not say how they are kept: a new provider would ask for a passphrase that no
    # build has.
    provider = clone.exported("dev")["secrets_providers"]
    clone.forget_secrets_provider("dev")
    with clone.program('import pulumi\npulumi.export("token", pulumi.Output.secret("two"))\n'):
        changed = clone.deploy("up", "-s", "dev")
    assert changed.report["errors"] == []
    assert clone.exported("dev")["secrets_providers"] == provider
    assert clone.deploy("outputs", "-s", "dev", "--show-secrets").report == {"token": "two"}


def test_a_program_that_breaks_a_rule_is_not_deployed(clone: Clone) -> None:
    with clone.program(clone.text_of_the_program + BREAKS_A_RULE):
        refused = clone.deploy("up", "-s", "dev")
    assert refused.code == 1
    [error] = [error for error in refused.report["errors"] if error.startswith("no-primitive-role")]
    assert "roles/editor" in error
    assert "Grant the role of the one task" in error
    assert clone.cloud.journal == []


def test_what_a_command_cannot_do_is_said_with_the_way_out(clone: Clone) -> None:
    cases = {
        ("up", "-s", "qa"): "stack must be one that has a Pulumi.<stack>.yaml, got 'qa'.",
        ("outputs", "-s", "dev"): "Stack dev has not been made yet. `python -m delivery.deploy up -s dev` does.",
        ("up", "-s", "dev", "--quick"): "No such option",
    }
    for command, said in cases.items():
        done = clone.deploy(*command, as_json=False)
        assert (done.code, said in done.err) == (1, True), done.err
    clone.configure("dev", dlqRetentionDays=3)
    done = clone.deploy("preview", "-s", "dev")
    assert done.code == 1
    assert any("dlqRetentionDays must be" in error for error in done.report["errors"]), done.out
    assert "Traceback" not in done.out
