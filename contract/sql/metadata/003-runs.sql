--liquibase formatted sql

--changeset audit:m003-jobs-run-id
--comment: The launch that took Generation. Text order is launch order: a launch that is older than this one never takes over.
ALTER TABLE jobs ADD COLUMN RunId STRING(64);
--rollback ALTER TABLE jobs DROP COLUMN RunId;

--changeset audit:m003-jobs-run-generation
--comment: The generation that RunId took. Another one in Generation was taken by a release that knows no runs.
ALTER TABLE jobs ADD COLUMN RunGeneration INT64;
--rollback ALTER TABLE jobs DROP COLUMN RunGeneration;
