"""What runs by a schedule or on request: each is an `audit` command, the same in Cloud Run, in a DAG, on one machine.

operation ─► a Cloud Run job of that name, which runs the command (components/)
          ─► started by Cloud Scheduler or by a DAG of Composer's (components/orchestration.py, delivery/dags/)
          ─► on one machine, a loop of the supervisor (local/)
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final


@dataclass(frozen=True, kw_only=True)
class Operation:
    """`job` is its Cloud Run job's name, `command` what follows `audit`.

    `cron` is in UTC; empty: on request alone. `seconds` is the longest that a run may take. `retries` of a run that
    failed: 0 where the next run catches up.
    """

    name: str
    job: str
    command: tuple[str, ...]
    cron: str
    seconds: int
    retries: int
    purpose: str


PIPELINE: Final = Operation(
    name="pipeline",
    job="audit-pipeline",
    command=("pipeline", "ensure"),
    cron="*/10 * * * *",
    seconds=1200,
    retries=0,
    purpose="Checks the tables and keeps exactly one job running",
)
SCHEMA: Final = Operation(
    name="schema",
    job="audit-schema",
    command=("schema", "verify"),
    cron="22 * * * *",
    seconds=300,
    retries=0,
    purpose="Compares the source database with the changelog and the watched tables",
)
# An hour of 500 changes a second takes 800 CPU seconds, a part 1,100 (python -m bench.validation).
VALIDATION: Final = Operation(
    name="validation",
    job="audit-validation",
    command=("validate",),
    cron="7 * * * *",
    seconds=3300,
    retries=0,
    purpose="Compares rows: a run that is missed is caught up by the next",
)
REPAIR: Final = Operation(
    name="repair",
    job="audit-repair",
    command=("validate", "--repair"),
    cron="",
    seconds=3300,
    retries=0,
    purpose="Compares rows and repairs what differs",
)
# A while after midnight in UTC: the new day is small, so what is read again tomorrow is little.
BACKUP: Final = Operation(
    name="backup",
    job="audit-backup",
    command=("backup", "create"),
    cron="40 2 * * *",
    seconds=4 * 3600,
    # A run that failed is continued: the same day is the same backup.
    retries=1,
    purpose="Makes the night's backup of BigQuery",
)
BACKUP_DRILL: Final = Operation(
    name="backup-drill",
    job="audit-backup-drill",
    command=("backup", "drill"),
    cron="40 5 * * 0",
    seconds=4 * 3600,
    retries=0,
    purpose="Restores a backup, compares it and drops it",
)
# What is redacted stays redacted, however often it runs.
ERASURE: Final = Operation(
    name="erasure",
    job="audit-erasure",
    command=("erase", "resume", "--here"),
    cron="23 2 * * *",
    # An erasure waits for the job, redacts, and counts: minutes. A day of them has an hour.
    seconds=3600,
    retries=1,
    purpose="Ends erasures that were not run to their end",
)
DEAD_LETTERS: Final = Operation(
    name="dead-letters",
    job="audit-dead-letters",
    command=("dead-letters", "report"),
    cron="12 * * * *",
    seconds=600,
    retries=0,
    purpose="Counts dead letters by reason and age",
)
DEAD_LETTERS_RETRY: Final = Operation(
    name="dead-letters-retry",
    job="audit-dead-letters-retry",
    command=("dead-letters", "retry", "--all"),
    cron="",
    seconds=600,
    retries=0,
    purpose="Gives the parked dead letters back to the running job",
)

OPERATIONS: Final = (
    PIPELINE,
    SCHEMA,
    VALIDATION,
    REPAIR,
    BACKUP,
    BACKUP_DRILL,
    ERASURE,
    DEAD_LETTERS,
    DEAD_LETTERS_RETRY,
)
SCHEDULED: Final = tuple(operation for operation in OPERATIONS if operation.cron)

# Where Pulumi owns the streaming job, `pipeline` launches none: it looks and reports, and an hour is soon enough.
_LOOKS: Final = "52 * * * *"


def cron_of(operation: Operation, pipeline_owner: str) -> str:
    """When an operation is started in a stack; empty: on request alone."""
    return _LOOKS if operation == PIPELINE and pipeline_owner == "pulumi" else operation.cron


# The environment variable that says which operation a run is, and so under which name it is recorded.
IN_ENVIRONMENT: Final = "AUDIT_OPERATION"
# What `pipeline` finds in its connection: who owns the streaming job, the body of its launch, and whether the stack
# is paused (`true` or empty).
OWNER: Final = "pipelineOwner"
LAUNCH: Final = "pipelineLaunch"
PAUSED: Final = "pipelinePaused"
# What the DAGs read, beside them in the bucket of their environment. Pulumi writes it (components/orchestration.py).
OPERATIONS_FILE: Final = "payment_audit.json"
_VERSION: Final = 1


@dataclass(frozen=True, kw_only=True)
class Stack:
    """What the DAGs have to know about a stack: where the operations' jobs are, and what `pipeline` launches.

    `prefix` is in front of each job's name. `launch` is the body of a flexTemplates.launch, empty where Pulumi owns the
    streaming job; `tables` are `dataset.table`.
    """

    stack: str
    project: str
    prefix: str
    region: str
    pipeline_owner: str
    paused: bool
    runbooks: str
    template_path: str
    launch: Mapping[str, Any]
    tables: Sequence[str]


def operations_file(stack: Stack) -> dict[str, Any]:
    """The content of OPERATIONS_FILE: `{"version", "stack", "project", "region", "pipelineOwner", "paused", "runbooks",
    "templatePath", "launch", "tables", "operations"}`, the last by name: `{"job", "command", "cron", "seconds",
    "retries", "purpose"}`.

    A job's full name is `projects/{project}/locations/{region}/jobs/{job}`. Of a paused stack no operation has a cron.
    """
    return {
        "version": _VERSION,
        "stack": stack.stack,
        "project": stack.project,
        "region": stack.region,
        "pipelineOwner": stack.pipeline_owner,
        "paused": stack.paused,
        "runbooks": stack.runbooks,
        "templatePath": stack.template_path,
        "launch": dict(stack.launch),
        "tables": list(stack.tables),
        "operations": {each.name: _of_file(each, stack) for each in OPERATIONS},
    }


def _of_file(operation: Operation, stack: Stack) -> dict[str, Any]:
    cron = "" if stack.paused else cron_of(operation, stack.pipeline_owner)
    named = {key: value for key, value in asdict(operation).items() if key != "name"}
    return {**named, "job": stack.prefix + operation.job, "command": list(operation.command), "cron": cron}


def launch_request(
    *, job: str, template: Any, parameters: Mapping[str, Any], environment: Mapping[str, Any]
) -> dict[str, Any]:
    """The body of `projects.locations.flexTemplates.launch`, which starts the streaming job; values may be Pulumi's.

    Source: cloud.google.com/dataflow/docs/reference/rest/v1b3/projects.locations.flexTemplates/launch.
    """
    return {
        "launchParameter": {
            "jobName": job,
            "containerSpecGcsPath": template,
            "parameters": dict(parameters),
            "environment": dict(environment),
        }
    }
