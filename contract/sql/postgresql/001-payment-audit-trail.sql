--liquibase formatted sql

--changeset audit:001-payment-audit-trail
--comment: The payment record. Card columns hold what the services write; they are masked before anything leaves a worker.
CREATE TABLE payment_audit_trail (
  "PUID" character varying(36) NOT NULL,
  "CustomerId" character varying(64),
  "UserId" character varying(64),
  "Region" character varying(32),
  "Amount" numeric,
  "Currency" character varying(3),
  "PaymentMethod" character varying(32),
  "CardNumber" character varying(32),
  "CardholderName" character varying(128),
  "CardExpiry" character varying(7),
  "Action" character varying(100) NOT NULL,
  "Timestamp" timestamp with time zone NOT NULL,
  "Status" character varying(50),
  "ServiceName" character varying(100),
  "Metadata" jsonb,
  "RetryCount" bigint,
  "ErrorDetails" character varying(500),
  "CreatedAt" timestamp with time zone,
  "UpdatedAt" spanner.commit_timestamp,
  "StatusShard" bigint GENERATED ALWAYS AS (abs(mod(spanner.farm_fingerprint("PUID"), 16))) STORED NOT NULL,
  PRIMARY KEY ("PUID")
);
--rollback DROP TABLE payment_audit_trail;

--changeset audit:001-payment-audit-trail-by-status
--comment: Replay reads by state. The shard column comes first because Status and time alone make a hot spot.
CREATE INDEX "PaymentAuditTrailByStatus" ON payment_audit_trail ("StatusShard", "Status", "UpdatedAt");
--rollback DROP INDEX "PaymentAuditTrailByStatus";
