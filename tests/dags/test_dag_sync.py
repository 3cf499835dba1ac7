"""A delivery has Argo CD sync its commit, and awaits it."""

from __future__ import annotations

from typing import Any

import pytest

from delivery import dag_sync
from tests.dags.connect_gateway import CLUSTER, ConnectGateway
from tests.strict.google_apis import serving

COMMIT = "3f2c9d1e5b7a4c6d8e0f1a2b3c4d5e6f7a8b9c0d"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dag_sync, "_PAUSE_SECONDS", 0.01)


def sync(gateway: ConnectGateway, stack: str = "prod", *options: str) -> int:
    with serving(gateway) as address:
        arguments = ["-s", stack, "--cluster", CLUSTER, "--commit", COMMIT, "--gateway", address, "--wait", "20"]
        return dag_sync.run([*arguments, *options])


def test_the_commit_is_named_and_its_operation_awaited(capsys: pytest.CaptureFixture[str]) -> None:
    gateway = ConnectGateway("prod")
    assert sync(gateway) == 0
    assert "Synced at 3f2c9d1e5b7a4c6d8e0f1a2b3c4d5e6f7a8b9c0d, Healthy" in capsys.readouterr().out
    [patch] = gateway.patches
    assert patch["spec"] == {"source": {"targetRevision": COMMIT}}
    # Everything else of the Application is as it was.
    assert gateway.application["spec"]["source"]["path"] == "delivery/argocd/overlays/prod"
    # The same again: the job at the sync's end runs again.
    assert sync(gateway) == 0
    assert len(gateway.patches) == 2


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ({"phase": "Failed"}, "Failed: one or more synchronization tasks completed unsuccessfully"),
        ({"health": "Degraded"}, "Synced at 3f2c9d1e5b7a4c6d8e0f1a2b3c4d5e6f7a8b9c0d, Degraded"),
    ],
)
def test_a_sync_that_fails_or_is_not_healthy_fails_the_delivery(
    ends: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sync(ConnectGateway("prod", **ends), "prod", "--wait", "0.2") == 1
    error = capsys.readouterr().err
    assert said in error and "the log of the job dag-sync in the namespace payment-audit-prod" in error


def test_an_operation_that_runs_ends_first() -> None:
    gateway = ConnectGateway("prod")
    gateway.application["operation"] = {"sync": {"revision": "0" * 40}}
    assert sync(gateway) == 0
    assert gateway.application["status"]["operationState"]["operation"]["sync"]["revision"] == COMMIT


def test_an_operation_that_never_ends_is_not_waited_for_without_limit(capsys: pytest.CaptureFixture[str]) -> None:
    gateway = ConnectGateway("prod", looks=1_000_000)
    gateway.application["operation"] = {"sync": {"revision": "0" * 40}}
    assert sync(gateway, "prod", "--wait", "0.2") == 1
    assert "is busy with an earlier operation" in capsys.readouterr().err and gateway.patches == []


def test_a_delivery_of_another_stack_is_refused_and_one_without_argo_cd_has_nothing_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert sync(ConnectGateway("staging")) == 1
    assert "answers 403 for payment-audit-prod. It takes roles/gkehub.gatewayEditor" in capsys.readouterr().err
    assert dag_sync.run(["-s", "prod", "--commit", COMMIT]) == 0
    assert "no Argo CD in its config" in capsys.readouterr().out
    assert dag_sync.run(["-s", "p", "--cluster", CLUSTER, "--commit", COMMIT, "--gateway", "http://127.0.0.1:9"]) == 1
    assert "does not answer" in capsys.readouterr().err


def test_an_old_success_of_the_same_commit_is_not_taken_for_this_one() -> None:
    state = {"phase": "Succeeded", "operation": {"sync": {"revision": COMMIT}}}
    status = {
        "operationState": state,
        "sync": {"status": "Synced", "revision": COMMIT},
        "health": {"status": "Healthy"},
    }
    assert dag_sync.progress({"status": status}, COMMIT).done
    assert not dag_sync.progress({"status": status, "operation": {"sync": {}}}, COMMIT).done
    assert not dag_sync.progress({"status": status}, "1" * 40).done
    assert not dag_sync.progress({}, COMMIT).done
