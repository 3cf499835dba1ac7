"""Has Argo CD bring the DAGs of a commit to a stack, and awaits it: after a merge, from Cloud Build.

\b
    python -m delivery.dag_sync -s prod --cluster projects/P/locations/L/memberships/M --commit SHA --wait 900

It names the commit in the stack's Application, which is all that it may do there
(delivery/argocd/applications/access.yaml): Argo CD syncs that commit and keeps it, and the job at the sync's end
brings it to Composer's bucket. The cluster is reached by Google's Connect gateway, with the token of who runs this.
Without a cluster there is nothing to do.

Exit code: 0 synced, 1 not.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any, Final

import click

from contract.errors import AuditError
from delivery.program import exit_code
from support.cli.explained import Command

_GATEWAY: Final = "https://connectgateway.googleapis.com"
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_NAMESPACE: Final = "argocd"
_ANSWER_SECONDS: Final = 30
_PAUSE_SECONDS: Final = 5.0
_ENDED: Final = ("Succeeded", "Failed", "Error")


class SyncError(AuditError):
    """The DAGs of the commit are not in the stack's environment; the message says why, and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What Argo CD says of an Application: `done` once the commit's operation has succeeded and all is healthy."""

    done: bool
    failed: bool
    found: str


@click.command(cls=Command, help=__doc__)
@click.option("-s", "--stack", required=True, help="dev, staging or prod.")
@click.option("--cluster", default="", help="The fleet membership of Argo CD's cluster; empty: the stack has none.")
@click.option("--commit", required=True, help="Which commit's DAGs.")
@click.option("--wait", type=click.FloatRange(0), default=900, show_default=True, help="Most seconds to wait.")
@click.option("--gateway", default=_GATEWAY, hidden=True, help="Another address of the Connect gateway, for tests.")
def main(stack: str, cluster: str, commit: str, wait: float, gateway: str) -> int:
    if not cluster:
        click.echo(f"{stack}: no Argo CD in its config (argoCdCluster); nothing to sync.")
        return 0
    application = Application(gateway, cluster, f"payment-audit-{stack}")
    deadline = time.monotonic() + wait
    application.name_commit(commit, deadline)
    click.echo(f"{application.name}: Argo CD syncs {commit}.")
    reached = _awaited(application, commit, deadline)
    if not reached.done:
        raise SyncError(
            f"{application.name} is not at {commit}: {reached.found}. See it in Argo CD, and the log of the job "
            f"dag-sync in the namespace {application.name}; run this step again once that is repaired."
        )
    click.echo(f"{application.name}: {reached.found}.")
    return 0


class Application:
    """A stack's Application, by Kubernetes' API behind the gateway."""

    def __init__(self, gateway: str, cluster: str, name: str) -> None:
        from pipeline.clients import authorized_session

        # The gateway has its own name for a membership.
        place = cluster.replace("/memberships/", "/gkeMemberships/")
        self.name = name
        self._session = authorized_session(gateway, _SCOPE)
        self._url = f"{gateway}/v1/{place}/apis/argoproj.io/v1alpha1/namespaces/{_NAMESPACE}/applications/{name}"

    def get(self) -> dict[str, Any]:
        """As it is now. Raises SyncError."""
        return self._asked("GET")

    def name_commit(self, commit: str, deadline: float) -> None:
        """Pins the Application to a commit, and starts an operation of it. Raises SyncError."""
        # One that runs ends first: Kubernetes would take the other, and its end would be forgotten.
        while self.get().get("operation"):
            if time.monotonic() + _PAUSE_SECONDS > deadline:
                raise SyncError(
                    f"{self.name} is busy with an earlier operation, which must end first. See it in Argo CD, "
                    "terminate it there where it hangs, and run this step again."
                )
            time.sleep(_PAUSE_SECONDS)
        sync = {"revision": commit, "prune": True, "syncOptions": ["ServerSideApply=true", "CreateNamespace=true"]}
        self._asked(
            "PATCH",
            {
                "spec": {"source": {"targetRevision": commit}},
                "operation": {"initiatedBy": {"username": "delivery"}, "sync": sync},
            },
        )

    def _asked(self, method: str, patch: dict[str, Any] | None = None) -> dict[str, Any]:
        import requests
        from google.auth.exceptions import GoogleAuthError

        headers = {"Content-Type": "application/merge-patch+json"} if patch else {}
        try:
            answer = self._session.request(method, self._url, json=patch, headers=headers, timeout=_ANSWER_SECONDS)
        except (requests.RequestException, GoogleAuthError) as error:
            raise SyncError(
                f"The Connect gateway does not answer ({type(error).__name__}). Check the network, and argoCdCluster."
            ) from error
        if not answer.ok:
            raise SyncError(
                f"The Connect gateway answers {answer.status_code} for {self.name}. It takes "
                "roles/gkehub.gatewayEditor on the cluster's project, and the role of "
                "delivery/argocd/applications/access.yaml in the cluster."
            )
        found: dict[str, Any] = answer.json()
        return found


def progress(application: dict[str, Any], commit: str) -> Progress:
    """How far the commit is, from the Application's status."""
    status = application.get("status", {})
    operation, sync = status.get("operationState", {}), status.get("sync", {})
    phase, health = operation.get("phase", "not begun"), status.get("health", {}).get("status", "unknown")
    of_commit = operation.get("operation", {}).get("sync", {}).get("revision") == commit
    if application.get("operation") or not of_commit or phase not in _ENDED:
        return Progress(done=False, failed=False, found=f"the operation is {phase if of_commit else 'not begun'}")
    if phase != "Succeeded":
        return Progress(done=False, failed=True, found=f"{phase}: {operation.get('message', 'no message')}")
    at = sync.get("revision")
    done = at == commit and sync.get("status") == "Synced" and health == "Healthy"
    return Progress(done=done, failed=False, found=f"{sync.get('status')} at {at}, {health}")


def _awaited(application: Application, commit: str, deadline: float) -> Progress:
    while True:
        now = progress(application.get(), commit)
        if now.done or now.failed or time.monotonic() + _PAUSE_SECONDS > deadline:
            return now
        time.sleep(_PAUSE_SECONDS)


def run(args: list[str] | None = None) -> int:
    """The program: its exit code, 0 or 1."""
    return exit_code(main, "delivery.dag_sync", args)


if __name__ == "__main__":
    sys.exit(run())
