-- Adds to payment_lookup what happened since filled_until: which payment, on which day, for its id, its customer, the
-- last four digits of its card and each card's token. Then filled_until moves to the resume position. Run twice at once,
-- or again after a crash, it adds rows that are there: readers count a payment once.
DECLARE seen_until TIMESTAMP;
DECLARE seen_at TIMESTAMP;
DECLARE from_timestamp TIMESTAMP;
DECLARE from_arrival TIMESTAMP;
DECLARE resume_position TIMESTAMP;

INSERT INTO `${project}.${payment_dataset}.payment_state_progress` (filled_until, filled_at)
SELECT CAST(NULL AS TIMESTAMP), CURRENT_TIMESTAMP()
FROM (SELECT COUNT(*) AS progress_rows FROM `${project}.${payment_dataset}.payment_state_progress`)
WHERE progress_rows = 0;

SET seen_until = (SELECT MIN(filled_until) FROM `${project}.${payment_dataset}.payment_state_progress`);
SET seen_at = (SELECT MAX(filled_at) FROM `${project}.${payment_dataset}.payment_state_progress`);
SET from_timestamp = COALESCE(seen_until, TIMESTAMP '1970-01-01 00:00:00+00');
-- A late change takes filled_until back to its commit; what arrived before the last fill is there already.
SET from_arrival = IF(
  seen_until IS NULL, from_timestamp, TIMESTAMP_SUB(
    COALESCE((SELECT MAX(added_at) FROM `${project}.${payment_dataset}.payment_state_progress`), from_timestamp),
    INTERVAL 10 MINUTE)
);
SET resume_position = (
${resume_position});

INSERT INTO `${project}.${payment_dataset}.payment_lookup`
  (bucket, lookup_key, kind, puid, customer_id, day, last_at)
SELECT
  DIV(CAST(CONCAT('0x', SUBSTR(lookup_key, 1, 3)) AS INT64), 4),
  lookup_key,
  kind,
  puid,
  customer_id,
  day,
  last_at
FROM (
  SELECT
    SUBSTR(TO_HEX(SHA256(CONCAT(kind, ':', value))), 1, 32) AS lookup_key,
    kind,
    puid,
    IF(kind = 'customer', value, NULL) AS customer_id,
    DATE(commit_timestamp) AS day,
    MAX(commit_timestamp) AS last_at
  FROM (
${values_of_payments_and_events}
  )
  WHERE value IS NOT NULL AND puid IS NOT NULL
  GROUP BY lookup_key, kind, puid, customer_id, day
);

-- Only if nobody rewound it meanwhile (a rewind always changes filled_at): else the next one goes back that far.
UPDATE `${project}.${payment_dataset}.payment_state_progress`
SET
  filled_until = GREATEST(COALESCE(resume_position, from_timestamp), from_timestamp),
  filled_at = CURRENT_TIMESTAMP(),
  added_at = CURRENT_TIMESTAMP()
WHERE COALESCE(filled_until, TIMESTAMP '1970-01-01 00:00:00+00') = from_timestamp
  AND COALESCE(filled_at = seen_at, seen_at IS NULL);
