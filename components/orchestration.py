"""Orchestration: who starts the operations of the contract, each of which is one Cloud Run job.

    scheduler    Cloud Scheduler calls the starter (components/starter.py), which starts the job
    composer     a DAG of Cloud Composer starts the job, and awaits it (components/composer.py, delivery/dags/)

Both start the same jobs, which run the same commands as the same accounts. Cloud Scheduler starts the probe in both: it
runs each minute, and a DAG's run costs Airflow seconds of work before the job begins.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_gcp import cloudrunv2

from components import naming
from components.composer import ComposerArgs, orchestrated
from components.identity import Identity
from components.run import RunPlace
from components.starter import Schedule, schedules
from contract import operations, tables

_PROBE_SAYS = "The audit's probe: a run that is missed is caught up by the next"


@dataclass(frozen=True, kw_only=True)
class OrchestrationArgs:
    """`jobs` are the operations' by operation, `probe` is the probe's; both empty without an image.

    `launch` is the body of the streaming job's launch, empty where Pulumi makes it; `template` the template's path.
    """

    place: RunPlace
    accounts: Identity
    jobs: Mapping[str, cloudrunv2.Job]
    probe: cloudrunv2.Job | None
    launch: pulumi.Output[str]
    template: pulumi.Output[str]


class Orchestration(pulumi.ComponentResource):
    """What starts the jobs, once there is an image."""

    def __init__(self, name: str, args: OrchestrationArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Orchestration"), name, {}, opts)
        self._args, self._settings = args, args.place.settings
        if args.probe:
            schedules(self, args.place, args.accounts, self._entries(args.probe))
            if self._settings.orchestration.composer:
                self._composer()
        self.register_outputs({})

    def _composer(self) -> None:
        args = self._args
        known = pulumi.Output.all(args.launch, args.template)
        orchestrated(
            self,
            ComposerArgs(
                settings=self._settings,
                accounts=args.accounts,
                keys=args.place.keys,
                jobs=args.jobs,
                file=known.apply(lambda made: self._file(json.loads(made[0] or "{}"), made[1])),
            ),
        )

    def _file(self, launch: dict[str, Any], template: str) -> str:
        """The content of the file that the DAGs read."""
        settings = self._settings
        stack = operations.Stack(
            stack=settings.stack,
            project=settings.project,
            prefix=settings.names.of(""),
            region=settings.region,
            pipeline_owner=settings.pipeline.owner,
            paused=bool(settings.pause),
            runbooks=settings.monitoring.runbooks,
            template_path=template,
            launch=launch,
            tables=sorted(table.id for table in tables.all_tables(settings.watched)),
        )
        return json.dumps(operations.operations_file(stack), indent=2, sort_keys=True)

    def _entries(self, probe: cloudrunv2.Job) -> dict[str, Schedule]:
        minutes = self._settings.monitoring.thresholds.probe_minutes
        each = "* * * * *" if minutes == 1 else f"*/{minutes} * * * *"
        entries = {naming.PROBE: Schedule(job=probe, cron=each, description=_PROBE_SAYS)}
        for operation in self._scheduled():
            cron = operations.cron_of(operation, self._settings.pipeline.owner)
            job = self._args.jobs[operation.name]
            entries[operation.job] = Schedule(job=job, cron=cron, description=operation.purpose)
        return entries

    def _scheduled(self) -> Sequence[operations.Operation]:
        """What Cloud Scheduler starts beside the probe."""
        return () if self._settings.orchestration.composer else operations.SCHEDULED
