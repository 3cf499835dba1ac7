--liquibase formatted sql

--changeset audit:m004-replays
--comment: Replays: who asked for which payments and why. The first run that records its WriteStream is the one whose rows count; it committed what was in Spanner at ReadTimestamp.
CREATE TABLE replays (
  ReplayId STRING(64) NOT NULL,
  RequestedBy STRING(256) NOT NULL,
  Reason STRING(1024) NOT NULL,
  Payments ARRAY<STRING(MAX)> NOT NULL,
  RequestedAt TIMESTAMP NOT NULL OPTIONS (allow_commit_timestamp = true),
  ReadTimestamp TIMESTAMP,
  WriteStream STRING(MAX),
  Replayed INT64,
  Problems ARRAY<STRING(MAX)>,
  FinishedAt TIMESTAMP OPTIONS (allow_commit_timestamp = true),
) PRIMARY KEY (ReplayId);
--rollback DROP TABLE replays;
