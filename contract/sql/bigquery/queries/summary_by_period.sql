-- Payments that began, were processed and failed, by period. A payment that fails twice counts once in its period.
-- @since TIMESTAMP, @until TIMESTAMP, @period_seconds INT64
SELECT
  TIMESTAMP_SECONDS(DIV(UNIX_SECONDS(commit_timestamp), @period_seconds) * @period_seconds) AS period,
  COUNT(DISTINCT IF(mod_type = 'INSERT', ${payment}, NULL)) AS began,
  COUNT(DISTINCT IF(to_state = 'processed', ${payment}, NULL)) AS processed,
  COUNT(DISTINCT IF(to_state = 'failed', ${payment}, NULL)) AS failed,
  COUNTIF(NOT expected) AS unexpected_transitions
FROM `${project}.${views_dataset}.payment_transitions`
WHERE commit_timestamp >= @since AND commit_timestamp < @until
GROUP BY period
ORDER BY period
