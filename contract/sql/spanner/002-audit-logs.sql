--liquibase formatted sql

--changeset audit:002-audit-logs
--comment: What the services did to a payment.
CREATE TABLE audit_logs (
  PUID STRING(36) NOT NULL,
  Action STRING(100) NOT NULL,
  Timestamp TIMESTAMP NOT NULL,
  Status STRING(50),
  ServiceName STRING(100),
  Metadata JSON,
  RetryCount INT64,
  ErrorDetails STRING(500),
) PRIMARY KEY (PUID);
--rollback DROP TABLE audit_logs;
