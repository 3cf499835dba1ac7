-- Up to when the warehouse is complete: every change committed before is in it, or is a dead letter. payment_lookup has
-- those committed before filled_until, payment_state those before merged_until.
-- Should two jobs write to it, the one that is behind counts. NULL: no job has written in the last week.
SELECT
  MIN(position) AS complete_until,
  MAX(written_at) AS written_at,
  (SELECT MIN(filled_until) FROM `${project}.${payment_dataset}.payment_state_progress`) AS filled_until,
  (SELECT MIN(merged_until) FROM `${project}.${payment_dataset}.payment_state_progress`) AS merged_until
FROM (
  SELECT job_name, MAX(position) AS position, MAX(written_at) AS written_at
  FROM `${project}.${payment_dataset}.resume_positions`
  WHERE written_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 7 DAY)
  GROUP BY job_name
)
