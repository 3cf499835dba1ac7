-- The payments of a customer, the last changed first.
-- @customer_id STRING, @limit INT64
SELECT *
FROM `${project}.${views_dataset}.payment_current`
WHERE customer_id = @customer_id
ORDER BY _metadata_spanner_commit_timestamp DESC
LIMIT @limit
