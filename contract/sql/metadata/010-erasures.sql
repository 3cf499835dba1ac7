--liquibase formatted sql

--changeset audit:m010-erasures
--comment: Erasures of customers: who asked, why, what was redacted. Customer is kept until FinishedAt, and no longer.
CREATE TABLE erasures (
  ErasureId STRING(64) NOT NULL,
  RequestedBy STRING(256) NOT NULL,
  Reason STRING(1024) NOT NULL,
  Customer STRING(MAX),
  RequestedAt TIMESTAMP NOT NULL OPTIONS (allow_commit_timestamp = true),
  Report STRING(MAX),
  FinishedAt TIMESTAMP OPTIONS (allow_commit_timestamp = true),
) PRIMARY KEY (ErasureId);
--rollback DROP TABLE erasures;

--changeset audit:m010-erasure-payments
--comment: The customer's payments while an erasure runs: once a part of their rows is redacted, nothing else finds them. Deleted with its end.
CREATE TABLE erasure_payments (
  ErasureId STRING(64) NOT NULL,
  Payment STRING(MAX) NOT NULL,
) PRIMARY KEY (ErasureId, Payment),
  INTERLEAVE IN PARENT erasures ON DELETE CASCADE;
--rollback DROP TABLE erasure_payments;

--changeset audit:m010-erased
--comment: Keyed tokens of the customers and payments that were erased. Whatever writes to BigQuery redacts their rows.
CREATE TABLE erased (
  Token STRING(64) NOT NULL,
  Kind STRING(16) NOT NULL,
  ErasureId STRING(64) NOT NULL,
  ErasedAt TIMESTAMP NOT NULL OPTIONS (allow_commit_timestamp = true),
) PRIMARY KEY (Token);
--rollback DROP TABLE erased;

--changeset audit:m010-erased-by-time
--comment: What was recorded since a worker last looked, without those of years.
CREATE INDEX ErasedByTime ON erased (ErasedAt);
--rollback DROP INDEX ErasedByTime;

--changeset audit:m010-erasure-submitter context:cloud
--comment: Who submits erasures. They record one and see what became of it, and write nothing else.
CREATE ROLE erasure_submitter;
--rollback DROP ROLE erasure_submitter;

--changeset audit:m010-erasure-submitter-inserts context:cloud
GRANT SELECT, INSERT ON TABLE erasures TO ROLE erasure_submitter;
--rollback REVOKE SELECT, INSERT ON TABLE erasures FROM ROLE erasure_submitter;

--changeset audit:m010-erasures-are-listed context:cloud
--comment: The console and who is on call see which erasures there are; not of whom.
GRANT SELECT(ErasureId, RequestedBy, Reason, RequestedAt, Report, FinishedAt) ON TABLE erasures TO ROLE replay_submitter;
--rollback REVOKE SELECT(ErasureId, RequestedBy, Reason, RequestedAt, Report, FinishedAt) ON TABLE erasures FROM ROLE replay_submitter;
