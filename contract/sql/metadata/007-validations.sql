--liquibase formatted sql

--changeset audit:m007-validations
--comment: What validation knows between its runs. Run holds it until ClaimedUntil; State is JSON: how far it has compared, where the next part begins, what is wrong.
CREATE TABLE validations (
  JobName STRING(128) NOT NULL,
  Run STRING(64) NOT NULL,
  ClaimedUntil TIMESTAMP,
  State STRING(MAX) NOT NULL,
  UpdatedAt TIMESTAMP NOT NULL OPTIONS (allow_commit_timestamp = true),
) PRIMARY KEY (JobName);
--rollback DROP TABLE validations;
