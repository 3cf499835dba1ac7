"""Who read or wrote data, and what the job said: kept in a log bucket with its own key and retention."""

from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import logging, projects

from components import naming
from components.retained import retained
from components.settings import Settings

# The services whose every access to data is logged. The masking keys' secret is among them: nobody but the stack's
# own accounts reads it, and this is where one sees that.
_AUDITED: Final = ("spanner", "bigquery", "secretmanager")


@dataclass(frozen=True, kw_only=True)
class LogsArgs:
    """`key`: the log bucket's key, None for Google's."""

    settings: Settings
    key: pulumi.Input[str] | None


class Logs(pulumi.ComponentResource):
    """Data access audit logs and the job's logs, in the bucket `audit-logs` alone. A view shows the job's."""

    bucket: pulumi.Output[str]

    def __init__(self, name: str, args: LogsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Logs"), name, {}, opts)
        self._args, self._settings = args, args.settings
        for service in _AUDITED:
            self._audit(service)
        bucket = self._bucket()
        self._route(bucket)
        self._job_log(bucket)
        self.bucket = bucket.name
        self.register_outputs({"bucket": self.bucket})

    def _audit(self, service: str) -> None:
        """Authoritative for the audit config of this one service, not for who has access, nor for other services."""
        exempted = [
            f"serviceAccount:{naming.account(name, self._settings.project)}"
            for name in self._settings.retention.unaudited
            if service != "secretmanager"
        ]
        projects.IAMAuditConfig(
            f"{service}-access",
            project=self._settings.project,
            service=f"{service}.googleapis.com",
            audit_log_configs=[
                {"log_type": kind, "exempted_members": exempted} for kind in ("ADMIN_READ", "DATA_READ", "DATA_WRITE")
            ],
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _bucket(self) -> logging.ProjectBucketConfig:
        project, region = self._settings.project, self._settings.region
        return logging.ProjectBucketConfig(
            naming.LOG_BUCKET,
            project=project,
            location=region,
            bucket_id=naming.LOG_BUCKET,
            retention_days=self._settings.retention.log_days,
            cmek_settings={"kms_key_name": self._args.key} if self._args.key else None,
            opts=retained(
                self,
                f"projects/{project}/locations/{region}/buckets/{naming.LOG_BUCKET}",
                adopt=self._settings.keys.adopt_retained,
                protect=self._settings.protect,
            ),
        )

    def _route(self, bucket: logging.ProjectBucketConfig) -> None:
        """Into that bucket, and not into _Default as well, which has Google's key and its own retention.

        A sink into a bucket of the same project writes as the project itself: it needs no grant, and has none.
        """
        wanted = self._filter()
        sink = logging.ProjectSink(
            naming.LOG_BUCKET,
            name=naming.LOG_BUCKET,
            destination=pulumi.Output.concat("logging.googleapis.com/", bucket.id),
            filter=wanted,
            unique_writer_identity=True,
            opts=pulumi.ResourceOptions(parent=self),
        )
        logging.ProjectExclusion(
            naming.LOG_BUCKET,
            name=naming.LOG_BUCKET,
            description=f"Kept in the bucket {naming.LOG_BUCKET}",
            filter=wanted,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[sink]),
        )

    def _job_log(self, bucket: logging.ProjectBucketConfig) -> None:
        """What who is on call reads of the bucket: what the job said, and not who queried what.

        Their other role shows what is in none of our buckets: admin activity, and what the probe and the merge said.
        """
        view = logging.LogView(
            naming.JOB_LOG,
            name=naming.JOB_LOG,
            bucket=bucket.id,
            description="The job's log",
            filter='resource.type = "dataflow_step"',
            opts=pulumi.ResourceOptions(parent=self),
        )
        for person in self._settings.identity.on_call:
            projects.IAMMember(
                f"logging-{person}",
                project=self._settings.project,
                role="roles/logging.viewer",
                member=person,
                opts=pulumi.ResourceOptions(parent=self),
            )
            logging.LogViewIamMember(
                f"{naming.JOB_LOG}-{person}",
                parent=f"projects/{self._settings.project}",
                location=self._settings.region,
                bucket=naming.LOG_BUCKET,
                name=view.name,
                role="roles/logging.viewAccessor",
                member=person,
                opts=pulumi.ResourceOptions(parent=self),
            )

    def _filter(self) -> str:
        data_access = f"projects/{self._settings.project}/logs/cloudaudit.googleapis.com%2Fdata_access"
        job = f'resource.type="dataflow_step" AND resource.labels.job_name="{naming.STREAM_JOB}"'
        return f'logName="{data_access}" OR ({job})'
