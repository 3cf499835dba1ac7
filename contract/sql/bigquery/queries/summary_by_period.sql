-- Payments that began, were processed and failed, by period. A payment that fails twice counts once in its period.
-- @since TIMESTAMP, @until TIMESTAMP, @period_seconds INT64
SELECT
  TIMESTAMP_SECONDS(DIV(UNIX_SECONDS(_metadata_spanner_commit_timestamp), @period_seconds) * @period_seconds) AS period,
  COUNT(DISTINCT IF(_metadata_spanner_mod_type = 'INSERT', ${payment}, NULL)) AS began,
  COUNT(DISTINCT IF(payment_state = 'processed', ${payment}, NULL)) AS processed,
  COUNT(DISTINCT IF(payment_state = 'failed', ${payment}, NULL)) AS failed,
  COUNT(DISTINCT IF(NOT transition_expected, _metadata_change_id, NULL)) AS unexpected_transitions
FROM `${project}.${views_dataset}.payment_changelog`
WHERE
  _metadata_spanner_commit_timestamp >= @since
  AND _metadata_spanner_commit_timestamp < @until
  -- What changed something else than the state does not count, nor does a replay.
  AND _metadata_spanner_mod_type IN ('INSERT', 'UPDATE')
  AND (_metadata_spanner_mod_type = 'INSERT' OR COALESCE(payment_state, '') != COALESCE(previous_payment_state, ''))
GROUP BY period
ORDER BY period
