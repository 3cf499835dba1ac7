"""Launch options of the streaming job: one list, three uses.

The job's command line, the flex template's parameters and the parameters that Pulumi passes are all made from it, so
they cannot drift. Names are those of Google's template where it has the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from contract import payments, tables


@dataclass(frozen=True, kw_only=True)
class Option:
    """One launch option. `default` None means required. `regex` is checked at launch, by the template and the job."""

    name: str
    help: str
    default: str | None = ""
    regex: str | None = None

    @property
    def required(self) -> bool:
        return self.default is None


# Not an option of ours but an experiment of Dataflow's, which keeps what a failing step was given, cards included, in
# Cloud Storage unless it is told not to.
NO_EXCEPTION_SAMPLING: Final = "disable_always_on_exception_sampling"

LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
_INT = r"[0-9]+"
_BOOL = r"true|false"
_TIME = r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z"

OPTIONS: Final = (
    # Source
    Option(name="spannerProjectId", help="Project of the Spanner instance.", default=None),
    Option(name="spannerInstanceId", help="Spanner instance to read from.", default=None),
    Option(name="spannerDatabase", help="Spanner database to read from.", default=None),
    Option(name="spannerDatabaseRole", help="Database role to read with. Empty: no fine-grained access."),
    Option(name="spannerMetadataInstanceId", help="Instance of the metadata database.", default=None),
    Option(name="spannerMetadataDatabase", help="Database with resume position and generations.", default=None),
    Option(name="spannerChangeStreamNames", help="Change streams to read, comma separated.", default=None),
    Option(name="rpcPriority", help="Priority of Spanner reads.", default="HIGH", regex="HIGH|MEDIUM|LOW"),
    Option(
        name="startTimestamp",
        help="Where the first job of a name begins, RFC 3339 UTC. Empty: now. Later ones go on at the resume position.",
        regex=_TIME,
    ),
    Option(name="endTimestamp", help="Last commit timestamp to read. Empty: never ends.", regex=_TIME),
    Option(
        name="readMode",
        help="tail: one long query a partition, which pushes (Google Cloud). "
        "windows: short bounded queries (the emulator scans its whole stream for every query).",
        default="tail",
        regex="tail|windows",
    ),
    Option(name="heartbeatMillis", help="Heartbeat of a change stream query.", default="1000", regex=_INT),
    Option(name="windowMillis", help="Shortest window of readMode=windows.", default="200", regex=_INT),
    Option(name="spannerEndpoint", help="host:port of Spanner. Empty: Google Cloud."),
    # Transforms
    Option(
        name="maskingKeys",
        help="Where the masking keys are: projects/P/secrets/S (every enabled version), or file:PATH.",
        default=None,
        regex=r"projects/[^/]+/secrets/[^/]+|file:.+",
    ),
    Option(
        name="newColumns",
        help="A column nobody has classified: scan passes it through the card scanner, hold keeps it NULL.",
        default="hold",
        regex="scan|hold",
    ),
    Option(
        name="paymentStates",
        help="STATUS=state pairs; states are initiated, processed and failed.",
        default=payments.format_states(payments.PAYMENT_STATES),
    ),
    Option(name="ignoreFields", help="Columns to leave out, comma separated, as table.column or column."),
    Option(name="ignoreTables", help="Tables to leave out, comma separated."),
    # Sink
    Option(name="bigQueryProjectId", help="Project of the datasets.", default=None),
    Option(
        name="bigQueryDataset",
        help="Dataset of tables that have no place of their own.",
        default=tables.PAYMENT_DATASET,
    ),
    Option(
        name="bigQueryChangelogTableNameTemplate",
        help="Name of a changelog table that has no place of its own.",
        default="{_metadata_spanner_table_name}_changelog",
    ),
    Option(name="bigQueryEndpoint", help="URL of BigQuery's REST API. Empty: Google Cloud."),
    Option(name="bigQueryStorageEndpoint", help="host:port of the Storage Write API. Empty: Google Cloud."),
    Option(
        name="writeMode",
        help="exactly-once, or at-least-once (cheaper; after a kill, rows between resume position and kill can be "
        "there twice).",
        default="exactly-once",
        regex="exactly-once|at-least-once",
    ),
    Option(name="numStorageWriteApiStreams", help="Write streams a table.", default="1", regex="[1-9][0-9]*"),
    Option(name="batchMillis", help="How long rows are gathered before an append.", default="200", regex=_INT),
    Option(name="batchRows", help="Most rows in one append.", default="500", regex="[1-9][0-9]*"),
    # Dead letters
    Option(name="deadLetterQueueDirectory", help="Where dead letters go: a path or gs:// URL.", default=None),
    Option(
        name="dlqRetryMinutes",
        help="Minutes between two tries of the dead letters.",
        default="10",
        regex=r"[0-9]+(\.[0-9]+)?",
    ),
    Option(name="dlqMaxRetries", help="Tries before a letter is set aside in severe/.", default="5", regex=_INT),
    Option(name="disableDlqRetries", help="Do not retry dead letters.", default="false", regex=_BOOL),
    # Job
    Option(
        name="dryRun",
        help="Check every setting, permission and schema; write nothing.",
        default="false",
        regex=_BOOL,
    ),
    Option(
        name="logLevel",
        help="Least severe line of the log. DEBUG also names every change, so that one payment can be followed.",
        default="INFO",
        regex="|".join(LOG_LEVELS),
    ),
)
