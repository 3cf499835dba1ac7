-- Which cards a payment ever had, in any column, then or now: one row for each, by its keyed token.
SELECT DISTINCT ${payment}, token
FROM (
${cards_of_payments_and_events}
)
CROSS JOIN UNNEST(card_tokens) AS token
