--liquibase formatted sql

--changeset audit:001-payment-audit-trail
--comment: The payment record. Card columns hold what the services write; they are masked before anything leaves a worker.
CREATE TABLE payment_audit_trail (
  PUID STRING(36) NOT NULL,
  CustomerId STRING(64),
  UserId STRING(64),
  Region STRING(32),
  Amount NUMERIC,
  Currency STRING(3),
  PaymentMethod STRING(32),
  CardNumber STRING(32),
  CardholderName STRING(128),
  CardExpiry STRING(7),
  Action STRING(100) NOT NULL,
  Timestamp TIMESTAMP NOT NULL,
  Status STRING(50),
  ServiceName STRING(100),
  Metadata JSON,
  RetryCount INT64,
  ErrorDetails STRING(500),
  CreatedAt TIMESTAMP,
  UpdatedAt TIMESTAMP OPTIONS (allow_commit_timestamp = true),
  StatusShard INT64 NOT NULL AS (ABS(MOD(FARM_FINGERPRINT(PUID), 16))) STORED,
) PRIMARY KEY (PUID);
--rollback DROP TABLE payment_audit_trail;

--changeset audit:001-payment-audit-trail-by-status
--comment: Replay reads by state. The shard column comes first because Status and time alone make a hot spot.
CREATE INDEX PaymentAuditTrailByStatus ON payment_audit_trail (StatusShard, Status, UpdatedAt);
--rollback DROP INDEX PaymentAuditTrailByStatus;
