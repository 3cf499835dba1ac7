-- How one payment went from status to status, in commit order, since a moment: days_of_payment has its first day.
-- @puid ${payment_type}, @since TIMESTAMP
SELECT *
FROM `${project}.${views_dataset}.payment_transitions`
WHERE ${payment} = @puid AND commit_timestamp >= @since
ORDER BY change_id
