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
from components.bigquery import dataset_of, grant_on_dataset, grant_queries
from components.identity import Identity
from components.run import RunPlace
from contract import tables

# Snapshots and checksums are BigQuery's work: the job waits for it.
_TIMEOUT_SECONDS: Final = 4 * 3600
_MEMORY: Final = "1Gi"
_COMMAND: Final = ("python", "-m", "support.cli.main", "backup")
# A while after midnight in UTC: the new day is small, so what is read again tomorrow is little.
_NIGHTLY: Final = "40 2 * * *"
_WEEKLY: Final = "40 5 * * 0"
_SCRATCH_MILLIS: Final = 3 * 24 * 3600 * 1000


@dataclass(frozen=True, kw_only=True)
class BackupArgs:
    """`connection` is what `audit` has to know about the stack; `needs` what must be there before the first run."""

    place: RunPlace
    accounts: Identity
    connection: Mapping[str, pulumi.Input[str]]
    needs: Sequence[pulumi.Resource]


class Backup(pulumi.ComponentResource):
    """The datasets, and the jobs `audit-backup` and `audit-backup-drill` with their schedules, once there is an image.

    The buckets of exports are beside the other buckets, and what the account reads is granted beside the tables.
    """

    def __init__(self, name: str, args: BackupArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Backup"), name, {}, opts)
        self._args, self._settings = args, args.place.settings
        self._datasets()
        if self._settings.pipeline.image:
            made = self._job(naming.BACKUP, _NIGHTLY, "create", "Makes the night's backup of BigQuery")
            tried = self._job(naming.BACKUP_DRILL, _WEEKLY, "drill", "Restores a backup, compares it and drops it")
            for person in self._settings.identity.on_call:
                for job in (made, tried):
                    run_job.grant(self, person, job, "viewer", person)
                    run_job.grant(self, f"starts-{person}", job, "invoker", person)
        self.register_outputs({})

    def _datasets(self) -> None:
        account, key = self._args.accounts.backup, self._args.place.keys.big_query
        kept = dataset_of(self, self._settings, tables.BACKUPS_DATASET, key)
        scratch = bigquery.Dataset(
            tables.RESTORED_DATASET,
            dataset_id=tables.RESTORED_DATASET,
            location=self._settings.warehouse.location,
            default_encryption_configuration={"kms_key_name": key} if key is not None else None,
            # What a drill that was killed leaves behind, and what nobody has dropped.
            default_table_expiration_ms=_SCRATCH_MILLIS,
            delete_contents_on_destroy=True,
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["accesses"]),
        )
        for dataset in (kept, scratch):
            grant_on_dataset(self, f"{dataset._name}-backup", dataset, "dataEditor", account.member)
        # Of Google's roles on a dataset the owner's alone deletes a snapshot.
        grant_on_dataset(self, f"{kept._name}-erasure", kept, "dataOwner", self._args.accounts.erasure.member)
        grant_queries(self, self._settings, "backup", account.member)

    def _job(self, name: str, cron: str, command: str, what: str) -> cloudrunv2.Job:
        account = self._args.accounts.backup
        made = run_job.job(
            self,
            self._args.place,
            run_job.RunJob(
                name=name,
                command=(*_COMMAND, command),
                account=account,
                connection=self._args.connection,
                memory=_MEMORY,
                timeout_seconds=_TIMEOUT_SECONDS,
                # A run that failed is continued: the same day is the same backup.
                retries=1 if command == "create" else 0,
            ),
            self._args.needs,
        )
        starts = run_job.grant(self, "starts-itself", made, "invoker", account.member)
        run_job.schedule(self, self._settings, made, account, cron, what, [starts])
        return made
