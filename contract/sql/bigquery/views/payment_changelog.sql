-- Every change of the payments, as it was written: at-least-once can deliver one twice. Only the columns and the days that
-- a query names are read.
SELECT
  ${payment_columns}
FROM `${project}.${payments}`
