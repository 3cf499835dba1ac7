"""Compares what Spanner held with what BigQuery says of it, every hour (Airflow).

The hour's changes, the rows that they touched, and once a day the next part of all keys. A mismatch fails the run,
which then names the rows by their keys. Trigger it with `repair` to have lost changes read again and wrong states
replayed.
"""

from payment_audit.operations import RunOperation, audit_dag

PARAMS = {"repair": False}

with audit_dag(
    "audit_validation", "validation", __doc__, "AuditValidationMismatch", "AuditValidationSilent", params=PARAMS
) as dag:
    RunOperation(task_id="compare_rows", name="validation", otherwise={"repair": "repair"})
