-- Every change of one payment and of its audit log, in commit order.
-- @puid STRING
SELECT *
FROM `${project}.${views_dataset}.payment_timeline`
WHERE PUID = @puid
ORDER BY change_id, source_table
