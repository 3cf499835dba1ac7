"""Replays: a Cloud Run job that reads payments in Spanner again and appends them, and the topic that it hands them to.

Its account alone reads Spanner and has the masking key; whoever may start it does neither. It has the streaming job's
image, and so is made once there is an image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import cloudrunv2, projects, pubsub, storage

from components import naming, run_job
from components.identity import Identity
from components.image import Image
from components.run import RunPlace
from components.storage import BUCKET, WORKED_IN, Storage

# It runs small replays itself, and launches a Dataflow job for others, cut into shards before: neither takes longer.
_TIMEOUT_SECONDS: Final = 3600
_COMMAND: Final = (*run_job.AUDIT, "replay", "resume", "--here")
# Without overrides, which could give the container another environment: who starts it chooses nothing.
_STARTS: Final = "invoker"
# Dead letters that it resolves; what a Dataflow job of its stages and spills.
_BUCKETS: Final = ("dead-letters", "staging", "temp")


@dataclass(frozen=True, kw_only=True)
class ReplayArgs:
    """`connection` is what `audit` has to know about the stack; `needs` what must be there before the first run."""

    place: RunPlace
    accounts: Identity
    storage: Storage
    image: Image
    connection: Mapping[str, pulumi.Input[str]]
    needs: Sequence[pulumi.Resource]


class Replay(pulumi.ComponentResource):
    """The job `audit-replay`: it runs each replay that is not finished. Run twice, it writes nothing twice.

    `job` is its full name; empty without an image.
    """

    job: str

    def __init__(self, name: str, args: ReplayArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Replay"), name, {}, opts)
        self._args, self._settings = args, args.place.settings
        self.job = ""
        topic = self._topic()
        if self._settings.pipeline.image:
            self.job = run_job.full_name(self._settings, naming.REPLAY)
            self._starters(self._job([*self._access(), *self._launches(), *topic]))
        self.register_outputs({"job": self.job})

    def _topic(self) -> Sequence[pulumi.Resource]:
        """What publishes to a topic of another project, that one's owner grants."""
        settings = self._settings
        topic = settings.replay.topic_of(settings.names)
        if not topic.startswith(f"projects/{settings.project}/"):
            return ()
        named = self._own_topic().name if settings.replay.own_topic else topic.rpartition("/")[2]
        return (
            pubsub.TopicIAMMember(
                "replays-publisher",
                topic=named,
                project=settings.project,
                role="roles/pubsub.publisher",
                member=self._args.accounts.validation.member,
                opts=pulumi.ResourceOptions(parent=self),
            ),
        )

    def _own_topic(self) -> pubsub.Topic:
        """Messages stay in the stack's region, for as long as Pub/Sub keeps any."""
        return pubsub.Topic(
            "replays",
            name=self._settings.names.of(self._settings.replay.topic),
            kms_key_name=self._args.place.keys.pubsub,
            message_retention_duration="604800s",
            message_storage_policy={"allowed_persistence_regions": [self._settings.region]},
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _access(self) -> Sequence[pulumi.Resource]:
        """What it reads of Spanner, and writes to BigQuery and the metadata database, is granted beside these."""
        looked_at = [(f"{purpose}-replay-looks", purpose, BUCKET) for purpose in WORKED_IN]
        used = [(f"{purpose}-replay", purpose, "roles/storage.objectUser") for purpose in _BUCKETS]
        return [
            storage.BucketIAMMember(
                name,
                bucket=self._settings.names.bucket(purpose),
                role=role,
                member=self._args.accounts.validation.member,
                opts=pulumi.ResourceOptions(parent=self, depends_on=[self._args.storage]),
            )
            for name, purpose, role in (*used, *looked_at)
        ]

    def _launches(self) -> Sequence[pulumi.Resource]:
        """It launches Dataflow jobs that run as itself, and as no other account."""
        account = self._args.accounts.validation
        return [
            *(
                projects.IAMMember(
                    f"replay-dataflow-{role}",
                    project=self._settings.project,
                    role=given,
                    member=account.member,
                    opts=pulumi.ResourceOptions(parent=self),
                )
                for role, given in (
                    ("developer", "roles/dataflow.developer"),
                    ("worker", naming.role(naming.WORKER, self._settings.project)),
                )
            ),
            *account.grant(self, "replay-as-itself", "serviceAccountUser", account.member),
        ]

    def _job(self, access: Sequence[pulumi.Resource]) -> cloudrunv2.Job:
        args = self._args
        # What it has written is there once, however often it runs.
        what = run_job.RunJob(
            name=naming.REPLAY,
            command=_COMMAND,
            account=args.accounts.validation,
            connection={**args.connection, "replayBeamArgs": self._beam_args()},
            memory="2Gi",
            timeout_seconds=_TIMEOUT_SECONDS,
            retries=1,
        )
        return run_job.job(self, args.place, what, [*access, args.image, *args.needs])

    def _beam_args(self) -> pulumi.Output[str]:
        """Where a replay of several shards runs: on Dataflow, as the streaming job does, and as this account."""
        settings, args = self._settings, self._args
        key = args.place.keys.dataflow
        return pulumi.Output.concat(
            f"--runner=DataflowRunner --project={settings.project} --region={settings.region} --no_use_public_ips",
            f" --sdk_container_image={settings.pipeline.image} --sdk_location=container --experiments=use_runner_v2",
            f" --worker_machine_type={settings.pipeline.machine_type}",
            f" --max_num_workers={settings.pipeline.max_workers} --subnetwork=",
            args.place.network.subnetwork,
            " --service_account_email=",
            args.accounts.validation.email,
            " --temp_location=",
            args.storage.temp,
            "/temp --staging_location=",
            args.storage.staging,
            "/staging",
            pulumi.Output.concat(" --dataflow_kms_key=", key) if key is not None else "",
        )

    def _starters(self, job: cloudrunv2.Job) -> None:
        """The console and who is on call start it, and see how its runs ended."""
        if self._settings.console.image:
            run_job.grant(self, "console", job, _STARTS, self._args.accounts.console.member)
        run_job.for_people(self, job, self._settings.identity.on_call, start=True)
