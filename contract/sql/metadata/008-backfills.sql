--liquibase formatted sql

--changeset audit:m008-replays-tables
--comment: A backfill is a replay of all rows of these tables; NULL for any other. Who submits replays may add one as well.
ALTER TABLE replays ADD COLUMN Tables ARRAY<STRING(128)>;
--rollback ALTER TABLE replays DROP COLUMN Tables;

--changeset audit:m008-replay-shards-there
--comment: Of a backfill's shard: rows whose key the changelog had already, and were left out.
ALTER TABLE replay_shards ADD COLUMN AlreadyThere INT64;
--rollback ALTER TABLE replay_shards DROP COLUMN AlreadyThere;

--changeset audit:m008-replay-shards-bytes
--comment: Bytes of BigQuery that were read to know that; the query is of many shards, and counted at the one that ran it.
ALTER TABLE replay_shards ADD COLUMN BytesRead INT64;
--rollback ALTER TABLE replay_shards DROP COLUMN BytesRead;
