--liquibase formatted sql

--changeset audit:003-payment-audit-trail-stream
--comment: The full new row and the old values of what changed, so that a transition needs no second read.
CREATE CHANGE STREAM "PaymentAuditTrailChangeStream"
  FOR payment_audit_trail
  WITH (retention_period = '7d', value_capture_type = 'NEW_ROW_AND_OLD_VALUES');
--rollback DROP CHANGE STREAM "PaymentAuditTrailChangeStream";

--changeset audit:003-audit-logs-stream
CREATE CHANGE STREAM "AuditLogChangeStream"
  FOR audit_logs
  WITH (retention_period = '7d', value_capture_type = 'NEW_ROW_AND_OLD_VALUES');
--rollback DROP CHANGE STREAM "AuditLogChangeStream";
