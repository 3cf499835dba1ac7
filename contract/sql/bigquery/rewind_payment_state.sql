-- Makes the next merge see a change that arrives late (a retried dead letter). Run it after the append: a rewind before
-- it could be used up by a merge that does not see the row yet. @commit_timestamp: the oldest of the late changes.
-- merged_at always changes, so that a merge under way notices it.
UPDATE `${project}.${payment_dataset}.payment_state_progress`
SET merged_until = LEAST(merged_until, @commit_timestamp), merged_at = CURRENT_TIMESTAMP()
WHERE TRUE
