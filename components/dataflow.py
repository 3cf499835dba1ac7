"""The streaming job: a Dataflow flex template job, with the launch options of the contract as its parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import dataflow, projects, serviceaccount, storage

from components import naming
from components.identity import Identity
from components.image import Image
from components.settings import PipelineSettings, Settings
from components.spanner import SourceDatabase
from components.storage import Storage
from contract import options

# What the launcher reads and writes: the template, and where the launch stages the job's graph.
_LAUNCHER_BUCKETS: Final = {"templates": "objectViewer", "staging": "objectUser", "temp": "objectUser"}


@dataclass(frozen=True, kw_only=True)
class WorkerPlace:
    """A subnetwork without public addresses. `key` encrypts the workers' state; None leaves that to Google."""

    subnetwork: pulumi.Input[str]
    key: pulumi.Input[str] | None


@dataclass(frozen=True, kw_only=True)
class StreamJobArgs:
    """What the job reads, where it writes, what and where it runs; `accounts` has its own and its launcher's.

    `needs` is what must be there, with its grants, while the job runs: made before it, taken away after it is drained.
    """

    settings: Settings
    source: SourceDatabase
    storage: Storage
    masking_keys: pulumi.Input[str]
    image: Image
    place: WorkerPlace
    accounts: Identity
    needs: Sequence[pulumi.Resource]


