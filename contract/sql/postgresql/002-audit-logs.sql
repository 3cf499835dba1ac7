--liquibase formatted sql

--changeset audit:002-audit-logs
--comment: What the services did to a payment.
CREATE TABLE audit_logs (
  "PUID" character varying(36) NOT NULL,
  "Action" character varying(100) NOT NULL,
  "Timestamp" timestamp with time zone NOT NULL,
  "Status" character varying(50),
  "ServiceName" character varying(100),
  "Metadata" jsonb,
  "RetryCount" bigint,
  "ErrorDetails" character varying(500),
  PRIMARY KEY ("PUID")
);
--rollback DROP TABLE audit_logs;
