-- Every change of a payment and of its audit log, one row each, with what it said before (old_values; of a DELETE: all).
SELECT * EXCEPT (copy)
FROM (
  SELECT
    *,
    -- At-least-once can deliver a change twice. Every column that readers filter by is in the partition: the filter
    -- reaches the tables, and their partitions and clusters are pruned.
    ROW_NUMBER() OVER (PARTITION BY PUID, commit_timestamp, change_id, source_table ORDER BY arrived_at) AS copy
  FROM (
    SELECT
      _metadata_spanner_commit_timestamp AS commit_timestamp,
      _metadata_spanner_commit_timestamp_nanos AS commit_timestamp_nanos,
      _metadata_change_id AS change_id,
      _metadata_spanner_table_name AS source_table,
      _metadata_spanner_mod_type AS mod_type,
      _metadata_spanner_server_transaction_id AS server_transaction_id,
      _metadata_spanner_old_values AS old_values,
      _metadata_card_tokens AS card_tokens,
      _metadata_big_query_commit_timestamp AS arrived_at,
      customer_id,
      acting_user,
      payment_state,
      payment_state_at,
      previous_payment_state,
      previous_payment_state_at,
      transition_expected,
  ${payment_source_columns}
    FROM `${project}.${payment_dataset}.payment_audit_trail_bq`
    UNION ALL
    SELECT
      _metadata_spanner_commit_timestamp AS commit_timestamp,
      _metadata_spanner_commit_timestamp_nanos AS commit_timestamp_nanos,
      _metadata_change_id AS change_id,
      _metadata_spanner_table_name AS source_table,
      _metadata_spanner_mod_type AS mod_type,
      _metadata_spanner_server_transaction_id AS server_transaction_id,
      _metadata_spanner_old_values AS old_values,
      _metadata_card_tokens AS card_tokens,
      _metadata_big_query_commit_timestamp AS arrived_at,
      customer_id,
      acting_user,
      payment_state,
      payment_state_at,
      previous_payment_state,
      previous_payment_state_at,
      transition_expected,
  ${audit_log_source_columns}
    FROM `${project}.${audit_log_dataset}.audit_logs`
  )
)
WHERE copy = 1
