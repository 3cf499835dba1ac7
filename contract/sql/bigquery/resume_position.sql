  SELECT MIN(position) FROM (
    SELECT job_name, MAX(position) AS position
    FROM `${project}.${payment_dataset}.resume_positions`
    WHERE written_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 7 DAY)
    GROUP BY job_name
  )
