-- How one payment went from status to status, in commit order.
-- @puid ${payment_type}
SELECT *
FROM `${project}.${views_dataset}.payment_transitions`
WHERE ${payment} = @puid
ORDER BY change_id
