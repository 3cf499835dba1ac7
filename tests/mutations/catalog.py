"""The small ways in which the core could be wrong, and the test that notices each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """`before` stands once in `file` and becomes `after`; one of `tests` (pytest ids) must then fail."""

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def apply(self, text: str) -> str:
        """The file with the mutation. Raises ValueError where the file does not have its text just once."""
        if text.count(self.before) != 1:
            raise ValueError(
                f"{self.file} must have the text of '{self.name}' once, has it {text.count(self.before)} times"
            )
        return text.replace(self.before, self.after)


_VALUES: Final = "pipeline/sink/values.py"
_PARTITIONS: Final = "pipeline/source/partitions.py"
_READ: Final = "pipeline/source/beam_source.py"
_READING: Final = "pipeline/source/partition_threads.py"
_QUERY: Final = "pipeline/source/query.py"
_CHANNELS: Final = "pipeline/channels.py"
_RECORDS: Final = "pipeline/source/records.py"
_CHECKS: Final = "pipeline/jobs/checks.py"
_STREAM: Final = "pipeline/jobs/stream.py"
_SHARDS: Final = "pipeline/sink/shards.py"
_FAILURES: Final = "pipeline/service_errors.py"
_ROWS: Final = "pipeline/sink/rows.py"
_CHANGELOGS: Final = "pipeline/sink/changelogs.py"
_WRITE: Final = "pipeline/sink/append.py"
_FENCING: Final = "pipeline/sink/fencing.py"
_GENERATIONS: Final = "pipeline/sink/generations.py"
_DEAD_LETTERS: Final = "pipeline/sink/dead_letters.py"
_RETRY: Final = "pipeline/sink/retry.py"
_STEPS: Final = "pipeline/steps.py"
_LOGS: Final = "pipeline/logs.py"
_READABLE: Final = "pipeline/transforms/readable.py"
_ENCODINGS: Final = "pipeline/transforms/encodings.py"
_NAMES: Final = "pipeline/transforms/names.py"
_QUICK: Final = "pipeline/transforms/quick.py"
_MASK: Final = "pipeline/transforms/mask.py"
_TABLES: Final = "contract/tables.py"
_DDL: Final = "contract/ddl.py"
_DIALECTS: Final = "contract/dialects.py"
_SCHEMAS: Final = "tests/unit/test_named_schemas.py"
_REPLAY_STORE: Final = "pipeline/replay/store.py"
_REPLAY_WORK: Final = "pipeline/replay/work.py"

_SET_OF_PARTITIONS: Final = "tests/unit/test_partitions.py"
_READERS: Final = "tests/unit/test_source_read.py"
_SHARED: Final = "tests/unit/test_readers.py"
_MODES: Final = "tests/strict/test_source_strict.py"
_READINGS: Final = "tests/unit/test_readable.py"
_EXACTLY_ONCE: Final = "tests/unit/test_shards_exactly_once.py"
_TAKEOVERS: Final = "tests/unit/test_takeover_rules.py"
_STORES: Final = "tests/emulators/test_generations.py"
_REPLAYS: Final = "tests/emulators/test_replay.py"
_BACKFILLS: Final = "tests/emulators/test_backfill.py"
_BULK: Final = "tests/emulators/test_replay_bulk.py"
_CONSOLE: Final = "tests/emulators/test_console.py"
_IDENTITY: Final = "tests/unit/test_console_identity.py"
_ROUNDS: Final = "tests/unit/test_retry_round.py"
_IN_BYTES: Final = "tests/unit/test_records.py"
_OTHER_FUNCTION: Final = (
    "tests/unit/test_dialects.py::test_a_change_stream_of_mutable_key_ranges_has_another_read_function_in_postgresql"
)


def _broken(name: str, file: str, before: str, after: str, *tests: str) -> Mutation:
    return Mutation(name=name, file=file, before=before, after=after, tests=tests)


_SOURCE: Final = (
    _broken(
        "a record at the boundary of a restarted query is taken a second time",
        _PARTITIONS,
        "or (at == partition.position and record_id in partition.seen):",
        "or False:",
        f"{_SET_OF_PARTITIONS}::test_a_change_is_claimed_once",
    ),
    _broken(
        "of one commit timestamp only the first record is taken",
        _PARTITIONS,
        "if at < partition.position or (at == partition.position and record_id in partition.seen):",
        "if at < partition.position or (at == partition.position and partition.seen):",
        f"{_SET_OF_PARTITIONS}::test_changes_of_one_commit_timestamp_are_told_apart",
    ),
    _broken(
        "what was read through is not behind the position",
        _PARTITIONS,
        "            partition.position = after(read_through)\n",
        "            partition.position = read_through\n",
        f"{_SET_OF_PARTITIONS}::test_a_change_before_the_position_is_not_new",
    ),
    _broken(
        "a bundle with changes waits as long as one without",
        _READ,
        "wait = self._reading.gather_millis / 1000 if gathers else self._bundle_wait",
        "wait = self._bundle_wait",
        "tests/unit/test_source_read.py::test_a_bundle_with_changes_gathers_those_that_come_in_its_time",
    ),
    _broken(
        "changes that were put out wait until another reader has waited",
        _READING,
        "any(each.has_put_out or (not gathers and each.has_news) for each in others)",
        "any(not gathers and each.has_news for each in others)",
        "tests/unit/test_source_read.py::test_a_reader_s_wait_ends_by_what_another_has",
    ),
    _broken(
        "how far a quiet partition is ends the waits of all readers",
        _READING,
        "            self._news_put += not isinstance(item, ReadThrough)\n",
        "            self._news_put += 1\n",
        "tests/unit/test_source_read.py::test_a_reader_s_wait_ends_by_what_another_has",
    ),
    _broken(
        "what comes for one reader does not wake the others",
        _READING,
        "            self._filled.notify_all()\n            return True\n",
        "            self._filled.notify()\n            return True\n",
        "tests/unit/test_source_read.py::test_what_comes_for_one_reader_ends_the_wait_of_the_others",
    ),
    _broken(
        "readers that are read with in turn wait one after the other",
        _READ,
        "_WAIT_SECONDS / (readers.in_turn if readers else 1)",
        "_WAIT_SECONDS",
        "tests/unit/test_source_read.py::test_readers_in_one_bundle_share_its_wait",
    ),
    _broken(
        "a child waits for one of its parents only",
        _PARTITIONS,
        "[p for p in child.parents if p not in self._ended]",
        "[p for p in child.parents[:1] if p not in self._ended]",
        f"{_SET_OF_PARTITIONS}::test_a_child_waits_for_all_its_parents",
    ),
    _broken(
        "a child waits only for parents that are known so far",
        _PARTITIONS,
        "[p for p in child.parents if p not in self._ended]",
        "[p for p in child.parents if p in live]",
        f"{_SET_OF_PARTITIONS}::test_a_child_waits_for_a_parent_that_is_still_to_be_discovered",
    ),
    _broken(
        "a child waits for a parent that has ended already",
        _PARTITIONS,
        "[p for p in child.parents if p not in self._ended]",
        "list(child.parents)",
        f"{_SET_OF_PARTITIONS}::test_a_child_does_not_wait_for_a_parent_that_ended_without_naming_it",
    ),
    _broken(
        "what has ended is not remembered",
        _PARTITIONS,
        "        self._ended[token] = max((child.start for child in children), default=ended.position)\n",
        "",
        f"{_SET_OF_PARTITIONS}::test_a_root_that_a_parent_still_announces_is_not_read_a_second_time",
    ),
    _broken(
        "the watermark may retreat",
        _PARTITIONS,
        "self._reported = max(self._reported, position)",
        "self._reported = position",
        f"{_SET_OF_PARTITIONS}::test_the_watermark_does_not_go_back_when_a_child_begins_where_its_parent_was_read_through",
    ),
    _broken(
        "a query starts at the position, and misses children that begin an instant before it",
        _PARTITIONS,
        "return max(before(partition.position), partition.start or partition.position)",
        "return partition.position",
        f"{_SET_OF_PARTITIONS}::"
        "test_a_query_asks_an_instant_before_what_was_read_through_but_never_before_the_partition",
    ),
    _broken(
        "a child is taken in by every reader that has one of its parents",
        _PARTITIONS,
        "(shared and token != min(child.parents))",
        "False",
        f"{_SHARED}::test_reading_from_any_boundary_reads_each_partition_once",
    ),
    _broken(
        "a first partition belongs to its hash and to whoever has its smallest parent",
        _PARTITIONS,
        "                self._ended[root.token] = at\n",
        "                pass\n",
        f"{_SHARED}::test_reading_from_any_boundary_reads_each_partition_once",
    ),
    _broken(
        "a child waits for parents that other readers have",
        _PARTITIONS,
        "waiting_for = [] if shared else [",
        "waiting_for = [",
        f"{_SHARED}::test_each_partition_is_read_by_exactly_one_reader",
    ),
    _broken(
        "a checkpoint does not say whose share it is",
        _PARTITIONS,
        "self._ended, *share]",
        "self._ended]",
        f"{_SHARED}::test_a_single_reader_keeps_the_checkpoint_that_it_always_had",
    ),
    _broken(
        "each part of a source reads the whole stream",
        _READ,
        "part._share, part._id = share, f",
        "part._share, part._id = WHOLE, f",
        f"{_SHARED}::test_readers_share_a_stream_and_one_that_dies_reads_again_from_its_own_checkpoint",
    ),
    _broken(
        "the parts of a source take each other's queries over",
        _READ,
        'f"{self._id}/{share.reader}"',
        "self._id",
        f"{_SHARED}::test_two_readers_in_one_process_do_not_take_turns_with_their_queries",
    ),
    _broken(
        "a partition that started is taken in each time that a record says so",
        _PARTITIONS,
        "if child.token not in live and child.token not in self._ended:",
        "if child.token not in live:",
        f"{_SHARED}::test_partitions_that_start_while_others_live_on_are_read_once_from_any_time",
    ),
    _broken(
        "a second reader takes partitions of a stream of mutable key ranges",
        _PARTITIONS,
        "if shared else self.share.reader == 0:",
        "if shared else True:",
        f"{_MODES}::test_the_first_of_several_readers_reads_a_stream_of_mutable_key_ranges",
    ),
    _broken(
        "what follows a query's end is not asked for",
        _QUERY,
        "start, empty = (until, 0) if empty == 2 else (reached, empty)",
        "return",
        f"{_MODES}::test_the_same_history_gives_the_same_records_in_both_partition_modes",
    ),
    _broken(
        "the partition's end is not known from its record",
        "pipeline/source/closed.py",
        "ended = record.timestamp <= end",
        "pass",
        f"{_MODES}::test_the_same_history_gives_the_same_records_in_both_partition_modes",
    ),
    _broken(
        "the resume position is that of the fastest reader",
        "pipeline/sink/track_position.py",
        "    return min(positions.values())\n",
        "    return max(positions.values())\n",
        f"{_SHARED}::test_the_resume_position_is_that_of_the_slowest_reader_of_any_stream",
    ),
    _broken(
        "the resume position does not wait for every reader",
        "pipeline/sink/track_position.py",
        "if any(known[stream] < expected.get(stream, 1) for stream in streams):",
        "if any(known[stream] < 1 for stream in streams):",
        f"{_SHARED}::test_there_is_no_resume_position_before_each_reader_of_each_stream_has_one",
    ),
    _broken(
        "the position moves on before the change is claimed",
        _READ,
        "                    if self._partitions.claim(token, item):\n",
        "                    self._partitions.advance(token, item.commit_timestamp)\n"
        "                    if self._partitions.claim(token, item):\n",
        f"{_READERS}::test_a_bundle_ends_when_it_holds_enough_bytes_and_loses_nothing",
    ),
    _broken(
        "a bundle has no end by bytes",
        _READ,
        "                        self._bundle_bytes += weight\n",
        "",
        f"{_READERS}::test_a_bundle_ends_when_it_holds_enough_bytes_and_loses_nothing",
    ),
    _broken(
        "a position is announced only where there is no next change",
        _READ,
        "return self._announce() or self._next_change()",
        "return self._next_change() or self._announce()",
        f"{_READERS}::test_a_position_is_announced_each_second_of_the_stream_though_there_is_always_a_next_change",
    ),
    _broken(
        "queries are handed over to a reader that resumes elsewhere",
        _READ,
        "if self._stands_at is not None and self._stands_at == stands_at:",
        "if self._stands_at is not None:",
        f"{_READERS}::test_a_reader_whose_queries_were_taken_over_starts_again_when_its_bundle_is_done_again",
    ),
    _broken(
        "no first partition is taken for the end of the stream",
        _READ,
        "            if roots:\n",
        "            if roots is not None:\n",
        f"{_READERS}::test_no_first_partition_is_not_the_end_of_the_stream",
    ),
    _broken(
        "the queue is not bounded by bytes",
        _READING,
        "max(items / self._most_items, (self._bytes_put - self._bytes_returned) / self._most_bytes)",
        "items / self._most_items",
        f"{_READERS}::test_the_queue_is_bounded_by_bytes_and_one_record_of_any_size_passes",
    ),
    _broken(
        "a producer says that it waits after it has looked",
        _READING,
        "            self._producers_waiting += 1\n"
        "            while not self.closed and self._fullness >= 1:\n"
        "                self._emptied.wait()\n",
        "            while not self.closed and self._fullness >= 1:\n"
        "                self._producers_waiting += 1\n"
        "                self._emptied.wait()\n"
        "                self._producers_waiting -= 1\n"
        "            self._producers_waiting += 1\n",
        f"{_READERS}::test_a_producer_that_looks_while_the_last_item_is_returned_does_not_wait_for_ever",
    ),
    _broken(
        "a query that ends at once is asked again without a pause",
        _READING,
        "                self._cursor,\n            )\n        self._stopped.wait(pause(self._tries))\n",
        "                self._cursor,\n            )\n",
        f"{_READERS}::test_a_query_that_ends_at_once_is_asked_again_with_growing_pauses",
    ),
    _broken(
        "a pause grows without a bound",
        _READING,
        "2 ** min(tries, 20)",
        "2**tries",
        f"{_READERS}::test_an_outage_of_many_hours_still_has_a_pause",
    ),
    _broken(
        "a query that was cut short is taken for the end of its partition",
        _READING,
        "        if ended or children or (end is not None and end <= timestamps.now()):\n",
        "        if True:\n",
        f"{_READERS}::test_a_query_that_names_no_children_is_not_the_end_of_its_partition",
    ),
    _broken(
        "only the last record's children are taken",
        _READING,
        "                    children += record.children\n                elif isinstance(record, Heartbeat):",
        "                    children = list(record.children)\n                elif isinstance(record, Heartbeat):",
        f"{_READERS}::test_children_that_several_records_name_are_all_taken",
    ),
    _broken(
        "a window begins where the one before has ended",
        _READING,
        "self._cursor = max(self._cursor, timestamps.before(end))",
        "self._cursor = max(self._cursor, end)",
        f"{_READERS}::test_children_that_begin_where_a_window_ends_are_found_by_the_next_one",
    ),
    _broken(
        "a thread of a partition ends without a word",
        _READING,
        "            self._items.put(self._token, Failed(error))\n",
        "            _LOG.debug(type(error).__name__)\n",
        f"{_READERS}::test_whatever_goes_wrong_in_a_partitions_thread_reaches_the_reader",
    ),
    _broken(
        "queries stay open when nobody asks",
        _READING,
        "if self._clock() - self._asked > self._idle_seconds:",
        "if False:",
        f"{_READERS}::test_a_reader_that_nobody_asks_closes_its_queries_and_goes_on_where_it_was",
    ),
    _broken(
        "a session that has ended is not replaced",
        _QUERY,
        "                if error.code() is not grpc.StatusCode.NOT_FOUND:\n                    raise\n",
        "                if error:\n                    raise\n",
        "tests/strict/test_source_strict.py::test_a_session_that_has_ended_is_replaced_for_whoever_queries",
    ),
    _broken(
        "a connection takes any number of streams",
        _CHANNELS,
        "and (self._limit is None or len(lane.calls) < self._limit)",
        "",
        "tests/unit/test_source_channels.py::test_another_channel_is_opened_when_the_others_are_full",
    ),
    _broken(
        "a call that has ended keeps its place on the connection",
        _CHANNELS,
        "            lane.calls.discard(call)\n",
        "",
        "tests/unit/test_source_channels.py::test_a_call_that_has_come_to_its_end_frees_its_place",
    ),
    _broken(
        "fields are found by their places only",
        _RECORDS,
        "shape = self._shape(first.metadata)",
        "shape = _Shape()",
        "tests/unit/test_records.py::test_a_field_that_spanner_adds_is_ignored_by_name_wherever_it_stands",
    ),
    _broken(
        "only the partition mode that is known to be unreadable is refused",
        _RECORDS,
        "if any(name not in record for name in _RECORD):",
        'if "partition_start_record" in record:',
        "tests/unit/test_records.py::"
        "test_the_records_of_a_partition_mode_that_is_not_known_are_refused_with_the_remedy",
    ),
    _broken(
        "a record without a time is read as one of long ago",
        _RECORDS,
        'if found[0].WhichOneof("kind") is None:',
        "if False:",
        "tests/unit/test_records.py::test_a_record_without_its_time_is_an_error_and_not_an_old_change",
    ),
    _broken(
        "a value that a response boundary cut stays in two pieces",
        _RECORDS,
        'if last == head and last in ("string_value", "list_value"):',
        'if last == head and last == "list_value":',
        "tests/unit/test_records.py::test_a_text_cut_over_three_responses_is_put_together",
    ),
    _broken(
        "a launch lets every partition mode pass but the one that is known to be unreadable",
        _CHECKS,
        "if mode not in PARTITION_MODES:",
        'if mode == "A_MODE_OF_TOMORROW":',
        "tests/unit/test_source_checks.py::"
        "test_a_partition_mode_that_cannot_be_read_is_refused_at_launch_with_the_remedy",
    ),
)

_SINK: Final = (
    _broken(
        "a stream is replaced without being finalized",
        _SHARDS,
        "        if recorded:\n            self._finalize(recorded)\n",
        "",
        f"{_EXACTLY_ONCE}::test_two_workers_on_one_shard_whose_bundles_fail_at_random_lose_and_double_nothing",
    ),
    _broken(
        "a stream takes rows though another worker recorded one meanwhile",
        _SHARDS,
        "        if recorded_at is None:\n            raise NotReady(",
        "        if recorded_at is None:\n            NotReady(",
        f"{_EXACTLY_ONCE}::test_a_worker_whose_stream_another_forestalled_opens_one_after_the_others",
    ),
    _broken(
        "ALREADY_EXISTS is taken for success",
        _SHARDS,
        "        if response.error.code:\n",
        "        if response.error.code not in (0, 6):\n",
        f"{_EXACTLY_ONCE}::test_a_retried_batch_with_other_rows_loses_none_and_doubles_none",
    ),
    _broken(
        "rows are not looked up again after their stream was given up",
        _SHARDS,
        "        run.position = None\n        for piece in run.pieces:\n            piece.looked_up = False\n",
        "        run.position = None\n",
        f"{_EXACTLY_ONCE}::test_an_append_that_landed_without_an_answer_is_not_repeated",
    ),
    _broken(
        "the fence is left out: rows that an older job may have written are not looked up",
        _SHARDS,
        "            if position.fenced_at is None:\n                return batch\n",
        "            if not piece.doubtful:\n                return batch\n",
        f"{_EXACTLY_ONCE}::test_a_new_job_skips_what_the_old_one_appended",
    ),
    _broken(
        "only the shard's own older stream counts, not the older job's fence",
        _SHARDS,
        "(self._clients.fenced_at, recorded_at if recorded else None)",
        "(recorded_at if recorded else None,)",
        f"{_EXACTLY_ONCE}::test_a_new_job_with_fewer_shards_skips_what_the_old_ones_appended",
    ),
    _broken(
        "the fence is not narrowed: catching up looks up every row",
        _SHARDS,
        "run.trusted, run.narrowed = True, not fences",
        "run.trusted, run.narrowed = True, True",
        f"{_EXACTLY_ONCE}::test_catching_up_after_an_outage_looks_up_only_what_may_be_there",
    ),
    _broken(
        "the newest row is asked for before the older stream is finalized",
        _SHARDS,
        "        if recorded:\n            self._finalize(recorded)\n",
        "        if recorded:\n"
        "            newest = newest_commit(self._clients.query, self._id, run.oldest)\n"
        "            early = timestamps.from_datetime(newest or run.oldest - timedelta(microseconds=1))\n"
        "            self._narrow = lambda at, _: at._replace(fenced_at=min(at.fenced_at, early))\n"
        "            self._finalize(recorded)\n",
        f"{_EXACTLY_ONCE}::test_the_newest_row_is_asked_for_after_the_older_stream_is_finalized",
    ),
    _broken(
        "a table without newer rows is taken for one without any",
        _SHARDS,
        "        bound = newest if newest is not None else oldest - timedelta(microseconds=1)\n",
        "        if newest is None:\n            return position._replace(fenced_at=None)\n        bound = newest\n",
        f"{_EXACTLY_ONCE}::test_an_empty_table_is_asked_once_and_older_rows_are_still_looked_up",
    ),
    _broken(
        "a look-up may be answered from the query cache",
        _SHARDS,
        "use_query_cache=False",
        "use_query_cache=True",
        f"{_EXACTLY_ONCE}::test_no_look_up_is_answered_from_the_query_cache",
    ),
    _broken(
        "the rest of a refused request is sent without a look-up",
        _SHARDS,
        "run.pieces.appendleft(_Piece(piece.rows.filter(keep).combine_chunks(), doubtful=True))",
        "run.pieces.appendleft(_Piece(piece.rows.filter(keep).combine_chunks(), looked_up=True))",
        f"{_EXACTLY_ONCE}::test_a_request_whose_rows_are_refused_by_name_is_looked_up_before_the_rest_is_sent",
    ),
    _broken(
        "rows are sent into a call that has ended",
        _SHARDS,
        "            or connection.ended\n",
        "",
        "tests/unit/test_shards_strict.py::test_an_idle_connection_that_the_server_ended_costs_nothing",
    ),
    _broken(
        "rows are blamed for what an older stream refuses",
        _SHARDS,
        "or not (run.trusted or refused.row_errors):",
        "or False:",
        "tests/unit/test_shards_failures.py::test_what_an_older_stream_refuses_is_not_blamed_on_the_rows",
    ),
    _broken(
        "rows are rejected against the table as it was",
        _SHARDS,
        "        elif self._read_again(run):\n",
        "        elif False:\n",
        "tests/unit/test_shards_failures.py::test_rows_are_rejected_only_against_the_table_as_it_is_now",
    ),
    _broken(
        "rows are cut by their number and not by their bytes",
        _SHARDS,
        "        if gathered and gathered + size > _MOST_BYTES:\n",
        "        if index and not index % 500:\n",
        "tests/unit/test_shards_failures.py::test_a_large_row_among_small_ones_is_cut_by_bytes_and_not_by_rows",
    ),
    _broken(
        "a StorageError is not read",
        _FAILURES,
        "        if self.storage_error in _BY_STORAGE_ERROR:\n",
        "        if False:\n",
        "tests/unit/test_shards_failures.py::test_a_failure_means_the_same_however_it_arrives",
    ),
    _broken(
        "a code of tomorrow makes a dead letter",
        _FAILURES,
        "return _BY_CODE.get(code, Action.WAIT)",
        "return _BY_CODE.get(code, Action.THIS_ROW)",
        "tests/unit/test_shards_failures.py::test_a_service_that_fails_for_five_seconds_is_waited_out",
    ),
    _broken(
        "rows of two schemas meet in one append",
        _ROWS,
        "        found.setdefault((columns, table.schema.serialize().to_pybytes()), []).append(table)\n",
        "        found.setdefault((columns[:0], b''), []).append(table)\n",
        "tests/unit/test_append_rows.py::test_rows_of_before_a_new_array_are_empty_there_and_not_null",
    ),
    _broken(
        "a column that was made for a changed type is taken by another field",
        _CHANGELOGS,
        "                if stands_for != field.name.casefold() if stands_for else theirs:\n",
        "                if False:\n",
        "tests/unit/test_column_names.py::test_a_changed_type_does_not_take_a_real_column_of_that_type",
    ),
    _broken(
        "columns that differ in case alone share one column",
        _TABLES,
        "        if names & taken:\n",
        "        if False:\n",
        "tests/unit/test_column_names.py::test_columns_that_differ_in_case_alone_both_arrive",
    ),
    _broken(
        "a source column takes the place of one of ours",
        _TABLES,
        "return SOURCE_PREFIX + cleaned if _is_taken(table, cleaned) else cleaned",
        "return cleaned",
        "tests/unit/test_column_names.py::test_a_source_column_with_a_name_of_ours_arrives_under_another",
    ),
    _broken(
        "a source column and a token share one name in a masked row",
        _TABLES,
        "return column_name(table, name) if is_token_name(table, own) else name",
        "return name",
        "tests/unit/test_column_names.py::"
        "test_the_value_and_the_token_both_arrive_where_a_column_is_called_as_the_token_would_be",
    ),
    _broken(
        "what a bundle brings of a shard goes one by one",
        _WRITE,
        "if gathered.bytes > _MOST_BYTES:",
        "if gathered.bytes:",
        "tests/unit/test_append_rows.py::test_what_a_bundle_brings_of_a_shard_goes_in_one_append",
    ),
    _broken(
        "any number of bytes gathers until the bundle ends",
        _WRITE,
        "if gathered.bytes > _MOST_BYTES:",
        "if not gathered.bytes:",
        "tests/unit/test_append_rows.py::test_rows_of_many_bytes_do_not_wait_for_the_end_of_the_bundle",
    ),
    _broken(
        "where the rows of a shard go is not kept: each bundle asks the table",
        _WRITE,
        "        gathered.cell.write(tuple(gathered.position) if gathered.position else None)\n",
        "",
        "tests/unit/test_append_rows.py::test_the_appends_of_a_shard_are_to_one_stream_whose_position_is_kept",
    ),
    _broken(
        "Prism splits bundles that are slow",
        "pipeline/jobs/stream.py",
        'if "dataflow" not in (options',
        'if "" not in (options',
        "tests/emulators/test_prism.py::test_a_slow_bundle_is_not_split_into_two_of_one_key",
    ),
)

_JOBS: Final = (
    _broken(
        "a metadata database that is away ends the job",
        "pipeline/sink/track_position.py",
        'wait_out("Writing the resume position", lambda: self._generations.advance(generation, position))',
        "self._generations.advance(generation, position)",
        "tests/unit/test_fencing.py::test_a_metadata_database_that_is_away_does_not_end_the_job",
    ),
    _broken(
        "a job that was replaced waits to be the newest again",
        _FENCING,
        "            if failures.of_code(failures.code_of(error)) is not Action.WAIT:\n                raise\n",
        "",
        "tests/unit/test_fencing.py::test_what_waiting_does_not_help_is_raised_at_once",
    ),
    _broken(
        "a clock that is late makes a launch an old one",
        _GENERATIONS,
        "        nanos = max(nanos, int(newest[:_RUN_DIGITS]) + 1)\n",
        "        pass\n",
        "tests/unit/test_fencing.py::test_no_clock_makes_a_launch_an_old_one",
    ),
    _broken(
        "the fence is set with older streams open",
        _FENCING,
        "            _finalize(write, stream)\n",
        "            pass\n",
        f"{_TAKEOVERS}::test_older_streams_are_finalized_before_the_fence_is_set",
    ),
    _broken(
        "a run takes over from a later one",
        _GENERATIONS,
        "            if newest is not None and newest >= run:\n",
        "            if False:\n",
        f"{_STORES}::test_a_run_launched_before_the_newest_takes_nothing_over",
    ),
    _broken(
        "each worker of a run takes its own generation",
        _GENERATIONS,
        "            if newest == run and ran_as == generation:\n",
        "            if False:\n",
        f"{_STORES}::test_a_run_takes_one_generation_however_often_it_asks",
    ),
    _broken(
        "each worker of a run moves the fence",
        _GENERATIONS,
        "            if fenced_at is None:\n",
        "            if True:\n",
        f"{_STORES}::test_the_first_fence_of_a_generation_counts",
    ),
    _broken(
        "the job writes what is personal of who was erased",
        _STEPS,
        "if not self._erased.current().redact(change, table):",
        "if False:",
        "tests/unit/test_steps.py::test_a_payment_that_was_erased_becomes_a_row_without_what_is_personal",
    ),
    _broken(
        "keys of state are pickled",
        "pipeline/failures.py",
        "done[name].element_type = convert_to_beam_type(kind)",
        "pass",
        "tests/unit/test_graph.py::test_state_is_kept_by_keys_of_a_type_and_each_step_has_the_input_that_it_is_for",
    ),
    _broken(
        "columns of one moment are taken for those of another",
        "pipeline/source/completion.py",
        "if before and before[-1].columns == columns:",
        "if before:",
        "tests/unit/test_completion.py"
        "::test_a_change_of_between_two_looks_at_an_altered_table_has_the_columns_of_its_moment",
    ),
    _broken(
        "a step between source and mask keeps unmasked records",
        _STREAM,
        "records | to_rows.failures_to(failures)",
        'records | "Twice" >> beam.Reshuffle() | to_rows.failures_to(failures)',
        "tests/unit/test_graph.py::test_between_a_source_and_its_encoded_rows_is_one_plain_step_with_one_consumer",
    ),
    _broken(
        "one spelling of sampling is refused, the others pass",
        _STREAM,
        'if "sampling" in name.lower()}',
        'if name == "enable_data_sampling"}',
        "tests/unit/test_stream_settings.py::test_sampling_of_elements_is_refused_before_anything",
    ),
    _broken(
        "a second value of an option hides the first",
        _STREAM,
        "        *(options.view_as(DebugOptions).experiments or []),\n",
        "",
        "tests/unit/test_stream_settings.py::test_two_values_of_a_beam_option_do_not_hide_the_sampling",
    ),
    _broken(
        "a line of the log that cannot be written raises",
        _LOGS,
        "            return _broken(record, type(error).__name__)\n",
        "            raise error\n",
        "tests/unit/test_logs.py::test_a_line_that_cannot_be_written_names_nothing_of_its_arguments",
    ),
    _broken(
        "a long text is cut in the middle of a card number",
        _LOGS,
        "    begin = hide_cards(text[: LONGEST_TEXT + _MARGIN], set())\n"
        '    return f"{begin[: min(LONGEST_TEXT, max(0, len(begin) - _MARGIN))]}…"\n',
        '    return f"{hide_cards(text[:LONGEST_TEXT], set())}…"\n',
        "tests/unit/test_logs.py::test_a_long_text_is_cut_and_no_card_with_it",
    ),
    _broken(
        "a CHECK is a column",
        _DDL,
        '    if words.peek("CHECK", "("):\n',
        "    if False:\n",
        "tests/unit/test_schema.py::test_a_table_constraint_is_no_column_and_takes_none_along",
    ),
)

_LETTERS: Final = (
    _broken(
        "dead letters of a bundle are not durable at its end",
        "pipeline/sink/dead_letter_writer.py",
        "        self._queue.put(self._letters)\n",
        "",
        "tests/unit/test_steps.py::test_dead_letters_are_durable_when_the_bundle_ends",
    ),
    _broken(
        "a dead letter is taken away before it is written where it goes",
        _DEAD_LETTERS,
        "        written = self._add(to, made)\n        removed = self._remove(name, taken)\n",
        "        removed = self._remove(name, taken)\n        written = self._add(to, made)\n",
        "tests/unit/test_dead_letters.py::test_a_crash_between_writing_and_removing_loses_no_letter",
    ),
    _broken(
        "a move that came second keeps its copy",
        _DEAD_LETTERS,
        "        if late:\n",
        "        if False:\n",
        "tests/unit/test_dead_letters_at_once.py::test_none_is_lost_and_none_returns_whatever_the_order",
    ),
    _broken(
        "a lost answer is taken for another's change",
        _DEAD_LETTERS,
        "                    in_doubt += edited\n",
        "                    pass\n",
        "tests/unit/test_dead_letters_in_a_bucket.py::test_an_answer_that_is_lost_while_another_changes_the_object_loses_no_letter",
    ),
    _broken(
        "a line that is no dead letter is dropped with the next write",
        _DEAD_LETTERS,
        "lines = [*map(encode, letters), *file.unreadable]",
        "lines = [*map(encode, letters)]",
        "tests/unit/test_dead_letters.py::test_a_line_that_is_no_dead_letter_is_kept_and_counted",
    ),
    _broken(
        "a service that is away is an attempt",
        _RETRY,
        "return of_code(code_of(error)) not in {Action.THIS_ROW, Action.TOO_LARGE}",
        "return False",
        f"{_ROUNDS}::test_spanner_that_does_not_answer_is_no_attempt",
    ),
    _broken(
        "a dead letter is resolved before the merge is rewound",
        _RETRY,
        "        resolved = self._rewound(resolved, changes[self._transforms.watched.payments.name], done)\n"
        "        self._queue.resolve([letter.id for letter in resolved])\n",
        "        self._queue.resolve([letter.id for letter in resolved])\n"
        "        resolved = self._rewound(resolved, changes[self._transforms.watched.payments.name], done)\n",
        f"{_ROUNDS}::test_a_payment_is_not_resolved_before_its_rewind",
    ),
    _broken(
        "a dead letter is tried before the resume position has passed it",
        _RETRY,
        "if x.coordinates.commit_timestamp < passed)",
        "if passed is not None)",
        f"{_ROUNDS}::test_what_the_job_may_still_append_is_not_tried_before_the_position_has_passed_it",
    ),
    _broken(
        "a retry appends without a look at what is there",
        _RETRY,
        "there = existing_ids(self._clients.query, self._clients.destinations.id(table), batch)",
        "there = set[str]()",
        f"{_ROUNDS}::test_a_payment_is_not_resolved_before_its_rewind",
    ),
    _broken(
        "a row that breaks an append takes those beside it along",
        _RETRY,
        "            if half and not _is_a_service(error):\n",
        "            if False:\n",
        f"{_ROUNDS}::test_a_row_that_breaks_the_append_takes_no_other_row_along",
    ),
)

_MASKING: Final = (
    _broken(
        "an encoding less is read",
        _READABLE,
        "LEVELS: Final = 4\n",
        "LEVELS: Final = 3\n",
        f"{_READINGS}::test_three_encodings_are_read_and_the_document_s_own_and_one_level_less_would_not_do",
    ),
    _broken(
        "what leaves is not looked at again",
        _READABLE,
        "        return text if not self.edits(text, depth) else starred(text)\n",
        "        return text\n",
        f"{_READINGS}::test_a_text_in_which_masking_leaves_something_leaves_as_stars",
    ),
    _broken(
        "base64 is not read",
        _ENCODINGS,
        '        if len(run) >= _SHORT or run[-1] == "=" or _DIGITS_QUANTUM.search(run):\n',
        "        if False:\n",
        f"{_READINGS}::test_an_encoded_card_number_is_hidden_and_its_number_known",
    ),
    _broken(
        "hex is not read",
        _ENCODINGS,
        "    if _HEX.search(run) is None:\n",
        "    if run:\n",
        f"{_READINGS}::test_an_encoded_card_number_is_hidden_and_its_number_known",
    ),
    _broken(
        "UTF-16 is not read",
        _ENCODINGS,
        "            if zeros * _SHARE_OF_ZEROS >= half and _decodes(data, encoding):\n",
        "            if False:\n",
        f"{_READINGS}::test_a_security_code_in_utf_16_is_hidden_in_its_place",
    ),
    _broken(
        "HTML's named entities are not read",
        _ENCODINGS,
        "        return html.unescape(escape)\n",
        "        return escape\n",
        f"{_READINGS}::test_an_encoded_card_number_is_hidden_and_its_number_known",
    ),
    _broken(
        "EMV's tags are not read",
        _READABLE,
        "        edits += [piece.edit for piece in pieces]\n",
        "",
        f"{_READINGS}::test_card_numbers_tracks_and_expiries_in_emv_tlv_are_hidden",
    ),
    _broken(
        "the names in a text say nothing",
        _READABLE,
        "        edits += named\n",
        "",
        f"{_READINGS}::test_a_security_code_beside_its_name_is_gone_from_any_text",
    ),
    _broken(
        "a name is known by its spelling and not by its meaning",
        _NAMES,
        "    meaning = meaning_of(name, context)\n",
        "    meaning: Meaning | None = None\n",
        "tests/unit/test_mask_json.py::test_a_member_that_must_never_be_stored_becomes_null",
    ),
    _broken(
        "what follows a card number on its stripe stays",
        _READABLE,
        "    if stripe := _STRIPE.match(text, after):\n",
        "    if stripe := None:\n",
        f"{_READINGS}::test_what_stands_behind_a_card_number_on_a_stripe_or_in_a_dump_is_hidden",
    ),
    _broken(
        "a document is remembered before it was looked at",
        _QUICK,
        "        if text in self._documents.seen:\n            return False\n",
        "        if text in self._documents.seen:\n            return False\n        self._documents.add(text)\n",
        "tests/unit/test_mask.py::test_a_document_that_comes_again_is_masked_again",
    ),
    _broken(
        "the quick look passes over what is escaped",
        _QUICK,
        "        if is_escaped(text) or numbers_in(text) or not _says_nothing(text):\n",
        "        if numbers_in(text) or not _says_nothing(text):\n",
        f"{_READINGS}::test_the_quick_look_knows_every_encoding",
    ),
    _broken(
        "the values before a change are not masked",
        _MASK,
        "in zip(rows, (True, True, False), strict=True):",
        "in zip(rows[:2], (True, True), strict=True):",
        "tests/unit/test_mask.py::test_old_values_are_masked_like_new_ones",
    ),
    _broken(
        "the look over the numbers of all rows leaves out those before the change",
        _MASK,
        "written = _may_hold_number_in(rows, plan.written)",
        "written = _may_hold_number_in(rows[:2], plan.written)",
        "tests/unit/test_mask.py::test_one_look_over_the_numbers_of_all_rows_sees_each_of_them",
    ),
    _broken(
        "the look over the numbers knows a renamed column by its later name only",
        _MASK,
        "for either in (name, c.name)",
        "for either in (name,)",
        "tests/unit/test_mask.py::test_a_number_under_a_name_that_a_token_has_is_seen_too",
    ),
    _broken(
        "an identifier that holds a card number is rewritten",
        _MASK,
        "        if identifies and name in plan.identifiers:\n",
        "        if False:\n",
        "tests/unit/test_mask.py::test_a_card_number_in_an_identifier_is_a_dead_letter",
    ),
    _broken(
        "a column that nobody classified passes",
        _MASK,
        "        if self._hold:\n            for row in rows:\n",
        "        if False:\n            for row in rows:\n",
        "tests/unit/test_mask.py::test_a_new_column_is_held_back_until_it_is_classified",
    ),
)

_SUPPORT: Final = (
    Mutation(
        name="a shard of a replay that is run twice commits both streams",
        file=_REPLAY_STORE,
        before='("Replayed",), _key(replay_id, number))\n            if recorded is None:',
        after='("Replayed",), _key(replay_id, number))\n            if True:',
        tests=(f"{_REPLAYS}::test_two_who_run_one_replay_at_once_write_it_once",),
    ),
    Mutation(
        name="a replay reads the payments again each time it is run",
        file="pipeline/replay/work.py",
        before="        if shard.replayed is None:",
        after="        if True:",
        tests=(f"{_REPLAYS}::test_a_replay_that_is_killed_half_way_is_finished_by_the_next_run",),
    ),
    Mutation(
        name="a replay that is run again gets another moment and other shards",
        file=_REPLAY_STORE,
        before="            if recorded is None:\n                values = (replay_id, read_at, sum(",
        after="            if True:\n                values = (replay_id, read_at, sum(",
        tests=(f"{_BULK}::test_the_moment_and_the_shards_that_were_recorded_first_count",),
    ),
    Mutation(
        name="a backfill writes while a change of its very moment can still come",
        file=_REPLAY_WORK,
        before="position > timestamps.from_datetime",
        after="position >= timestamps.from_datetime",
        tests=(f"{_BACKFILLS}::test_no_shard_is_written_before_the_stream_is_past_its_moment",),
    ),
    Mutation(
        name="a backfill leaves out a row that the stream brought after its moment",
        file="pipeline/replay/arrived.py",
        before="WHERE {tables.COMMIT_TIMESTAMP} <= @moment{bounds}",
        after="WHERE @moment IS NOT NULL{bounds}",
        tests=(f"{_BACKFILLS}::test_what_changes_after_the_moment_wins_in_whatever_order_it_comes",),
    ),
    Mutation(
        name="a backfill takes the keys of some shards for those of all",
        file=_REPLAY_WORK,
        before=" and shard.number in self._known[1].shards",
        after="",
        tests=(f"{_BACKFILLS}::test_what_is_older_than_the_stream_is_there_once_and_what_came_by_it_is_not_written",),
    ),
    Mutation(
        name="payments of a backfill are handed over to be run again",
        file=_REPLAY_WORK,
        before="if self._settings.hand_over is None or replay.tables:",
        after="if self._settings.hand_over is None:",
        tests=(f"{_BACKFILLS}::test_a_payment_of_a_backfill_is_never_handed_over_to_be_run_again",),
    ),
    Mutation(
        name="a shard is recorded after its backfill was given up",
        file=_REPLAY_STORE,
        before="                if ended:",
        after="                if False:",
        tests=(f"{_BACKFILLS}::test_one_whose_moment_is_kept_no_longer_ends_and_another_one_writes_the_rest",),
    ),
    Mutation(
        name="two who cut a backfill at once cut it twice",
        file=_REPLAY_STORE,
        before="if total is not None or (-1 if last is None else last) != shards[0].number - 1:",
        after="if total is not None:",
        tests=(f"{_BACKFILLS}::test_two_who_plan_and_run_one_at_once_write_it_once",),
    ),
    Mutation(
        name="a backfill finds no row whose key has a NULL",
        file="pipeline/source/table_rows.py",
        before='if further == "<" and column in self._nullable else ""',
        after='if False else ""',
        tests=(f"{_BACKFILLS}::test_keys_of_any_type_and_what_of_them_cannot_be_known_is_said",),
    ),
    Mutation(
        name="the last key of a shard is in no shard",
        file="pipeline/source/table_rows.py",
        before='inclusive=name == "last"',
        after="inclusive=False",
        tests=(f"{_BULK}::test_a_table_is_cut_by_all_of_its_key_into_ranges_that_have_every_row_once",),
    ),
    Mutation(
        name="rows of an append that was not answered are sent to the same pending stream again",
        file="pipeline/sink/pending.py",
        before="            except (_Doubt, *_FAILURES) as error:\n",
        after="            except _FAILURES as error:\n",
        tests=("tests/unit/test_pending.py::test_after_a_doubt_the_rows_go_to_another_stream_and_are_there_once",),
    ),
    Mutation(
        name="one row that BigQuery refuses takes its whole request along",
        file="pipeline/sink/pending.py",
        before="if bad and (others := [index for index in piece if index not in bad]):",
        after="if bad and (others := []):",
        tests=("tests/unit/test_pending.py::test_a_row_that_bigquery_refuses_is_named_and_takes_no_other_along",),
    ),
    Mutation(
        name="a page is shown before its access is in the log",
        file="support/console/app.py",
        before="            written.result()",
        after="            pass",
        tests=(f"{_CONSOLE}::test_what_cannot_be_logged_is_not_shown",),
    ),
    Mutation(
        name="old and new values of personal columns are shown to everybody",
        file="support/console/personal.py",
        before="return HIDDEN if value is not None and is_personal(watched, column) else value",
        after="return value",
        tests=(f"{_CONSOLE}::test_a_viewer_who_may_not_see_personal_data_sees_none_and_cannot_ask_by_it",),
    ),
    Mutation(
        name="a card's number may be in an address",
        file="support/console/asked.py",
        before="if any(is_card(text) or find_cards(text) for text in texts):",
        after="if False:",
        tests=("tests/unit/test_console_parts.py::test_a_card_is_known_as_one_and_is_in_no_filter",),
    ),
    Mutation(
        name="a token of the proxy for another service is taken",
        file="support/console/identity.py",
        before="token, certs=keys, audience=self.audience",
        after="token, certs=keys",
        tests=(f"{_IDENTITY}::test_a_token_that_was_not_made_for_this_service_and_moment_is_refused",),
    ),
    Mutation(
        name="a token of another issuer is taken",
        file="support/console/identity.py",
        before='if claims.get("iss") != _ISSUER or not',
        after="if not",
        tests=(f"{_IDENTITY}::test_a_token_that_was_not_made_for_this_service_and_moment_is_refused",),
    ),
    Mutation(
        name="a form of another site on the same machine is taken",
        file="support/console/guard.py",
        before='return site == "same-origin"',
        after='return site != "cross-site"',
        tests=("tests/unit/test_console_parts.py::test_a_form_of_another_site_does_nothing",),
    ),
)

_LOOKUPS: Final = "tests/emulators/test_lookup.py"
_FINDING: Final = (
    Mutation(
        name="a search finds only what the lookup table has",
        file="support/lookup.py",
        before='        both = f"{known} UNION ALL {fresh}" if fresh else known',
        after="        both = known",
        tests=(f"{_LOOKUPS}::test_a_payment_is_found_before_the_first_fill_and_after_each",),
    ),
    Mutation(
        name="a look-up takes what it expects for how far the lookup table is",
        file="support/lookup.py",
        before="        if filled >= open_from:",
        after="        if True:",
        tests=(f"{_LOOKUPS}::test_a_search_finds_what_a_fill_that_fails_for_days_has_not_added",),
    ),
    Mutation(
        name="a fill moves on although it was rewound meanwhile",
        file="contract/sql/bigquery/fill_payment_lookup.sql",
        before="  AND COALESCE(filled_at = seen_at, seen_at IS NULL);",
        after="  AND TRUE;",
        tests=(f"{_LOOKUPS}::test_a_rewind_during_a_fill_is_not_lost",),
    ),
    Mutation(
        name="a fill adds again what it had added before a rewind",
        file="contract/sql/bigquery/fill_payment_lookup.sql",
        before="  seen_until IS NULL, from_timestamp, TIMESTAMP_SUB(",
        after="  TRUE, from_timestamp, TIMESTAMP_SUB(",
        tests=(f"{_LOOKUPS}::test_a_fill_adds_a_change_once_also_a_late_one",),
    ),
    Mutation(
        name="the first merge after a fill never moves on",
        file="contract/sql/bigquery/merge_payment_state.sql",
        before="  AND COALESCE(merged_at = seen_at, seen_at IS NULL);",
        after="  AND merged_at = seen_at;",
        tests=(f"{_LOOKUPS}::test_merge_and_fill_share_their_progress_and_do_not_hold_each_other_up",),
    ),
    Mutation(
        name="a late change rewinds the merge and not the fill",
        file="contract/sql/bigquery/rewind_payment_state.sql",
        before="  filled_until = LEAST(filled_until, @commit_timestamp),",
        after="  filled_until = filled_until,",
        tests=(f"{_LOOKUPS}::test_a_fill_adds_a_change_once_also_a_late_one",),
    ),
    Mutation(
        name="the first rows of a long backfill never reach the lookup table",
        file="contract/sql/bigquery/rewind_payment_state.sql",
        before="LEAST(added_at, @arrived)",
        after="LEAST(added_at, COALESCE(added_at, @arrived))",
        tests=(f"{_LOOKUPS}::test_rows_of_a_long_replay_are_added_though_they_arrived_before_the_last_fill",),
    ),
)
_BACKED_UP: Final = "tests/emulators/test_backup.py"
_BACKUPS: Final = (
    Mutation(
        name="the halves of a backup's checksum cancel each other out",
        file="support/backup/checksums.py",
        before='int(row["high"]) * _HALF + int(row["low"])',
        after='0 * int(row["high"]) * _HALF + 0 * int(row["low"])',
        tests=(f"{_BACKED_UP}::test_a_row_that_moves_to_another_value_of_the_same_table_is_noticed",),
    ),
    Mutation(
        name="a backup that is continued is of the present",
        file="support/backup/store.py",
        before="                return _backup(row)\n            columns",
        after="                return wanted\n            columns",
        tests=(f"{_BACKED_UP}::test_what_is_written_after_the_moment_is_not_in_it_also_when_it_is_continued",),
    ),
    Mutation(
        name="a backup keeps the checksum of a partition that changed",
        file="support/backup/create.py",
        before="info.changed_at <= before.at",
        after="True",
        tests=(f"{_BACKED_UP}::test_what_did_not_change_is_not_read_again",),
    ),
    Mutation(
        name="a drill leaves out partitions that are not recorded",
        file="support/backup/drill.py",
        before="            if restored.rows != kept.rows and not counted:",
        after="            if False:",
        tests=(f"{_BACKED_UP}::test_a_row_without_a_time_is_noticed",),
    ),
    Mutation(
        name="a table is replaced by what is not as recorded",
        file="support/backup/restore.py",
        before="            if done.differences:\n                lines",
        after="            if False:\n                lines",
        tests=(f"{_BACKED_UP}::test_a_table_is_replaced_with_a_reason_and_only_by_what_is_as_recorded",),
    ),
    Mutation(
        name="an export that another backup holds is deleted",
        file="support/backup/places.py",
        before="    return folder in folders or",
        after="    return",
        tests=(f"{_BACKED_UP}::test_a_backup_is_deleted_wholly_and_what_another_one_holds_stays",),
    ),
)
_ERASED, _ERASES = "tests/emulators/test_erase.py", "tests/unit/test_erase.py"
_ERASURE: Final = (
    Mutation(
        name="an erased payment's rows that name no customer stay",
        file="pipeline/transforms/erase.py",
        before="if payment is not None and self.has_payment(payment):",
        after="if False:",
        tests=(f"{_ERASES}::test_an_event_of_an_erased_payment_is_redacted_though_it_names_no_customer",),
    ),
    Mutation(
        name="who is erased may be known from long ago",
        file="pipeline/transforms/erased.py",
        before="if known is None or now - self._read_at >= OLDEST_SECONDS:",
        after="if known is None:",
        tests=(f"{_ERASES}::test_who_is_erased_is_read_again_and_never_too_old",),
    ),
    Mutation(
        name="a token of a key that is gone is passed over",
        file="pipeline/transforms/erase.py",
        before="        if missing := sorted(",
        after="        if False and sorted(",
        tests=(f"{_ERASES}::test_tokens_of_an_older_key_count_and_one_of_a_key_that_is_gone_stops",),
    ),
    Mutation(
        name="a replay writes an erased customer again",
        file="pipeline/replay/work.py",
        before="kept = self._erased.current().redact(change, table)",
        after="kept = True",
        tests=(f"{_ERASED}::test_nothing_brings_it_back",),
    ),
    Mutation(
        name="validation compares an erased customer as it was",
        file="support/validation/source.py",
        before="kept = self._erased.current().redact(change, table)",
        after="kept = True",
        tests=(f"{_ERASED}::test_validation_finds_both_sides_alike",),
    ),
    Mutation(
        name="an erasure does not wait for what is under way",
        file="support/erasure/work.py",
        before="if position and position >= wanted and not running:",
        after="if position:",
        tests=(f"{_ERASED}::test_it_waits_for_the_job_and_for_replays",),
    ),
    Mutation(
        name="who was erased before is forgotten with the next read",
        file="pipeline/transforms/erased.py",
        before="tokens = self._tokens | found.keys()",
        after="tokens = frozenset(found)",
        tests=(f"{_ERASES}::test_what_was_erased_before_is_kept_and_only_what_came_since_is_read",),
    ),
    Mutation(
        name="a key that was added stops what writes",
        file="pipeline/transforms/erased.py",
        before="            self._keys = self._load()\n            return",
        after="            return",
        tests=(f"{_ERASES}::test_a_token_of_a_key_that_was_added_meanwhile_has_the_keys_loaded_again",),
    ),
    Mutation(
        name="what people requested about other customers goes with an erasure",
        file="support/erasure/work.py",
        before="json.dumps(customer, ensure_ascii=False)",
        after="customer",
        tests=(f"{_ERASED}::test_nothing_of_a_customer_is_left_and_nothing_of_others_is_touched",),
    ),
    Mutation(
        name="a mistyped card comes into an address",
        file="support/console/pages.py",
        before="    if asked.may_be_card(text):\n        # A digit",
        after="    if False:\n        # A digit",
        tests=("tests/emulators/test_console.py::test_a_card_with_a_wrong_digit_comes_into_no_address",),
    ),
    Mutation(
        name="an event's own status is taken for the payment's",
        file="support/timeline.py",
        before='expected=row["transition_expected"] if row["source_table"] == payments.name else None,',
        after='expected=row["transition_expected"],',
        tests=(f"{_CONSOLE}::test_an_event_of_another_table_is_never_an_unusual_transition",),
    ),
    Mutation(
        name="a replay moves a payment in a search",
        file="support/search.py",
        before="f\"IF({tables.MOD_TYPE} = 'REPLAY'",
        after="f\"IF({tables.MOD_TYPE} = 'NEVER'",
        tests=("tests/emulators/test_search.py::test_a_replay_moves_no_payment_in_a_search",),
    ),
    Mutation(
        name="an agent reads what is for who runs the stack",
        file="support/console/failed.py",
        before='    return f"{who}',
        after='    return str(error) or f"{who}',
        tests=(f"{_CONSOLE}::test_no_page_of_an_agent_without_an_answer_names_a_command_and_the_log_says_why",),
    ),
    Mutation(
        name="the first viewer after a pause waits for its end",
        file="support/console/live.py",
        before="self._since, self._awaited = now, True",
        after="self._since, self._awaited = now, False",
        tests=("tests/unit/test_console_parts.py::test_the_first_viewer_after_a_pause_is_looked_for_at_once",),
    ),
    Mutation(
        name="a look that is paid for is cut short",
        file="support/console/live.py",
        before="self._changed.wait_for(lambda: self._ended, paid)",
        after="",
        tests=(
            "tests/unit/test_console_parts.py::test_what_bigquery_is_paid_for_is_not_looked_at_sooner_for_a_viewer",
        ),
    ),
    Mutation(
        name="failures of other services are shown as a service's",
        file="support/console/pages.py",
        before='service in ("", row.get("service")) and ',
        after="",
        tests=("tests/emulators/test_console.py::test_failures_are_counted_by_service_and_lead_to_their_payments",),
    ),
    Mutation(
        name="an erasure that is run again knows no payment of the run before",
        file="support/erasure/work.py",
        before="found = known | set(self._payments(customer))",
        after="found = set(self._payments(customer))",
        tests=(f"{_ERASED}::test_one_that_is_killed_after_each_statement_is_run_again_to_its_end",),
    ),
    Mutation(
        name="which payments were a customer's is kept after the erasure",
        file="support/erasure/store.py",
        before='            batch.delete("erasure_payments", _of(erasure_id))\n',
        after="",
        tests=(f"{_ERASED}::test_nothing_of_a_customer_is_left_and_nothing_of_others_is_touched",),
    ),
    Mutation(
        name="a restored backup brings an erased customer back",
        file="support/erasure/restored.py",
        before="    if not tokens or source is None:",
        after="    if True:",
        tests=(f"{_ERASED}::test_backups_from_before_are_deleted_and_what_is_restored_is_redacted",),
    ),
)
_PREFLIGHT_TESTS: Final = "tests/infra/test_preflight.py"
_TAKEN_AWAY: Final = f"{_PREFLIGHT_TESTS}::test_what_was_taken_away_is_named_with_why_and_the_remedy"
_PREFLIGHT: Final = (
    Mutation(
        name="what preflight could not see counts as good",
        file="delivery/preflight/findings.py",
        before="    return COULD_NOT_LOOK if State.NOT_SEEN in states else GOOD",
        after="    return GOOD",
        tests=(f"{_TAKEN_AWAY}[a look]",),
    ),
    Mutation(
        name="preflight looks at the first batch of permissions only",
        file="delivery/preflight/access.py",
        before="    for batch in _batches(permissions, _PERMISSIONS_AT_ONCE):",
        after="    for batch in list(_batches(permissions, _PERMISSIONS_AT_ONCE))[:1]:",
        tests=(f"{_PREFLIGHT_TESTS}::test_nothing_is_missing_in_a_project_that_bootstrap_made_ready",),
    ),
    Mutation(
        name="up goes on after a blocker",
        file="delivery/deploy.py",
        before="    return findings.blockers(found)",
        after="    return []",
        tests=(f"{_PREFLIGHT_TESTS}::test_up_is_stopped_by_a_blocker_before_it_writes_anything",),
    ),
    Mutation(
        name="a bucket of somebody else is not seen rather than taken",
        file="delivery/preflight/names.py",
        before="_FORBIDDEN: Final = 403",
        after="_FORBIDDEN: Final = 401",
        tests=(f"{_TAKEN_AWAY}[bucket's name]",),
    ),
    Mutation(
        name="the deployer may run no build on the stack's machines",
        file="bootstrap/roles.py",
        before='iam-roles-permissions.\n    "roles/cloudbuild.workerPoolUser": ',
        after='iam-roles-permissions.\n    "roles/cloudbuild.builds.viewer": ',
        tests=(f"{_PREFLIGHT_TESTS}::test_the_deployer_s_roles_have_every_permission_of_the_table",),
    ),
)
_BUCKETS_AND_JOB: Final = "tests/infra/test_stores.py"
_DEPLOY: Final = "tests/infra/test_deploy.py"
_OF_OTHERS: Final = "tests/infra/test_of_others.py"
_PROVIDER: Final = "tests/infra/test_provider.py"
_FIRST_CONTACT: Final = (
    Mutation(
        name="the job has its workers' size as an argument, which is not read back",
        file="components/dataflow.py",
        before="            enable_streaming_engine=True,\n",
        after="            enable_streaming_engine=True,\n            num_workers=pipeline.workers,\n",
        tests=(
            f"{_BUCKETS_AND_JOB}::test_what_the_provider_does_not_read_back_is_in_the_template_alone",
            f"{_PROVIDER}::test_what_the_provider_reads_back_is_what_a_stack_asks_for",
        ),
    ),
    Mutation(
        name="another size of the workers is the same template",
        file="components/image.py",
        before='            "machineType": pipeline.machine_type,\n',
        after="",
        tests=(f"{_BUCKETS_AND_JOB}::test_another_size_of_the_workers_is_another_template",),
    ),
    Mutation(
        name="a query of several lines is sent as it is",
        file="components/monitoring.py",
        before='" ".join(line.strip() for line in self._expression(alert).splitlines())',
        after="self._expression(alert)",
        tests=(f"{_PROVIDER}::test_the_provider_takes_every_resource_of_every_stack",),
    ),
    Mutation(
        name="a policy tag without readers is left out of the schema",
        file="components/bigquery_schema.py",
        before="    if field.personal:",
        after="    if personal and field.personal:",
        tests=("tests/infra/test_bigquery_schema.py::test_a_policy_tag_is_taken_off_where_nobody_is_named_any_more",),
    ),
    Mutation(
        name="a subnetwork of another project is given to Dataflow by its short name",
        file="components/settings/network.py",
        before='return _URL + self.subnetwork if self.subnetwork.startswith("projects/") else self.subnetwork',
        after="return self.subnetwork",
        tests=(f"{_OF_OTHERS}::test_job_services_and_jobs_use_the_host_s_subnetwork[dev]",),
    ),
    Mutation(
        name="keys of others are granted without leave",
        file="components/kms.py",
        before="        if not self._settings.keys.grants:\n            return pulumi.Output.from_input(key)\n",
        after="",
        tests=(f"{_OF_OTHERS}::test_the_stack_grants_on_keys_of_others_only_where_config_lets_it[dev]",),
    ),
    Mutation(
        name="the view of a shared log bucket shows every project's jobs",
        file="components/logging.py",
        before="    return f'SOURCE(\"projects/{project}\") AND {job}' if project else job\n",
        after="    return job\n",
        tests=(f"{_OF_OTHERS}::test_logs_go_into_their_bucket_and_who_is_on_call_sees_the_job_s_there",),
    ),
    Mutation(
        name="an enforced perimeter leaves the host project of the workers outside",
        file="components/settings/network.py",
        before="if self.on and self.enforced and shared_subnetwork:",
        after="if False:",
        tests=(f"{_OF_OTHERS}::test_a_perimeter_that_would_leave_the_host_outside_is_refused",),
    ),
    Mutation(
        name="a drain has no limit",
        file="delivery/drain.py",
        before="        timer.start()\n",
        after="",
        tests=(f"{_DEPLOY}::test_a_drain_that_exceeds_its_limit_is_cancelled_and_the_run_says_so",),
    ),
    Mutation(
        name="a log bucket that is there already is imported",
        file="components/logging.py",
        before="retain_on_delete=True)",
        after="retain_on_delete=True, import_=naming.LOG_BUCKET)",
        tests=("tests/infra/test_foundation.py::test_the_next_up_of_a_destroyed_stack_adopts_what_was_kept",),
    ),
)
_DRIFT: Final = "tests/unit/test_drift.py"
_CONTACT: Final = "tests/infra/test_first_contact.py"
_EXISTING: Final = "tests/infra/test_existing_database.py"
_ROLES: Final = "tests/unit/test_database_roles.py"
_COUNTS: Final = "tests/unit/test_probe_counts.py"
_ATTACHED: Final = (
    Mutation(
        name="a change stream that leaves deletes out is as good as one that does not",
        file="contract/drift.py",
        before='there.options.get(option, "false").lower() == "true"',
        after="False",
        tests=(f"{_DRIFT}::test_a_stream_of_theirs_that_would_lose_changes_is_different",),
    ),
    Mutation(
        name="a privilege on one column is one on each",
        file="contract/drift.py",
        before='return bool({wanted, wide, wide._replace(name=beside(wanted.name, "*"))} & set(there))',
        after='return any(each._replace(column="") == wide for each in there)',
        tests=(f"{_DRIFT}::test_a_wider_privilege_covers_a_narrow_one",),
    ),
    Mutation(
        name="a described column of another type is no drift",
        file="contract/drift.py",
        before="elif types[name] != kind:",
        after="elif False:",
        tests=(f"{_DRIFT}::test_a_described_column_that_changed_is_named",),
    ),
    Mutation(
        name="an index of theirs without a shard is refused by the job",
        file="contract/watched.py",
        before='for key, value in asdict(table.status_index).items() if value != ""',
        after="for key, value in asdict(table.status_index).items()",
        tests=("tests/unit/test_watched.py::test_an_index_without_a_shard_reaches_the_job",),
    ),
    Mutation(
        name="the owners are to make a stream that is there, and differs",
        file="delivery/schema.py",
        before='each.need.statement for each in lacking if each.state == "missing"',
        after="each.need.statement for each in lacking",
        tests=(f"{_EXISTING}::test_a_stream_of_theirs_that_does_not_fit_is_said_and_not_made_again",),
    ),
    Mutation(
        name="the stack makes the database that others own",
        file="components/spanner.py",
        before="        if settings.existing:\n",
        after="        if False:\n",
        tests=(f"{_EXISTING}::test_nothing_of_their_database_is_a_resource",),
    ),
    Mutation(
        name="a grant on a database of others keeps the guardrail",
        file="guardrails/rules.py",
        before="database != names.of(naming.AUDIT_DATABASE) or instance not in own",
        after="False",
        tests=("tests/infra/test_rules.py::test_the_rule_names_the_resource_that_breaks_it",),
    ),
    Mutation(
        name="the probe acts as no database role",
        file="probe/measure.py",
        before="return source_database(self._connection, schema.PROBE_ROLE)",
        after='return source_database(self._connection, "")',
        tests=(f"{_ROLES}::test_the_probe_reads_the_source_as_its_role_and_keeps_its_state_in_the_metadata",),
    ),
    Mutation(
        name="a replay reads the payments in the project of the audit",
        file="support/replay.py",
        before='"spannerProjectId": known.spanner_project or known.project,',
        after='"spannerProjectId": known.project,',
        tests=(f"{_ROLES}::test_validation_and_replay_read_the_source_as_their_role",),
    ),
    Mutation(
        name="a column that was seen unclassified is forgotten with an update",
        file="probe/committed.py",
        before='seen = () if record.mod_type == "INSERT" else',
        after="seen = () if True else",
        tests=(f"{_COUNTS}::test_columns_that_changes_carried_are_unclassified_until_an_insert_is_without_them",),
    ),
    Mutation(
        name="an endpoint of another machine is reached in plain text",
        file="pipeline/clients.py",
        before="        if on_this_machine(endpoint):\n            return grpc.insecure_channel(",
        after="        if endpoint:\n            return grpc.insecure_channel(",
        tests=("tests/unit/test_endpoints.py::test_clients_reach_another_machine_with_tls_and_credentials",),
    ),
    Mutation(
        name="an address that begins like this machine's is this machine",
        file="contract/endpoints.py",
        before=".hostname in LOOPBACK",
        after=".netloc.startswith(LOOPBACK)",
        tests=("tests/unit/test_endpoints.py::test_any_other_is_not",),
    ),
    Mutation(
        name="a dataset is made without an access list",
        file="components/bigquery.py",
        before="        accesses=owners(settings),\n",
        after="",
        tests=(f"{_CONTACT}::test_no_dataset_is_read_by_the_project_s_viewers",),
    ),
    Mutation(
        name="the merge does not wait for who may act as its account",
        file="components/bigquery.py",
        before="            self._args.accounts,\n",
        after="",
        tests=(f"{_CONTACT}::test_what_runs_as_an_account_waits_for_the_grants_that_it_takes",),
    ),
    Mutation(
        name="workers have Google's role with every bucket",
        file="components/dataflow.py",
        before="worker = naming.role(naming.WORKER, self._args.settings.project)",
        after='worker = "roles/dataflow.worker"',
        tests=(f"{_CONTACT}::test_workers_have_no_bucket_of_the_project_but_those_of_their_grants",),
    ),
    Mutation(
        name="the key of data in the EU is where Cloud KMS has none",
        file="components/kms.py",
        before='{"eu": "europe"}.get(location, location)',
        after="location",
        tests=(f"{_CONTACT}::test_the_key_of_data_in_the_eu_is_in_europe",),
    ),
    Mutation(
        name="a column of a card is drafted as text to scan",
        file="delivery/draft.py",
        before="if (policy := policy_of(column.name)) and",
        after="if (policy := None) and",
        tests=("tests/unit/test_draft.py::test_card_data_is_never_scanned_only",),
    ),
)
_PAUSES: Final = "tests/infra/test_pause.py"
_PAUSED: Final = (
    Mutation(
        name="a paused stack goes on to start jobs by a schedule",
        file="components/starter.py",
        before="        paused=bool(settings.pause),\n",
        after="        paused=False,\n",
        tests=(f"{_PAUSES}::test_nothing_is_started_by_a_schedule",),
    ),
    Mutation(
        name="a paused stack goes on to merge",
        file="components/bigquery.py",
        before="disabled=bool(self._args.settings.pause)",
        after="disabled=False",
        tests=(f"{_PAUSES}::test_nothing_is_started_by_a_schedule",),
    ),
    Mutation(
        name="a paused stack has its job",
        file="components/dataflow.py",
        before='.owner == "pulumi" and not args.settings.pause:',
        after='.owner == "pulumi":',
        tests=(f"{_PAUSES}::test_the_job_alone_is_taken_away_and_all_that_holds_data_stays_as_it_is",),
    ),
    Mutation(
        name="nobody is notified before a pause outlasts the change streams",
        file="components/monitoring.py",
        before="enabled=not self._settings.pause or alert.name == _CLOCK",
        after="enabled=not self._settings.pause",
        tests=(f"{_PAUSES}::test_one_alert_is_left_and_fires_when_half_of_the_retention_is_over",),
    ),
    Mutation(
        name="a budget is of every project of the billing account",
        file="components/monitoring.py",
        before='"projects": [pulumi.Output.concat("projects/", number)], ',
        after="",
        tests=("tests/infra/test_budget.py::test_a_budget_is_of_this_project_alone_and_warns_before_it_is_spent",),
    ),
)
_TWO: Final = "tests/infra/test_two_stacks.py"
_THEIR_ACCOUNTS: Final = "tests/infra/test_accounts_of_others.py"
_THEIR_DATA: Final = "tests/infra/test_data_of_others.py"
_BESIDE: Final = (
    Mutation(
        name="a stack's jobs have the names of the stack beside it",
        file="components/run_job.py",
        before="        name=settings.names.of(what.name),\n",
        after="        name=what.name,\n",
        tests=(f"{_TWO}::test_two_stacks_share_no_name",),
    ),
    Mutation(
        name="the series of one stack fire the alerts of another",
        file="components/monitoring.py",
        before="            return self._of_stack(alert.expression)\n",
        after="            return alert.expression\n",
        tests=(f"{_TWO}::test_a_stack_s_series_and_alerts_are_not_another_s",),
    ),
    Mutation(
        name="two stacks write one audit configuration",
        file="components/logging.py",
        before=" if self._settings.project_wide else ():",
        after=":",
        tests=(f"{_TWO}::test_only_one_stack_writes_what_a_project_has_once",),
    ),
    Mutation(
        name="a console shows the alerts of the stack beside it",
        file="support/promql.py",
        before=""" or ours.get("prefix", "") != prefix:""",
        after=":",
        tests=("tests/unit/test_monitored.py::test_alerts_of_another_stack_of_the_project_are_not_this_one_s",),
    ),
    Mutation(
        name="an account is made beside that of others",
        file="components/identity.py",
        before="        if theirs := self._settings.identity.given.get(key):\n",
        after="        if theirs := {}.get(key):\n",
        tests=(f"{_THEIR_ACCOUNTS}::test_none_is_made_and_nothing_is_granted_on_one",),
    ),
    Mutation(
        name="the owners of an account let nobody run a job as it",
        file="delivery/owners.py",
        before="        acting += [(_TOKENS, _agent(agent)) for agent, who in _RUN_BY.items() if name in who]\n",
        after="",
        tests=(f"{_THEIR_ACCOUNTS}::test_the_script_lets_act_as_each_whom_the_stack_would_let",),
    ),
    Mutation(
        name="the owners of a secret let the stack's account in for theirs",
        file="delivery/owners.py",
        before='member = shlex.quote(emails.get(str(node.inputs["member"]), str(node.inputs["member"])))',
        after='member = shlex.quote(str(node.inputs["member"]))',
        tests=(f"{_THEIR_DATA}::test_the_script_for_its_owners_grants_what_the_stack_would",),
    ),
    Mutation(
        name="a dataset of others gets the prefix",
        file="contract/watched.py",
        before="t if t.dataset in kept else replace(",
        after="replace(",
        tests=(f"{_THEIR_DATA}::test_their_dataset_keeps_its_name_in_a_stack_with_a_prefix",),
    ),
)
_STARTS: Final = "tests/unit/test_starter.py"
_FORMS: Final = "tests/infra/test_orchestration.py"
_SCHEDULES: Final = "tests/infra/test_scheduled_jobs.py"
_ORCHESTRATION: Final = (
    _broken(
        "the starter starts a job of which one runs",
        "support/starter.py",
        "if under_way := cloud_run.running(self.endpoint, self.jobs[name]):",
        'if under_way := "":',
        f"{_STARTS}::test_a_job_that_runs_is_not_started_again_and_that_is_no_failure",
    ),
    _broken(
        "a pending run is none that is under way",
        "support/cloud_run.py",
        '{"EXECUTION_RUNNING", "EXECUTION_PENDING"}',
        '{"EXECUTION_RUNNING"}',
        f"{_STARTS}::test_a_job_that_runs_is_not_started_again_and_that_is_no_failure",
    ),
    _broken(
        "the starter answers a refusal of Cloud Run's as if the job had been started",
        "support/starter.py",
        "return _error(502, str(error))",
        "return _error(200, str(error))",
        f"{_STARTS}::test_a_refusal_of_cloud_run_is_an_error_that_says_what_is_missing",
    ),
    _broken(
        "a start that fails at night is not tried again",
        "components/starter.py",
        'return 0 if hour == "*" else _RETRIES',
        "return 0",
        f"{_SCHEDULES}::test_a_start_that_fails_is_tried_again_where_the_next_is_far",
    ),
    _broken(
        "with Composer Cloud Scheduler starts the operations too",
        "components/orchestration.py",
        "return () if self._settings.orchestration.composer else operations.SCHEDULED",
        "return operations.SCHEDULED",
        f"{_FORMS}::test_cloud_scheduler_starts_the_probe_alone_where_composer_starts_the_operations",
    ),
    _broken(
        "the DAGs of a paused stack have their schedules",
        "contract/operations.py",
        '"" if stack.paused else cron_of',
        "cron_of",
        f"{_FORMS}::test_a_pause_empties_the_schedules_of_the_dags",
    ),
    _broken(
        "an environment's account has every bucket of the project",
        "components/composer.py",
        '(resource.type != "storage.googleapis.com/Bucket" && resource.type != "storage.googleapis.com/Object")',
        'resource.type != "nothing"',
        f"{_FORMS}::test_of_storage_the_environment_has_its_own_bucket_alone",
    ),
    _broken(
        "two may own the streaming job",
        "components/settings/orchestration.py",
        'if owner not in ("pulumi", self.form):',
        "if not owner:",
        f"{_FORMS}::test_what_does_not_go_together_is_refused",
    ),
    _broken(
        "what others launch keeps public addresses",
        "components/dataflow.py",
        '"ipConfiguration": "WORKER_IP_PRIVATE",',
        '"ipConfiguration": "WORKER_IP_PUBLIC",',
        f"{_FORMS}::test_what_is_launched_by_others_is_what_pulumi_launches",
    ),
    _broken(
        "all of another stack's project is let out of the perimeter",
        "components/perimeter.py",
        '_PULLS: Final = "artifactregistry.googleapis.com/DockerRead"',
        '_PULLS: Final = "*"',
        "tests/infra/test_first_contact.py::"
        "test_the_image_of_another_stack_s_project_is_pulled_out_of_the_perimeter_and_nothing_else_is",
    ),
)
_KEEPING: Final = "support/operations/keeping.py"
_KEPT: Final = "tests/unit/test_keeping.py"
_OPERATED: Final = "tests/emulators/test_operations.py"
_OPERATIONS: Final = (
    Mutation(
        name="a table that is gone is made empty",
        file="support/operations/warehouse.py",
        before="yield _gone(table.id) if table.id in seen else Looked(",
        after="yield Looked(",
        tests=(f"{_OPERATED}::test_a_table_that_was_there_and_is_gone_is_named_and_not_made_empty",),
    ),
    Mutation(
        name="a job is launched beside one that drains",
        file="support/operations/dataflow.py",
        before='ACTIVE: Final = frozenset({"starting", "running", "draining"})',
        after='ACTIVE: Final = frozenset({"starting", "running"})',
        tests=(f"{_OPERATED}::test_a_job_that_drains_keeps_the_next_one_from_being_launched",),
    ),
    Mutation(
        name="a deployment keeps nobody from launching",
        file=_KEEPING,
        before="if known.locked(now, who):",
        after="if False:",
        tests=(f"{_KEPT}::test_nobody_launches_while_a_deployment_has_the_lock",),
    ),
    Mutation(
        name="a job that a person drained is launched again",
        file=_KEEPING,
        before="    if known.drained_by:",
        after="    if False:",
        tests=(f"{_KEPT}::test_a_job_that_a_person_drained_stays_ended_until_resume",),
    ),
    Mutation(
        name="a job that fails is launched without end",
        file=_KEEPING,
        before="if known.attempts >= MOST_LAUNCHES:",
        after="if False:",
        tests=(f"{_KEPT}::test_launches_that_fail_come_ever_later_and_end_after_the_last",),
    ),
    Mutation(
        name="a second job is launched where Pulumi launches the first",
        file=_KEEPING,
        before='    if owner == "pulumi":',
        after="    if False:",
        tests=(f"{_KEPT}::test_pulumi_launches_its_job_itself_and_a_missing_one_is_reported",),
    ),
    Mutation(
        name="a run that failed counts as one that did its work",
        file="support/operations/runs.py",
        before='            if outcome != "failed":',
        after="            if True:",
        tests=(f"{_OPERATED}::test_an_operation_that_never_ran_is_missed_since_it_was_first_expected",),
    ),
    Mutation(
        name="a deployment between two jobs is an alert",
        file="support/operations/ensure.py",
        before='if found[2].action != "reported" or self.clock() >= deadline:',
        after="if True:",
        tests=(f"{_OPERATED}::test_a_job_that_a_deployment_of_pulumi_is_about_to_start_is_awaited",),
    ),
    Mutation(
        name="an operation is overdue by the schedule of another stack",
        file="support/operations/runs.py",
        before="interval_seconds(cron_of(each, pipeline_owner))",
        after="interval_seconds(each.cron)",
        tests=(f"{_KEPT}::test_an_operation_is_missed_by_the_schedule_that_its_stack_has",),
    ),
    Mutation(
        name="what a comparison finds is a failure of it",
        file="support/operations/runs.py",
        before='return "found" if code == 1 and operation in _FINDERS else "failed"',
        after='return "failed"',
        tests=(f"{_KEPT}::test_an_exit_code_of_one_is_a_failure_where_no_other_alert_says_it",),
    ),
)
_DAG: Final = "delivery/dags/operations.py"
_SYNC: Final = "delivery/argocd/base/sync.sh"
_DAG_TESTS: Final = "tests/dags/test_dags.py"
_BUCKET: Final = "tests/dags/test_argocd.py::test_the_bucket_becomes_the_tree_and_what_is_of_others_stays"
_DAGS: Final = (
    Mutation(
        name="a DAG's error does not say what its run printed",
        file=_DAG,
        before="{error}\\n{said}",
        after="{error}",
        tests=(
            f"{_DAG_TESTS}::test_a_mismatch_fails_the_dag_which_names_the_rows_and_a_repair_on_request_makes_it_pass",
        ),
    ),
    Mutation(
        name="a DAG starts its job with overrides",
        file=_DAG,
        before="overrides=None,",
        after='overrides={"task_count": 1},',
        tests=(f"{_DAG_TESTS}::test_what_an_operation_did_is_in_the_log_of_its_task",),
    ),
    Mutation(
        name="an update of the schema needs nobody's approval",
        file="delivery/dags/audit_schema.py",
        before='if not params["approved_by"].strip():',
        after="if False:",
        tests=(f"{_DAG_TESTS}::test_an_update_of_the_schema_needs_who_approved_it_and_a_job",),
    ),
    Mutation(
        name="the sync takes the links of its mount for the DAGs",
        file=_SYNC,
        before="cp -Lp",
        after="cp -dp",
        tests=(_BUCKET,),
    ),
    Mutation(
        name="a mount without DAGs empties the bucket",
        file=_SYNC,
        before="  exit 1\n",
        after="",
        tests=(_BUCKET,),
    ),
    Mutation(
        name="the sync removes what Pulumi writes",
        file=_SYNC,
        before=r" --exclude='^payment_audit\.json$'",
        after="",
        tests=(_BUCKET,),
    ),
    Mutation(
        name="a merge reaches prod's DAGs before its approval",
        file="delivery/argocd/applications/prod.yaml",
        before='targetRevision: "0000000000000000000000000000000000000000"',
        after="targetRevision: main",
        tests=(
            "tests/dags/test_argocd.py::"
            "test_an_application_heals_itself_at_the_commit_that_a_delivery_names_and_at_no_other",
        ),
    ),
    Mutation(
        name="an old sync of the same commit is taken for this one",
        file="delivery/dag_sync.py",
        before='application.get("operation") or not of_commit',
        after="not of_commit",
        tests=("tests/dags/test_dag_sync.py::test_an_old_success_of_the_same_commit_is_not_taken_for_this_one",),
    ),
)
_COMPLETION: Final = "pipeline/source/completion.py"
_COMPLETED: Final = "tests/unit/test_completion.py"
_HISTORIES: Final = "tests/strict/test_histories.py"
_TYPES: Final = (
    Mutation(
        name="what was read counts more than what the change says",
        file=_COMPLETION,
        before="change.new = {name: value for name, value in found.items() if name not in change.keys} | change.new",
        after="change.new |= {name: value for name, value in found.items() if name not in change.keys}",
        tests=(f"{_COMPLETED}::test_what_a_change_leaves_out_is_read_and_what_it_says_counts",),
    ),
    Mutation(
        name="changes of several moments are read at one of them",
        file=_COMPLETION,
        before="groups[change.stream, change.table, change.commit_timestamp].append(change)",
        after='groups[change.stream, change.table, ""].append(change)',
        tests=(f"{_COMPLETED}::test_each_moment_is_a_read_of_its_own_side_by_side_and_gives_its_own_values",),
    ),
    Mutation(
        name="a row that is gone is taken for one of NULLs",
        file=_COMPLETION,
        before="                change.is_incomplete = True\n",
        after="",
        tests=(f"{_COMPLETED}::test_a_row_that_is_gone_leaves_the_change_as_it_is_and_says_so",),
    ),
    Mutation(
        name="a change is completed with the columns of another moment",
        file=_COMPLETION,
        before="if span.first <= at <= span.last and carried",
        after="if carried",
        tests=(f"{_COMPLETED}::test_a_column_that_came_a_second_ago_is_read_for_a_change_that_does_not_touch_it",),
    ),
    Mutation(
        name="a NULL in an ARRAY is dropped from a record of mutable key ranges",
        file="pipeline/source/proto_records.py",
        before="return [_plain(item) for item in value.list_value.values]",
        after='return [_plain(v) for v in value.list_value.values if v.WhichOneof("kind") != "null_value"]',
        tests=(f"{_HISTORIES}::test_a_history_gives_the_same_rows_in_both_modes_both_dialects_and_every_capture_type",),
    ),
    Mutation(
        name="a numeric of PostgreSQL is rounded",
        file=_VALUES,
        before="Context(prec=38, rounding=ROUND_DOWN)",
        after="Context(prec=38)",
        tests=(f"{_HISTORIES}::test_values_that_one_dialect_alone_has_arrive_as_documented",),
    ),
    Mutation(
        name="records of one transaction are told apart by nothing",
        file=_RECORDS,
        before='return f"{self.server_transaction_id}/{self.record_sequence}"',
        after="return self.server_transaction_id",
        tests=(f"{_HISTORIES}::test_each_change_arrives_once_and_right_however_the_job_is_killed",),
    ),
    Mutation(
        name="a moment that is no longer kept fails the bundle for good",
        file=_COMPLETION,
        before="            except (FailedPrecondition, OutOfRange):\n",
        after="            except FailedPrecondition:\n",
        tests=(f"{_COMPLETED}::test_a_moment_that_spanner_no_longer_keeps_is_a_dead_letter_with_the_remedy",),
    ),
    Mutation(
        name="an UPDATE of a partial capture type goes as it is",
        file=_STEPS,
        before="            if lacks_values(change):\n",
        after="            if False:\n",
        tests=(
            "tests/unit/test_steps.py"
            "::test_changes_that_leave_columns_out_become_whole_rows_at_their_commit_timestamps",
        ),
    ),
    Mutation(
        name="a launch passes over a role that may not read the rows",
        file=_CHECKS,
        before="in PARTIAL_CAPTURE_TYPES and table.name not in readable:",
        after="in PARTIAL_CAPTURE_TYPES and False:",
        tests=(
            "tests/unit/test_source_checks.py"
            "::test_a_role_that_may_not_read_the_rows_that_it_must_is_refused_at_launch",
        ),
    ),
    Mutation(
        name="a card number is not seen over a NULL between elements",
        file="pipeline/transforms/mask.py",
        before="    there = [v for v in values if v is not None]\n",
        after="    there = values\n",
        tests=("tests/unit/test_mask.py::test_a_card_number_over_elements_with_a_null_between_them_is_hidden",),
    ),
    Mutation(
        name="the base64 of a PROTO is not read",
        file="pipeline/transforms/mask.py",
        before="    return _text(_bytes(value, reader), reader)\n",
        after="    return _bytes(value, reader)\n",
        tests=("tests/unit/test_mask.py::test_a_proto_whose_base64_reads_as_a_card_number_is_hidden",),
    ),
    Mutation(
        name="a number as large as NUMERIC cannot hold is sent",
        file=_VALUES,
        before="number.copy_abs() >= _TOO_LARGE",
        after="number.copy_abs() > _TOO_LARGE",
        tests=("tests/golden/test_golden.py::test_every_value_of_a_type_becomes_what_its_golden_file_has",),
    ),
    Mutation(
        name="a number is compared after it was rounded",
        file=_VALUES,
        before="number.copy_abs() >= _TOO_LARGE",
        after="abs(number) >= _TOO_LARGE",
        tests=("tests/golden/test_golden.py::test_every_value_of_a_type_becomes_what_its_golden_file_has",),
    ),
    Mutation(
        name="digits that PostgreSQL's numeric has more are lost",
        file=_VALUES,
        before="held is None or held != Decimal(value)",
        after="held is None",
        tests=("tests/golden/test_golden.py::test_every_value_of_a_type_becomes_what_its_golden_file_has",),
    ),
    Mutation(
        name="a record of PostgreSQL keeps its own form of UTC",
        file=_RECORDS,
        before='.replace("+00:00", "Z")',
        after="",
        tests=("tests/unit/test_records.py::test_a_record_in_json_is_the_same_record",),
    ),
    Mutation(
        name="PostgreSQL's mutable key ranges are read by the function of the other mode",
        file=_DIALECTS,
        before='f"read_proto_bytes_{stream}" if mutable else f"read_json_{stream}"',
        after='f"read_json_{stream}"',
        tests=(
            "tests/strict/test_source_requests.py"
            "::test_in_postgresql_each_partition_mode_has_its_function_and_a_launch_finds_the_mode",
        ),
    ),
    Mutation(
        name="the bytes of PostgreSQL's mutable key ranges are refused",
        file="pipeline/source/proto_records.py",
        before=" or fields[0].type_.code == types.TypeCode.BYTES)",
        after=")",
        tests=(f"{_IN_BYTES}::test_a_form_that_is_neither_the_proto_nor_its_bytes_is_refused_with_the_remedy",),
    ),
    Mutation(
        name="mutable key ranges of any form are read as records",
        file="pipeline/source/proto_records.py",
        before="        if not _is_known(first.metadata):\n",
        after="        if not first.metadata:\n",
        tests=(f"{_IN_BYTES}::test_a_form_that_is_neither_the_proto_nor_its_bytes_is_refused_with_the_remedy",),
    ),
    Mutation(
        name="what annotates a type of mutable key ranges is not read",
        file="pipeline/source/proto_records.py",
        before='        "type_annotation": types.TypeAnnotationCode(described.type_annotation).name,\n',
        after="",
        tests=(f"{_IN_BYTES}::test_types_of_a_record_in_bytes_are_read_by_their_annotations",),
    ),
    Mutation(
        name="roles are granted the other function of PostgreSQL's mutable key ranges",
        file=_DIALECTS,
        before="mutable=found[1] in mutable",
        after="mutable=False",
        tests=(_OTHER_FUNCTION,),
    ),
    Mutation(
        name="a grant on the function of PostgreSQL's mutable key ranges is not known",
        file=_DDL,
        before="spanner\\.read_(json|proto_bytes)_",
        after="spanner\\.read_(json)_",
        tests=("tests/unit/test_drift.py::test_a_read_function_has_one_name_in_both_dialects_and_partition_modes",),
    ),
    Mutation(
        name="a change stream of others is refused for its mutable key ranges",
        file="contract/attached.py",
        before="if stream in mutable else",
        after="if not stream else",
        tests=("tests/unit/test_drift.py::test_a_stream_of_theirs_that_has_it_all_is_used_as_it_is",),
    ),
    Mutation(
        name="a parameter that comes twice is given another place",
        file=_DIALECTS,
        before="places.setdefault(name, len(places) + 1)",
        after="places.setdefault(name, len(found.string[: found.start()]))",
        tests=("tests/unit/test_dialects.py::test_in_postgresql_names_parameters_and_hints_are_written_its_way",),
    ),
    Mutation(
        name="a text in a query is translated",
        file=_DIALECTS,
        before="      (?P<string> '(?:[^'\\\\]|\\\\.)*' )\n    | IN",
        after="      (?P<string> '(?:[^'\\\\]|\\\\.)*'{9} )\n    | IN",
        tests=("tests/unit/test_dialects.py::test_in_postgresql_names_parameters_and_hints_are_written_its_way",),
    ),
    Mutation(
        name="the dialect of a column's name is taken for that of its table",
        file=_DIALECTS,
        before='words = _STRINGS_AND_NAMES.sub(" ", text)',
        after="words = text",
        tests=("tests/unit/test_dialects.py::test_the_dialect_of_ddl_is_seen_by_the_types_of_its_columns",),
    ),
    Mutation(
        name="nanoseconds of a row are cut",
        file=_VALUES,
        before='or not value[_MICROS - 1 : -1].strip("0"):',
        after='or value[_MICROS - 1 : -1].strip("0"):',
        tests=("tests/unit/test_values.py::test_digits_that_are_zero_are_no_nanoseconds",),
    ),
    Mutation(
        name="a NULL in an ARRAY is lost",
        file=_VALUES,
        before="lost = not values or None in values or",
        after="lost = not values or",
        tests=("tests/golden/test_golden.py::test_every_value_of_a_type_becomes_what_its_golden_file_has",),
    ),
    Mutation(
        name="a number that BigQuery's JSON refuses is sent",
        file="pipeline/sink/json_numbers.py",
        before="        return False\n    return Decimal(_published(value)) == exact\n",
        after="        return True\n    return Decimal(_published(value)) == exact\n",
        tests=(
            "tests/unit/test_values.py::test_old_values_and_json_with_numbers_that_bigquery_s_json_refuses_are_taken",
        ),
    ),
    Mutation(
        name="numbers among the old values are numbers",
        file=_VALUES,
        before="        return value\n    return _WRITTEN",
        after="        return value\n    return value\n    return _WRITTEN",
        tests=(
            "tests/unit/test_values.py::test_old_values_and_json_with_numbers_that_bigquery_s_json_refuses_are_taken",
        ),
    ),
    Mutation(
        name="validation passes over exact values",
        file="support/validation/comparable.py",
        before="        state += tuple(self._exact_of_source(f, exact, change) for f, exact in self._exact)\n",
        after="        state += tuple(None for f, exact in self._exact)\n",
        tests=("tests/emulators/test_validate_types.py::test_every_value_of_every_type_is_the_same_on_both_sides",),
    ),
)

_BACKLOG: Final = "pipeline/source/backlog.py"
_BACKLOGS: Final = "tests/unit/test_backlog.py"
_REQUESTS: Final = "tests/strict/test_source_requests.py"

# --- The source for any pipeline: its backlog, its requests, what it leaves out ---------------------------------------
_CONNECTOR: Final = (
    _broken(
        "a source that has caught up has a backlog, and keeps its workers",
        _BACKLOG,
        "for position in positions], now - self._quiet)",
        "for position in positions], now)",
        f"{_BACKLOGS}::test_a_backlog_that_was_caught_up_with_is_zero_whatever_the_rate",
    ),
    _broken(
        "the rate of a stream is that by which its slowest partition moves",
        _BACKLOG,
        "mean = sum(positions) / number if number else self._mean",
        "mean = min(positions, default=self._mean)",
        f"{_BACKLOGS}::test_partitions_that_are_read_at_different_speed_do_not_inflate_the_rate",
    ),
    _broken(
        "heartbeats count as read bytes for as long as there were changes once",
        _BACKLOG,
        "kept = math.exp(-moved / _REMEMBERED_SECONDS)",
        "kept, moved = 1.0, 0.001",
        f"{_BACKLOGS}::test_heartbeats_alone_are_no_backlog",
    ),
    _broken(
        "a runner is given Beam's constant as the work that remains",
        "pipeline/source/unbounded.py",
        "remaining=_size(self._restriction))",
        "remaining=1)",
        f"{_BACKLOGS}::test_a_runner_is_given_the_bytes_that_are_not_read_and_about_none_once_they_are",
    ),
    _broken(
        "what is done has the size of what is not",
        "pipeline/source/unbounded.py",
        "    if restriction.is_done:\n        return 0\n",
        "",
        f"{_BACKLOGS}::test_what_is_done_has_no_size",
    ),
    _broken(
        "each bundle's reader begins without a rate",
        _READ,
        "            self._backlog = before._backlog\n",
        "",
        f"{_BACKLOGS}::test_the_rate_is_known_to_the_reader_that_takes_over",
    ),
    _broken(
        "directed reads are an option and not in the request",
        _QUERY,
        "            request.directed_read_options.CopyFrom(self._directed_reads)\n",
        "            pass\n",
        f"{_REQUESTS}::test_a_query_carries_what_the_stream_is_read_with",
    ),
    _broken(
        "a launch's replicas do not reach the source",
        "pipeline/jobs/settings.py",
        '                directed_reads=self["directedReads"],\n',
        "",
        f"{_REQUESTS}::test_a_launch_s_options_of_the_source_reach_the_request",
    ),
    _broken(
        "an instance of one region is given directed reads",
        "components/settings/pipeline.py",
        'if replicas and instance_config.startswith("regional-"):',
        "if False:",
        "tests/infra/test_settings.py::test_a_wrong_value_is_refused",
    ),
    _broken(
        "ignored operations and transactions are written",
        _STEPS,
        "if self._ignored_records is not None and record in self._ignored_records:",
        "if False:",
        "tests/unit/test_steps.py::test_an_ignored_record_is_left_out_before_it_is_decoded",
    ),
    _broken(
        "the probe misses what the job leaves out",
        "probe/committed.py",
        "        if record in left_out:\n            continue\n",
        "",
        "tests/unit/test_probe_counts.py::test_what_the_pipeline_leaves_out_is_not_missed",
    ),
    _broken(
        "validation misses what the job leaves out",
        "support/validation/source.py",
        "            if record in self.ignored:\n                continue\n",
        "",
        "tests/emulators/test_validate.py::test_where_an_operation_is_ignored_its_changes_are_not_missed_and_the_others_are",
    ),
)
MUTATIONS: Final[tuple[Mutation, ...]] = (
    *(*_SOURCE, *_MASKING, *_SINK, *_JOBS, *_LETTERS, *_SUPPORT, *_FINDING),
    *(*_BACKUPS, *_ERASURE, *_PREFLIGHT, *_FIRST_CONTACT, *_ATTACHED, *_PAUSED, *_BESIDE),
    *(*_ORCHESTRATION, *_OPERATIONS, *_DAGS, *_TYPES, *_CONNECTOR),
    Mutation(
        name="the schema and the name of a table are one name in SQL",
        file=_DIALECTS,
        before='return ".".join(f"`{part}`" for part in name.split("."))',
        after='return f"`{name}`"',
        tests=(f"{_SCHEMAS}::test_what_owners_run_has_both_parts_of_a_name_in_the_quotes_of_their_dialect",),
    ),
    Mutation(
        name="columns of the default schema alone are asked for",
        file=_DIALECTS,
        before="sorted({self.of_table(table)[0] for table in tables}))",
        after="[self.default_schema])",
        tests=(
            "tests/infra/test_preflight.py::test_a_table_of_a_named_schema_is_compared_with_the_one_there",
            f"{_SCHEMAS}::test_columns_are_sought_in_the_schemas_of_the_described_tables_alone",
        ),
    ),
    Mutation(
        name="columns of two tables of one name are mixed",
        file=_DIALECTS,
        before="found.setdefault(self.table(schema, table), {})[column]",
        after="found.setdefault(table, {})[column]",
        tests=(f"{_SCHEMAS}::test_columns_are_sought_in_the_schemas_of_the_described_tables_alone",),
    ),
    Mutation(
        name="an index of a named schema is forced without it",
        file="support/stuck.py",
        before="beside(table.name, index.name)",
        after="index.name",
        tests=(f"{_SCHEMAS}::test_stuck_payments_are_sought_by_the_whole_name_of_the_index",),
    ),
    Mutation(
        name="PostgreSQL gets a schema before the name of a new index",
        file=_DIALECTS,
        before='            (r"\\bCREATE INDEX `\\w+`\\.", "CREATE INDEX "),\n',
        after="",
        tests=(f"{_SCHEMAS}::test_what_owners_run_has_both_parts_of_a_name_in_the_quotes_of_their_dialect",),
    ),
    Mutation(
        name="an index of PostgreSQL is in no schema",
        file=_DDL,
        before="        name = dialects.beside(table, name)\n",
        after="        pass\n",
        tests=("tests/unit/test_schema.py::test_an_index_is_in_the_schema_of_its_table_in_both_dialects",),
    ),
    Mutation(
        name="a role reads tables of a schema that it may not use",
        file="contract/attached.py",
        before='sorted({*map(schema_of, tables)} - {""})',
        after="[]",
        tests=(f"{_SCHEMAS}::test_where_the_stream_leaves_columns_out_the_job_s_role_gets_the_schema_too",),
    ),
    Mutation(
        name="a privilege on all tables of one schema is one on those of each",
        file=_DDL,
        before='members = ["*" if name.lower() in dialects.DEFAULT_SCHEMAS else f"{name}.*" for name in words.paths()]',
        after='members = ["*" for name in words.paths()]',
        tests=(f"{_SCHEMAS}::test_a_privilege_on_all_tables_of_a_schema_is_of_no_other_schema",),
    ),
    Mutation(
        name="a schema may be written in any case",
        file=_DDL,
        before="        _known(dialects.schema_of(table.name), self.schemas)\n",
        after="",
        tests=(f"{_SCHEMAS}::test_a_schema_in_another_case_is_refused_as_a_table_is",),
    ),
    Mutation(
        name="a draft has a name with a dot that TOML takes for two",
        file="delivery/draft.py",
        before='yield f"[tables.{_name(table.name)}]"',
        after='yield f"[tables.{table.name}]"',
        tests=(f"{_SCHEMAS}::test_a_draft_names_a_table_of_a_named_schema_and_fits_its_database",),
    ),
)
