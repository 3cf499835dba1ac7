-- On which days something happened to a payment, by a key of what is searched: see the function days_of_payment.
SELECT
  bucket,
  lookup_key,
  kind,
  puid,
  customer_id,
  day,
  last_at
FROM `${project}.${payment_dataset}.payment_lookup`
