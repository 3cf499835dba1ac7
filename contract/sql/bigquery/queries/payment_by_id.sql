-- The latest state of one payment. A deleted one is not there: see its timeline.
-- @puid STRING
SELECT *
FROM `${project}.${views_dataset}.payment_current`
WHERE PUID = @puid
