"""The provider's own checks over every resource of every stack, and what the stand-in for Google's provider refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from graph.resources import Graph
from tests.infra import given_back, provider_rules, sdk_schema
from tests.infra.asked_for import MORE, OF_OTHERS
from tests.infra.graphs import graph_of
from tests.infra.test_existing_database import EXISTING
from tests.infra.unknown import unknown

ALERT = "gcp:monitoring/alertPolicy:AlertPolicy"
BUCKET = "gcp:storage/bucket:Bucket"
JOB = given_back.JOB
SCHEDULE = "gcp:cloudscheduler/job:Job"


def refused(kind: str, inputs: Mapping[str, Any]) -> list[str]:
    return [str(each) for each in [*sdk_schema.broken(kind, inputs), *provider_rules.broken(kind, inputs)]]


def _all(graph: Graph) -> list[str]:
    nodes = [node for node in graph.nodes if node.type.startswith("gcp:")]
    return [f"{node.id} {each}" for node in nodes for each in refused(node.type, node.inputs)]


def test_the_provider_takes_every_resource_of_every_stack(graph: Graph) -> None:
    assert _all(graph) == []


@pytest.mark.parametrize("config", [MORE, EXISTING, OF_OTHERS], ids=["more", "a database of others", "all of others"])
def test_the_provider_takes_what_config_can_add(config: Mapping[str, Any]) -> None:
    assert _all(graph_of("dev", config)) == []


def test_what_the_provider_reads_back_is_what_a_stack_asks_for(graph: Graph) -> None:
    """Else each preview has a change, and each `up` makes it."""
    again = {
        node.id: given_back.changed(node.type, given_back.given_back(node.type, inputs), inputs, inputs)
        for node, inputs in ((node, _plain(node.inputs)) for node in graph.nodes if node.type.startswith("gcp:"))
    }
    assert {id: keys for id, keys in again.items() if keys} == {}


def _plain(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is no JSON: an object's content."""
    return dict(json.loads(json.dumps(dict(inputs), default=str)))


@pytest.mark.parametrize(
    ("kind", "inputs", "said"),
    [
        (BUCKET, {"location": "US", "lifecycleRule": []}, "lifecycleRule: no property of this name"),
        (BUCKET, {"name": "bucket"}, "location: required, and missing"),
        (BUCKET, {"location": "US", "forceDestroy": "true"}, "forceDestroy: must be a boolean, got str"),
        (BUCKET, {"location": "US", "versioning": {"enable": True}}, "versioning.enable: no property of this name"),
        (BUCKET, {"location": "US", "versioning": {}}, "versioning.enabled: required, and missing"),
        (BUCKET, {"location": "US", "lifecycleRules": {}}, "lifecycleRules: must be a list, got dict"),
        (BUCKET, {"location": "US", "labels": {"a": 1}}, "labels.a: must be text, got int"),
        (
            BUCKET,
            {"location": "US", "lifecycleRules": [{"action": {"type": "Remove"}, "condition": {"age": 1.5}}]},
            "lifecycleRules[0].condition.age: must be a whole number, got float",
        ),
        (
            BUCKET,
            {"location": "US", "lifecycleRules": [{"action": {"type": "Remove"}, "condition": {}}]},
            "lifecycleRules[0].action.type: one of ('Delete', 'SetStorageClass', 'AbortIncompleteMultipartUpload')",
        ),
        (SCHEDULE, {"httpTarget": {"uri": "u"}, "pubsubTarget": {"topicName": "t"}}, "exactly one of"),
        (SCHEDULE, {"httpTarget": {"uri": "u"}, "attemptDeadline": "3600s"}, "attemptDeadline: from 15 to 1800"),
        ("gcp:spanner/instance:Instance", {"config": "c", "displayName": "four", "processingUnits": 150}, "multiple"),
        ("gcp:projects/iAMMember:IAMMember", {"project": "p", "role": "r", "member": "a@b.c"}, "member: must match"),
    ],
)
def test_what_the_provider_would_refuse_is_refused(kind: str, inputs: Mapping[str, Any], said: str) -> None:
    assert any(said in each for each in refused(kind, inputs)), refused(kind, inputs)


