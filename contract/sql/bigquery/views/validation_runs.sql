-- What validation compared, found and had repaired, run by run. It names rows by their keys, and holds nothing else of them.
SELECT
  run_id,
  checked_at,
  read_timestamp,
  mismatches,
  source_rows,
  warehouse_rows,
  warehouse_bytes,
  cpu_seconds,
  checks,
  findings,
  resolved,
  notes
FROM `${project}.${payment_dataset}.audit_checks`
