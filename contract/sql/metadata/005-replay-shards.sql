--liquibase formatted sql

--changeset audit:m005-replays-selection
--comment: Which payments, as JSON; Payments has those that were named. Older replays have Payments alone.
ALTER TABLE replays ADD COLUMN Selection STRING(MAX);
--rollback ALTER TABLE replays DROP COLUMN Selection;

--changeset audit:m005-replays-total
--comment: How many rows there are at ReadTimestamp: set together with it, before anything is written.
ALTER TABLE replays ADD COLUMN Total INT64;
--rollback ALTER TABLE replays DROP COLUMN Total;

--changeset audit:m005-replays-dead-letters
--comment: Dead letters that the replay fills from the payments' present state, and resolves.
ALTER TABLE replays ADD COLUMN DeadLetters ARRAY<STRING(MAX)>;
--rollback ALTER TABLE replays DROP COLUMN DeadLetters;

--changeset audit:m005-replay-shards
--comment: Ranges of keys, cut once at ReadTimestamp: after AfterKey (NULL: from the first) up to LastKey (NULL: to the last), JSON arrays. The first run that records a shard's WriteStream is the one whose rows count.
CREATE TABLE replay_shards (
  ReplayId STRING(64) NOT NULL,
  Shard INT64 NOT NULL,
  TableName STRING(128) NOT NULL,
  AfterKey STRING(MAX),
  LastKey STRING(MAX),
  Total INT64 NOT NULL,
  WriteStream STRING(MAX),
  Replayed INT64,
  Problems ARRAY<STRING(MAX)>,
  ProblemCount INT64,
  FinishedAt TIMESTAMP OPTIONS (allow_commit_timestamp = true),
) PRIMARY KEY (ReplayId, Shard),
  INTERLEAVE IN PARENT replays ON DELETE CASCADE;
--rollback DROP TABLE replay_shards;
