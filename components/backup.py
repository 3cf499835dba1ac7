"""Backups of BigQuery: the datasets of snapshots and of what is restored, and the jobs that make and try backups.

They run as a separate account, which reads every table that is backed up and writes none of them. It adds
snapshots, and deletes none: a snapshot goes when it expires, or with an erasure, whose account may delete it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import bigquery, cloudrunv2

from components import naming, run_job
from components.bigquery import Dataset, dataset_of, grant_on_dataset, grant_queries, owners
from components.identity import Identity
from components.run import RunPlace
from contract import operations, tables

# Snapshots and checksums are BigQuery's work: the job waits for it.
_MEMORY: Final = "1Gi"
_SCRATCH_MILLIS: Final = 3 * 24 * 3600 * 1000


@dataclass(frozen=True, kw_only=True)
class BackupArgs:
    """`connection` is what `audit` has to know about the stack; `needs` what must be there before the first run."""

    place: RunPlace
    accounts: Identity
    connection: Mapping[str, pulumi.Input[str]]
    needs: Sequence[pulumi.Resource]


class Backup(pulumi.ComponentResource):
    """The datasets, and the jobs `audit-backup` and `audit-backup-drill`, once there is an image.

    The buckets of exports are beside the other buckets, and what the account reads is granted beside the tables. `jobs`
    is by operation.
    """

    jobs: Mapping[str, cloudrunv2.Job]

    def __init__(self, name: str, args: BackupArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Backup"), name, {}, opts)
        self._args, self._settings = args, args.place.settings
        self._datasets()
        self.jobs = {}
        if self._settings.pipeline.image:
            self.jobs = {each.name: self._job(each) for each in (operations.BACKUP, operations.BACKUP_DRILL)}
        for job in self.jobs.values():
            run_job.for_people(self, job, self._settings.identity.on_call, start=True)
        self.register_outputs({})

    def _datasets(self) -> None:
        account, key = self._args.accounts.backup, self._args.place.keys.big_query
        kept = dataset_of(self, self._settings, self._settings.watched.backups_dataset, key)
        scratch = bigquery.Dataset(
            tables.RESTORED_DATASET,
            dataset_id=self._settings.watched.restored_dataset,
            location=self._settings.warehouse.location,
            default_encryption_configuration={"kms_key_name": key} if key is not None else None,
            accesses=owners(self._settings),
            # What a drill that was killed leaves behind, and what nobody has dropped.
            default_table_expiration_ms=_SCRATCH_MILLIS,
            delete_contents_on_destroy=True,
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["accesses"]),
        )
        restored = Dataset(key=scratch._name, dataset_id=scratch.dataset_id)
        for dataset in (kept, restored):
            grant_on_dataset(self, f"{dataset.key}-backup", dataset, "dataEditor", account.member)
        # Of Google's roles on a dataset the owner's alone deletes a snapshot.
        grant_on_dataset(self, f"{kept.key}-erasure", kept, "dataOwner", self._args.accounts.erasure.member)
        grant_queries(self, self._settings, "backup", account.member)

    def _job(self, operation: operations.Operation) -> cloudrunv2.Job:
        args = self._args
        what = run_job.of_operation(operation, args.accounts.backup, args.connection, _MEMORY)
        return run_job.job(self, args.place, what, args.needs)
