"""Who acts: one service account a role, and who may act as one from outside.

What each of them may do is beside the resource that it guards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_gcp import iam, serviceaccount

from components import naming
from components.retained import retained
from components.settings import Settings
from components.settings.identity import ACCOUNTS


@dataclass(frozen=True, kw_only=True)
class Account:
    """Who acts, by the name that the stack has for it. `email` and `member` are as resources and grants take them.

    `made` is the resource; None for an account of others, on which nothing is granted here.
    """

    key: str
    email: pulumi.Output[str]
    member: pulumi.Output[str]
    made: serviceaccount.Account | None

    def grant(
        self, parent: pulumi.Resource, name: str, role: str, member: pulumi.Input[str]
    ) -> Sequence[serviceaccount.IAMMember]:
        """Lets a member act as it, in one of the ways that IAM's roles have. Nothing where its owners do that."""
        if self.made is None:
            return ()
        return (
            serviceaccount.IAMMember(
                name,
                service_account_id=self.made.name,
                role=f"roles/iam.{role}",
                member=member,
                opts=pulumi.ResourceOptions(parent=parent),
            ),
        )


@dataclass(frozen=True, kw_only=True)
class IdentityArgs:
    settings: Settings


class Identity(pulumi.ComponentResource):
    """The service accounts of the stack. None has a key: workloads impersonate them. Config may name some of others
    (`serviceAccounts`): of those nothing is made, and `python -m delivery.owners` prints what their owners grant.

    What is made to run as one of them depends on all of this: who makes it must be let act as the account.
    """

    application: Account
    pipeline: Account
    launcher: Account
    merge: Account
    probe: Account
    console: Account
    card_search: Account
    validation: Account
    erasure: Account
    backup: Account
    schema: Account
    dead_letters: Account
    retry: Account
    scheduler: Account
    starter: Account

    def __init__(self, name: str, args: IdentityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Identity"), name, {}, opts)
        self._settings = args.settings
        own = {"composer-sa": "Airflow's tasks, which start the operations"}
        every = {**ACCOUNTS, **(own if args.settings.orchestration.own_environment else {})}
        accounts = {key: self._account(key, what) for key, what in every.items()}
        self._accounts = accounts
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
        self.schema = accounts["schema-sa"]
        self.dead_letters = accounts["dead-letters-sa"]
        self.retry = accounts["retry-sa"]
        self.scheduler = accounts["scheduler-sa"]
        self.starter = accounts["starter-sa"]
        self._deployers_access()
        if args.settings.identity.kubernetes_account:
            self._kubernetes_access()
        if args.settings.identity.ci_issuer:
            self._ci()
        self.register_outputs({key: account.email for key, account in accounts.items()})

    def _account(self, key: str, what: str) -> Account:
        if theirs := self._settings.identity.given.get(key):
            email = pulumi.Output.from_input(theirs)
            return Account(key=key, email=email, member=pulumi.Output.concat("serviceAccount:", email), made=None)
        made = serviceaccount.Account(
            key,
            account_id=self._settings.names.of(key),
            display_name=what,
            opts=pulumi.ResourceOptions(parent=self),
        )
        return Account(key=key, email=made.email, member=made.member, made=made)

    def _deployers_access(self) -> None:
        """Who makes what runs as one of these accounts must be allowed to act as it."""
        bootstrap = f"serviceAccount:{naming.account(naming.DEPLOYER, self._settings.project)}"
        console = (self.console, self.card_search) if self._settings.console.image else ()
        own = (self.launcher, self.schema, self.dead_letters, self.retry, self.scheduler, self.starter)
        jobs = (self.validation, self.erasure, self.backup, *own) if self._settings.pipeline.image else ()
        composer = [self._accounts[key] for key in ("composer-sa",) if key in self._accounts]
        for account in (self.pipeline, self.merge, self.probe, *jobs, *console, *composer):
            for who in (bootstrap, *self._settings.identity.deployers):
                name = naming.DEPLOYER if who == bootstrap else who
                account.grant(self, f"{account.key}-{name}", "serviceAccountUser", who)

    def named(self, name: str) -> Account:
        """An account by its name."""
        return self._accounts[name]

    def _kubernetes_access(self) -> None:
        """The application's pods act as application-sa, in the clusters of one project."""
        identity = self._settings.identity
        pool = f"{identity.kubernetes_project or self._settings.project}.svc.id.goog"
        member = f"serviceAccount:{pool}[{identity.kubernetes_account}]"
        self.application.grant(self, "application-sa-kubernetes", "workloadIdentityUser", member)

    def _ci(self) -> None:
        """A CI outside Google acts as deployer-sa, if its token meets the condition."""
        pool = self._pool()
        self._issuer(pool)
        deployer = naming.account(naming.DEPLOYER, self._settings.project)
        serviceaccount.IAMMember(
            "deployer-sa-ci",
            service_account_id=f"projects/{self._settings.project}/serviceAccounts/{deployer}",
            role="roles/iam.workloadIdentityUser",
            member=pulumi.Output.concat("principalSet://iam.googleapis.com/", pool.name, "/*"),
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _pool(self) -> iam.WorkloadIdentityPool:
        pool = self._settings.names.of(naming.CI_POOL)
        place = f"projects/{self._settings.project}/locations/global/workloadIdentityPools/{pool}"
        return iam.WorkloadIdentityPool(
            naming.CI_POOL,
            workload_identity_pool_id=pool,
            display_name="CI that deploys the payment audit",
            opts=retained(self, place, adopt=self._settings.keys.adopt_retained),
        )

    def _issuer(self, pool: iam.WorkloadIdentityPool) -> None:
        place = (
            f"projects/{self._settings.project}/locations/global/workloadIdentityPools/{self._settings.names.of(naming.CI_POOL)}"
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
