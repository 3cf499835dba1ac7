-- In which service payments failed in a period: services with the number of failures, the most frequent first.
-- @since TIMESTAMP, @until TIMESTAMP
-- requires service
SELECT
  ${service},
  COUNT(*) AS failures,
  COUNT(DISTINCT ${payment}) AS payments,
  MAX(commit_timestamp) AS last_at
FROM `${project}.${views_dataset}.payment_transitions`
WHERE commit_timestamp >= @since AND commit_timestamp < @until AND to_state = 'failed'
GROUP BY ${service}
ORDER BY failures DESC
