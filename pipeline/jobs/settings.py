"""The job's command line, made from `contract.options`, checked at once and whole."""

from __future__ import annotations

import re
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from contract import timestamps
from contract.errors import AuditError
from contract.options import OPTIONS, Option
from contract.watched import WatchedTables
from pipeline.sink.config import SinkSettings
from pipeline.source.partition_threads import Reading
from pipeline.source.query import ChangeStream
from pipeline.transforms.filter import IgnoredRecords
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
                directed_reads=self["directedReads"],
            )
            for name in self.stream_names
        )

    @property
    def reading(self) -> Reading:
        end = self["endTimestamp"]
        return Reading(
            mode=self["readMode"],  # type: ignore[arg-type]
            window_millis=int(self["windowMillis"]),
            gather_millis=int(self["batchMillis"]),
            end=timestamps.normalise(end) if end else None,
        )

    @cached_property
    def watched(self) -> WatchedTables:
        return WatchedTables.from_json(self["watchedTables"])

    @property
    def ignored_records(self) -> IgnoredRecords:
        return IgnoredRecords.parse(self["ignoreTables"], self["ignoreOperations"], self["ignoreTransactionTags"])

    @property
    def transforms(self) -> TransformSettings:
        return TransformSettings.of(self.values)

    @property
    def sink(self) -> SinkSettings:
        return SinkSettings.of(self.values, self.job_name)


def parse(argv: Sequence[str]) -> tuple[StreamSettings, list[str]]:
    """Reads the command line. Returns the settings and what is left for Beam. Raises SettingsError."""
    parser = parser_of(
        OPTIONS,
        prog="pipeline.jobs.stream",
        description="Carries every change of Spanner change streams, masked and enriched, into BigQuery.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("--job_name", default="audit-stream-job", help="Name of the job; its resume position is by it.")
    known, beam_args = parser.parse_known_args(argv)
    values: dict[str, Any] = vars(known)
    job_name: str = values.pop("job_name")
    problems = broken(OPTIONS, values) or _relations(values)
    if not re.fullmatch(_JOB_NAME, job_name):
        problems.append(
            f"--job_name must match {_JOB_NAME}, got {job_name!r}. It names the Dataflow job and the resume position."
        )
    if problems:
        raise SettingsError("\n".join(problems))
    return StreamSettings(values=values, job_name=job_name), [*beam_args, f"--job_name={job_name}"]


def parser_of(options: Sequence[Option], **texts: str) -> ArgumentParser:
    """A command line with these options. `texts` are ArgumentParser's: prog, description, epilog."""
    parser = ArgumentParser(**texts, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)  # type: ignore[arg-type]
    for option in options:
        shown = "required" if option.required else f"default: {option.default or 'empty'}"
        help_text = f"{option.help} ({shown})".replace("%", "%%")
        parser.add_argument(f"--{option.name}", default=option.default, help=help_text, metavar="VALUE")
    return parser


def broken(options: Sequence[Option], values: Mapping[str, Any]) -> list[str]:
    """Every problem of the values. What the job parses later is parsed here once: it must not fail in a worker."""
    found = []
    for option in options:
        value = values[option.name]
        if value is None or (option.required and not value.strip()):
            found.append(f"--{option.name} is required: {option.help}")
        elif (rule := option.broken(value)) is not None:
            found.append(f"--{option.name} must be {rule}, got {value!r}. {option.help}")
    return found


def _relations(values: dict[str, Any]) -> list[str]:
    """Rules between the options of the streaming job."""
    found = []
    names = [name.lower() for name in _listed(values["spannerChangeStreamNames"])]
    if len(set(names)) < len(names):
        found.append("--spannerChangeStreamNames must name each change stream once: a second reader doubles its rows.")
    start, end = values["startTimestamp"], values["endTimestamp"]
    if start and end and timestamps.normalise(start) >= timestamps.normalise(end):
        found.append(f"--endTimestamp must be after --startTimestamp, got {start} and {end}.")
    return found


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
