"""Who read or wrote data, and what the job said: kept in a log bucket with its own key and retention."""

import re
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import logging, projects

from components import naming
from components.identity import Identity
from components.settings import Settings

# The services whose every access to data is logged. The masking keys' secret is among them: nobody but the stack's
# own accounts reads it, and this is where one sees that.
_AUDITED: Final = ("spanner", "bigquery", "secretmanager")


def job_log_filter(project: str = "") -> str:
    """What the view shows: the job's log, in a bucket that others share that of one project alone.

    Source: cloud.google.com/logging/docs/reference/v2/rest/v2/locations.buckets.views.
    """
    job = 'resource.type = "dataflow_step"'
    return f'SOURCE("projects/{project}") AND {job}' if project else job


def log_bucket(settings: Settings) -> str:
    """The full name of the bucket that the stack's logs are in, its own or one of others."""
    own = settings.names.of(naming.LOG_BUCKET)
    return settings.retention.log_bucket or f"projects/{settings.project}/locations/{settings.region}/buckets/{own}"


def job_log(settings: Settings) -> str:
    """The full name of the view that shows the job's log there. A bucket of another project has one for each of its."""
    bucket, view = log_bucket(settings), settings.names.of(naming.JOB_LOG)
    ours = bucket.startswith(f"projects/{settings.project}/")
    return f"{bucket}/views/{view if ours else f'{view}-{settings.project}'}"


@dataclass(frozen=True, kw_only=True)
class LogsArgs:
    """`key`: the log bucket's key, None for Google's."""

    settings: Settings
    accounts: Identity
    key: pulumi.Input[str] | None


class Logs(pulumi.ComponentResource):
    """Data access audit logs and the job's logs, in the bucket `audit-logs` alone. A view shows the job's.

    Audit logs are of the whole project, so with projectWide false another stack of it has them.

    With `logBucket` they go into that one, of which nothing is changed: in the stack's project it gets the view, in
    another one `python -m delivery.owners` prints what its owners run. `bucket` is the full name.
    """

    bucket: pulumi.Output[str]

    def __init__(self, name: str, args: LogsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Logs"), name, {}, opts)
        self._args, self._settings = args, args.settings
        for service in _AUDITED if self._settings.project_wide else ():
            self._audit(service)
        given = self._settings.retention.log_bucket
        self.bucket = pulumi.Output.from_input(given) if given else self._bucket().id
        self._place = log_bucket(self._settings)
        self._route()
        if self._place.startswith(f"projects/{self._settings.project}/"):
            self._job_log()
        self.register_outputs({"bucket": self.bucket})

    def _audit(self, service: str) -> None:
        """Authoritative for the audit config of this one service, not for who has access, nor for other services."""
        accounts = self._args.accounts
        # By the account itself: an audit config that names one which is not made yet is refused.
        exempted = [
            accounts.named(name).member for name in self._settings.retention.unaudited if service != "secretmanager"
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
            bucket_id=self._settings.names.of(naming.LOG_BUCKET),
            retention_days=self._settings.retention.log_days,
            cmek_settings={"kms_key_name": self._args.key} if self._args.key else None,
            # Never imported: the provider's create takes over one that is there already (graph/google.py TAKEN_OVER).
            opts=pulumi.ResourceOptions(parent=self, protect=self._settings.protect, retain_on_delete=True),
        )

    def _route(self) -> None:
        """Into that bucket, and not into _Default as well, which has Google's key and its own retention.

        A sink into a bucket of the same project writes as the project itself: it needs no grant, and has none. Into
        another project's it writes as the project's logging agent, which that bucket's owners let in.
        """
        wanted = self._filter()
        sink = logging.ProjectSink(
            naming.LOG_BUCKET,
            name=self._settings.names.of(naming.LOG_BUCKET),
            destination=pulumi.Output.concat("logging.googleapis.com/", self.bucket),
            filter=wanted,
            unique_writer_identity=True,
            opts=pulumi.ResourceOptions(parent=self),
        )
        logging.ProjectExclusion(
            naming.LOG_BUCKET,
            name=self._settings.names.of(naming.LOG_BUCKET),
            description=f"Kept in the bucket {self._place.rpartition('/')[2]}",
            filter=wanted,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[sink]),
        )

    def _job_log(self) -> None:
        """What who is on call reads of the bucket: what the job said, and not who queried what.

        Their other role shows what is in none of our buckets: admin activity, and what the probe and the merge said.
        """
        view = logging.LogView(
            naming.JOB_LOG,
            name=self._settings.names.of(naming.JOB_LOG),
            bucket=self.bucket,
            description="The job's log",
            filter=job_log_filter(self._settings.project if self._settings.retention.log_bucket else ""),
            opts=pulumi.ResourceOptions(parent=self),
        )
        parent, location, bucket = re.split("/locations/|/buckets/", self._place)
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
                parent=parent,
                location=location,
                bucket=bucket,
                name=view.name,
                role="roles/logging.viewAccessor",
                member=person,
                opts=pulumi.ResourceOptions(parent=self),
            )

    def _filter(self) -> str:
        data_access = f"projects/{self._settings.project}/logs/cloudaudit.googleapis.com%2Fdata_access"
        job = (
            f'resource.type="dataflow_step" AND resource.labels.job_name="{self._settings.names.of(naming.STREAM_JOB)}"'
        )
        # Whose access it was is in no label: the stack that has them logged keeps those of the whole project.
        return f'logName="{data_access}" OR ({job})' if self._settings.project_wide else job
