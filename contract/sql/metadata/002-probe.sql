--liquibase formatted sql

--changeset audit:m002-probes
--comment: What the audit probe knows between its runs. Runs fences a second probe; State is JSON: totals since StartedAt, positions in the change streams.
CREATE TABLE probes (
  JobName STRING(128) NOT NULL,
  Runs INT64 NOT NULL,
  StartedAt TIMESTAMP NOT NULL,
  WindowEnd TIMESTAMP NOT NULL,
  State STRING(MAX) NOT NULL,
  UpdatedAt TIMESTAMP NOT NULL OPTIONS (allow_commit_timestamp = true),
) PRIMARY KEY (JobName);
--rollback DROP TABLE probes;

--changeset audit:m002-probe-waiting
--comment: The commits of a window that were not all in BigQuery when it was last looked at, compressed. OldestUnaudited leaves out dead letters.
CREATE TABLE probe_waiting (
  JobName STRING(128) NOT NULL,
  WindowStart TIMESTAMP NOT NULL,
  WindowEnd TIMESTAMP NOT NULL,
  Waiting INT64 NOT NULL,
  OldestUnaudited TIMESTAMP,
  Commits BYTES(MAX) NOT NULL,
  CheckedAt TIMESTAMP NOT NULL,
) PRIMARY KEY (JobName, WindowStart),
  INTERLEAVE IN PARENT probes ON DELETE CASCADE;
--rollback DROP TABLE probe_waiting;
