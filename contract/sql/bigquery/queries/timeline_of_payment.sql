-- Every change of one payment and of its audit log, in commit order.
-- @puid ${payment_type}
SELECT *
FROM `${project}.${views_dataset}.payment_timeline`
WHERE ${payment} = @puid
ORDER BY change_id, source_table
