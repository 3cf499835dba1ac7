-- In which service payments failed in a period: how often they came to that state, by service, the most frequent first.
-- @since TIMESTAMP, @until TIMESTAMP
-- requires service
SELECT
  ${service},
  COUNT(DISTINCT _metadata_change_id) AS failures,
  COUNT(DISTINCT ${payment}) AS payments,
  MAX(_metadata_spanner_commit_timestamp) AS last_at
FROM `${project}.${views_dataset}.payment_changelog`
WHERE
  _metadata_spanner_commit_timestamp >= @since
  AND _metadata_spanner_commit_timestamp < @until
  AND _metadata_spanner_mod_type IN ('INSERT', 'UPDATE')
  AND payment_state = 'failed'
  AND COALESCE(previous_payment_state, '') != 'failed'
GROUP BY ${service}
ORDER BY failures DESC
