"""Who acts: one service account a role, and who may act as one from outside.

What each of them may do is beside the resource that it guards.
"""

from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import iam, serviceaccount

from components import naming
from components.retained import retained
from components.settings import Settings

_ACCOUNTS: Final = {
    "application-sa": "Services that write payments to Spanner",
    "dataflow-sa": "Workers of the streaming job",
    "launcher-sa": "Launches the streaming job from its template",
    "merge-sa": "Scheduled merge of payment_state",
    "probe-sa": "Measures latency and throughput from outside the job",
    "console-sa": "Support console",
    "card-search-sa": "Turns a card number into its token, for a search",
    "backup-sa": "Makes and tries backups of BigQuery",
    "validation-sa": "Replay and validation: compares Spanner with BigQuery and repairs",
    "erasure-sa": "Redacts customers who are to be erased",
}


@dataclass(frozen=True, kw_only=True)
class IdentityArgs:
    settings: Settings


class Identity(pulumi.ComponentResource):
    """The service accounts of the stack. None has a key: workloads impersonate them."""

    application: serviceaccount.Account
    pipeline: serviceaccount.Account
    launcher: serviceaccount.Account
    merge: serviceaccount.Account
    probe: serviceaccount.Account
    console: serviceaccount.Account
    card_search: serviceaccount.Account
    validation: serviceaccount.Account
    erasure: serviceaccount.Account
    backup: serviceaccount.Account

    def __init__(self, name: str, args: IdentityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Identity"), name, {}, opts)
        self._settings = args.settings
        accounts = {key: self._account(key, what) for key, what in _ACCOUNTS.items()}
        self.application = accounts["application-sa"]
        self.pipeline = accounts["dataflow-sa"]
        self.launcher = accounts["launcher-sa"]
        self.merge = accounts["merge-sa"]
        self.probe = accounts["probe-sa"]
        self.console = accounts["console-sa"]
        self.card_search = accounts["card-search-sa"]
        self.validation = accounts["validation-sa"]
        self.erasure = accounts["erasure-sa"]
        self.backup = accounts["backup-sa"]
        self._deployers_access()
        if args.settings.identity.kubernetes_account:
            self._kubernetes_access()
        if args.settings.identity.ci_issuer:
            self._ci()
        self.register_outputs({key: account.email for key, account in accounts.items()})

    def _account(self, key: str, what: str) -> serviceaccount.Account:
        return serviceaccount.Account(key, account_id=key, display_name=what, opts=pulumi.ResourceOptions(parent=self))

    def _deployers_access(self) -> None:
        """Who makes what runs as one of these accounts must be allowed to act as it."""
        bootstrap = f"serviceAccount:{naming.account(naming.DEPLOYER, self._settings.project)}"
        console = (self.console, self.card_search) if self._settings.console.image else ()
        jobs = (self.validation, self.erasure, self.backup) if self._settings.pipeline.image else ()
        for account in (self.pipeline, self.merge, self.probe, *jobs, *console):
            for who in (bootstrap, *self._settings.identity.deployers):
                name = naming.DEPLOYER if who == bootstrap else who
                self._grant(f"{account._name}-{name}", account.name, "serviceAccountUser", who)

    def _kubernetes_access(self) -> None:
        """The application's pods act as application-sa, in the clusters of one project."""
        identity = self._settings.identity
        pool = f"{identity.kubernetes_project or self._settings.project}.svc.id.goog"
        member = f"serviceAccount:{pool}[{identity.kubernetes_account}]"
        self._grant("application-sa-kubernetes", self.application.name, "workloadIdentityUser", member)

    def _ci(self) -> None:
        """A CI outside Google acts as deployer-sa, if its token meets the condition."""
        pool = self._pool()
        self._issuer(pool)
        deployer = naming.account(naming.DEPLOYER, self._settings.project)
        self._grant(
            "deployer-sa-ci",
            f"projects/{self._settings.project}/serviceAccounts/{deployer}",
            "workloadIdentityUser",
            pulumi.Output.concat("principalSet://iam.googleapis.com/", pool.name, "/*"),
        )

    def _pool(self) -> iam.WorkloadIdentityPool:
        place = f"projects/{self._settings.project}/locations/global/workloadIdentityPools/{naming.CI_POOL}"
        return iam.WorkloadIdentityPool(
            naming.CI_POOL,
            workload_identity_pool_id=naming.CI_POOL,
            display_name="CI that deploys the payment audit",
            opts=retained(self, place, adopt=self._settings.keys.adopt_retained),
        )

    def _issuer(self, pool: iam.WorkloadIdentityPool) -> None:
        place = (
            f"projects/{self._settings.project}/locations/global/workloadIdentityPools/{naming.CI_POOL}"
            f"/providers/{naming.CI_PROVIDER}"
        )
        iam.WorkloadIdentityPoolProvider(
            naming.CI_PROVIDER,
            workload_identity_pool_id=pool.workload_identity_pool_id,
            workload_identity_pool_provider_id=naming.CI_PROVIDER,
            display_name="OIDC issuer of the CI",
            attribute_mapping={"google.subject": "assertion.sub"},
            attribute_condition=self._settings.identity.ci_condition,
            oidc={"issuer_uri": self._settings.identity.ci_issuer},
            opts=retained(self, place, adopt=self._settings.keys.adopt_retained),
        )

    def _grant(self, name: str, account: pulumi.Input[str], role: str, member: pulumi.Input[str]) -> None:
        serviceaccount.IAMMember(
            name,
            service_account_id=account,
            role=f"roles/iam.{role}",
            member=member,
            opts=pulumi.ResourceOptions(parent=self),
        )
