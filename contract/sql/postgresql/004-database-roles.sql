--liquibase formatted sql

--changeset audit:004-audit-reader context:cloud
--comment: What the pipeline reads with under fine-grained access: the change streams, and no table.
CREATE ROLE audit_reader;
--rollback DROP ROLE audit_reader;

--changeset audit:004-audit-reader-streams context:cloud
GRANT SELECT ON CHANGE STREAM "PaymentAuditTrailChangeStream", "AuditLogChangeStream" TO audit_reader;
--rollback REVOKE SELECT ON CHANGE STREAM "PaymentAuditTrailChangeStream", "AuditLogChangeStream" FROM audit_reader;

--changeset audit:004-audit-reader-read-functions context:cloud
--comment: Spanner makes a read function for each change stream; reading one takes both grants.
GRANT EXECUTE ON FUNCTION spanner."read_json_PaymentAuditTrailChangeStream", spanner."read_json_AuditLogChangeStream" TO audit_reader;
--rollback REVOKE EXECUTE ON FUNCTION spanner."read_json_PaymentAuditTrailChangeStream", spanner."read_json_AuditLogChangeStream" FROM audit_reader;

--changeset audit:004-audit-writer context:cloud
--comment: What the services write with. No DELETE, and no schema: roles/spanner.databaseUser has both.
CREATE ROLE audit_writer;
--rollback DROP ROLE audit_writer;

--changeset audit:004-audit-writer-tables context:cloud
GRANT SELECT, INSERT, UPDATE ON TABLE payment_audit_trail, audit_logs TO audit_writer;
--rollback REVOKE SELECT, INSERT, UPDATE ON TABLE payment_audit_trail, audit_logs FROM audit_writer;
