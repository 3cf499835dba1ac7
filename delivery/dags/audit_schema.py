"""Compares the source database with its changelog and the watched tables, every hour and on request (Airflow).

What is missing or different fails the run, which names it: the changesets that were not run, a column, a stream, a
role.

It changes no schema by itself. An update is the step `schema` of a delivery (`python -m delivery.schema update`),
behind the approval of its trigger. Where a stack has a job for it (an operation `schema-update` in
payment_audit.json), a run with `update` and the name of who approved it starts that job, and then compares. The
product makes no such job: it would be a second account that may change the payments database.
"""

from payment_audit.operations import STACK, AirflowException, AirflowSkipException, RunOperation, audit_dag, task

UPDATE = "schema-update"
PARAMS = {"update": False, "approved_by": ""}


@task
def approve_update(params=None):
    """Fails where an update is requested that nobody approved, or that no job of the stack runs."""
    if not params["update"]:
        raise AirflowSkipException("No update was requested: the schema is compared.")
    if not params["approved_by"].strip():
        raise AirflowException("approved_by must name who approved the update, and does not. Trigger it with both.")
    if UPDATE not in STACK["operations"]:
        raise AirflowException(
            "No job of this stack updates the schema: the step `schema` of its delivery does, behind its approval "
            f"(python -m delivery.schema update -s {STACK['stack']}). Trigger this DAG afterwards, without update."
        )
    print(f"Approved by {params['approved_by'].strip()}.")  # noqa: T201 - the task's log


with audit_dag("audit_schema", "schema", __doc__, params=PARAMS) as dag:
    approved = approve_update()
    compare = RunOperation(task_id="compare_schema", name="schema", trigger_rule="none_failed")
    approved >> compare
    if UPDATE in STACK["operations"]:
        approved >> RunOperation(task_id="update_schema", name=UPDATE) >> compare
