-- Brings payment_state up to date: the newest change of each payment among those committed since merged_until. Then
-- merged_until moves to the resume position: every change committed before it is in BigQuery or is a dead letter.
-- Run it as often as the reads of payment_current are to be small; twice at once, or again after a crash, is harmless.
DECLARE seen_until TIMESTAMP;
DECLARE seen_at TIMESTAMP;
DECLARE from_timestamp TIMESTAMP;
DECLARE resume_position TIMESTAMP;

INSERT INTO `${project}.${payment_dataset}.payment_state_progress` (merged_until, merged_at)
SELECT CAST(NULL AS TIMESTAMP), CURRENT_TIMESTAMP()
FROM (SELECT COUNT(*) AS progress_rows FROM `${project}.${payment_dataset}.payment_state_progress`)
WHERE progress_rows = 0;

-- All three are read before the MERGE: a change that arrives during it is at or after the position, or rewinds it.
SET seen_until = (SELECT MIN(merged_until) FROM `${project}.${payment_dataset}.payment_state_progress`);
SET seen_at = (SELECT MAX(merged_at) FROM `${project}.${payment_dataset}.payment_state_progress`);
SET from_timestamp = COALESCE(seen_until, TIMESTAMP '1970-01-01 00:00:00+00');
-- A position only moves forward. Should two jobs write to these tables, the one that is behind counts.
SET resume_position = (
${resume_position});

MERGE `${project}.${payment_dataset}.payment_state` AS state
USING (
  SELECT
  ${payment_columns}
  FROM (
    SELECT
      *,
      ROW_NUMBER() OVER (PARTITION BY ${payment} ORDER BY _metadata_change_id DESC) AS _newest
    FROM `${project}.${payments}`
    WHERE _metadata_spanner_commit_timestamp >= from_timestamp
  )
  WHERE _newest = 1
) AS change
ON state.${payment} = change.${payment}
WHEN MATCHED AND change._metadata_change_id > state._metadata_change_id THEN UPDATE SET
  ${payment_columns_set}
WHEN NOT MATCHED THEN INSERT (
  ${payment_columns}
) VALUES (
  ${payment_columns_of_change}
);

-- Only if nobody rewound it meanwhile (a rewind always changes merged_at): else the next merge goes back that far.
UPDATE `${project}.${payment_dataset}.payment_state_progress`
SET merged_until = GREATEST(COALESCE(resume_position, from_timestamp), from_timestamp), merged_at = CURRENT_TIMESTAMP()
WHERE COALESCE(merged_until, TIMESTAMP '1970-01-01 00:00:00+00') = from_timestamp
  AND COALESCE(merged_at = seen_at, seen_at IS NULL);
