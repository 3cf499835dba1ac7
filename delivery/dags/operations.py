"""What every DAG of the payment audit is made of: one task that has a Cloud Run job of the stack run, and awaits it.

The work is the `audit` command of that job; Cloud Scheduler starts the same jobs where there is no Composer. A DAG has
no credentials for payments: it may start these jobs, and read what they logged.

Beside this file is `payment_audit.json`, which Pulumi writes (contract/operations.py has its shape). Airflow 2.11 and
3.x.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.google.cloud.hooks.cloud_run import CloudRunHook
from airflow.providers.google.cloud.operators.cloud_run import CloudRunExecuteJobOperator

try:
    from airflow.sdk import DAG, task
    from airflow.sdk.exceptions import AirflowException, AirflowSkipException
except ImportError:  # Airflow 2
    from airflow.decorators import task
    from airflow.exceptions import AirflowException, AirflowSkipException
    from airflow.models.dag import DAG

# The DAGs have these from here.
__all__ = ["STACK", "AirflowException", "AirflowSkipException", "RunOperation", "audit_dag", "task"]

FILE = Path(__file__).with_name("payment_audit.json")
VERSION = 1
LOGGING, RUN = "https://logging.googleapis.com", "https://run.googleapis.com"
# How long a start and the wait for a free machine may take, beside the run itself.
SPARE = timedelta(minutes=15)
POLL_SECONDS = 10
# A run's last lines reach Cloud Logging some seconds after its end.
LOG_ATTEMPTS, LOG_PAUSE_SECONDS = 4, 5
LINES = 200


def load(file: Path = FILE) -> dict[str, Any]:
    """What the stack is: see `operations_file` of contract/operations.py."""
    if not file.exists():
        raise AirflowException(f"{file.name} must be beside the DAGs, and is not. `pulumi up` writes it; run it.")
    found: dict[str, Any] = json.loads(file.read_text())
    if found.get("version") != VERSION:
        raise AirflowException(
            f"{file.name} must be of version {VERSION}, is of {found.get('version')}: DAGs and stack are of different "
            "releases. Deploy both from one commit."
        )
    return found


STACK = load()


def operation(name: str) -> dict[str, Any]:
    """An operation by its name: job, cron, seconds, retries, purpose."""
    found: dict[str, Any] = STACK["operations"][name]
    return found


def longest(*names: str) -> timedelta:
    """How long a run of any of these operations may take, Cloud Run's retries included."""
    each = [operation(name) for name in names]
    return SPARE + max(timedelta(seconds=one["seconds"] * (1 + one["retries"])) for one in each)


def pages(*runbooks: str) -> str:
    """Links of runbooks, in Markdown."""
    base = STACK["runbooks"].rstrip("/")
    named = [f"[{page}]({base}/{page}.md)" if base else f"`runbooks/{page}.md`" for page in runbooks]
    return "\n\nRunbooks: " + ", ".join(named)


def audit_dag(dag_id: str, schedule_of: str, doc: str | None, *runbooks: str, **options: Any) -> DAG:
    """A DAG on the schedule of an operation; a stack that is paused has none. What was missed is not caught up."""
    return DAG(
        dag_id,
        schedule=operation(schedule_of)["cron"] or None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        # A failed run is Cloud Run's to repeat, or the next one's.
        default_args={"owner": "payment-audit", "retries": 0},
        description=operation(schedule_of)["purpose"],
        doc_md=(doc or "") + pages("AuditOperationFailed", *runbooks),
        tags=["payment-audit", STACK["stack"]],
        **options,
    )


class RunOperation(CloudRunExecuteJobOperator):
    """Has an operation's job run and awaits its end, without a worker's slot. A run that fails says what it logged.

    `name` of the operation; `otherwise` {param: another operation}: the one that runs where that param is true.
    """

    def __init__(self, *, name: str, otherwise: dict[str, str] | None = None, **options: Any) -> None:
        jobs = {param: operation(other)["job"] for param, other in (otherwise or {}).items()}
        chosen = "".join(f"{{%- if params.{param} %}}{job}{{% else %}}" for param, job in jobs.items())
        options.setdefault("job_name", chosen + operation(name)["job"] + "{% endif -%}" * len(jobs))
        options.setdefault("execution_timeout", longest(name, *(otherwise or {}).values()))
        super().__init__(
            project_id=STACK["project"],
            region=STACK["region"],
            # No overrides: who may override arguments may have the job's account do anything.
            overrides=None,
            deferrable=True,
            transport="rest",
            polling_period_seconds=POLL_SECONDS,
            **options,
        )

    def execute(self, context: Any) -> Any:
        try:
            return super().execute(context)
        finally:
            # Raising is how an operator defers: what it has to find again goes before.
            if self.operation is not None:
                context["ti"].xcom_push(key="execution", value=self.operation.metadata.name.rsplit("/", 1)[-1])

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        execution = context["ti"].xcom_pull(task_ids=self.task_id, key="execution")
        lines = self._logged(execution)
        try:
            super().execute_complete(context, event)
        except AirflowException as error:
            said = "\n".join(lines) or "It logged nothing that can be read from here: see the link to its log."
            raise AirflowException(f"{self.job_name} failed, execution {execution}. {error}\n{said}") from None
        if unfinished := self._unfinished(execution):
            raise AirflowException(f"{self.job_name} ended without success, {unfinished}: execution {execution}.")
        for line in lines:
            self.log.info("%s", line)
        return execution

    def _logged(self, execution: str) -> list[str]:
        """The last lines that an execution printed: commands print keys and counts, never a payment's data."""
        wanted = {
            "resourceNames": [f"projects/{self.project_id}"],
            "filter": f'resource.type="cloud_run_job" AND resource.labels.job_name="{self.job_name}" AND '
            f'labels."run.googleapis.com/execution_name"="{execution}" AND textPayload:*',
            "orderBy": "timestamp desc",
            "pageSize": LINES,
        }
        for attempt in range(LOG_ATTEMPTS):
            time.sleep(LOG_PAUSE_SECONDS if attempt else 0)
            answer = self._session().post(f"{LOGGING}/v2/entries:list", json=wanted, timeout=30)
            if not answer.ok:
                self.log.warning("Cloud Logging answers %s: what the run logged cannot be shown.", answer.status_code)
                return []
            entries = answer.json().get("entries", [])
            if entries:
                return [entry["textPayload"].rstrip() for entry in reversed(entries)]
        return []

    def _unfinished(self, execution: str) -> str:
        """What became of the tasks that did not succeed: the operation of a cancelled execution has no error."""
        name = f"projects/{self.project_id}/locations/{self.region}/jobs/{self.job_name}/executions/{execution}"
        answer = self._session().get(f"{RUN}/v2/{name}", timeout=30)
        if not answer.ok:
            raise AirflowException(
                f"Cloud Run answers {answer.status_code} for the execution {execution}, whose end is unknown: "
                "Composer's account needs roles/run.viewer on the job."
            )
        ran = answer.json()
        if ran.get("succeededCount", 0) >= ran.get("taskCount", 1):
            return ""
        return f"cancelled {ran.get('cancelledCount', 0)}, failed {ran.get('failedCount', 0)}"

    def _session(self) -> Any:
        from google.auth.transport.requests import AuthorizedSession

        hook = CloudRunHook(gcp_conn_id=self.gcp_conn_id, impersonation_chain=self.impersonation_chain)
        return AuthorizedSession(hook.get_credentials())
