"""What a query of the source asks Spanner for: each setting of it is in the request."""

from __future__ import annotations

import json
import time
from typing import Any

import grpc
import pytest

from contract import timestamps
from contract.dialects import POSTGRESQL
from pipeline.clients import spanner_channel
from pipeline.jobs import checks
from pipeline.jobs.settings import parse
from pipeline.source.query import ChangeStream, ChangeStreamQuery
from tests.shipped import REQUIRED_OPTIONS
from tests.strict.history import PartitionMode, RandomHistory, product_tables
from tests.strict.spanner import StrictSpanner
from tests.strict.test_source_strict import DATABASE, STREAM, history


def asked(stream: dict[str, Any], *, end: str | None = None, **spanner: Any) -> dict[str, Any]:
    """The query of a partition, as Spanner got it."""
    made = history(1)
    start = timestamps.now()
    with StrictSpanner(made, **spanner) as service:
        described = ChangeStream(**{"name": STREAM, "database": DATABASE, **stream}, endpoint=service.endpoint)
        query = ChangeStreamQuery(described, spanner_channel(service.endpoint))
        [root] = query.roots(start)
        if end is None:
            return dict(service.counts()["last_query"])
        list(query.run(start, token=root.token, end=start))
        found = dict(service.counts()["last_query"])
        assert (found["start"], found["end"], found["token"]) == (start, start, root.token)
        return found


@pytest.mark.parametrize(
    ("setting", "in_request"),
    [
        ({}, {"priority": "PRIORITY_HIGH", "role": "", "heartbeat": "1000", "directed_reads": []}),
        ({"priority": "LOW"}, {"priority": "PRIORITY_LOW"}),
        ({"role": "audit_reader"}, {"role": "audit_reader"}),
        ({"heartbeat_millis": 30_000}, {"heartbeat": "30000"}),
        (
            {"directed_reads": "us-east4:READ_ONLY, us-central1,:READ_WRITE"},
            {
                "directed_reads": [
                    ["us-east4", "READ_ONLY"],
                    ["us-central1", "TYPE_UNSPECIFIED"],
                    ["", "READ_WRITE"],
                ],
                "auto_failover_disabled": False,
            },
        ),
    ],
)
def test_a_query_carries_what_the_stream_is_read_with(setting: dict[str, Any], in_request: dict[str, Any]) -> None:
    found = asked(setting, end="now", multi_region=True)
    assert {name: found[name] for name in in_request} == in_request


def test_a_stream_is_read_by_another_function_than_the_one_of_its_name() -> None:
    found = asked({"name": "Payments", "function": f"READ_{STREAM}"})
    assert f"FROM READ_{STREAM}(" in found["sql"]


@pytest.mark.parametrize(
    ("mode", "function"),
    [("IMMUTABLE_KEY_RANGE", f"read_json_{STREAM}"), ("MUTABLE_KEY_RANGE", f"read_proto_bytes_{STREAM}")],
)
def test_in_postgresql_each_partition_mode_has_its_function_and_a_launch_finds_the_mode(
    mode: PartitionMode, function: str
) -> None:
    made = RandomHistory(7, created=time.time_ns(), partition_mode=mode, tables=product_tables())
    with StrictSpanner(made, dialect=POSTGRESQL) as service:
        described = ChangeStream(name=STREAM, database=DATABASE, endpoint=service.endpoint)
        assert ChangeStreamQuery(described, spanner_channel(service.endpoint)).roots(timestamps.now())
        sql = service.counts()["last_query"]["sql"]
        options = REQUIRED_OPTIONS | {"spannerChangeStreamNames": STREAM, "spannerEndpoint": service.endpoint}
        settings, _ = parse([f"--{name}={value}" for name, value in options.items()])
        findings = list(checks._change_streams(settings))
    assert sql == f'SELECT * FROM spanner."{function}"($1, $2, $3, $4, NULL)'
    assert findings[0].checked == f"change stream {STREAM}: NEW_ROW_AND_OLD_VALUES, {mode}"
    assert not [f.problem for f in findings if f.problem]


def test_directed_reads_are_refused_by_an_instance_of_one_region() -> None:
    with pytest.raises(grpc.RpcError) as refused:
        asked({"directed_reads": "us-east4"})
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_launch_s_options_of_the_source_reach_the_request() -> None:
    options = REQUIRED_OPTIONS | {
        "rpcPriority": "MEDIUM",
        "spannerDatabaseRole": "reader",
        "heartbeatMillis": "5000",
        "directedReads": "us-east4:READ_ONLY",
        "spannerChangeStreamNames": STREAM,
    }
    settings, _ = parse([f"--{name}={value}" for name, value in options.items()])
    [stream] = settings.streams
    fields = ("name", "role", "priority", "heartbeat_millis", "directed_reads")
    found = asked({name: getattr(stream, name) for name in fields}, multi_region=True)
    assert json.dumps([found[name] for name in ("priority", "role", "heartbeat", "directed_reads")]) == json.dumps(
        ["PRIORITY_MEDIUM", "reader", "5000", [["us-east4", "READ_ONLY"]]]
    )


@pytest.mark.parametrize("multi_region", [False, True])
def test_a_launch_finds_directed_reads_that_its_instance_refuses(multi_region: bool) -> None:
    with StrictSpanner(history(1), multi_region=multi_region) as service:
        options = REQUIRED_OPTIONS | {
            "directedReads": "us-east4:READ_ONLY",
            "spannerChangeStreamNames": STREAM,
            "spannerEndpoint": service.endpoint,
        }
        settings, _ = parse([f"--{name}={value}" for name, value in options.items()])
        [finding] = checks._start(settings)
    if multi_region:
        assert not finding.problem
    else:
        assert finding.problem and finding.problem.startswith("directedReads must name replicas of an instance")
