-- The payments that failed in a period, with the reason that the service gave and their present state.
-- @since TIMESTAMP, @until TIMESTAMP, @limit INT64
SELECT
  failure.${payment},
  failure.customer_id,
  failure.${region},
  failure.commit_timestamp AS failed_at,
  failure.from_status,
  failure.to_status,
  failure.${error},
  failure.${service},
  failure.expected,
  payment.${status} AS status_now,
  payment.${retries},
  payment.payment_state AS state_now
FROM `${project}.${views_dataset}.payment_transitions` AS failure
LEFT JOIN (
  -- A payment that failed since then has its last change since then.
  SELECT
    *,
    ROW_NUMBER() OVER (PARTITION BY ${payment} ORDER BY _metadata_change_id DESC) AS _newest
  FROM `${project}.${views_dataset}.payment_changelog`
  WHERE _metadata_spanner_commit_timestamp >= @since
) AS payment
ON payment.${payment} = failure.${payment} AND payment._newest = 1 AND payment._metadata_spanner_mod_type != 'DELETE'
WHERE
  failure.commit_timestamp >= @since
  AND failure.commit_timestamp < @until
  AND failure.to_state = 'failed'
ORDER BY failed_at DESC
LIMIT @limit
