-- The payments of a customer, the last seen first; payment_by_id has each as it is now.
-- @customer_id STRING, @limit INT64
SELECT
  puid AS ${payment},
  MIN(day) AS first_seen_on,
  MAX(last_at) AS last_seen_at
FROM (
  SELECT
    puid,
    day,
    last_at
  FROM `${project}.${views_dataset}.payment_lookup`
  WHERE
    bucket = DIV(CAST(CONCAT('0x', SUBSTR(TO_HEX(SHA256(CONCAT('customer:', @customer_id))), 1, 3)) AS INT64), 4)
    AND lookup_key = SUBSTR(TO_HEX(SHA256(CONCAT('customer:', @customer_id))), 1, 32)
    AND customer_id = @customer_id
  UNION ALL
  -- What payment_lookup may not have yet.
  SELECT
    ${payment} AS puid,
    DATE(commit_timestamp) AS day,
    commit_timestamp AS last_at
  FROM `${project}.${views_dataset}.payment_changes`
  WHERE commit_timestamp >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 1 DAY) AND customer_id = @customer_id
)
GROUP BY puid
ORDER BY last_seen_at DESC
LIMIT @limit
