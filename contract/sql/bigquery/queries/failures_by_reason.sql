-- Why payments failed in a period: reasons with their number, the most frequent first.
-- @since TIMESTAMP, @until TIMESTAMP
SELECT
  ServiceName,
  to_status,
  ErrorDetails,
  COUNT(*) AS failures,
  COUNT(DISTINCT PUID) AS payments,
  MAX(commit_timestamp) AS last_at
FROM `${project}.${views_dataset}.payment_transitions`
WHERE commit_timestamp >= @since AND commit_timestamp < @until AND to_state = 'failed'
GROUP BY ServiceName, to_status, ErrorDetails
ORDER BY failures DESC
