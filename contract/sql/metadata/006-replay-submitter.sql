--liquibase formatted sql

--changeset audit:m006-replay-submitter context:cloud
--comment: Who submits replays: the console, and who is on call. They add one and see how far it is, and write nothing else.
CREATE ROLE replay_submitter;
--rollback DROP ROLE replay_submitter;

--changeset audit:m006-replay-submitter-inserts context:cloud
GRANT SELECT, INSERT ON TABLE replays TO ROLE replay_submitter;
--rollback REVOKE SELECT, INSERT ON TABLE replays FROM ROLE replay_submitter;

--changeset audit:m006-replay-submitter-reads context:cloud
GRANT SELECT ON TABLE replay_shards TO ROLE replay_submitter;
--rollback REVOKE SELECT ON TABLE replay_shards FROM ROLE replay_submitter;
