    SELECT
      _metadata_spanner_commit_timestamp AS commit_timestamp,
      _metadata_spanner_commit_timestamp_nanos AS commit_timestamp_nanos,
      _metadata_change_id AS change_id,
      '${source_table}' AS source_table,
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
  ${columns}
    FROM `${project}.${changelog}`