"""What every store needs: APIs, accounts, network, perimeter, keys, buckets, logs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from components.config import stack_config
from components.settings import SettingsError
from graph.google import TAKEN_OVER
from graph.resources import Graph, Node
from tests.infra.graphs import graph_of

AGENTS = {
    "spanner": {"service-123456789012@gcp-sa-spanner.iam.gserviceaccount.com"},
    "bigquery": {"bq-123456789012@bigquery-encryption.iam.gserviceaccount.com"},
    "storage": {"service-123456789012@gs-project-accounts.iam.gserviceaccount.com"},
    "backups": {"service-123456789012@gs-project-accounts.iam.gserviceaccount.com"},
    "dataflow": {
        "service-123456789012@dataflow-service-producer-prod.iam.gserviceaccount.com",
        "service-123456789012@compute-system.iam.gserviceaccount.com",
    },
    "secrets": {"service-123456789012@gcp-sa-secretmanager.iam.gserviceaccount.com"},
    "logging": {"cmek-p123456789012@gcp-sa-logging.iam.gserviceaccount.com"},
    "run": {"service-123456789012@serverless-robot-prod.iam.gserviceaccount.com"},
}
KEPT = ("KeyRing", "CryptoKey", "WorkloadIdentityPool", "WorkloadIdentityPoolProvider", "ProjectBucketConfig")
CI = {"ciIssuer": "https://token.actions.githubusercontent.com", "ciCondition": "assertion.repository == 'org/repo'"}


API = "gcp:projects/service:Service"
RUN_AS = (
    "dataflow", "merge", "probe", "validation", "backup", "erasure", "console", "card-search",
    # The operations' jobs, the service that starts jobs, and Cloud Scheduler, which calls that as an account.
    "launcher", "schema", "dead-letters", "retry", "starter", "scheduler",
)  # fmt: skip


def test_everything_waits_for_the_apis(graph: Graph) -> None:
    kinds = [node.type for node in graph.nodes if node.type.startswith("gcp:")]
    enabled = kinds.count(API)
    assert enabled >= 18
    assert kinds[:enabled] == [API] * enabled
    urns = {f"::{node.name}" for node in graph.nodes if node.type == API}
    for component in graph.components:
        if component.type.startswith("payment-audit:") and component.name != "services":
            awaited = {f"::{urn.rpartition('::')[2]}" for urn in component.dependencies}
            assert urns <= awaited, component.name


def test_a_destroyed_stack_leaves_the_apis_on(graph: Graph) -> None:
    assert {node.inputs["disableOnDestroy"] for node in graph.nodes if node.type == API} == {False}


def test_pods_act_as_the_application_in_the_clusters_of_one_project() -> None:
    config = {"kubernetesServiceAccount": "payments/api", "kubernetesProject": "clusters-prod"}
    grant = graph_of("dev", config).one("IAMMember", "application-sa-kubernetes").inputs
    assert grant["role"] == "roles/iam.workloadIdentityUser"
    assert grant["member"] == "serviceAccount:clusters-prod.svc.id.goog[payments/api]"
    assert grant["serviceAccountId"].endswith("/application-sa@payment-audit-dev.iam.gserviceaccount.com")


def test_without_a_cluster_project_the_workload_pool_is_the_stack_s_own() -> None:
    grant = graph_of("dev", {"kubernetesServiceAccount": "payments/api"}).one("IAMMember", "application-sa-kubernetes")
    assert grant.inputs["member"] == "serviceAccount:payment-audit-dev.svc.id.goog[payments/api]"


def test_a_ci_outside_google_acts_as_the_deployer_if_its_token_meets_the_condition() -> None:
    graph = graph_of("dev", CI)
    provider = graph.one("WorkloadIdentityPoolProvider").inputs
    assert provider["attributeCondition"] == CI["ciCondition"]
    assert provider["oidc"]["issuerUri"] == CI["ciIssuer"]
    assert provider["attributeMapping"] == {"google.subject": "assertion.sub"}
    grant = graph.one("IAMMember", "deployer-sa-ci").inputs
    assert grant["member"] == (
        "principalSet://iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/ci-pool/*"
    )
    assert grant["serviceAccountId"].endswith("/deployer-sa@payment-audit-dev.iam.gserviceaccount.com")


def test_nobody_comes_from_outside_unless_config_says_so(graph: Graph) -> None:
    assert graph.of("WorkloadIdentityPool", "WorkloadIdentityPoolProvider") == []
    assert [n.id for n in graph.nodes if n.inputs.get("role") == "roles/iam.workloadIdentityUser"] == []


def test_who_deploys_may_act_as_what_it_starts_and_as_nobody_else() -> None:
    graph = graph_of("dev", {"deployers": ["user:ops@example.com"]})
    acts = [n.inputs for n in graph.nodes if n.inputs.get("role") == "roles/iam.serviceAccountUser"]
    deployers = {"user:ops@example.com", "serviceAccount:deployer-sa@payment-audit-dev.iam.gserviceaccount.com"}
    assert {(g["serviceAccountId"].rpartition("/")[2].partition("@")[0], g["member"]) for g in acts} == {
        *((f"{account}-sa", who) for account in RUN_AS for who in deployers),
        ("validation-sa", "serviceAccount:validation-sa@payment-audit-dev.iam.gserviceaccount.com"),
    }


def test_workers_have_a_private_subnetwork_with_flow_logs(graph: Graph) -> None:
    subnetwork = graph.one("Subnetwork").inputs
    assert subnetwork["privateIpGoogleAccess"] is True
    assert subnetwork["logConfig"]["flowSampling"] == 0.5
    assert subnetwork["network"] == f"projects/{graph.outputs['project']}/global/networks/audit"
    assert graph.one("FlexTemplateJob").inputs["subnetwork"].endswith(f"/subnetworks/{subnetwork['name']}")


def test_nothing_but_workers_reaches_workers(graph: Graph) -> None:
    [allowed] = [node.inputs for node in graph.of("Firewall") if "allows" in node.inputs]
    worker = [f"dataflow-sa@{graph.outputs['project']}.iam.gserviceaccount.com"]
    assert (allowed["sourceServiceAccounts"], allowed["targetServiceAccounts"]) == (worker, worker)
    [denied] = [node.inputs for node in graph.of("Firewall") if "denies" in node.inputs]
    assert denied["priority"] > allowed["priority"]


def test_there_is_a_way_to_the_internet_only_if_asked_for(graph: Graph) -> None:
    assert graph.of("Router", "RouterNat") == []
    nat = graph_of("dev", {"cloudNat": True}).one("RouterNat").inputs
    assert nat["sourceSubnetworkIpRangesToNat"] == "LIST_OF_SUBNETWORKS"
    assert len(nat["subnetworks"]) == 1


def test_a_shared_network_is_used_and_not_made() -> None:
    shared = "https://www.googleapis.com/compute/v1/projects/host/regions/us-central1/subnetworks/data"
    graph = graph_of("staging", {"subnetwork": shared})
    assert graph.one("FlexTemplateJob").inputs["subnetwork"] == shared
    assert [node.id for node in graph.nodes if node.type.startswith(("gcp:compute/", "gcp:dns/"))] == []


def test_inside_a_perimeter_google_s_names_lead_to_the_restricted_addresses(prod: Graph) -> None:
    assert {zone.inputs["dnsName"] for zone in prod.of("ManagedZone")} == {"googleapis.com.", "pkg.dev."}
    assert {zone.inputs["visibility"] for zone in prod.of("ManagedZone")} == {"private"}
    records = {(node.inputs["type"], node.inputs["name"]): node.inputs["rrdatas"] for node in prod.of("RecordSet")}
    assert records["A", "restricted.googleapis.com."] == [f"199.36.153.{last}" for last in (4, 5, 6, 7)]
    assert records["CNAME", "*.googleapis.com."] == ["restricted.googleapis.com."]
    assert graph_of("dev").of("ManagedZone", "RecordSet") == []


def _guarded(graph: Graph) -> Any:
    inputs = graph.one("ServicePerimeter").inputs
    return inputs.get("status") or inputs.get("spec")


def _services(policy: Any) -> list[str]:
    return [o["serviceName"].removesuffix(".googleapis.com") for o in policy["ingressTo"]["operations"]]


def test_the_perimeter_guards_the_project_and_lets_the_deployer_in(prod: Graph) -> None:
    inputs = prod.one("ServicePerimeter").inputs
    assert "spec" not in inputs
    guarded = inputs["status"]
    assert guarded["resources"] == ["projects/123456789012"]
    assert {f"{api}.googleapis.com" for api in ("spanner", "bigquery", "storage", "secretmanager")} <= set(
        guarded["restrictedServices"]
    )
    deployment, previews, readers, on_call, drainers, operators, cards, erasers = guarded["ingressPolicies"]
    assert previews["ingressFrom"]["identities"] == [
        "serviceAccount:preview-sa@payment-audit-prod.iam.gserviceaccount.com"
    ]
    assert cards["ingressFrom"]["identities"] == ["group:support-leads@example.com"]
    assert _services(cards) == ["run"]
    assert erasers["ingressFrom"]["identities"] == ["group:privacy-office@example.com"]
    assert "spanner" in _services(erasers)
    assert deployment["ingressFrom"]["identities"] == [
        "serviceAccount:deployer-sa@payment-audit-prod.iam.gserviceaccount.com"
    ]
    assert readers["ingressFrom"]["identities"] == [
        "group:support-staff@example.com",
        "group:support-leads@example.com",
    ]
    assert _services(readers) == ["bigquery", "storage"]
    assert on_call["ingressFrom"]["identities"] == ["group:audit-on-call@example.com"]
    assert {"bigquery", "dataflow", "logging", "monitoring", "run", "spanner", "storage"} <= set(_services(on_call))
    for policy, service in ((drainers, "dataflow"), (operators, "storage")):
        assert policy["ingressFrom"]["identities"] == ["group:audit-leads@example.com"]
        assert _services(policy) == [service]


def test_a_dry_run_perimeter_refuses_nothing() -> None:
    inputs = graph_of("staging").one("ServicePerimeter").inputs
    assert inputs["useExplicitDryRunSpec"] is True
    assert "status" not in inputs
    assert inputs["spec"]["restrictedServices"]


def test_a_perimeter_lets_in_whom_config_names() -> None:
    config = {
        "perimeterMembers": ["user:ops@example.com"],
        "kubernetesServiceAccount": "payments/api",
        "kubernetesProject": "clusters-prod",
    }
    policies = _guarded(graph_of("staging", config))["ingressPolicies"]
    assert "user:ops@example.com" in policies[0]["ingressFrom"]["identities"]
    assert policies[-1]["ingressFrom"]["identities"] == [
        "serviceAccount:application-sa@payment-audit-staging.iam.gserviceaccount.com"
    ]
    assert [o["serviceName"] for o in policies[-1]["ingressTo"]["operations"]] == ["spanner.googleapis.com"]


def test_without_an_organisation_there_is_no_perimeter() -> None:
    assert graph_of("dev").of("ServicePerimeter") == []


def _store(key: str) -> str:
    return key.partition("-")[0]


def test_each_key_is_used_by_its_store_s_service_and_no_other(graph: Graph) -> None:
    granted: dict[str, set[str]] = {}
    for node in graph.of("CryptoKeyIAMMember"):
        assert node.inputs["role"] == "roles/cloudkms.cryptoKeyEncrypterDecrypter"
        key = node.inputs["cryptoKeyId"].rpartition("/")[2]
        granted.setdefault(key, set()).add(node.inputs["member"].removeprefix("serviceAccount:"))
    assert granted == {key: AGENTS[_store(key)] for key in granted}
    assert {node.name for node in graph.of("CryptoKey")} == set(granted)
    assert {_store(key) for key in granted} == set(AGENTS)


def test_a_key_is_where_its_store_is(graph: Graph) -> None:
    where = {node.name: node.inputs["keyRing"].split("/")[3] for node in graph.of("CryptoKey")}
    config = stack_config(graph.stack)
    assert where.pop("bigquery") == where.pop("backups") == config["warehouseLocation"].lower()
    for region in config["spannerKeyRegions"]:
        assert where.pop(f"spanner-{region}") == region
    assert set(where.values()) == {config["region"]}


def test_a_multi_region_spanner_has_a_key_in_each_region(prod: Graph) -> None:
    keys = {node.name for node in prod.of("CryptoKey") if _store(node.name) == "spanner"}
    assert keys == {"spanner-us-east4", "spanner-us-east1", "spanner-us-central1"}
    assert {n.name for n in graph_of("dev").of("CryptoKey") if _store(n.name) == "spanner"} == {"spanner"}


def _keys_of(node: Node) -> set[str]:
    """The keys that a resource uses."""
    if node.type.startswith("gcp:kms/"):
        return set()
    return set(re.findall(r"/keyRings/audit/cryptoKeys/([\w-]+)", str(dict(node.inputs))))


def test_a_store_is_made_when_its_service_may_encrypt(graph: Graph) -> None:
    keyed = {node.kind for node in graph.nodes if _keys_of(node)}
    assert keyed >= {"Bucket", "Database", "Dataset", "Table", "Secret", "ProjectBucketConfig", "FlexTemplateJob"}
    for node in graph.nodes:
        awaited = " ".join(node.options.dependencies)
        for key in _keys_of(node):
            for grant in graph.of("CryptoKeyIAMMember"):
                if grant.inputs["cryptoKeyId"].endswith(f"/{key}"):
                    assert f"CryptoKeyIAMMember::{grant.name}" in awaited, f"{node.id} before {grant.name}"


def test_each_bucket_has_the_key_of_its_kind_and_each_key_a_store(graph: Graph) -> None:
    for bucket in graph.of("Bucket"):
        assert _keys_of(bucket) == {"backups" if bucket.name == "backups" else "storage"}, bucket.id
    used = {key for node in graph.nodes for key in _keys_of(node)}
    assert {node.name for node in graph.of("CryptoKey")} == used


def test_old_versions_are_kept_where_they_matter(graph: Graph) -> None:
    versioned = {node.name for node in graph.of("Bucket") if node.inputs["versioning"] == {"enabled": True}}
    assert versioned == {"dead-letters", "templates", "backups"}


def test_keys_rotate_as_config_says() -> None:
    graph = graph_of("dev", {"keyRotationDays": 30})
    assert {node.inputs["rotationPeriod"] for node in graph.of("CryptoKey")} == {"2592000s"}


def test_dev_may_leave_encryption_to_google() -> None:
    graph = graph_of("dev", {"customerManagedKeys": False})
    assert [node.id for node in graph.nodes if node.type.startswith("gcp:kms/")] == []
    # Cloud Run's agent pulls images, the proxy's calls the console.
    assert [node.name for node in graph.of("ServiceIdentity")] == ["run-agent", "iap-agent"]
    assert [node.id for node in graph.of("Bucket") if "encryption" in node.inputs] == []
    assert "cmekSettings" not in graph.one("ProjectBucketConfig").inputs


def test_what_google_never_deletes_is_kept_when_a_stack_is_destroyed() -> None:
    kept = graph_of("dev", CI).of(*KEPT)
    assert {node.kind for node in kept} == set(KEPT)
    assert all(node.options.retainOnDelete for node in kept)
    assert not [node.id for node in kept if node.options.importId]


def test_the_next_up_of_a_destroyed_stack_adopts_what_was_kept() -> None:
    graph = graph_of("dev", {**CI, "adoptRetained": True})
    adopted = {node.name: node.options.importId for node in graph.nodes if node.options.importId}
    # The importer of a log bucket would make it another project's: the provider's create takes it over.
    assert adopted.keys() == {node.name for node in graph.of(*KEPT) if node.type not in TAKEN_OVER}
    assert {node.type for node in graph.of(*KEPT)} >= TAKEN_OVER
    places = "projects/payment-audit-dev/locations"
    assert adopted["audit-us-central1"] == f"{places}/us-central1/keyRings/audit"
    assert adopted["storage"] == f"{places}/us-central1/keyRings/audit/cryptoKeys/storage"
    assert adopted["ci-pool"] == f"{places}/global/workloadIdentityPools/ci-pool"
    assert adopted["ci-oidc"] == f"{places}/global/workloadIdentityPools/ci-pool/providers/ci-oidc"


def test_keys_cannot_be_taken_away_in_prod(prod: Graph) -> None:
    assert all(node.options.protect for node in prod.of("KeyRing", "CryptoKey"))


def test_a_letter_that_is_to_be_retried_is_never_deleted_by_age(graph: Graph) -> None:
    rules = graph.one("Bucket", "dead-letters").inputs["lifecycleRules"]
    by_age = [rule["condition"] for rule in rules if "age" in rule["condition"]]
    assert by_age == [{"age": stack_config(graph.stack)["dlqRetentionDays"], "matchesPrefixes": ["severe/"]}]


def test_memory_profiles_expire_and_the_job_cannot_read_them(graph: Graph) -> None:
    profiles = graph.one("Bucket", "memory-profiles").inputs
    assert [rule["condition"]["age"] for rule in profiles["lifecycleRules"]] == [7]
    assert graph.one("BucketIAMMember", "memory-profiles-pipeline").inputs["role"] == "roles/storage.objectCreator"


def test_the_job_has_nothing_to_do_with_backups(graph: Graph) -> None:
    backups = graph.one("Bucket", "backups").inputs
    assert backups["versioning"] == {"enabled": True}
    granted = [n.inputs for n in graph.of("BucketIAMMember") if n.inputs["bucket"] == backups["name"]]
    assert {(g["member"].partition("@")[0], g["role"]) for g in granted} == {
        (f"serviceAccount:{who}-sa", "roles/storage.objectUser") for who in ("backup", "erasure")
    }
    # A partition is exported once: nothing of it goes by its age.
    assert [set(rule["condition"]) for rule in backups["lifecycleRules"]] == [{"daysSinceNoncurrentTime"}]


def test_every_access_to_data_is_logged(graph: Graph) -> None:
    audited = {node.inputs["service"]: node.inputs["auditLogConfigs"] for node in graph.of("IAMAuditConfig")}
    assert audited.keys() == {f"{api}.googleapis.com" for api in ("spanner", "bigquery", "secretmanager")}
    for configs in audited.values():
        assert {config["logType"] for config in configs} == {"ADMIN_READ", "DATA_READ", "DATA_WRITE"}


def test_an_exemption_saves_log_volume_but_hides_no_reader_of_the_masking_keys() -> None:
    graph = graph_of("dev", {"auditLogExemptions": ["dataflow-sa"]})
    exempted = {
        node.inputs["service"]: {tuple(c.get("exemptedMembers", ())) for c in node.inputs["auditLogConfigs"]}
        for node in graph.of("IAMAuditConfig")
    }
    worker = ("serviceAccount:dataflow-sa@payment-audit-dev.iam.gserviceaccount.com",)
    assert exempted["spanner.googleapis.com"] == {worker}
    assert exempted["secretmanager.googleapis.com"] == {()}


def test_in_prod_nobody_is_exempted(prod: Graph) -> None:
    assert not [c for n in prod.of("IAMAuditConfig") for c in n.inputs["auditLogConfigs"] if c.get("exemptedMembers")]


def test_logs_go_to_the_bucket_with_its_own_key_and_nowhere_else(graph: Graph) -> None:
    bucket = graph.one("ProjectBucketConfig").inputs
    assert bucket["cmekSettings"]["kmsKeyName"].endswith("/cryptoKeys/logging")
    assert bucket["retentionDays"] == stack_config(graph.stack)["logRetentionDays"]
    sink, exclusion = graph.one("ProjectSink").inputs, graph.one("ProjectExclusion").inputs
    assert sink["destination"].startswith("logging.googleapis.com/projects/")
    assert sink["destination"].endswith("/buckets/audit-logs")
    assert sink["filter"] == exclusion["filter"]
    assert "data_access" in sink["filter"]
    assert 'job_name="audit-stream-job"' in sink["filter"]


def test_no_two_stacks_share_a_name_that_is_unique_in_the_world() -> None:
    graphs = [graph_of(stack) for stack in ("dev", "staging", "prod")]
    projects = [graph.outputs["project"] for graph in graphs]
    assert len(set(projects)) == 3
    for graph, project in zip(graphs, projects, strict=True):
        for node in graph.of("Bucket"):
            assert node.inputs["name"].startswith(f"{project}-"), node.id
        for node in graph.nodes:
            foreign = [other for other in projects if other != project and other in str(dict(node.inputs))]
            assert foreign == [], node.id


def test_two_stacks_in_one_project_without_a_prefix_are_refused() -> None:
    with pytest.raises(SettingsError, match="prefix must be another one than that of prod, which is in"):
        graph_of("dev", {"project": "payment-audit-prod"})