class StreamJob(pulumi.ComponentResource):
    """The job `audit-stream-job`. With pipelineOwner composer a DAG launches it, with the same `parameters`.

    `page` is the job's page in the console, or that of all jobs where somebody else launches it.
    """

    name: str
    page: pulumi.Output[str]
    parameters: Mapping[str, pulumi.Input[str]]

    def __init__(self, name: str, args: StreamJobArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("StreamJob"), name, {}, opts)
        self._args = args
        self.name = naming.STREAM_JOB
        self.parameters = launch_parameters(self._values())
        worker = self._worker_access()
        self._launcher_access()
        self._people()
        jobs = f"https://console.cloud.google.com/dataflow/jobs?project={args.settings.project}"
        self.page = pulumi.Output.from_input(jobs)
        if args.settings.pipeline.owner == "pulumi":
            self.page = pulumi.Output.concat(
                f"https://console.cloud.google.com/dataflow/jobs/{args.settings.region}/",
                self._job(worker).id,
                f"?project={args.settings.project}",
            )
        self.register_outputs({"name": self.name, "parameters": self.parameters, "page": self.page})

    def _values(self) -> dict[str, pulumi.Input[str]]:
        """Every launch option that this stack gives a value."""
        settings, source = self._args.settings, self._args.source
        return {
            "spannerProjectId": settings.project,
            "spannerInstanceId": source.instance,
            "spannerDatabase": source.database,
            "spannerDatabaseRole": source.reader_role,
            "spannerMetadataInstanceId": source.metadata_instance,
            "spannerMetadataDatabase": source.metadata_database,
            "spannerChangeStreamNames": ",".join(settings.watched.change_streams),
            "watchedTables": settings.watched.to_json(),
            "spannerEndpoint": settings.endpoints.spanner,
            "bigQueryProjectId": settings.project,
            "bigQueryEndpoint": settings.endpoints.big_query,
            "bigQueryStorageEndpoint": settings.endpoints.big_query_storage,
            "maskingKeys": self._args.masking_keys,
            "deadLetterQueueDirectory": self._args.storage.dead_letters,
            **settings.pipeline.options,
        }

    def _worker_access(self) -> projects.IAMMember:
        return self._on_project("dataflow-worker", "roles/dataflow.worker", self._args.accounts.pipeline.member)

    def _launcher_access(self) -> None:
        """Starts and ends jobs of this one account: it can act as no other."""
        launcher = self._args.accounts.launcher.member
        self._on_project("dataflow-launcher", "roles/dataflow.developer", launcher)
        serviceaccount.IAMMember(
            "launcher-as-worker",
            service_account_id=self._args.accounts.pipeline.name,
            role="roles/iam.serviceAccountUser",
            member=launcher,
            opts=pulumi.ResourceOptions(parent=self),
        )
        for purpose, role in _LAUNCHER_BUCKETS.items():
            storage.BucketIAMMember(
                f"{purpose}-launcher",
                bucket=naming.bucket(self._args.settings.project, purpose),
                role=f"roles/storage.{role}",
                member=launcher,
                opts=pulumi.ResourceOptions(parent=self, depends_on=[self._args.storage]),
            )

    def _people(self) -> None:
        """Who is on call sees the job. Who may end it gets no role of Google's: the smallest one also starts jobs."""
        identity, project = self._args.settings.identity, self._args.settings.project
        for person in identity.on_call:
            self._on_project(f"dataflow-viewer-{person}", "roles/dataflow.viewer", person)
        for person in identity.drainers:
            self._on_project(f"dataflow-drainer-{person}", naming.role(naming.DRAINER, project), person)

    def _on_project(self, name: str, role: str, member: pulumi.Input[str]) -> projects.IAMMember:
        """Dataflow has no grant on anything smaller."""
        return projects.IAMMember(
            name,
            project=self._args.settings.project,
            role=role,
            member=member,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _job(self, worker: projects.IAMMember) -> dataflow.FlexTemplateJob:
        """The running job. Any change drains it and starts another, which resumes at the resume position."""
        settings, place = self._args.settings, self._args.place
        pipeline, scratch = settings.pipeline, self._args.storage
        return dataflow.FlexTemplateJob(
            naming.STREAM_JOB,
            name=naming.STREAM_JOB,
            region=settings.region,
            container_spec_gcs_path=self._args.image.template,
            parameters=self.parameters,
            temp_location=pulumi.Output.concat(scratch.temp, "/temp"),
            staging_location=pulumi.Output.concat(scratch.staging, "/staging"),
            service_account_email=self._args.accounts.pipeline.email,
            sdk_container_image=self._args.image.image or None,
            machine_type=pipeline.machine_type,
            num_workers=pipeline.workers,
            max_workers=pipeline.max_workers,
            enable_streaming_engine=True,
            additional_experiments=["use_runner_v2", _streaming_mode(pipeline), options.NO_EXCEPTION_SAMPLING],
            additional_pipeline_options=scratch.memory_profiles.apply(lambda url: beam_options(pipeline, url)),
            ip_configuration="WORKER_IP_PRIVATE",
            subnetwork=place.subnetwork,
            kms_key_name=place.key,
            labels=naming.labels(settings.stack),
            on_delete="drain",
            # Two jobs at once would fence each other; an update in place would keep the old one's state.
            opts=pulumi.ResourceOptions(
                parent=self,
                delete_before_replace=True,
                replace_on_changes=["*"],
                depends_on=[worker, self._args.image, *self._args.needs],
                # A drain ends when all that was read is written.
                custom_timeouts=pulumi.CustomTimeouts(delete="60m"),
            ),
        )


def beam_options(pipeline: PipelineSettings, profiles: str) -> list[str]:
    """Options of Beam's own for which the job's resource has no argument. `profiles` is the URL of an expiring bucket.

    A bundle takes one harness thread, so their number bounds how many are under way, and their rows in memory. The
    memory profile has stacks and sizes of allocations; a heap's contents hold cards, and are written nowhere.
    """
    profile = ["profiler_agent=memray", f"profile_location={profiles}"] if pipeline.profile_memory else []
    return [
        f"disk_size_gb={pipeline.disk_size_gb}",
        f"number_of_worker_harness_threads={pipeline.harness_threads}",
        *profile,
    ]


def _streaming_mode(pipeline: PipelineSettings) -> str:
    """Streaming Engine guarantees what the sink guarantees: less would lose changes, more costs for nothing."""
    return f"streaming_mode_{pipeline.options['writeMode'].replace('-', '_')}"


def launch_parameters(values: Mapping[str, pulumi.Input[str]]) -> dict[str, pulumi.Input[str]]:
    """The parameters of a launch: the values that differ from their option's default.

    Raises LookupError for an option that the contract does not have, or a required one without a value.
    """
    known = {option.name: option for option in options.OPTIONS}
    if unknown := sorted(values.keys() - known.keys()):
        raise LookupError(f"launch options must be in contract/options.py, got {', '.join(unknown)}. Add them there.")
    # An Output always has a value; it has no truth value and equals no default.
    given = {name: value for name, value in values.items() if isinstance(value, pulumi.Output) or value}
    if missing := sorted(name for name, option in known.items() if option.required and name not in given):
        raise LookupError(f"launch options {', '.join(missing)} must have a value. Give them in StreamJob._values.")
    return {name: value for name, value in given.items() if value != known[name].default}
