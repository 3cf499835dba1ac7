--liquibase formatted sql

--changeset audit:m009-backups
--comment: Backups of BigQuery. All tables of one are of ReadTimestamp; CreatedAt is NULL until it is whole. Good: its snapshots hold what the tables held. Content is JSON: snapshots, rows and checksums by partition, exports. Drill is what the last restore found.
CREATE TABLE backups (
  JobName STRING(128) NOT NULL,
  BackupId STRING(64) NOT NULL,
  ReadTimestamp TIMESTAMP NOT NULL,
  ExpiresAt TIMESTAMP NOT NULL,
  CreatedAt TIMESTAMP,
  Good BOOL,
  Content STRING(MAX),
  DrilledAt TIMESTAMP,
  DrillPassed BOOL,
  Drill STRING(MAX),
  UpdatedAt TIMESTAMP NOT NULL OPTIONS (allow_commit_timestamp = true),
) PRIMARY KEY (JobName, BackupId);
--rollback DROP TABLE backups;

--changeset audit:m009-backups-are-listed context:cloud
--comment: The console and who is on call see which backups there are.
GRANT SELECT ON TABLE backups TO ROLE replay_submitter;
--rollback REVOKE SELECT ON TABLE backups FROM ROLE replay_submitter;
