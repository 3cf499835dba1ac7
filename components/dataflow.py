"""The streaming job: a Dataflow flex template job, with the launch options of the contract as its parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pulumi
from pulumi_gcp import dataflow, projects, storage

from components import naming
from components.identity import Identity
from components.image import Image
from components.settings import PipelineSettings, Settings
from components.spanner import SourceDatabase
from components.storage import Storage
from contract import operations, options

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
    """The job `audit-stream-job`. With another pipelineOwner the operation `pipeline` launches it, by `launch`.

    `page` is the job's page in the console, or that of all jobs where Pulumi does not make it; `launch` is the body of
    flexTemplates.launch as JSON, empty where Pulumi makes the job.
    """

    name: str
    page: pulumi.Output[str]
    parameters: Mapping[str, pulumi.Input[str]]
    launch: pulumi.Output[str]

    def __init__(self, name: str, args: StreamJobArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("StreamJob"), name, {}, opts)
        self._args = args
        self.name = args.settings.names.of(naming.STREAM_JOB)
        self.parameters = launch_parameters(self._values())
        worker = self._worker_access()
        self.launch = pulumi.Output.from_input("")
        if args.settings.pipeline.owner != "pulumi":
            self._launcher_access()
            self.launch = pulumi.Output.json_dumps(self._launch(), sort_keys=True)
        self._people()
        jobs = f"https://console.cloud.google.com/dataflow/jobs?project={args.settings.project}"
        self.page = pulumi.Output.from_input(jobs)
        if args.settings.pipeline.owner == "pulumi" and not args.settings.pause:
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
            "spannerProjectId": source.project,
            "spannerInstanceId": source.instance,
            "spannerDatabase": source.database,
            "spannerDatabaseRole": source.reader_role,
            "spannerMetadataProjectId": settings.project if source.project != settings.project else "",
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
            "bigQueryDataset": settings.watched.of_stack(settings.pipeline.options.get("bigQueryDataset", "")),
        }

    def _worker_access(self) -> projects.IAMMember:
        """Without Google's worker role, which has every bucket of the project."""
        worker = naming.role(naming.WORKER, self._args.settings.project)
        return self._on_project("dataflow-worker", worker, self._args.accounts.pipeline.member)

    def _launcher_access(self) -> None:
        """Starts and ends jobs of this one account: it can act as no other."""
        launcher = self._args.accounts.launcher.member
        self._on_project("dataflow-launcher", "roles/dataflow.developer", launcher)
        self._args.accounts.pipeline.grant(self, "launcher-as-worker", "serviceAccountUser", launcher)
        for purpose, role in _LAUNCHER_BUCKETS.items():
            storage.BucketIAMMember(
                f"{purpose}-launcher",
                bucket=self._args.settings.names.bucket(purpose),
                role=f"roles/storage.{role}",
                member=launcher,
                opts=pulumi.ResourceOptions(parent=self, depends_on=[self._args.storage]),
            )

    def _people(self) -> None:
        """Who may end the job gets no role of Google's: the smallest one also starts jobs."""
        identity, project = self._args.settings.identity, self._args.settings.project
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

    def _beam_options(self) -> pulumi.Output[list[str]]:
        pipeline = self._args.settings.pipeline
        return self._args.storage.memory_profiles.apply(lambda url: beam_options(pipeline, url))

    def _launch(self) -> dict[str, Any]:
        """What another owner launches: as `_job`, field by field. The environment is a FlexTemplateRuntimeEnvironment:
        cloud.google.com/dataflow/docs/reference/rest/v1b3/projects.locations.flexTemplates/launch."""
        settings, place = self._args.settings, self._args.place
        return operations.launch_request(
            job=self.name,
            template=self._args.image.template,
            parameters=self.parameters,
            environment={
                "serviceAccountEmail": self._args.accounts.pipeline.email,
                "enableStreamingEngine": True,
                "additionalExperiments": _experiments(settings.pipeline),
                "additionalPipelineOptions": self._beam_options(),
                "ipConfiguration": "WORKER_IP_PRIVATE",
                "subnetwork": place.subnetwork,
                # The provider puts its own labels on a job that it makes.
                "additionalUserLabels": dict(settings.labels),
                **({"kmsKeyName": place.key} if place.key is not None else {}),
            },
        )

    def _job(self, worker: projects.IAMMember) -> dataflow.FlexTemplateJob:
        """The running job. Any change drains it and starts another, which resumes at the resume position."""
        settings, place = self._args.settings, self._args.place
        pipeline = settings.pipeline
        return dataflow.FlexTemplateJob(
            naming.STREAM_JOB,
            name=self.name,
            region=settings.region,
            container_spec_gcs_path=self._args.image.template,
            parameters=self.parameters,
            service_account_email=self._args.accounts.pipeline.email,
            # Image, size and buckets of the workers are in the template (components/image.py).
            enable_streaming_engine=True,
            additional_experiments=_experiments(pipeline),
            additional_pipeline_options=self._beam_options(),
            ip_configuration="WORKER_IP_PRIVATE",
            subnetwork=place.subnetwork,
            kms_key_name=place.key,
            labels=settings.labels,
            on_delete="drain",
            # A start that failed leaves its job, which has the name: the next `up` takes it over.
            create_ignore_already_exists=True,
            # Two jobs at once would fence each other; an update in place would keep the old one's state.
            opts=pulumi.ResourceOptions(
                parent=self,
                delete_before_replace=True,
                replace_on_changes=["*"],
                # The provider waits for a drain regardless of customTimeouts; delivery has a limit (delivery/drain.py).
                depends_on=[worker, self._args.image, *self._args.needs],
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


def _experiments(pipeline: PipelineSettings) -> list[str]:
    return ["use_runner_v2", _streaming_mode(pipeline), options.NO_EXCEPTION_SAMPLING]


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
