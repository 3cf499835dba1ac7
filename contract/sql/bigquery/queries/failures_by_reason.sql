-- Why payments failed in a period: reasons with their number, the most frequent first.
-- @since TIMESTAMP, @until TIMESTAMP
SELECT
  ${service},
  ${error},
  to_status,
  COUNT(*) AS failures,
  COUNT(DISTINCT ${payment}) AS payments,
  MAX(commit_timestamp) AS last_at
FROM `${project}.${views_dataset}.payment_transitions`
WHERE commit_timestamp >= @since AND commit_timestamp < @until AND to_state = 'failed'
GROUP BY
  ${service},
  ${error},
  to_status
ORDER BY failures DESC
