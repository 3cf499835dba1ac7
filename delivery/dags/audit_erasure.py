"""Finishes erasures of customers that were requested and did not end, each night (Airflow).

A person requests an erasure with `audit erase`; this DAG starts none.
"""

from payment_audit.operations import RunOperation, audit_dag

with audit_dag("audit_erasure", "erasure", __doc__, "AuditErasureUnfinished") as dag:
    RunOperation(task_id="finish_erasures", name="erasure")