def test_a_kind_that_the_sdk_does_not_have_is_said() -> None:
    with pytest.raises(sdk_schema.NotInSdkError, match="gcp:storage/bukket:Bukket"):
        sdk_schema.broken("gcp:storage/bukket:Bukket", {})


def test_what_is_not_known_yet_is_not_judged() -> None:
    unknown = sdk_schema.UNKNOWN
    assert refused(BUCKET, {"location": unknown, "lifecycleRules": unknown, "labels": {"a": unknown}}) == []


@pytest.mark.parametrize("rule", provider_rules.RULES, ids=lambda rule: f"{rule.kind} {rule.path}")
def test_a_rule_judges_a_property_that_there_is(rule: provider_rules.Rule) -> None:
    """A misspelt path would judge nothing."""
    if rule.kind and (path := rule.path.replace(".*", "")):
        assert path in {each.replace("[]", "") for each, _ in sdk_schema.properties_of(f"gcp:{rule.kind}")}


@pytest.mark.parametrize("kind", given_back.SETS)
def test_a_set_is_a_list_that_there_is(kind: str) -> None:
    there = {
        path.removesuffix("[]").replace("[]", "") for path, _ in sdk_schema.properties_of(kind) if path.endswith("[]")
    }
    assert set(given_back.SETS[kind]) <= there


def test_an_option_of_beam_that_is_an_argument_is_a_change_in_each_preview() -> None:
    """Seen with the real provider: Beam's Python SDK writes temp_location, the provider looks for tempLocation."""
    inputs = {"name": "j", "maxWorkers": 1, **dict.fromkeys(given_back.NOT_READ_BACK, "x")}
    state = given_back.given_back(JOB, inputs)
    assert given_back.changed(JOB, state, inputs, inputs) == sorted(given_back.NOT_READ_BACK)


def test_the_order_of_a_set_is_no_change_and_that_of_a_list_is_one() -> None:
    ones, others = ["a", "b"], ["b", "a"]
    assert given_back.changed(JOB, {"additionalExperiments": ones}, {}, {"additionalExperiments": others}) == []
    channels = ({"notificationChannels": each} for each in (ones, others))
    assert given_back.changed(ALERT, next(channels), {}, next(channels)) == ["notificationChannels"]


def test_a_policy_tag_stays_on_its_column_until_an_empty_list_takes_it_off() -> None:
    tagged = [{"name": "CustomerId", "policyTags": {"names": ["tag"]}}]
    silent, empty = [{"name": "CustomerId"}], [{"name": "CustomerId", "policyTags": {"names": []}}]
    kept = [given_back.kept_policy_tags(json.dumps(tagged), json.dumps(now)) for now in (silent, empty)]
    assert [json.loads(each) for each in kept] == [tagged, empty]


def test_what_the_stand_in_does_not_know_is_listed() -> None:
    """A new kind of resource gets a rule, or is added here: a person has then looked at what its provider checks."""
    assert unknown() == [
        "gcp:bigquery/datasetAccess:DatasetAccess",
        "gcp:cloudbuild/trigger:Trigger",
        "gcp:cloudbuild/workerPool:WorkerPool",
        "gcp:compute/router:Router",
        "gcp:datacatalog/policyTag:PolicyTag",
        "gcp:logging/logView:LogView",
        "gcp:logging/projectExclusion:ProjectExclusion",
        "gcp:monitoring/customService:CustomService",
        "gcp:monitoring/dashboard:Dashboard",
        "gcp:monitoring/notificationChannel:NotificationChannel",
        "gcp:projects/serviceIdentity:ServiceIdentity",
        "gcp:pubsub/topic:Topic",
        "gcp:storage/bucketObject:BucketObject",
    ]
