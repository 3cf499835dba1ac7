-- The latest state of each payment, by commit order, in any order of arrival. A deleted payment is absent.
-- It reads payment_state (one row per payment) and the changes that the last merge may not have seen.
WITH
progress AS (
  SELECT MIN(merged_until) AS merged_until
  FROM `${project}.${payment_dataset}.payment_state_progress`
),
latest AS (
  SELECT
  ${payment_columns}
  FROM `${project}.${payment_dataset}.payment_state`
  UNION ALL
  SELECT
  ${payment_columns}
  FROM `${project}.${payments}`
  WHERE
    -- BigQuery leaves partitions unread only for a constant: the interval bounds the cost, the progress the rows.
    -- A change older than the interval (a dead letter of last week) comes in with the next merge.
    _metadata_spanner_commit_timestamp >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 7 DAY)
    AND _metadata_spanner_commit_timestamp >= COALESCE(
      (SELECT merged_until FROM progress), TIMESTAMP '1970-01-01 00:00:00+00')
)
SELECT
  ${payment_columns}
FROM (
  SELECT
    *,
    ROW_NUMBER() OVER (PARTITION BY ${payment} ORDER BY _metadata_change_id DESC) AS _newest
  FROM latest
)
WHERE _newest = 1 AND _metadata_spanner_mod_type != 'DELETE'
