-- The payments that have been in one of these statuses for too long, the longest first.
-- @statuses ARRAY<STRING>, @older_than_seconds INT64, @limit INT64
SELECT
  ${payment},
  customer_id,
  ${region},
  ${status},
  ${retries},
  ${service},
  ${error},
  payment_state,
  COALESCE(payment_state_at, _metadata_spanner_commit_timestamp) AS status_since,
  TIMESTAMP_DIFF(
    CURRENT_TIMESTAMP(), COALESCE(payment_state_at, _metadata_spanner_commit_timestamp), SECOND
  ) AS seconds_in_status
FROM `${project}.${views_dataset}.payment_current`
WHERE
  ${status} IN UNNEST(@statuses)
  AND COALESCE(payment_state_at, _metadata_spanner_commit_timestamp)
    < TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL @older_than_seconds SECOND)
ORDER BY status_since
LIMIT @limit
