-- Every change of a payment and of what else happened to it, as it was written: at-least-once can deliver one twice. Only
-- the columns and the days that a query names are read, so it is what a query of a short time is made of.
${changes_of_payments_and_events}
