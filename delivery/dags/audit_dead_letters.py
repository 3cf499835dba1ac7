"""Counts dead letters by reason and age, every hour (Airflow). The running job retries by itself what may yet work.

Trigger it with `retry` once what parked them is repaired: the parked ones go back to the running job.
"""

from payment_audit.operations import RunOperation, audit_dag

PARAMS = {"retry": False}

with audit_dag(
    "audit_dead_letters", "dead-letters", __doc__, "AuditDlqGrowth", "AuditDlqUnresolved", params=PARAMS
) as dag:
    RunOperation(task_id="report_dead_letters", name="dead-letters", otherwise={"retry": "dead-letters-retry"})
