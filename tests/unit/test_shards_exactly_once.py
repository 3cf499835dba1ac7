"""Every way an append can be in doubt, in memory: no row is lost and none is there twice, and few are looked up."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, Final, Literal, get_args

import pyarrow as pa
import pytest
from google.api_core import exceptions
from hypothesis import given, settings
from hypothesis import strategies as st

from contract import tables, timestamps
from contract.changes import Change
from pipeline.sink.shards import StreamPosition
from tests.unit.sink_twin import COLUMNS, START, TABLE_ID, Refusal, Twin, batch, change


def fence(at: float) -> str:
    return timestamps.from_nanos(int(at * 1_000_000) * 1000)


def test_rows_are_there_when_append_returns() -> None:
    twin = Twin()
    shard = twin.shard()
    position, outcome = shard.append(None, batch(change("p1"), change("p2")), COLUMNS)
    assert twin.there() == Counter(["p1", "p2"])
    assert (outcome.appended, position and position.offset, outcome.notable) == (2, 2, False)
    position, _ = shard.append(position, batch(change("p3")), COLUMNS)
    assert position is not None and position.offset == 3
    assert twin.counts["query"] == 0


def test_a_retried_batch_with_other_rows_loses_none_and_doubles_none() -> None:
    """ALREADY_EXISTS answers for the offset, not for the rows."""
    twin = Twin()
    position, _ = twin.shard().append(None, batch(change("p0")), COLUMNS)
    one, two, three = change("p1"), change("p2"), change("p3")
    twin.shard().append(position, batch(one, two), COLUMNS)
    _, outcome = twin.shard().append(position, batch(three, two), COLUMNS)
    assert twin.there() == Counter(["p0", "p1", "p2", "p3"])
    assert (outcome.appended, outcome.already_there) == (1, 1)


def test_an_append_that_landed_without_an_answer_is_not_repeated() -> None:
    twin = Twin()
    shard = twin.shard()
    position, _ = shard.append(None, batch(change("p0")), COLUMNS)
    append, lost = twin._append, [True]

    def unanswered(stream: Any, arrow: pa.Table, offset: int) -> Any:
        response = append(stream, arrow, offset)
        if lost:
            lost.pop()
            raise Refusal(14, "gone", ends=True)
        return response

    twin._append = unanswered  # type: ignore[method-assign]
    _, outcome = shard.append(position, batch(change("p1"), change("p2")), COLUMNS)
    assert twin.there() == Counter(["p0", "p1", "p2"])
    assert outcome.already_there == 2


def test_two_workers_on_one_shard_whose_bundles_fail_at_random_lose_and_double_nothing() -> None:
    for seed in range(40):
        dice = random.Random(seed)
        twin = Twin()
        workers: list[tuple[Any, list[StreamPosition | None]]] = [(twin.shard(), [None]) for _ in range(2)]
        batches = [[change(f"p{i}-{j}", at=twin.now - 60 + i) for j in range(3)] for i in range(8)]
        for changes in batches:
            for shard, state in workers:
                twin.now += dice.random()
                rows = [*changes, *dice.choice(batches[: batches.index(changes) + 1])]
                dice.shuffle(rows)
                unique = list({c.change_id: c for c in rows}.values())
                position, _ = shard.append(state[0], batch(*unique), COLUMNS)
                # A bundle that fails keeps its old state; it is tried again by whoever comes next.
                if dice.random() < 0.6:
                    state[0] = position
        assert twin.there() == Counter(c.keys["PUID"] for changes in batches for c in changes), seed


Fate = Literal["kept", "state lost", "answer lost", "not landed", "zombie", "late", "new job"]
FATES: Final[tuple[Fate, ...]] = get_args(Fate)


def once(twin: Twin, *, lands: bool) -> None:
    """The next append has no answer, though its rows may have landed."""
    append, left = twin._append, [True]

    def unanswered(stream: Any, arrow: pa.Table, offset: int) -> Any:
        response = append(stream, arrow, offset) if lands or not left else None
        if left:
            left.pop()
            raise Refusal(14, "gone", ends=True)
        return response

    twin._append = unanswered  # type: ignore[method-assign]


@settings(max_examples=600)
@given(
    steps=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(FATES), st.booleans()), min_size=1, max_size=6),
    seed=st.integers(0, 2**32),
)
def test_over_any_history_of_bundles_each_row_is_there_once(steps: list[tuple[int, Fate, bool]], seed: int) -> None:
    """A bundle that failed is tried again with some of its rows and others; a worker that was given up still writes; a
    job resumes before what the last one had appended."""
    twin, dice = Twin(), random.Random(seed)
    shard, state = twin.shard(), None
    rows: list[Change] = []
    waiting: list[Change] = []
    for new, fate, another in [*steps, (1, "kept", False)]:
        twin.now += 1
        made = [change(f"p{len(rows) + i}", at=twin.now - dice.choice([0, 0.5, 3])) for i in range(new)]
        rows += made
        waiting += made
        later = [] if fate == "kept" else [each for each in waiting[1:] if dice.random() < 0.2]
        some = [each for each in waiting if each not in later]
        if not some:
            continue
        dice.shuffle(some)
        if another:
            shard = twin.shard()
        if fate in ("answer lost", "not landed", "late"):
            once(twin, lands=fate == "answer lost")
        position, outcome = shard.append(state, batch(*some), COLUMNS)
        assert outcome.rejected == []
        if fate in ("zombie", "late"):
            twin.shard().append(state, batch(*some), COLUMNS)
        if fate == "state lost":
            continue
        waiting, state = later, position
        if fate == "new job":
            for stream in twin.streams.values():
                stream.finalized = True
            shard, state = twin.shard(fenced_at=twin.timestamp()), None
            waiting = rows[dice.randint(0, len(rows)) :] + later
            waiting = list({each.change_id: each for each in waiting}.values())
    if waiting:
        shard.append(state, batch(*waiting), COLUMNS)
    assert twin.there() == Counter(each.keys["PUID"] for each in rows)


def test_a_worker_whose_stream_another_forestalled_opens_one_after_the_others() -> None:
    twin, both = Twin(), change("p0")
    record = twin.record_stream

    def late(*args: Any, **named: Any) -> Any:
        twin.record_stream = record  # type: ignore[method-assign]
        twin.shard().append(None, batch(both), COLUMNS)
        return record(*args, **named)

    twin.record_stream = late  # type: ignore[method-assign]
    position, outcome = twin.shard().append(None, batch(both, change("p1")), COLUMNS)
    assert twin.there() == Counter(["p0", "p1"])
    assert (outcome.already_there, position and position.stream) == (1, [*twin.streams][-1])


def test_a_new_job_skips_what_the_old_one_appended() -> None:
    twin = Twin()
    reread = [change("p1"), change("p2")]
    twin.shard().append(None, batch(reread[0]), COLUMNS)
    _, outcome = twin.shard(fenced_at=twin.timestamp()).append(None, batch(*reread, change("p3")), COLUMNS)
    assert twin.there() == Counter(["p1", "p2", "p3"])
    assert (outcome.appended, outcome.already_there) == (2, 1)


def test_a_new_job_with_fewer_shards_skips_what_the_old_ones_appended() -> None:
    twin = Twin()
    old = [change(f"p{i}") for i in range(4)]
    twin.shard("3").append(None, batch(*old), COLUMNS)
    twin.streams[twin.recorded[TABLE_ID, "3"]].finalized = True
    twin.shard("0", fenced_at=twin.timestamp()).append(None, batch(*old, change("p9")), COLUMNS)
    assert twin.there() == Counter([*(f"p{i}" for i in range(4)), "p9"])


# ---------------------------------------------------------------------- how much is looked up


def backlog(minutes: int) -> list[Change]:
    return [change(f"p{i}", at=START + i) for i in range(60 * minutes)]


def test_catching_up_after_an_outage_looks_up_only_what_may_be_there() -> None:
    """An hour of backlog, of which the old job had appended the first 100 seconds."""
    twin = Twin()
    changes = backlog(60)
    twin.shard().append(None, batch(*changes[:101]), COLUMNS)
    shard, position = twin.shard(fenced_at=twin.timestamp()), None
    for first in range(0, len(changes), 50):
        position, _ = shard.append(position, batch(*changes[first : first + 50]), COLUMNS)
    assert twin.there() == Counter(c.keys["PUID"] for c in changes)
    assert twin.counts["newest"] == 1
    assert sum(twin.looked_up) == 101


def test_the_newest_row_itself_is_looked_up() -> None:
    twin = Twin()
    changes = backlog(1)
    twin.shard().append(None, batch(changes[5]), COLUMNS)
    shard = twin.shard(fenced_at=twin.timestamp())
    shard.append(None, batch(changes[5]), COLUMNS)
    assert twin.there() == Counter(["p5"])


def test_a_row_that_is_finer_than_the_table_keeps_is_looked_up() -> None:
    twin = Twin()
    fine = change("p1")
    fine.commit_timestamp = fine.commit_timestamp[:-4] + "999Z"
    twin.shard().append(None, batch(fine), COLUMNS)
    twin.shard(fenced_at=twin.timestamp()).append(None, batch(fine), COLUMNS)
    assert twin.there() == Counter(["p1"])


def test_an_empty_table_is_asked_once_and_older_rows_are_still_looked_up() -> None:
    """Nothing is there from the oldest current row on; an older one, which comes later, may be."""
    twin = Twin()
    older, newer = change("older", at=START), change("newer", at=START + 100)
    twin.shard("7").append(None, batch(older), COLUMNS)
    twin.streams[twin.recorded[TABLE_ID, "7"]].finalized = True
    shard = twin.shard(fenced_at=twin.timestamp())
    position, _ = shard.append(None, batch(newer), COLUMNS)
    assert twin.looked_up == []
    position, _ = shard.append(position, batch(change("newer too", at=START + 101)), COLUMNS)
    assert twin.looked_up == []
    _, outcome = shard.append(position, batch(older), COLUMNS)
    assert outcome.already_there == 1
    assert twin.there() == Counter(["older", "newer", "newer too"])


def test_the_newest_row_is_asked_for_after_the_older_stream_is_finalized() -> None:
    """What lands between the two would be above the bound, and be appended again."""
    twin = Twin()
    order: list[str] = []
    twin.shard().append(None, batch(change("p1")), COLUMNS)
    finalize, query = twin.finalize_write_stream, twin.query

    def finalized(**kwargs: Any) -> None:
        order.append("finalize")
        finalize(**kwargs)

    def asked(sql: str, job_config: Any) -> Any:
        order.append("newest" if "MAX(" in sql else "look up")
        return query(sql, job_config)

    twin.finalize_write_stream, twin.query = finalized, asked  # type: ignore[method-assign]
    twin.shard().append(None, batch(change("p2")), COLUMNS)
    assert order == ["finalize", "newest", "look up"]


def test_a_bound_that_cannot_be_asked_for_is_waited_for() -> None:
    twin = Twin()
    reread = change("p1")
    twin.shard().append(None, batch(reread), COLUMNS)
    until = twin.now + 30

    def before() -> None:
        if twin.now < until:
            raise exceptions.ServiceUnavailable("no")

    twin.before_query = before
    twin.shard(fenced_at=twin.timestamp()).append(None, batch(reread, change("p2")), COLUMNS)
    assert twin.there() == Counter(["p1", "p2"])
    assert twin.counts["create_write_stream"] == 2


def test_rows_after_the_fence_need_no_look_up() -> None:
    twin = Twin()
    twin.shard().append(None, batch(change("p1")), COLUMNS)
    twin.now += 1
    shard = twin.shard(fenced_at=twin.timestamp())
    twin.now += 10
    shard.append(None, batch(change("p2", at=twin.now)), COLUMNS)
    assert twin.looked_up == []


@pytest.mark.parametrize("kind", ["newest", "look_up"])
def test_no_look_up_is_answered_from_the_query_cache(kind: str) -> None:
    """The twin refuses a query that may be: it stands for what the table has now."""
    twin = Twin()
    again = change("p1")
    twin.shard().append(None, batch(again), COLUMNS)
    twin.shard().append(None, batch(again), COLUMNS)
    assert twin.counts[kind] == 1
    assert twin.there() == Counter(["p1"])


def test_a_request_whose_rows_are_refused_by_name_is_looked_up_before_the_rest_is_sent() -> None:
    """The emulator still takes the good rows of such a request."""
    twin = Twin()
    append = twin._append

    def half(stream: Any, arrow: pa.Table, offset: int) -> Any:
        names = arrow["PUID"].to_pylist()
        if "bad" not in names:
            return append(stream, arrow, offset)
        from google.cloud.bigquery_storage_v1 import types

        twin.tables[TABLE_ID].rows += [row for row in arrow.to_pylist() if row["PUID"] != "bad"]
        refusal = Refusal(3, "rows")
        refusal.row_errors = [types.RowError(index=names.index("bad"), code=1)]
        raise refusal

    twin._append = half  # type: ignore[method-assign]
    _, outcome = twin.shard().append(None, batch(change("p1"), change("bad"), change("p2")), COLUMNS)
    assert twin.there() == Counter(["p1", "p2"])
    assert len(outcome.rejected) == 1


def test_the_position_keeps_the_bound_for_the_next_worker() -> None:
    twin = Twin()
    changes = backlog(2)
    twin.shard().append(None, batch(*changes[:10]), COLUMNS)
    position, _ = twin.shard(fenced_at=twin.timestamp()).append(None, batch(*changes[:20]), COLUMNS)
    assert position is not None and position.fenced_at is not None
    assert position.fenced_at < fence(START + 10)
    twin.looked_up.clear()
    twin.shard(fenced_at=twin.timestamp()).append(position, batch(*changes[20:]), COLUMNS)
    assert twin.looked_up == []
    assert tables.COMMIT_TIMESTAMP in twin.tables[TABLE_ID].rows[0]
