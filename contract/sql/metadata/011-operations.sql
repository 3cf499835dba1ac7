--liquibase formatted sql

--changeset audit:m011-operations
--comment: The last run of each operation (contract/operations.py). Outcome is NULL while it runs: done, found or failed; Failures counts those in a row. Summary counts, and names tables and jobs; it holds nothing of a payment. KnownSince: when the probe first expected a run.
CREATE TABLE operations (
  JobName STRING(128) NOT NULL,
  Operation STRING(64) NOT NULL,
  KnownSince TIMESTAMP NOT NULL,
  RunId STRING(64),
  StartedAt TIMESTAMP,
  EndedAt TIMESTAMP,
  Outcome STRING(16),
  Summary STRING(1024),
  StartedBy STRING(256),
  SucceededAt TIMESTAMP,
  Failures INT64 NOT NULL,
  UpdatedAt TIMESTAMP NOT NULL OPTIONS (allow_commit_timestamp = true),
) PRIMARY KEY (JobName, Operation);
--rollback DROP TABLE operations;

--changeset audit:m011-operations-are-listed context:cloud
--comment: The console and who is on call see the last run of each.
GRANT SELECT ON TABLE operations TO ROLE replay_submitter;
--rollback REVOKE SELECT ON TABLE operations FROM ROLE replay_submitter;

--changeset audit:m011-tables-made
--comment: The tables of BigQuery that were there once. One that is in here and gone is restored, and not made empty.
CREATE TABLE tables_made (
  JobName STRING(128) NOT NULL,
  TableId STRING(1024) NOT NULL,
  SeenAt TIMESTAMP NOT NULL OPTIONS (allow_commit_timestamp = true),
) PRIMARY KEY (JobName, TableId);
--rollback DROP TABLE tables_made;

--changeset audit:m011-pipeline-runs
--comment: Who launches the streaming job, and how often it was launched since it last ran well. While LockedUntil is ahead, LockedBy alone launches or replaces it; DrainedBy: a person drained it, nobody launches until resume.
CREATE TABLE pipeline_runs (
  JobName STRING(128) NOT NULL,
  LockedBy STRING(256),
  LockedUntil TIMESTAMP,
  DrainedBy STRING(256),
  DrainedAt TIMESTAMP,
  Attempts INT64 NOT NULL,
  LaunchedAt TIMESTAMP,
  LaunchedId STRING(128),
  UpdatedAt TIMESTAMP NOT NULL OPTIONS (allow_commit_timestamp = true),
) PRIMARY KEY (JobName);
--rollback DROP TABLE pipeline_runs;
