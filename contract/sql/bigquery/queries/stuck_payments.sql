-- The payments that the probe last saw stuck in one of these statuses, for at least so long, the longest first.
-- @statuses ARRAY<STRING>, @older_than_seconds INT64, @limit INT64
-- requires changed
SELECT
  ${payment},
  ${status},
  status_since,
  TIMESTAMP_DIFF(seen_at, status_since, SECOND) AS seconds_in_status,
  limit_seconds,
  seen_at
FROM `${project}.${views_dataset}.payment_stuck`
WHERE ${status} IN UNNEST(@statuses) AND TIMESTAMP_DIFF(seen_at, status_since, SECOND) >= @older_than_seconds
ORDER BY status_since
LIMIT @limit
