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
LEFT JOIN `${project}.${views_dataset}.payment_current` AS payment ON payment.${payment} = failure.${payment}
WHERE
  failure.commit_timestamp >= @since
  AND failure.commit_timestamp < @until
  AND failure.to_state = 'failed'
ORDER BY failed_at DESC
LIMIT @limit
