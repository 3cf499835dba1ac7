"""The Google side of Argo CD: the account that brings the DAGs to Composer's bucket, and who may act as it.

What acts as it is the job and the CronJob of delivery/argocd/base/, in the cluster that config names.
"""

from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import serviceaccount, storage

from components import naming
from components.composer import FOLDER
from components.settings import Settings

ACCOUNT: Final = "dag-sync-sa"
# Who acts in the cluster: a namespace per stack.
_KUBERNETES_ACCOUNT: Final = "dag-sync"


@dataclass(frozen=True, kw_only=True)
class DagSyncArgs:
    """`needs`: what makes the bucket."""

    settings: Settings
    needs: pulumi.Resource


class DagSync(pulumi.ComponentResource):
    """Where config names Composer and the cluster of an Argo CD; else nothing."""

    def __init__(self, name: str, args: DagSyncArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("DagSync"), name, {}, opts)
        settings = args.settings
        if settings.orchestration.composer and settings.delivery.argo_cd:
            account = serviceaccount.Account(
                ACCOUNT,
                account_id=settings.names.of(ACCOUNT),
                display_name="Brings the DAGs to Composer, for Argo CD",
                opts=pulumi.ResourceOptions(parent=self),
            )
            self._bucket(settings, account, args.needs)
            self._cluster(settings, account)
        self.register_outputs({})

    def _bucket(self, settings: Settings, account: serviceaccount.Account, needs: pulumi.Resource) -> None:
        bucket = settings.composer_bucket
        inside = f'resource.name.startsWith("projects/_/buckets/{bucket}/objects/{FOLDER}/")'
        storage.BucketIAMMember(
            f"composer-{ACCOUNT}",
            bucket=bucket,
            role="roles/storage.objectUser",
            member=account.member,
            # A list is of the bucket: cloud.google.com/iam/docs/conditions-resource-attributes.
            condition={
                "title": "the-audit-s-dags-alone",
                "expression": f'resource.type != "storage.googleapis.com/Object" || {inside}',
            },
            opts=pulumi.ResourceOptions(parent=self, depends_on=[needs]),
        )

    def _cluster(self, settings: Settings, account: serviceaccount.Account) -> None:
        """The pods of one namespace, in the clusters of the project that the membership is in."""
        project = settings.delivery.argo_cd.split("/")[1]
        serviceaccount.IAMMember(
            f"{ACCOUNT}-kubernetes",
            service_account_id=account.name,
            role="roles/iam.workloadIdentityUser",
            member=f"serviceAccount:{project}.svc.id.goog[payment-audit-{settings.stack}/{_KUBERNETES_ACCOUNT}]",
            opts=pulumi.ResourceOptions(parent=self),
        )
