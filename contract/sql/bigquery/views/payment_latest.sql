-- The latest change of each payment, as payment_current, and of a deleted one its DELETE.
${latest_changes}