"""What runs by a schedule, beside what people do: the job is kept running, schemas are compared, runs are recorded."""
