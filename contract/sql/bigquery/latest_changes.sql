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
    -- BigQuery leaves partitions unread only for a constant: the interval bounds the cost, the progress the rows. It is
    -- a week longer than the longest pause between two merges. An older change (a dead letter of last month) comes in
    -- with the next merge.
    _metadata_spanner_commit_timestamp >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 15 DAY)
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
WHERE _newest = 1
