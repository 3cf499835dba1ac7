-- The latest state of one payment. A deleted one is not there: see its timeline.
-- @puid ${payment_type}
SELECT *
FROM `${project}.${views_dataset}.payment_current`
WHERE ${payment} = @puid
