-- The latest state of each payment, by commit order, in any order of arrival. A deleted payment is absent.
-- It reads payment_state (one row per payment) and the changes that the last merge may not have seen.
${latest_changes}  AND _metadata_spanner_mod_type != 'DELETE'
