"""The job's command line, made from `contract.options`, checked at once and whole."""

from __future__ import annotations

import re
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from contract import payments, timestamps
from contract.errors import AuditError
from contract.options import OPTIONS
from contract.watched import WatchedTables
from pipeline.clients import Endpoints
from pipeline.sink.changelogs import Destinations
from pipeline.sink.config import MetadataDatabase, SinkSettings
from pipeline.source.partition_threads import Reading
from pipeline.source.query import ChangeStream
from pipeline.transforms.filter import Ignored
from pipeline.transforms.settings import TransformSettings

_EXAMPLE = """
Options that are not listed go to Beam (--runner, --job_name, --region, …).

Example, on one machine:
  python -m pipeline.jobs.stream --runner=PrismRunner --job_name=audit-stream-job \\
    --spannerProjectId=audit-local --spannerInstanceId=audit-instance --spannerDatabase=audit-db …
"""


_JOB_NAME = r"[a-z]([-a-z0-9]{0,126}[a-z0-9])?"


class SettingsError(AuditError, ValueError):
    """Options that cannot be run with; the message lists every problem with its remedy."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """What the streaming job runs with."""

    values: dict[str, str]
    job_name: str

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(
            spanner=self["spannerEndpoint"],
            bigquery=self["bigQueryEndpoint"],
            bigquery_storage=self["bigQueryStorageEndpoint"],
        )

    @property
    def stream_names(self) -> tuple[str, ...]:
        return tuple(_listed(self["spannerChangeStreamNames"]))

    @property
    def streams(self) -> tuple[ChangeStream, ...]:
        database = (
            f"projects/{self['spannerProjectId']}/instances/{self['spannerInstanceId']}"
            f"/databases/{self['spannerDatabase']}"
        )
        return tuple(
            ChangeStream(
                name=name,
                database=database,
                endpoint=self["spannerEndpoint"],
                role=self["spannerDatabaseRole"],
                priority=self["rpcPriority"],
                heartbeat_millis=int(self["heartbeatMillis"]),
            )
            for name in self.stream_names
        )

    @property
    def reading(self) -> Reading:
        end = self["endTimestamp"]
        return Reading(
            mode=self["readMode"],  # type: ignore[arg-type]
            window_millis=int(self["windowMillis"]),
            end=timestamps.normalise(end) if end else None,
        )

    @cached_property
    def watched(self) -> WatchedTables:
        return WatchedTables.from_json(self["watchedTables"])

    @property
    def transforms(self) -> TransformSettings:
        return TransformSettings(
            masking_keys=self["maskingKeys"],
            new_columns=self["newColumns"],  # type: ignore[arg-type]
            payment_states=payments.parse_states(self["paymentStates"]),
            ignored=Ignored.parse(fields=self["ignoreFields"], tables=self["ignoreTables"]),
            watched=self.watched,
        )

    @property
    def sink(self) -> SinkSettings:
        return SinkSettings(
            endpoints=self.endpoints,
            metadata=MetadataDatabase(
                project=self["spannerProjectId"],
                instance=self["spannerMetadataInstanceId"],
                database=self["spannerMetadataDatabase"],
            ),
            destinations=Destinations(
                project=self["bigQueryProjectId"],
                dataset=self["bigQueryDataset"] or self.watched.payments.dataset,
                name_template=self["bigQueryChangelogTableNameTemplate"],
                watched=self.watched,
            ),
            job_name=self.job_name,
            exactly_once=self["writeMode"] == "exactly-once",
        )


def parse(argv: Sequence[str]) -> tuple[StreamSettings, list[str]]:
    """Reads the command line. Returns the settings and what is left for Beam. Raises SettingsError."""
    parser = ArgumentParser(
        prog="pipeline.jobs.stream",
        description="Carries every change of Spanner change streams, masked and enriched, into BigQuery.",
        epilog=_EXAMPLE,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for option in OPTIONS:
        shown = "required" if option.required else f"default: {option.default or 'empty'}"
        help_text = f"{option.help} ({shown})".replace("%", "%%")
        parser.add_argument(f"--{option.name}", default=option.default, help=help_text, metavar="VALUE")
    parser.add_argument("--job_name", default="audit-stream-job", help="Name of the job; its resume position is by it.")
    known, beam_args = parser.parse_known_args(argv)
    values: dict[str, Any] = vars(known)
    job_name: str = values.pop("job_name")
    problems = _problems(values)
    if not re.fullmatch(_JOB_NAME, job_name):
        problems.append(
            f"--job_name must match {_JOB_NAME}, got {job_name!r}. It names the Dataflow job and the resume position."
        )
    if problems:
        raise SettingsError("\n".join(problems))
    return StreamSettings(values=values, job_name=job_name), [*beam_args, f"--job_name={job_name}"]


def _problems(values: dict[str, Any]) -> list[str]:
    """Every problem of the values. What the job parses later is parsed here once: it must not fail in a worker."""
    found = []
    for option in OPTIONS:
        value = values[option.name]
        if value is None or (option.required and not value.strip()):
            found.append(f"--{option.name} is required: {option.help}")
        elif (rule := option.broken(value)) is not None:
            found.append(f"--{option.name} must be {rule}, got {value!r}. {option.help}")
    if found:
        return found
    names = [name.lower() for name in _listed(values["spannerChangeStreamNames"])]
    if len(set(names)) < len(names):
        found.append("--spannerChangeStreamNames must name each change stream once: a second reader doubles its rows.")
    start, end = values["startTimestamp"], values["endTimestamp"]
    if start and end and timestamps.normalise(start) >= timestamps.normalise(end):
        found.append(f"--endTimestamp must be after --startTimestamp, got {start} and {end}.")
    return found


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
