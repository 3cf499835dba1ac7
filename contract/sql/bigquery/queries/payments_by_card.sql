-- The payments in which a card was ever seen, in any column, then or now. `audit search --card` makes the tokens.
-- @card_tokens ARRAY<STRING> (one for each version of the masking key), @limit INT64
SELECT
  ${payment},
  ANY_VALUE(customer_id) AS customer_id,
  MIN(commit_timestamp) AS first_seen_at,
  MAX(commit_timestamp) AS last_seen_at,
  COUNT(*) AS changes
FROM `${project}.${views_dataset}.payment_timeline`
WHERE EXISTS (SELECT 1 FROM UNNEST(card_tokens) AS token WHERE token IN UNNEST(@card_tokens))
GROUP BY ${payment}
ORDER BY last_seen_at DESC
LIMIT @limit
