-- The days on which something happened to a payment. The last day is from the changes: payment_lookup has it later.
-- @puid ${payment_type}
SELECT
  day,
  MAX(last_at) AS last_at
FROM (
  SELECT
    day,
    last_at
  FROM `${project}.${views_dataset}.payment_lookup`
  WHERE
    bucket = DIV(CAST(CONCAT('0x', SUBSTR(TO_HEX(SHA256(CONCAT('payment:', CAST(@puid AS STRING)))), 1, 3)) AS INT64), 4)
    AND lookup_key = SUBSTR(TO_HEX(SHA256(CONCAT('payment:', CAST(@puid AS STRING)))), 1, 32)
  UNION ALL
  SELECT
    DATE(commit_timestamp) AS day,
    commit_timestamp AS last_at
  FROM `${project}.${views_dataset}.payment_changes`
  WHERE commit_timestamp >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 1 DAY) AND ${payment} = @puid
)
GROUP BY day
ORDER BY day
