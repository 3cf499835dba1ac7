-- The states of each region's payments, of those changed in a period. Amounts of different currencies are never added.
-- @since TIMESTAMP, @until TIMESTAMP, @limit INT64
-- requires region
SELECT
  ${region},
  ${currency},
  COUNT(*) AS payments,
  COUNTIF(payment_state = 'initiated') AS initiated,
  COUNTIF(payment_state = 'processed') AS processed,
  COUNTIF(payment_state = 'failed') AS failed,
  SUM(${amount}) AS amount,
  SUM(IF(payment_state = 'processed', ${amount}, 0)) AS processed_amount,
  COUNTIF(payment_state IS NULL) AS of_unknown_state
FROM (
  SELECT
    *,
    ROW_NUMBER() OVER (PARTITION BY ${payment} ORDER BY _metadata_change_id DESC) AS _newest
  FROM `${project}.${views_dataset}.payment_changelog`
  -- A replay is not a change of the payment.
  WHERE _metadata_spanner_commit_timestamp >= @since AND _metadata_spanner_mod_type != 'REPLAY'
)
WHERE _newest = 1 AND _metadata_spanner_mod_type != 'DELETE' AND _metadata_spanner_commit_timestamp < @until
GROUP BY
  ${currency},
  ${region}
ORDER BY payments DESC
LIMIT @limit
