"""Backs BigQuery up each night, and tries a backup each week (Airflow).

`audit_backup`: snapshots of one moment with their checksums, an export, and what is past its time is deleted. The same
day is the same backup: a run that failed is continued. `audit_backup_drill` restores one into a scratch dataset,
compares it with what was recorded, and drops it; it fails where a snapshot is not what it was, and names the rows.
"""

from payment_audit.operations import RunOperation, audit_dag

with audit_dag("audit_backup", "backup", __doc__, "AuditBackupTooOld") as backup:
    RunOperation(task_id="create_backup", name="backup")

with audit_dag("audit_backup_drill", "backup-drill", __doc__, "AuditBackupDrillFailed") as drill:
    RunOperation(task_id="restore_and_compare", name="backup-drill")
