"""Upkeep: Cloud Run jobs that keep tables and streaming job, verify the source's schema, and care for dead letters.

Each runs as an account that may do its one task. Who starts them is in components/orchestration.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import cloudrunv2, projects, storage

from components import naming, run_job
from components.identity import Account, Identity
from components.run import RunPlace
from contract import operations

_MEMORY: Final = "1Gi"


@dataclass(frozen=True, kw_only=True)
class UpkeepArgs:
    """`launch` is what `pipeline` launches; `connection` what `audit` has to know about the stack.

    `needs` is what must be there before the first run.
    """

    place: RunPlace
    accounts: Identity
    launch: pulumi.Input[str]
    connection: Mapping[str, pulumi.Input[str]]
    needs: Sequence[pulumi.Resource]


class Upkeep(pulumi.ComponentResource):
    """The jobs `audit-pipeline`, `audit-schema`, `audit-dead-letters` and `audit-dead-letters-retry`, once there is an
    image. `jobs` is by operation.

    What they read and write of Spanner and BigQuery is granted beside these; the launch, beside the streaming job.
    """

    jobs: Mapping[str, cloudrunv2.Job]

    def __init__(self, name: str, args: UpkeepArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Upkeep"), name, {}, opts)
        self._args, self._settings = args, args.place.settings
        self.jobs = self._jobs() if self._settings.pipeline.image else {}
        for job in self.jobs.values():
            run_job.for_people(self, job, self._settings.identity.on_call, start=True)
        self.register_outputs({})

    def _jobs(self) -> dict[str, cloudrunv2.Job]:
        accounts = self._args.accounts
        access: dict[operations.Operation, tuple[Account, Sequence[pulumi.Resource]]] = {
            operations.PIPELINE: (accounts.launcher, self._sees_jobs()),
            operations.SCHEMA: (accounts.schema, []),
            operations.DEAD_LETTERS: (accounts.dead_letters, [self._letters(accounts.dead_letters, "objectViewer")]),
            operations.DEAD_LETTERS_RETRY: (accounts.retry, [self._letters(accounts.retry, "objectUser")]),
        }
        return {
            each.name: run_job.job(
                self,
                self._args.place,
                run_job.of_operation(each, account, self._connection(each), _MEMORY),
                [*grants, *self._args.needs],
            )
            for each, (account, grants) in access.items()
        }

    def _connection(self, operation: operations.Operation) -> Mapping[str, pulumi.Input[str]]:
        own = {operations.LAUNCH: self._args.launch} if operation == operations.PIPELINE else {}
        return {**self._args.connection, **own}

    def _sees_jobs(self) -> Sequence[pulumi.Resource]:
        """Where it launches none, it sees whether one runs; who launches has a role for both."""
        if self._settings.pipeline.owner != "pulumi":
            return []
        return [
            projects.IAMMember(
                "dataflow-launcher-looks",
                project=self._settings.project,
                role="roles/dataflow.viewer",
                member=self._args.accounts.launcher.member,
                opts=pulumi.ResourceOptions(parent=self),
            )
        ]

    def _letters(self, account: Account, role: str) -> storage.BucketIAMMember:
        return storage.BucketIAMMember(
            f"dead-letters-{account.key}",
            bucket=self._settings.names.bucket("dead-letters"),
            role=f"roles/storage.{role}",
            member=account.member,
            opts=pulumi.ResourceOptions(parent=self, depends_on=self._args.needs),
        )
