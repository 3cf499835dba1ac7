"""The rules hold for every stack, and each is seen to fail for a program that breaks it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import pulumi
import pulumi_gcp as gcp
import pytest
from apache_beam.runners.worker.data_sampler import DataSampler

from contract.options import NO_EXCEPTION_SAMPLING
from graph.resources import Graph
from guardrails import iam, rules
from guardrails.iam import Grant
from guardrails.rules import (
    RULES,
    Rule,
    buckets_are_private,
    datasets_say_who_reads,
    dead_letters_are_kept_a_week,
    everything_is_in_a_component,
    everything_is_labelled,
    everything_is_where_the_stack_is,
    everything_uses_the_stack_s_provider,
    grants_are_members,
    grants_are_on_one_resource,
    keys_are_our_own,
    names_have_the_stack_s_prefix,
    no_admin_role,
    no_element_is_sampled,
    no_key_of_a_service_account,
    no_primitive_role,
    no_public_address,
    nobody_is_everybody,
    nothing_that_holds_data_can_be_deleted_in_prod,
    payments_of_others_stay_theirs,
    services_are_behind_a_proxy,
    what_a_project_has_once_is_of_one_stack,
)
from guardrails.stores import HOLDS_NOTHING, RETAINED, STORES
from tests.infra.graphs import graph_of

PROTECTED = pulumi.ResourceOptions(protect=True)
Program = Callable[[], object]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_stack_keeps_the_rule(graph: Graph, rule: Rule) -> None:
    assert list(rule(graph)) == []


def _project_role(role: str, member: str = "group:a@example.com") -> Program:
    return lambda: gcp.projects.IAMMember("bad", project="p", role=role, member=member)


def _bucket(name: str = "bad", *, days: int = 30, **changed: Any) -> Program:
    """A bucket that keeps every rule but the one that `changed` breaks."""
    inputs: dict[str, Any] = {
        "location": "us-east4",
        "name": name,
        "public_access_prevention": "enforced",
        "uniform_bucket_level_access": True,
        "lifecycle_rules": [{"action": {"type": "Delete"}, "condition": {"age": days}}],
        "force_destroy": False,
        "encryption": {"default_kms_key_name": "k"},
        "opts": PROTECTED,
    }
    return lambda: gcp.storage.Bucket(name, **{**inputs, **changed})


def _job(**inputs: Any) -> Program:
    return lambda: gcp.dataflow.FlexTemplateJob(
        "bad", container_spec_gcs_path="gs://b/t.json", kms_key_name="k", **inputs
    )


def _experiments(*names: str, **inputs: Any) -> Program:
    """A job with these experiments beside the one that it must have."""
    return _job(additional_experiments=["use_runner_v2", NO_EXCEPTION_SAMPLING, *names], **inputs)


def _table(*, protection: bool, options: pulumi.ResourceOptions | None = None) -> Program:
    return lambda: gcp.bigquery.Table(
        "bad", dataset_id="d", table_id="t", schema="[]", deletion_protection=protection, opts=options
    )


def _secret(*keys: str | None) -> Program:
    """A secret with a replica for each key; None is one without."""
    replicas: list[Any] = [
        {"location": "us-east4", **({"customer_managed_encryption": {"kms_key_name": key}} if key else {})}
        for key in keys
    ]
    return lambda: gcp.secretmanager.Secret(
        "bad",
        secret_id="s",
        replication={"user_managed": {"replicas": replicas}},
        deletion_protection=True,
        opts=PROTECTED,
    )


def _firewall(**inputs: Any) -> Program:
    return lambda: gcp.compute.Firewall("bad", network="n", allows=[{"protocol": "tcp"}], **inputs)


def _spanner(config: str) -> Program:
    return lambda: gcp.spanner.Instance("bad", config=config, display_name="d", force_destroy=False, opts=PROTECTED)


BREAKING: list[tuple[Rule, Program]] = [
    (no_primitive_role, _project_role("roles/editor")),
    (no_admin_role, _project_role("roles/storage.objectAdmin")),
    (no_admin_role, _project_role("roles/spanner.databaseAdmin")),
    (no_admin_role, _project_role("roles/iam.securityReviewer")),
    (payments_of_others_stay_theirs, lambda: gcp.spanner.Instance("bad", name="core", config="c", display_name="d")),
    (payments_of_others_stay_theirs, lambda: gcp.spanner.Database("bad", name="ledger", instance="core")),
    (payments_of_others_stay_theirs, lambda: gcp.spanner.Database("bad", name="audit-db", instance="core")),
    (
        payments_of_others_stay_theirs,
        lambda: gcp.spanner.DatabaseIAMMember("bad", instance="core", database="ledger", role="r", member="user:a@b"),
    ),
    (
        payments_of_others_stay_theirs,
        lambda: gcp.spanner.InstanceIAMMember("bad", instance="core", role="r", member="user:a@b"),
    ),
    (
        payments_of_others_stay_theirs,
        lambda: gcp.spanner.BackupSchedule(
            "bad", instance="core", database="ledger", retention_duration="1s", full_backup_spec={}
        ),
    ),
    (nobody_is_everybody, _project_role("roles/bigquery.jobUser", "allAuthenticatedUsers")),
    (
        nobody_is_everybody,
        lambda: gcp.bigquery.DatasetAccess("bad", dataset_id="d", role="READER", special_group="allAuthenticatedUsers"),
    ),
    (grants_are_members, lambda: gcp.projects.IAMBinding("bad", project="p", role="roles/x", members=["user:a@b"])),
    (grants_are_members, lambda: gcp.bigquery.DatasetIamPolicy("bad", dataset_id="d", policy_data="{}")),
    (
        grants_are_members,
        lambda: gcp.projects.IAMAuditConfig("bad", project="p", service="allServices", audit_log_configs=[]),
    ),
    (grants_are_on_one_resource, _project_role("roles/bigquery.dataEditor")),
    (no_key_of_a_service_account, lambda: gcp.serviceaccount.Key("bad", service_account_id="a")),
    (datasets_say_who_reads, lambda: gcp.bigquery.Dataset("bad", dataset_id="d")),
    (
        datasets_say_who_reads,
        lambda: gcp.bigquery.Dataset(
            "bad", dataset_id="d", accesses=[{"role": "READER", "special_group": "projectReaders"}]
        ),
    ),
    (buckets_are_private, _bucket(public_access_prevention="inherited")),
    (buckets_are_private, _bucket(uniform_bucket_level_access=False)),
    (dead_letters_are_kept_a_week, _bucket("dead-letters", days=6)),
    (dead_letters_are_kept_a_week, _bucket("dead-letters", lifecycle_rules=None)),
    (no_public_address, _job()),
    (no_public_address, _job(ip_configuration="WORKER_IP_PUBLIC")),
    (no_public_address, _firewall(source_ranges=["10.0.0.0/8", "0.0.0.0/0"])),
    (no_public_address, lambda: gcp.compute.Address("bad", region="us-east4")),
    (no_public_address, lambda: gcp.compute.GlobalAddress("bad")),
    (no_public_address, lambda: gcp.cloudbuild.WorkerPool("bad", location="us-east4", worker_config={})),
    (
        no_public_address,
        lambda: gcp.compute.Instance(
            "bad",
            machine_type="m",
            zone="z",
            boot_disk={},
            network_interfaces=[{"network": "n", "access_configs": [{}]}],
        ),
    ),
    (
        services_are_behind_a_proxy,
        lambda: gcp.cloudrunv2.Service("bad", location="us-east4", template={}, ingress="INGRESS_TRAFFIC_ALL"),
    ),
    (no_element_is_sampled, _job()),
    (no_element_is_sampled, _job(additional_experiments=["use_runner_v2"])),
    (no_element_is_sampled, _job(additional_experiments=["disable_always_on_exception_samplin"])),
    (no_element_is_sampled, _job(additional_experiments=["DISABLE_ALWAYS_ON_EXCEPTION_SAMPLING"])),
    (no_element_is_sampled, lambda: gcp.dataflow.Job("bad", template_gcs_path="gs://b/t", temp_gcs_location="gs://b")),
    (no_element_is_sampled, lambda: gcp.dataflow.Pipeline("bad", type="PIPELINE_TYPE_STREAMING", state="STATE_ACTIVE")),
    (no_element_is_sampled, _experiments("enable_data_sampling")),
    (no_element_is_sampled, _experiments("enable_always_on_exception_sampling")),
    (no_element_is_sampled, _experiments("x,enable_data_sampling")),
    (no_element_is_sampled, _experiments("Enable-Data-Sampling=true")),
    (no_element_is_sampled, _experiments(additional_pipeline_options=["experiments=enable_data_sampling"])),
    (no_element_is_sampled, _experiments(additional_pipeline_options=["--experiments=a,enable_data_sampling,b"])),
    (
        no_element_is_sampled,
        _experiments(additional_pipeline_options=["dataflow_service_options=enable_data_sampling"]),
    ),
    (no_element_is_sampled, _experiments(additional_pipeline_options=["dataSamplingEnabled"])),
    (no_element_is_sampled, _experiments(parameters={"experiments": "enable_data_sampling"})),
    (no_element_is_sampled, _experiments(parameters={"enableDataSampling": "true"})),
    (keys_are_our_own, _bucket(encryption=None)),
    (keys_are_our_own, _secret(None)),
    (keys_are_our_own, _secret("k", None)),
    (keys_are_our_own, lambda: gcp.bigquery.Dataset("bad", dataset_id="d", location="US")),
    (
        keys_are_our_own,
        lambda: gcp.spanner.BackupSchedule(
            "bad",
            database="d",
            instance="i",
            retention_duration="1d",
            encryption_config={"encryption_type": "GOOGLE_DEFAULT_ENCRYPTION"},
        ),
    ),
    (nothing_that_holds_data_can_be_deleted_in_prod, _table(protection=True)),
    (nothing_that_holds_data_can_be_deleted_in_prod, _table(protection=False, options=PROTECTED)),
    (nothing_that_holds_data_can_be_deleted_in_prod, _bucket(opts=None)),
    (nothing_that_holds_data_can_be_deleted_in_prod, _bucket(force_destroy=True)),
    (nothing_that_holds_data_can_be_deleted_in_prod, _bucket(force_destroy=None)),
    (
        nothing_that_holds_data_can_be_deleted_in_prod,
        lambda: gcp.kms.CryptoKey("bad", key_ring="r", rotation_period="7776000s"),
    ),
    (everything_is_where_the_stack_is, _bucket(location="europe-west1")),
    (everything_is_where_the_stack_is, _spanner("regional-europe-west1")),
    (everything_is_labelled, lambda: gcp.Provider("bad", project="p", default_labels={"service": "payment-audit"})),
    (
        everything_is_labelled,
        lambda: gcp.monitoring.NotificationChannel("bad", type="email", user_labels={"service": "payment-audit"}),
    ),
    (everything_uses_the_stack_s_provider, _job()),
    (everything_is_in_a_component, _job()),
    (
        what_a_project_has_once_is_of_one_stack,
        lambda: gcp.projects.IAMAuditConfig("bad", project="p", service="x.googleapis.com", audit_log_configs=[]),
    ),
    (names_have_the_stack_s_prefix, lambda: gcp.spanner.Instance("bad", name="core", config="c", display_name="d")),
    (names_have_the_stack_s_prefix, lambda: gcp.logging.Metric("bad", name="beu_oom", filter="f")),
]


@pytest.mark.parametrize(("rule", "program"), BREAKING, ids=lambda value: getattr(value, "__name__", ""))
def test_the_rule_names_the_resource_that_breaks_it(rule: Rule, program: Program) -> None:
    beside = BESIDE if rule in (what_a_project_has_once_is_of_one_stack, names_have_the_stack_s_prefix) else {}
    [broken] = rule(graph_of("prod", {**IN_US_EAST, **beside}, program))
    assert broken.split()[1].rstrip(":") in {"bad", "dead-letters"}


IN_US_EAST: Mapping[str, Any] = {"region": "us-east4", "warehouseLocation": "US", "customerManagedKeys": True}

# Another stack is in its project.
BESIDE: Mapping[str, Any] = {"prefix": "eu", "projectWide": False}


def test_every_rule_has_been_seen_to_fail() -> None:
    assert {rule for rule, _ in BREAKING} == set(RULES)


def test_every_rule_of_the_module_is_run() -> None:
    """A rule that is written and not listed guards nothing."""
    written = {
        function
        for _, function in inspect.getmembers(rules, inspect.isfunction)
        if function.__module__ == rules.__name__ and not function.__name__.startswith("_")
    }
    assert written == set(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_rule_says_the_rule_and_the_way_out(rule: Rule) -> None:
    assert re.fullmatch(r"[A-Z].+[.:] .+\.", str(rule.__doc__))


def test_what_keeps_the_rules_is_not_accused() -> None:
    def good() -> None:
        _firewall(source_ranges=["10.0.0.0/8"])()
        _secret("k", "k")()
        _spanner("nam3")()
        gcp.compute.Address("inside", region="us-east4", address_type="INTERNAL")

    graph = graph_of("prod", IN_US_EAST, good)
    for rule in (no_public_address, keys_are_our_own, everything_is_where_the_stack_is):
        assert list(rule(graph)) == []


def test_an_image_repository_is_judged_by_its_own_region() -> None:
    """Images are built once and promoted: the repository is where the first stack is."""
    there = {"region": "europe-west1", "spannerInstanceConfig": "regional-europe-west1", "warehouseLocation": "EU"}
    elsewhere = graph_of("dev", there)
    assert {node.inputs["location"] for node in elsewhere.of("RepositoryIamMember")} == {"us-central1"}
    assert list(everything_is_where_the_stack_is(elsewhere)) == []
    graph = graph_of("dev", program=_repository_member)
    assert list(everything_is_where_the_stack_is(graph)) == [
        "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember bad: location asia-east1"
    ]


def _repository_member() -> None:
    """In a region that no image of config names."""
    gcp.artifactregistry.RepositoryIamMember(
        "bad",
        location="asia-east1",
        repository="audit-images",
        role="roles/artifactregistry.reader",
        member="user:a@b.c",
    )


def test_a_job_without_samples_is_not_accused_of_one() -> None:
    parameters = {"ignoreTables": "data_sampling", "dataSampling": "false"}
    graph = graph_of("prod", IN_US_EAST, _experiments(parameters=parameters, temp_location="gs://data-sampling"))
    assert list(no_element_is_sampled(graph)) == []
    beam = {name for name in vars(DataSampler) if name.endswith("EXCEPTION_SAMPLING")}
    assert NO_EXCEPTION_SAMPLING in {getattr(DataSampler, name) for name in beam}, "Beam knows it by this name"


def test_google_s_keys_are_for_dev_only() -> None:
    """prod cannot turn them off by config; dev can."""
    without = {**IN_US_EAST, "customerManagedKeys": False}
    assert list(keys_are_our_own(graph_of("prod", without, _bucket(encryption=None))))
    assert list(keys_are_our_own(graph_of("dev", without, _bucket(encryption=None)))) == []


def test_every_kind_that_takes_a_key_is_asked_for_one(graph: Graph) -> None:
    """By the provider's own arguments: a new kind of store cannot be forgotten."""
    known = {*rules.KEYS, *rules.KEYS_ELSEWHERE}
    for node in graph.nodes:
        if node.type.startswith("gcp:") and node.type not in known:
            taken = [name for name in _arguments(node.type) if re.search(r"kms|cmek|encryption", name)]
            assert taken == [], f"{node.type} takes {taken}: add it to KEYS or KEYS_ELSEWHERE in guardrails/rules.py"


