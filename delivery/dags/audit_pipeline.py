"""Keeps the streaming job running (Airflow: every 10 minutes).

Checks that dataset, tables, views and lookup are there and are what the contract says. A table that was never made is
made; one that was there and is gone fails the run: it is restored, never made again empty. Then exactly one job must
run: none is launched from the stack's template and resumes where the last one stopped, a failed one with back-off, two
are refused. A second run changes nothing. A deployment holds it off while it works.
"""

from payment_audit.operations import RunOperation, audit_dag

with audit_dag("audit_pipeline", "pipeline", __doc__, "DataflowJobDown", "how-to/restore") as dag:
    RunOperation(task_id="ensure_tables_and_job", name="pipeline")
