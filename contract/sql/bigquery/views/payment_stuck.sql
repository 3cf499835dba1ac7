-- The payments that were stuck when the probe last looked, at seen_at. None was stuck: one row without a payment.
-- No row: it has not looked for an hour, which bounds what this reads.
SELECT DISTINCT
  seen_at,
  puid AS ${payment},
  status AS ${status},
  status_since,
  limit_seconds
FROM `${project}.${payment_dataset}.stuck_payments_seen`
WHERE seen_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 1 HOUR)
QUALIFY seen_at = MAX(seen_at) OVER ()