def _arguments(kind: str) -> list[str]:
    """The arguments of a type's class: gcp:storage/bucket:Bucket is pulumi_gcp.storage.Bucket."""
    package, _, name = kind.removeprefix("gcp:").partition(":")
    module = getattr(gcp, package.partition("/")[0])
    return list(inspect.signature(getattr(module, name)._internal_init).parameters)


def test_every_store_is_known(graph: Graph) -> None:
    """By the provider's own switches: a kind that can refuse its deletion is one that holds something."""
    switches = {"deletion_protection", "enable_drop_protection", "force_destroy", "delete_contents_on_destroy"}
    for node in graph.nodes:
        if node.type.startswith("gcp:") and node.type not in {*STORES, *HOLDS_NOTHING}:
            assert not switches & set(_arguments(node.type)), f"{node.type}: add it to STORES in guardrails/stores.py"


def test_what_google_keeps_is_what_pulumi_leaves_alone(graph: Graph) -> None:
    """`up` after a destroy adopts it, and deploy.py says so: both must know the same kinds."""
    left = {node.type for node in graph.nodes if node.options.retainOnDelete}
    assert left == {node.type for node in graph.nodes if node.type in RETAINED}


def test_the_policy_pack_reads_config_as_the_tests_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CLI hands lists over as JSON text: a rule that looks into one would see only brackets and quotes."""
    from guardrails.__main__ import stack_values

    monkeypatch.setenv(
        "PULUMI_CONFIG", '{"payment-audit:spannerKeyRegions": "[\\"us-east4\\"]", "payment-audit:project": "p"}'
    )
    assert stack_values() == {"spannerKeyRegions": ["us-east4"], "project": "p"}


# ---------------------------------------------------------------------- grants and their reasons


def test_every_grant_has_a_reason_and_every_reason_a_grant() -> None:
    assert iam.problems(_graphs()) == []


def test_the_table_of_grants_is_what_the_stacks_make() -> None:
    assert iam.DOCUMENT.read_text() == iam.document(_graphs()), "run `make docs`"


def _graphs() -> list[Graph]:
    return [graph_of(stack) for stack in iam.STACKS]


def test_a_grant_without_a_reason_is_found_and_a_reason_without_a_grant() -> None:
    graph = graph_of("dev", program=_project_role("roles/bigquery.jobUser", "group:new@example.com"))
    found = iam.problems([graph])
    assert (
        "group:new@example.com, project, roles/bigquery.jobUser: a grant without a reason. "
        "Add it to REASONS in guardrails/iam.py." in found
    )
    assert any(problem.endswith("a reason without a grant. Take it out of REASONS.") for problem in found)


def test_a_grant_of_a_new_kind_says_where_to_name_it() -> None:
    def program() -> None:
        gcp.cloudrunv2.WorkerPoolIamMember("bad", name="w", role="roles/run.viewer", member="user:a@b.c")

    with pytest.raises(iam.UnnamedResource, match="workerPoolIamMember:WorkerPoolIamMember: say in _RESOURCES"):
        list(iam.grants(graph_of("dev", program=program)))


def test_a_service_agent_is_named_by_its_service() -> None:
    agent = "serviceAccount:service-123@gcp-sa-spanner.iam.gserviceaccount.com"

    def program() -> None:
        key = "projects/p/locations/l/keyRings/r/cryptoKeys/spanner"
        gcp.kms.CryptoKeyIAMMember("bad", crypto_key_id=key, role="roles/x", member=agent)

    assert list(iam.grants(graph_of("dev", program=program))) == [Grant("spanner service agent", "key spanner", "x")]
