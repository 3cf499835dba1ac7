--liquibase formatted sql

--changeset audit:005-audit-probe context:cloud
--comment: What the probe reads with: the change streams, and of a payment what says that it is stuck. No card, no name.
CREATE ROLE audit_probe;
--rollback DROP ROLE audit_probe;

--changeset audit:005-audit-probe-streams context:cloud
GRANT SELECT ON CHANGE STREAM PaymentAuditTrailChangeStream, AuditLogChangeStream TO ROLE audit_probe;
--rollback REVOKE SELECT ON CHANGE STREAM PaymentAuditTrailChangeStream, AuditLogChangeStream FROM ROLE audit_probe;

--changeset audit:005-audit-probe-read-functions context:cloud
GRANT EXECUTE ON TABLE FUNCTION READ_PaymentAuditTrailChangeStream, READ_AuditLogChangeStream TO ROLE audit_probe;
--rollback REVOKE EXECUTE ON TABLE FUNCTION READ_PaymentAuditTrailChangeStream, READ_AuditLogChangeStream FROM ROLE audit_probe;

--changeset audit:005-audit-probe-stuck context:cloud
GRANT SELECT(PUID, Status, UpdatedAt, StatusShard) ON TABLE payment_audit_trail TO ROLE audit_probe;
--rollback REVOKE SELECT(PUID, Status, UpdatedAt, StatusShard) ON TABLE payment_audit_trail FROM ROLE audit_probe;

--changeset audit:005-audit-validation context:cloud
--comment: What validation, replay and backfill read with: the watched tables, and no other.
CREATE ROLE audit_validation;
--rollback DROP ROLE audit_validation;

--changeset audit:005-audit-validation-streams context:cloud
GRANT SELECT ON CHANGE STREAM PaymentAuditTrailChangeStream, AuditLogChangeStream TO ROLE audit_validation;
--rollback REVOKE SELECT ON CHANGE STREAM PaymentAuditTrailChangeStream, AuditLogChangeStream FROM ROLE audit_validation;

--changeset audit:005-audit-validation-read-functions context:cloud
GRANT EXECUTE ON TABLE FUNCTION READ_PaymentAuditTrailChangeStream, READ_AuditLogChangeStream TO ROLE audit_validation;
--rollback REVOKE EXECUTE ON TABLE FUNCTION READ_PaymentAuditTrailChangeStream, READ_AuditLogChangeStream FROM ROLE audit_validation;

--changeset audit:005-audit-validation-tables context:cloud
GRANT SELECT ON TABLE payment_audit_trail, audit_logs TO ROLE audit_validation;
--rollback REVOKE SELECT ON TABLE payment_audit_trail, audit_logs FROM ROLE audit_validation;
