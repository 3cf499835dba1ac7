-- Every change of a payment and of what else happened to it, one row each, with what it said before (old_values; of a
-- DELETE: all).
SELECT * EXCEPT (_copy)
FROM (
  SELECT
    *,
    -- At-least-once can deliver a change twice. Every column that readers filter by is in the partition: the filter
    -- reaches the tables, and their partitions and clusters are pruned.
    ROW_NUMBER() OVER (
      PARTITION BY ${payment}, commit_timestamp, change_id, source_table, mod_type ORDER BY arrived_at
    ) AS _copy
  FROM (
${changes_of_payments_and_events}
  )
)
WHERE _copy = 1
