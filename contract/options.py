"""Launch options of the streaming job: one list, three uses.

The job's command line, the flex template's parameters and the parameters that Pulumi passes are all made from it, so
they cannot drift. Names are those of Google's template where it has the same thing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from contract import payments, tables, timestamps, watched


@dataclass(frozen=True, kw_only=True)
class Option:
    """One launch option. `default` None means required.

    `regex` is what the template checks, which knows nothing else. `broken` has the whole rule, for a preview and for
    the job: `low` and `high` bound a number, `parse` raises ValueError for what is left, `rule` says it in words.
    """

    name: str
    help: str
    default: str | None = ""
    regex: str | None = None
    rule: str = ""
    low: float | None = None
    high: float | None = None
    parse: Callable[[str], object] = str
    # Set by a stack's config, under this name. Resources give the others, or a person who launches a job by hand.
    stack: bool = False

    @property
    def required(self) -> bool:
        return self.default is None

    def broken(self, value: str) -> str | None:
        """The rule that a value breaks, as in "must be …"; None where it keeps them all."""
        kept = re.fullmatch(self.regex or ".*", value) and not re.search(r"[\x00-\x1f\x7f]", value)
        if kept and self.low is not None and self.high is not None:
            kept = self.low <= float(value) <= self.high
        try:
            self.parse(value)
        except ValueError:
            kept = False
        bounds = "" if self.low is None else f" from {self.low:.15g} to {self.high:.15g}"
        return None if kept else f"{self.rule or self.regex}{bounds}"


def named(name: str) -> Option:
    """The option of that name. Raises LookupError."""
    for option in OPTIONS:
        if option.name == name:
            return option
    raise LookupError(f"launch options must be in contract/options.py, got {name}. Add it there.")


# Not our option but an experiment of Dataflow's, which keeps what a failing step was given, cards included, in
# Cloud Storage unless that is switched off.
NO_EXCEPTION_SAMPLING: Final = "disable_always_on_exception_sampling"

LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
_INT = r"[0-9]+"
_WHOLE = "a whole number"
BOOLEAN: Final = r"true|false"
_TIME = r"|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z"
_MOMENT = "a valid time, RFC 3339 in UTC such as 2026-11-23T09:00:00Z, or empty"
# A name of Spanner's or BigQuery's, and lists of them.
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_TABLE = rf"{_NAME}(\.{_NAME})?"
_FIELD = rf"{_NAME}(\.{_NAME})?(\.{_NAME})?"
_PROJECT = r"[a-z0-9][a-z0-9.:-]*"
_INSTANCE = r"[a-z][a-z0-9-]*"
_DATABASE = r"[a-z][a-z0-9_-]*"
_HOST = r"([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])"
_LOCATION = r"[a-z][a-z0-9-]*"
_REPLICA = r"(READ_ONLY|READ_WRITE)"
# At most 50 printable characters: cloud.google.com/spanner/docs/introspection/troubleshooting-with-tags
_TAG = r"[!-+\--~]([ -+\--~]{0,48}[!-+\--~])?"
OPERATIONS: Final = ("INSERT", "UPDATE", "DELETE")


def _listed(one: str) -> Callable[[str], None]:
    """What raises ValueError for a value that is not a list of such names with commas."""

    def parse(value: str) -> None:
        if value and not re.fullmatch(f"{one}( *, *{one})*", value):
            raise ValueError

    return parse


def _replicas(value: str) -> None:
    """Raises ValueError for what is not replicas of directed reads, or too many for Spanner."""
    _listed(rf"({_LOCATION}(:{_REPLICA})?|:{_REPLICA})")(value)
    # cloud.google.com/spanner/docs/reference/rest/v1/DirectedReadOptions
    if len(value.split(",")) > 10:
        raise ValueError


def _operations(value: str) -> None:
    """Raises ValueError for what is not operations, or all three."""
    _listed(rf"({'|'.join(OPERATIONS)})")(value)
    if {part.strip() for part in value.split(",")} >= set(OPERATIONS):
        raise ValueError


def _moment(value: str) -> None:
    """Raises ValueError for a day or an hour that does not exist, or that nothing can be read before or after."""
    if value:
        nanos = timestamps.to_nanos(timestamps.normalise(value))
        try:
            for nearby in (nanos - 1, nanos + 1_000_000):
                timestamps.from_nanos(nearby)
        except OverflowError:
            raise ValueError from None


OPTIONS: Final = (
    # Source
    Option(
        name="spannerProjectId",
        help="Project of the Spanner instance.",
        default=None,
        regex=_PROJECT,
        rule="a Google Cloud project id",
    ),
    Option(
        name="spannerInstanceId",
        help="Spanner instance to read from.",
        default=None,
        regex=_INSTANCE,
        rule="an instance id",
    ),
    Option(
        name="spannerDatabase",
        help="Spanner database to read from.",
        default=None,
        regex=_DATABASE,
        rule="a database id",
    ),
    Option(
        name="spannerDatabaseRole",
        help="Database role to read with. Empty: no fine-grained access.",
        regex=rf"|{_NAME}",
        rule="empty or the name of a database role",
    ),
    Option(
        name="spannerMetadataProjectId",
        help="Project of the metadata database's instance. Empty: spannerProjectId.",
        regex=rf"|{_PROJECT}",
        rule="empty or a Google Cloud project id",
    ),
    Option(
        name="spannerMetadataInstanceId",
        help="Instance of the metadata database.",
        default=None,
        regex=_INSTANCE,
        rule="an instance id",
    ),
    Option(
        name="spannerMetadataDatabase",
        help="Database with resume position and generations.",
        default=None,
        regex=_DATABASE,
        rule="a database id",
    ),
    Option(
        name="spannerChangeStreamNames",
        help="Change streams to read, comma separated.",
        default=None,
        regex=".*[^ ,].*",
        parse=_listed(_NAME),
        rule="names of change streams, comma separated",
    ),
    Option(
        name="watchedTables",
        help="Description of the watched tables, as `python -m contract.watched tables.toml` prints it.",
        default=None,
        regex=r"\{.+\}",
        parse=watched.WatchedTables.from_json,
        rule="what `python -m contract.watched tables.toml` prints",
    ),
    Option(
        name="rpcPriority",
        help="Priority of Spanner reads: HIGH, MEDIUM or LOW.",
        default="HIGH",
        regex="HIGH|MEDIUM|LOW",
        stack=True,
    ),
    Option(
        name="directedReads",
        stack=True,
        help="Replicas to read the change streams from, at most 10, comma separated: LOCATION, LOCATION:READ_ONLY, "
        ":READ_ONLY. Others are read where none of them answers. Empty: the nearest.",
        parse=_replicas,
        rule="at most 10 of LOCATION, LOCATION:TYPE or :TYPE, comma separated, with TYPE READ_ONLY or READ_WRITE",
    ),
    Option(
        name="startTimestamp",
        stack=True,
        help="Where the first job of a name begins, RFC 3339 UTC. Empty: now. Later ones resume where it stopped.",
        regex=_TIME,
        rule=_MOMENT,
        parse=_moment,
    ),
    Option(
        name="endTimestamp",
        help="Last commit timestamp to read. Empty: never ends.",
        regex=_TIME,
        rule=_MOMENT,
        parse=_moment,
    ),
    Option(
        name="readMode",
        stack=True,
        help="tail: one long query a partition, which pushes (Google Cloud). "
        "windows: short bounded queries (the emulator, which scans its whole stream for every query).",
        default="tail",
        regex="tail|windows",
    ),
    Option(
        name="changeStreamReaders",
        stack=True,
        help="Readers of each change stream, which share its partitions: more than one where a core does not keep up. "
        "0: one for ten partitions, as they are when the job is launched.",
        default="1",
        regex=_INT,
        rule=_WHOLE,
        low=0,
        high=100,
    ),
    Option(
        name="heartbeatMillis",
        stack=True,
        help="Heartbeat of a change stream query.",
        default="1000",
        regex=_INT,
        rule=_WHOLE,
        low=1_000,
        high=300_000,
    ),
    Option(
        name="windowMillis",
        stack=True,
        help="Shortest window of readMode windows.",
        default="200",
        regex=_INT,
        rule=_WHOLE,
        low=1,
        high=3_600_000,
    ),
    Option(
        name="spannerEndpoint",
        help="host:port of Spanner. Empty: Google Cloud.",
        regex=rf"|{_HOST}:[0-9]+",
        rule="empty or host:port",
    ),
    # Transforms
    Option(
        name="maskingKeys",
        help="Where the masking keys are: projects/P/secrets/S (every enabled version), or file:PATH.",
        default=None,
        regex=r"projects/[^/]+/secrets/[^/]+|file:.+",
        rule="projects/P/secrets/S or file:PATH",
    ),
    Option(
        name="newColumns",
        stack=True,
        help="A column nobody has classified: scan passes it through the card scanner, hold keeps it NULL. "
        "A stack must have hold in prod.",
        default="hold",
        regex="scan|hold",
    ),
    Option(
        name="paymentStates",
        stack=True,
        help="STATUS=state pairs; states are initiated, processed and failed.",
        default=payments.format_states(payments.PAYMENT_STATES),
        parse=payments.parse_states,
        rule=f"STATUS=state pairs with a state of {', '.join(payments.STATES)}",
    ),
    Option(
        name="ignoreFields",
        stack=True,
        help="Columns to leave out, comma separated, as table.column or column.",
        parse=_listed(_FIELD),
        rule="table.column or column, comma separated",
    ),
    Option(
        name="ignoreTables",
        stack=True,
        help="Tables to leave out, comma separated.",
        parse=_listed(_TABLE),
        rule="tables, comma separated",
    ),
    Option(
        name="ignoreOperations",
        stack=True,
        help="Operations to leave out, comma separated: INSERT, UPDATE, DELETE. Validation then compares no rows, the "
        "other changes alone.",
        parse=_operations,
        rule="one or two of INSERT, UPDATE and DELETE, comma separated",
    ),
    Option(
        name="ignoreTransactionTags",
        stack=True,
        help="Transaction tags whose changes to leave out, comma separated. Validation then compares no rows, the "
        "other changes alone.",
        parse=_listed(_TAG),
        rule="transaction tags of at most 50 printable characters, comma separated",
    ),
    # Sink
    Option(
        name="bigQueryProjectId",
        help="Project of the datasets.",
        default=None,
        regex=_PROJECT,
        rule="a Google Cloud project id",
    ),
    Option(
        name="bigQueryDataset",
        stack=True,
        help="Dataset of tables that are not described, one of those in tables.toml. Empty: that of the payments.",
        regex=r"[A-Za-z0-9_]*",
        rule="empty or the name of a dataset",
    ),
    Option(
        name="bigQueryChangelogTableNameTemplate",
        stack=True,
        help="Name of a changelog table that has no other place, with {_metadata_spanner_table_name} for the source's.",
        default="{_metadata_spanner_table_name}_changelog",
        regex=rf"[A-Za-z0-9_-]*\{{{tables.TABLE_NAME}\}}[A-Za-z0-9_-]*",
        rule=f"a table's name with {{{tables.TABLE_NAME}}} in it",
    ),
    Option(
        name="bigQueryEndpoint",
        help="URL of BigQuery's REST API. Empty: Google Cloud.",
        regex=rf"|https?://{_HOST}(:[0-9]+)?(/[^ ]*)?",
        rule="empty or an http:// or https:// URL",
    ),
    Option(
        name="bigQueryStorageEndpoint",
        help="host:port of the Storage Write API. Empty: Google Cloud.",
        regex=rf"|{_HOST}:[0-9]+",
        rule="empty or host:port",
    ),
    Option(
        name="writeMode",
        stack=True,
        help="exactly-once, or at-least-once (cheaper; after a kill, rows between resume position and kill can be "
        "there twice).",
        default="exactly-once",
        regex="exactly-once|at-least-once",
    ),
    Option(
        name="numStorageWriteApiStreams",
        stack=True,
        help="Write streams a table; at least as many as changeStreamReaders.",
        default="1",
        regex="[1-9][0-9]*",
        rule=_WHOLE,
        low=1,
        high=1_000,
    ),
    Option(
        name="batchMillis",
        stack=True,
        help="How long changes that keep coming are gathered before their rows are appended.",
        default="200",
        regex=_INT,
        rule=_WHOLE,
        low=0,
        # So long a bundle of the source lasts.
        high=1_000,
    ),
    Option(
        name="batchRows",
        stack=True,
        help="Most rows in one append.",
        default="500",
        regex="[1-9][0-9]*",
        rule=_WHOLE,
        low=1,
        high=100_000,
    ),
    # Dead letters
    Option(
        name="deadLetterQueueDirectory",
        help="Where dead letters go: a path or gs:// URL.",
        default=None,
        regex=r"gs://[a-z0-9][a-z0-9._-]*[a-z0-9](/[^?#*]*)?|[^:?#*]*[^:?#* ]",
        rule="a path, or a gs:// URL with its bucket",
    ),
    Option(
        name="dlqRetryMinutes",
        stack=True,
        help="Minutes between two tries of the dead letters.",
        default="10",
        regex=r"[0-9]+(\.[0-9]+)?",
        rule="a number of minutes",
        low=0.01,
        high=525_600,
    ),
    Option(
        name="dlqMaxRetries",
        stack=True,
        help="Tries before a dead letter is parked in severe/.",
        default="5",
        regex=_INT,
        rule=_WHOLE,
        low=0,
        high=1_000,
    ),
    Option(name="disableDlqRetries", help="Do not retry dead letters.", default="false", regex=BOOLEAN, stack=True),
    # Job
    Option(
        name="dryRun",
        help="Check every setting, permission and schema; write nothing.",
        default="false",
        regex=BOOLEAN,
    ),
    Option(
        name="logLevel",
        stack=True,
        help="Minimum log level: DEBUG, INFO, WARNING or ERROR. DEBUG also names every change, so that one payment "
        "can be followed.",
        default="INFO",
        regex="|".join(LOG_LEVELS),
    ),
)

# Launch options that a stack's config sets.
STACK_OPTIONS: Final = tuple(option.name for option in OPTIONS if option.stack)

_REPLAYS_TOO: Final = (
    "spannerProjectId", "spannerInstanceId", "spannerDatabase", "spannerDatabaseRole", "spannerMetadataProjectId",
    "spannerMetadataInstanceId", "spannerMetadataDatabase", "watchedTables", "spannerEndpoint", "maskingKeys",
    "newColumns", "paymentStates", "ignoreFields", "ignoreTables", "bigQueryProjectId", "bigQueryEndpoint",
    "bigQueryStorageEndpoint", "deadLetterQueueDirectory", "logLevel",
)  # fmt: skip

# cloud.google.com/pubsub/docs/pubsub-basics#resource_names
TOPIC_NAME: Final = r"[A-Za-z][A-Za-z0-9._~+%-]{2,254}"
TOPIC: Final = rf"projects/[a-z][a-z0-9-]*/topics/{TOPIC_NAME}"

# Those of the batch job, which runs a replay: some of the streaming job's, and its separate ones.
BATCH_OPTIONS: Final = (
    *(named(name) for name in _REPLAYS_TOO),
    Option(
        name="replayId",
        help="The replay to run, as `audit replay list` names it.",
        default=None,
        regex=r"[A-Za-z0-9][A-Za-z0-9._-]*",
        rule="the id of a replay",
    ),
    Option(
        name="replayMost",
        help="Most payments of one replay.",
        default="1000000",
        regex="[1-9][0-9]*",
        rule=_WHOLE,
        low=1,
        high=50_000_000,
    ),
    Option(name="dataBoost", help="Read on Spanner Data Boost's capacity.", default="false", regex=BOOLEAN),
    Option(
        name="jobName",
        help="Name of the streaming job: a backfill waits until its resume position is past the moment of the read.",
        regex=r"|[A-Za-z0-9][A-Za-z0-9._-]*",
        rule="empty or the name of a job",
    ),
    Option(
        name="designTps",
        help="Changes a second, for which the bytes are limited that a backfill reads of BigQuery.",
        default="500",
        regex=r"[0-9]+(\.[0-9]+)?",
        rule="a number of changes a second",
    ),
    Option(
        name="replayTopic",
        help="Pub/Sub topic that replayed payments are handed over to. Empty: none.",
        regex=rf"|{TOPIC}",
        rule="empty or projects/P/topics/T",
    ),
    Option(
        name="pubSubEndpoint",
        help="URL of Pub/Sub's REST API. Empty: Google Cloud.",
        regex=rf"|https?://{_HOST}(:[0-9]+)?",
        rule="empty or an http:// or https:// URL",
    ),
)
