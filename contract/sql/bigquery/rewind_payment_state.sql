-- Makes the next merge, and the next fill of payment_lookup, see a change that arrives late (a retried dead letter). Run it
-- after the append: a rewind before it could be used up by a merge that does not see the row yet. @commit_timestamp: the
-- oldest of the late changes. merged_at and filled_at always change, so that one under way notices it.
-- @arrived: when the first of them may have arrived. The fill takes what arrived since added_at: rows of a long replay came
-- before the last fills, which passed them over by their commit timestamp.
UPDATE `${project}.${payment_dataset}.payment_state_progress`
SET
  merged_until = LEAST(merged_until, @commit_timestamp),
  merged_at = CURRENT_TIMESTAMP(),
  filled_until = LEAST(filled_until, @commit_timestamp),
  filled_at = CURRENT_TIMESTAMP(),
  added_at = LEAST(added_at, @arrived)
WHERE TRUE
