-- How one payment went from status to status, in commit order.
-- @puid STRING
SELECT *
FROM `${project}.${views_dataset}.payment_transitions`
WHERE PUID = @puid
ORDER BY change_id
