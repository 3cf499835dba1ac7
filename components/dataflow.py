"""The streaming job: a Dataflow flex template job, with the launch options of the contract as its parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_gcp import dataflow, projects, serviceaccount

from components import naming
from components.settings import Settings
from components.spanner import SourceDatabase
from components.storage import Storage
from contract import options, schema


@dataclass(frozen=True, kw_only=True)
class StreamJobArgs:
    """What the job reads, where it writes, and who it runs as.

    `needs` is what must be there, with its grants, while the job runs: made before it, taken away after it is drained.
    """

    settings: Settings
    source: SourceDatabase
    storage: Storage
    masking_keys: pulumi.Input[str]
    account: serviceaccount.Account
    subnetwork: pulumi.Input[str]
    needs: Sequence[pulumi.Resource]


class StreamJob(pulumi.ComponentResource):
    """The job `audit-stream-job`. With pipelineOwner composer a DAG launches it, with the same `parameters`."""

    name: str
    parameters: Mapping[str, pulumi.Input[str]]

    def __init__(self, name: str, args: StreamJobArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("StreamJob"), name, {}, opts)
        self._args = args
        self.name = naming.STREAM_JOB
        self.parameters = launch_parameters(self._values())
        worker = self._worker_access()
        if args.settings.pipeline.owner == "pulumi":
            self._job(worker)
        self.register_outputs({"name": self.name, "parameters": self.parameters})

    def _values(self) -> dict[str, pulumi.Input[str]]:
        """Every launch option that this stack gives a value."""
        settings, source = self._args.settings, self._args.source
        return {
            "spannerProjectId": settings.project,
            "spannerInstanceId": source.instance,
            "spannerDatabase": source.database,
            "spannerMetadataInstanceId": source.instance,
            "spannerMetadataDatabase": source.metadata_database,
            "spannerChangeStreamNames": ",".join(schema.change_streams()),
            "spannerEndpoint": settings.endpoints.spanner,
            "bigQueryProjectId": settings.project,
            "bigQueryEndpoint": settings.endpoints.big_query,
            "bigQueryStorageEndpoint": settings.endpoints.big_query_storage,
            "maskingKeys": self._args.masking_keys,
            "deadLetterQueueDirectory": self._args.storage.dead_letters,
            **settings.pipeline.options,
        }

    def _worker_access(self) -> projects.IAMMember:
        return projects.IAMMember(
            "dataflow-worker",
            project=self._args.settings.project,
            role="roles/dataflow.worker",
            member=self._args.account.member,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _job(self, worker: projects.IAMMember) -> dataflow.FlexTemplateJob:
        """The running job. Any change drains it and starts another, which goes on at the resume position."""
        settings, storage = self._args.settings, self._args.storage
        pipeline = settings.pipeline
        return dataflow.FlexTemplateJob(
            naming.STREAM_JOB,
            name=naming.STREAM_JOB,
            region=settings.region,
            container_spec_gcs_path=pipeline.template
            or pulumi.Output.concat(storage.templates, f"/{naming.STREAM_JOB}.json"),
            parameters=self.parameters,
            temp_location=pulumi.Output.concat(storage.temp, "/temp"),
            staging_location=pulumi.Output.concat(storage.staging, "/staging"),
            service_account_email=self._args.account.email,
            machine_type=pipeline.machine_type,
            num_workers=pipeline.workers,
            max_workers=pipeline.max_workers,
            enable_streaming_engine=True,
            ip_configuration="WORKER_IP_PRIVATE",
            subnetwork=self._args.subnetwork,
            on_delete="drain",
            # Two jobs at once would fence each other; an update in place would keep the old one's state.
            opts=pulumi.ResourceOptions(
                parent=self,
                delete_before_replace=True,
                replace_on_changes=["*"],
                depends_on=[worker, *self._args.needs],
            ),
        )


def launch_parameters(values: Mapping[str, pulumi.Input[str]]) -> dict[str, pulumi.Input[str]]:
    """The parameters of a launch: the values that differ from their option's default.

    Raises LookupError for an option that the contract does not have, or a required one without a value.
    """
    known = {option.name: option for option in options.OPTIONS}
    if unknown := sorted(values.keys() - known.keys()):
        raise LookupError(f"launch options must be in contract/options.py, got {', '.join(unknown)}. Add them there.")
    # An Output always has a value; it has no truth of its own and equals no default.
    given = {name: value for name, value in values.items() if isinstance(value, pulumi.Output) or value}
    if missing := sorted(name for name, option in known.items() if option.required and name not in given):
        raise LookupError(f"launch options {', '.join(missing)} must have a value. Give them in StreamJob._values.")
    return {name: value for name, value in given.items() if value != known[name].default}
