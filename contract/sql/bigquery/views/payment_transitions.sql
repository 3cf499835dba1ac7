-- One row for each change of a payment's status: from what, to what, when, after how long, and whether it was expected.
-- Its creation comes from nothing (from_* NULL), its deletion goes to nothing (to_* NULL).
SELECT
  ${payment},
  customer_id,
  ${region},
  _metadata_spanner_commit_timestamp AS commit_timestamp,
  _metadata_change_id AS change_id,
  _metadata_spanner_mod_type AS mod_type,
  JSON_VALUE(_metadata_spanner_old_values, '$$.${status_path}') AS from_status,
  ${status} AS to_status,
  previous_payment_state AS from_state,
  payment_state AS to_state,
  previous_payment_state_at AS from_at,
  COALESCE(payment_state_at, _metadata_spanner_commit_timestamp) AS to_at,
  TIMESTAMP_DIFF(
    COALESCE(payment_state_at, _metadata_spanner_commit_timestamp), previous_payment_state_at, MILLISECOND
  ) / 1000 AS seconds_in_from_state,
  transition_expected AS expected,
  ${service},
  ${error},
  acting_user
FROM `${project}.${payments}`
WHERE
  -- A replay is not a transition: the payment was read again, and its status is as it was.
  _metadata_spanner_mod_type IN ('INSERT', 'DELETE')
  OR _metadata_spanner_mod_type = 'UPDATE' AND (
    JSON_VALUE(_metadata_spanner_old_values, '$$.${status_path}') IS NOT NULL
    OR COALESCE(payment_state, '') != COALESCE(previous_payment_state, '')
    -- Where a change stream carries no old values, it is not known what an UPDATE changed.
    AND (previous_payment_state_at IS NOT NULL OR transition_expected IS NOT NULL)
  )
-- At-least-once can deliver a change twice. Every column that readers filter by is in the partition: the filter
-- reaches the table, and its partitions and clusters are pruned.
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY ${payment}, _metadata_spanner_commit_timestamp, _metadata_change_id
  ORDER BY _metadata_big_query_commit_timestamp
) = 1
