--liquibase formatted sql

--changeset audit:m001-jobs
--comment: One row a pipeline name. Generation fences older jobs; every change before ResumePosition is appended or a durable dead letter.
CREATE TABLE jobs (
  JobName STRING(128) NOT NULL,
  Generation INT64 NOT NULL,
  ResumePosition TIMESTAMP,
  FencedAt TIMESTAMP OPTIONS (allow_commit_timestamp = true),
  UpdatedAt TIMESTAMP NOT NULL OPTIONS (allow_commit_timestamp = true),
) PRIMARY KEY (JobName);
--rollback DROP TABLE jobs;

--changeset audit:m001-write-streams
--comment: The one write stream that may take rows for a shard of a table. Recorded before its first append, finalized before it is replaced.
CREATE TABLE write_streams (
  JobName STRING(128) NOT NULL,
  TableId STRING(1024) NOT NULL,
  Shard STRING(32) NOT NULL,
  Generation INT64 NOT NULL,
  WriteStream STRING(1024) NOT NULL,
  UpdatedAt TIMESTAMP NOT NULL OPTIONS (allow_commit_timestamp = true),
) PRIMARY KEY (JobName, TableId, Shard),
  INTERLEAVE IN PARENT jobs ON DELETE CASCADE;
--rollback DROP TABLE write_streams;
