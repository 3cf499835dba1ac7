"""Delivery: the Cloud Build triggers of this stack, and the machines that its builds run on."""

from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import cloudbuild

from components import naming
from components.settings import Settings

PREVIEW: Final = "delivery/cloudbuild.preview.yaml"
MERGE: Final = "delivery/cloudbuild.yaml"
# A merge that changes nothing else deploys nothing.
_IGNORED: Final = ("docs/**", "*.md")
# Lint and tests are for the change, not for a stack: the preview of this one runs them.
_CHECKED_WITH: Final = "dev"


@dataclass(frozen=True, kw_only=True)
class DeliveryArgs:
    settings: Settings


class Delivery(pulumi.ComponentResource):
    """Previews a proposed change and deploys a merged one. Without a repository in config there is nothing here."""

    def __init__(self, name: str, args: DeliveryArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Delivery"), name, {}, opts)
        self._settings, self._delivery = args.settings, args.settings.delivery
        if self._delivery.repository:
            pool = self._pool()
            self._preview(pool)
            self._merge(pool)
        self.register_outputs({})

    def _pool(self) -> cloudbuild.WorkerPool:
        """Separate machines without public addresses: they reach Google, and the internet where their network does."""
        return cloudbuild.WorkerPool(
            naming.DELIVERY,
            name=self._settings.names.of(naming.DELIVERY),
            location=self._settings.region,
            worker_config={
                "machine_type": "e2-standard-8",
                "disk_size_gb": 100,
                "no_external_ip": True,
            },
            network_config={"peered_network": self._delivery.network},
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _preview(self, pool: cloudbuild.WorkerPool) -> None:
        cloudbuild.Trigger(
            "preview",
            name=self._settings.names.of(f"preview-{self._settings.stack}"),
            description=f"What a proposed change would do to {self._settings.stack}.",
            location=self._settings.region,
            repository_event_config={
                "repository": self._delivery.repository,
                # A stranger's change runs only after a maintainer's comment: its code would run as our account.
                "pull_request": {
                    "branch": self._delivery.branch,
                    "comment_control": "COMMENTS_ENABLED_FOR_EXTERNAL_CONTRIBUTORS_ONLY",
                },
            },
            filename=PREVIEW,
            service_account=self._account(self._delivery.preview_account),
            substitutions={
                **self._substitutions(pool),
                "_CHECKS": "yes" if self._settings.stack == _CHECKED_WITH else "no",
            },
            include_build_logs="INCLUDE_BUILD_LOGS_WITH_STATUS",
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _merge(self, pool: cloudbuild.WorkerPool) -> None:
        cloudbuild.Trigger(
            "merge",
            name=self._settings.names.of(f"deploy-{self._settings.stack}"),
            description=f"Deploys a merged change to {self._settings.stack}.",
            location=self._settings.region,
            repository_event_config={
                "repository": self._delivery.repository,
                "push": {"branch": self._delivery.branch},
            },
            filename=MERGE,
            ignored_files=list(_IGNORED),
            service_account=self._account(self._delivery.account),
            approval_config={"approval_required": self._delivery.approval},
            substitutions={
                **self._substitutions(pool),
                "_REGION": self._settings.region,
                "_ARGO_CD": self._delivery.argo_cd,
            },
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _substitutions(self, pool: cloudbuild.WorkerPool) -> dict[str, pulumi.Input[str]]:
        """What both of the files are given; tests compare it with what they declare."""
        return {
            "_STACK": self._settings.stack,
            "_IMAGE": self._delivery.image,
            "_PROMOTED_FROM": self._delivery.promoted_from,
            "_BUILDER": self._delivery.builder,
            "_POOL": pool.id,
            "_STATE": self._delivery.state,
            "_SECRETS": self._delivery.secrets_provider,
        }

    def _account(self, email: str) -> str:
        return f"projects/{self._settings.project}/serviceAccounts/{email}"
