"""Who may do what in the stores, what the job is launched with, and what config changes of it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from google.cloud.dataflow_v1beta3 import ContainerSpec

from bootstrap.roles import KEEP_TABLES
from components.outputs import looker_studio
from contract import queries, schema, tables
from graph.resources import IMAGE, Graph
from pipeline.image import template
from support import connection as connections
from tests.infra.given_back import NOT_READ_BACK
from tests.infra.graphs import graph_of
from tests.shipped import AUDIT_LOG_DATASET, PAYMENT_DATASET, PAYMENT_TABLE, WATCHED

DATASETS = {PAYMENT_DATASET, AUDIT_LOG_DATASET}
SUPPORT = "group:support-staff@example.com"
LEADS = "group:support-leads@example.com"
ON_CALL = "group:audit-on-call@example.com"


def account(graph: Graph, name: str) -> str:
    return f"serviceAccount:{name}@{graph.outputs['project']}.iam.gserviceaccount.com"


def grants(graph: Graph, member: str) -> set[tuple[str, str]]:
    """(role, what it is on) of everything that a member was granted."""
    found = set()
    for node in graph.nodes:
        if node.inputs.get("member") == member:
            on = ("tableId", "datasetId", "database", "bucket", "secretId", "repository", "policyTag", "dataPolicyId")
            place = next((str(node.inputs[key]) for key in on if node.inputs.get(key)), node.type.split(":")[1])
            found.add((node.inputs["role"].removeprefix("roles/"), place.removeprefix(f"{graph.outputs['project']}-")))
    return found


# ---------------------------------------------------------------------------------------------- warehouse


def test_support_sees_the_views_dataset_and_nothing_below_it(prod: Graph) -> None:
    assert grants(prod, SUPPORT) == {
        ("bigquery.dataViewer", tables.VIEWS_DATASET),
        ("bigquery.jobUser", "projects/iAMMember"),
        ("bigquerydatapolicy.maskedReader", "personal_as_null"),
        ("iap.httpsResourceAccessor", "iap/webCloudRunServiceIamMember"),
        ("storage.objectViewer", "templates"),
    }


def test_the_tables_datasets_trust_the_views_whoever_reads_them(graph: Graph) -> None:
    trusted = {node.inputs["datasetId"]: node.inputs["authorizedDataset"] for node in graph.of("DatasetAccess")}
    assert set(trusted) == DATASETS
    for trust in trusted.values():
        assert trust["dataset"]["datasetId"] == tables.VIEWS_DATASET
        assert trust["targetTypes"] == ["VIEWS"]


def test_nobody_but_the_deployer_can_make_a_view_that_is_trusted(graph: Graph) -> None:
    on_views = [n.inputs for n in graph.of("DatasetIamMember") if n.inputs["datasetId"] == tables.VIEWS_DATASET]
    assert {grant["role"] for grant in on_views} == {"roles/bigquery.dataViewer", "roles/bigquery.metadataViewer"}
    # The account that makes missing tables makes them in the datasets that trust: a view of its there is one that
    # nobody trusts, and to have it trusted takes datasets.update.
    keeper = KEEP_TABLES.of(graph.outputs["project"])
    assert {n.inputs["datasetId"] for n in graph.of("DatasetIamMember") if n.inputs["role"] == keeper} == DATASETS
    assert [p for p in KEEP_TABLES.permissions if not p.endswith((".get", ".list"))] == ["bigquery.tables.create"]


def test_the_views_dataset_holds_views_and_every_prebuilt_query_as_a_function(graph: Graph) -> None:
    there = [node for node in graph.of("Table") if node.inputs["datasetId"] == tables.VIEWS_DATASET]
    assert {node.inputs["tableId"] for node in there} == set(queries.views())
    assert all(node.inputs.get("view") for node in there)
    functions = {node.inputs["routineId"]: node.inputs for node in graph.of("Routine")}
    assert set(functions) == set(queries.queries(WATCHED))
    assert functions["stuck_payments"]["arguments"][0] == {
        "name": "p_statuses",
        "dataType": '{"typeKind": "ARRAY", "arrayElementType": {"typeKind": "STRING"}}',
    }


def test_views_wait_for_the_tables_and_functions_for_the_views(graph: Graph) -> None:
    changelog = tables.changelogs(WATCHED)[PAYMENT_TABLE].id
    [view] = [node for node in graph.of("Table") if node.name == f"{tables.VIEWS_DATASET}.payment_current"]
    assert any(urn.endswith(f"::{changelog}") for urn in view.options.dependencies)
    for function in graph.of("Routine"):
        assert any(urn.endswith("::payment_views.payment_current") for urn in function.options.dependencies)


def test_the_merge_waits_for_the_tables_that_it_widens_to(graph: Graph) -> None:
    merge = graph.one("DataTransferConfig", "merge-payment-state")
    for table in (tables.payment_state_table(WATCHED).id, tables.changelogs(WATCHED)[PAYMENT_TABLE].id):
        assert any(urn.endswith(f"::{table}") for urn in merge.options.dependencies)


def test_every_dataset_and_table_is_encrypted_with_the_stack_s_key(graph: Graph) -> None:
    for node in graph.of("Dataset"):
        assert "/cryptoKeys/bigquery" in node.inputs["defaultEncryptionConfiguration"]["kmsKeyName"], node.id
    for node in graph.of("Table"):
        if not node.inputs.get("view"):
            assert "/cryptoKeys/bigquery" in node.inputs["encryptionConfiguration"]["kmsKeyName"], node.id
    without = graph_of("dev", {"customerManagedKeys": False})
    assert not any(n.inputs.get("defaultEncryptionConfiguration") for n in without.of("Dataset"))


def test_changes_expire_only_where_config_says_so() -> None:
    def days(graph: Graph, table: str) -> float | None:
        partitioning = graph.one("Table", table).inputs["timePartitioning"]
        return partitioning["expirationMs"] / 86_400_000 if "expirationMs" in partitioning else None

    changelog = tables.changelogs(WATCHED)[PAYMENT_TABLE].id
    assert days(graph_of("dev"), changelog) is None
    kept = graph_of("dev", {"partitionExpirationDays": 400})
    noted = (tables.resume_positions(WATCHED).id, tables.stuck_payments_seen(WATCHED).id)
    assert [days(kept, table) for table in (changelog, *noted)] == [400, 30, 30]
    assert [days(graph_of("dev"), table) for table in noted] == [30, 30]


def test_accounts_have_what_their_work_takes(graph: Graph) -> None:
    expected = {
        "validation-sa": {("bigquery.dataEditor", dataset) for dataset in DATASETS},
        "backup-sa": {
            *(("bigquery.dataViewer", dataset) for dataset in {*DATASETS, tables.ACCESS_DATASET}),
            ("bigquery.dataEditor", tables.BACKUPS_DATASET),
            ("bigquery.dataEditor", tables.RESTORED_DATASET),
        },
        "probe-sa": {
            *(("bigquery.dataViewer", dataset) for dataset in {*DATASETS, tables.VIEWS_DATASET}),
            ("bigquery.dataEditor", tables.stuck_payments_seen(WATCHED).name),
        },
        "console-sa": {("bigquery.dataViewer", tables.VIEWS_DATASET)},
        "card-search-sa": {("bigquery.dataViewer", tables.VIEWS_DATASET)},
    }
    for name, wanted in expected.items():
        found = {grant for grant in grants(graph, account(graph, name)) if grant[0].startswith("bigquery.data")}
        assert found == wanted, name
        assert ("bigquery.jobUser", "projects/iAMMember") in grants(graph, account(graph, name))


# ---------------------------------------------------------------------------------------------- personal data


def test_personal_columns_are_tagged_in_every_table_and_open_to_the_chosen(prod: Graph) -> None:
    tagged = {
        column["name"]
        for node in prod.of("Table")
        if node.inputs.get("schema")
        for column in json.loads(node.inputs["schema"])
        if "policyTags" in column
    }
    assert tagged == {
        *("CustomerId", "UserId", "CardholderName_token", "Metadata"),
        *(tables.CUSTOMER_ID, tables.ACTING_USER, tables.OLD_VALUES, tables.EXACT_VALUES),
    }
    readers = [n.inputs["member"] for n in prod.of("PolicyTagIamMember")]
    assert set(readers) == {
        LEADS,
        *(account(prod, f"{who}-sa") for who in ("merge", "backup", "validation", "erasure", "console")),
    }
    masked = [n.inputs["member"] for n in prod.of("DataPolicyIamMember")]
    views = ("probe", "card-search", "deployer")
    assert set(masked) == {SUPPORT, ON_CALL, *(account(prod, f"{who}-sa") for who in views)}
    assert prod.one("DataPolicy").inputs["dataMaskingPolicy"] == {"predefinedExpression": "ALWAYS_NULL"}


def test_every_account_that_reads_a_tagged_column_may(prod: Graph) -> None:
    """Who may do neither gets an error for the whole query, not a NULL."""
    may = {n.inputs["member"] for n in prod.of("PolicyTagIamMember", "DataPolicyIamMember")}
    read_no_row = {"roles/bigquery.metadataViewer", KEEP_TABLES.of(prod.outputs["project"])}
    assert not [p for p in KEEP_TABLES.permissions if "Data" in p]
    for node in prod.of("DatasetIamMember", "IamMember"):
        # The job appends, and looks up change ids: neither reads a personal column.
        if node.inputs["member"] != account(prod, "dataflow-sa") and node.inputs["role"] not in read_no_row:
            assert node.inputs["member"] in may, node.id


def test_without_chosen_readers_nothing_is_hidden() -> None:
    graph = graph_of("dev")
    assert not graph.of("Taxonomy", "PolicyTag", "DataPolicy")
    columns = [column for node in graph.of("Table") for column in json.loads(node.inputs.get("schema", "[]"))]
    assert [column["name"] for column in columns if column.get("policyTags", {}).get("names")] == []


# ---------------------------------------------------------------------------------------------- Spanner


def test_under_fine_grained_access_each_acts_as_its_role_alone(prod: Graph) -> None:
    on_source = [n.inputs for n in prod.of("DatabaseIAMMember") if n.inputs["database"] == "audit-db"]
    for name, role in (("application-sa", schema.WRITER_ROLE), ("dataflow-sa", schema.READER_ROLE)):
        held = [grant for grant in on_source if grant["member"] == account(prod, name)]
        assert {grant["role"] for grant in held} == {
            "roles/spanner.fineGrainedAccessUser",
            "roles/spanner.databaseRoleUser",
        }
        [condition] = [grant["condition"]["expression"] for grant in held if grant.get("condition")]
        assert condition == (
            f'resource.type == "spanner.googleapis.com/DatabaseRole" && resource.name.endsWith("/databaseRoles/{role}")'
        )
    assert prod.one("FlexTemplateJob").inputs["parameters"]["spannerDatabaseRole"] == schema.READER_ROLE


def test_with_database_roles_the_job_names_none() -> None:
    graph = graph_of("dev")
    assert ("spanner.databaseReader", "audit-db") in grants(graph, account(graph, "dataflow-sa"))
    assert "spannerDatabaseRole" not in graph.one("FlexTemplateJob").inputs["parameters"]


def test_the_changelog_makes_the_roles_and_grants_no_more_than_they_need() -> None:
    statements = schema.statements(contexts=frozenset({"cloud"}))
    to_reader = [s for s in statements if s.endswith(f"TO ROLE {schema.READER_ROLE}")]
    to_writer = [s for s in statements if s.endswith(f"TO ROLE {schema.WRITER_ROLE}")]
    streams, watched = schema.change_streams(), schema.tables()
    assert to_reader == [
        f"GRANT SELECT ON CHANGE STREAM {', '.join(streams)} TO ROLE {schema.READER_ROLE}",
        f"GRANT EXECUTE ON TABLE FUNCTION {', '.join(f'READ_{name}' for name in streams)} TO ROLE {schema.READER_ROLE}",
    ]
    assert to_writer == [f"GRANT SELECT, INSERT, UPDATE ON TABLE {', '.join(watched)} TO ROLE {schema.WRITER_ROLE}"]
    for role in (schema.READER_ROLE, schema.WRITER_ROLE):
        granted = [s for s in statements if s.endswith(f"TO ROLE {role}")]
        assert all(statements.index(f"CREATE ROLE {role}") < statements.index(grant) for grant in granted)


def test_a_multi_region_instance_has_a_key_in_each_region(prod: Graph) -> None:
    encryption = prod.one("Database", "audit-db").inputs["encryptionConfig"]
    assert [re.findall(r"locations/([\w-]+)/", key)[0] for key in encryption["kmsKeyNames"]] == [
        "us-east4",
        "us-east1",
        "us-central1",
    ]
    assert "kmsKeyName" in graph_of("dev").one("Database", "audit-db").inputs["encryptionConfig"]


def test_databases_are_googlesql_and_keep_old_versions_as_long_as_config_says() -> None:
    graph = graph_of("dev", {"spannerVersionRetention": "3d"})
    for database in graph.of("Database"):
        assert database.inputs["databaseDialect"] == "GOOGLE_STANDARD_SQL", database.id
        assert database.inputs["versionRetentionPeriod"] == "3d", database.id


def test_metadata_can_have_an_instance_of_its_own() -> None:
    graph = graph_of("dev", {"metadataProcessingUnits": 100})
    own = graph.one("Instance", "audit-metadata-instance").inputs
    assert (own["processingUnits"], own["config"]) == (100, "regional-us-central1")
    assert graph.one("Database", "audit-metadata").inputs["instance"] == "audit-metadata-instance"
    assert graph.one("FlexTemplateJob").inputs["parameters"]["spannerMetadataInstanceId"] == "audit-metadata-instance"
    assert graph.outputs["metadataInstance"] == "audit-metadata-instance"


def test_an_autoscaled_instance_has_no_fixed_size(prod: Graph) -> None:
    instance = prod.one("Instance", "audit-instance").inputs
    assert "processingUnits" not in instance
    assert instance["autoscalingConfig"]["autoscalingTargets"]["highPriorityCpuUtilizationPercent"] == 45


@pytest.mark.parametrize(
    ("edition", "kind"),
    [
        ("STANDARD", "fullBackupSpec"),
        ("ENTERPRISE", "incrementalBackupSpec"),
        ("ENTERPRISE_PLUS", "incrementalBackupSpec"),
    ],
)
def test_backups_are_incremental_where_the_edition_has_them(edition: str, kind: str) -> None:
    config = {"spannerEdition": edition, "spannerBackupDays": 9, "spannerBackupCron": "30 1 * * *"}
    schedule = graph_of("dev", config).one("BackupSchedule").inputs
    assert {key for key in schedule if key.endswith("BackupSpec")} == {kind}
    assert schedule["retentionDuration"] == f"{9 * 86_400}s"
    assert schedule["spec"] == {"cronSpec": {"text": "30 1 * * *"}}
    assert schedule["encryptionConfig"] == {"encryptionType": "USE_DATABASE_ENCRYPTION"}


def test_a_backup_is_of_the_audit_database_alone(prod: Graph) -> None:
    [schedule] = prod.of("BackupSchedule")
    assert (schedule.inputs["instance"], schedule.inputs["database"]) == ("audit-instance", "audit-db")
    assert graph_of("dev", {"spannerBackupDays": 0}).of("BackupSchedule") == []


# ---------------------------------------------------------------------------------------------- masking key


def test_the_masking_key_is_read_by_four_accounts_and_no_person(prod: Graph) -> None:
    members = {node.inputs["member"] for node in prod.of("SecretIamMember")}
    assert members == {account(prod, f"{who}-sa") for who in ("dataflow", "validation", "erasure", "card-search")}
    [replica] = prod.one("Secret").inputs["replication"]["userManaged"]["replicas"]
    assert replica["customerManagedEncryption"]["kmsKeyName"].endswith("/cryptoKeys/secrets")


def test_people_search_by_card_as_an_account_that_may(prod: Graph) -> None:
    acting = [n.inputs for n in prod.of("IAMMember") if n.inputs["role"] == "roles/iam.serviceAccountTokenCreator"]
    assert [grant["member"] for grant in acting] == [LEADS]
    assert acting[0]["serviceAccountId"].endswith(f"card-search-sa@{prod.outputs['project']}.iam.gserviceaccount.com")


# ---------------------------------------------------------------------------------------------- image and job


def test_the_template_is_named_for_what_is_in_it(graph: Graph) -> None:
    made = graph.one("BucketObject", "template").inputs
    project = graph.outputs["project"]
    size = {
        key: int(graph.config[setting]) for key, setting in (("numWorkers", "workers"), ("maxWorkers", "maxWorkers"))
    }
    places = {f"{purpose}Location": f"gs://{project}-{purpose}/{purpose}" for purpose in ("temp", "staging")}
    text = template.text(IMAGE, {"machineType": graph.config["machineType"], **size, **places})
    assert made["source"].text == text
    assert made["name"] == f"audit-stream-job-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    place = f"gs://{graph.outputs['project']}-templates/{made['name']}"
    assert graph.one("FlexTemplateJob").inputs["containerSpecGcsPath"] == graph.outputs["templatePath"] == place


def environment(graph: Graph) -> dict[str, Any]:
    """What the template says of every launch."""
    spec = json.loads(graph.one("BucketObject", "template").inputs["source"].text)
    return dict(spec["defaultEnvironment"])


def test_what_the_provider_does_not_read_back_is_in_the_template_alone(graph: Graph) -> None:
    """As an argument it would be a change in every preview, and each change drains the job and starts another."""
    assert not {*NOT_READ_BACK, "maxWorkers"} & graph.one("FlexTemplateJob").inputs.keys()
    assert {*NOT_READ_BACK, "maxWorkers"} <= environment(graph).keys()
    text = graph.one("BucketObject", "template").inputs["source"].text
    assert ContainerSpec.from_json(text, ignore_unknown_fields=False), "Google's own type reads it"


def test_another_size_of_the_workers_is_another_template() -> None:
    before = graph_of("dev").one("FlexTemplateJob").inputs["containerSpecGcsPath"]
    for setting in ({"machineType": "n2-standard-8"}, {"maxWorkers": 2}, {"workers": 2, "maxWorkers": 2}):
        assert graph_of("dev", setting).one("FlexTemplateJob").inputs["containerSpecGcsPath"] != before


def test_a_job_that_a_failed_start_left_is_taken_over(graph: Graph) -> None:
    assert graph.one("FlexTemplateJob").inputs["createIgnoreAlreadyExists"] is True


def test_workers_run_in_the_template_s_image_and_may_pull_it(graph: Graph) -> None:
    assert environment(graph)["sdkContainerImage"] == IMAGE
    pulls = [node.inputs for node in graph.of("RepositoryIamMember")]
    assert {grant["member"] for grant in pulls} == {
        *(account(graph, f"{who}-sa") for who in ("dataflow", "validation", "backup")),
        "serviceAccount:service-123456789012@serverless-robot-prod.iam.gserviceaccount.com",
    }
    for grant in pulls:
        place = (grant["project"], grant["location"], grant["repository"], grant["role"])
        assert place == ("images", "us-central1", "audit-images", "roles/artifactregistry.reader")


def test_a_template_of_one_s_own_is_used_as_it_is() -> None:
    graph = graph_of("dev", {"image": "", "consoleImage": "", "templatePath": "gs://mine/t.json"})
    assert graph.one("FlexTemplateJob").inputs["containerSpecGcsPath"] == "gs://mine/t.json"
    assert [node.name for node in graph.of("BucketObject", "RepositoryIamMember")] == ["connection"]


def test_composer_gets_the_template_without_a_job() -> None:
    graph = graph_of("dev", {"pipelineOwner": "scheduler"})
    assert graph.one("BucketObject", "template")
    assert graph.outputs["templatePath"].startswith("gs://payment-audit-dev-templates/audit-stream-job-")
    assert graph.outputs["jobPage"] == "https://console.cloud.google.com/dataflow/jobs?project=payment-audit-dev"


def test_composer_s_launcher_acts_as_the_worker_alone() -> None:
    graph = graph_of("dev", {"pipelineOwner": "scheduler"})
    assert grants(graph, account(graph, "launcher-sa")) == {
        ("dataflow.developer", "projects/iAMMember"),
        ("iam.serviceAccountUser", "serviceaccount/iAMMember"),
        ("storage.objectViewer", "templates"),
        ("storage.objectUser", "staging"),
        ("storage.objectUser", "temp"),
        ("artifactregistry.reader", "audit-images"),
        # Before it launches the job it looks for tables and another job, and it records what it did.
        ("bigquery.metadataViewer", tables.VIEWS_DATASET),
        *((KEEP_TABLES.of(graph.outputs["project"]).removeprefix("roles/"), dataset) for dataset in DATASETS),
        ("spanner.databaseUser", "audit-metadata"),
    }
    [acts] = [n.inputs for n in graph.of("IAMMember") if n.name == "launcher-as-worker"]
    assert acts["serviceAccountId"].endswith(f"dataflow-sa@{graph.outputs['project']}.iam.gserviceaccount.com")


def test_the_job_is_private_encrypted_labelled_and_bounded(graph: Graph) -> None:
    job = graph.one("FlexTemplateJob").inputs
    assert job["enableStreamingEngine"] is True
    assert job["ipConfiguration"] == "WORKER_IP_PRIVATE"
    assert job["subnetwork"].startswith("regions/")
    assert job["kmsKeyName"].endswith("/cryptoKeys/dataflow")
    assert job["labels"]["stack"] == graph.stack
    assert "use_runner_v2" in job["additionalExperiments"]
    assert environment(graph)["machineType"] == ("n1-standard-1" if graph.stack == "dev" else "n2-standard-4")
    assert environment(graph)["numWorkers"] <= environment(graph)["maxWorkers"]
    assert "number_of_worker_harness_threads=12" in job["additionalPipelineOptions"]


def test_config_reaches_the_job_where_it_has_no_argument() -> None:
    given = {"diskSizeGb": 50, "workerHarnessThreads": 4, "profileMemory": True, "writeMode": "at-least-once"}
    job = graph_of("dev", given).one("FlexTemplateJob").inputs
    assert job["additionalPipelineOptions"] == [
        "disk_size_gb=50",
        "number_of_worker_harness_threads=4",
        "profiler_agent=memray",
        "profile_location=gs://payment-audit-dev-memory-profiles",
    ]
    assert job["additionalExperiments"][:2] == ["use_runner_v2", "streaming_mode_at_least_once"]


def test_dataflow_keeps_no_sample_of_what_a_step_was_given() -> None:
    """Exception sampling is on unless it is switched off, and keeps the element that a step failed with."""
    experiments = graph_of("dev").one("FlexTemplateJob").inputs["additionalExperiments"]
    assert [name for name in experiments if "sampling" in name] == ["disable_always_on_exception_sampling"]


def test_beam_knows_every_option_that_the_job_is_given() -> None:
    from apache_beam.options.pipeline_options import DebugOptions, PipelineOptions, ProfilingOptions, WorkerOptions

    job = graph_of("dev", {"profileMemory": True}).one("FlexTemplateJob").inputs
    options = PipelineOptions([f"--{option}" for option in job["additionalPipelineOptions"]])
    assert options.view_as(WorkerOptions).disk_size_gb == 30
    assert options.view_as(DebugOptions).number_of_worker_harness_threads == 12
    profiling = options.view_as(ProfilingOptions)
    assert (profiling.profiler_agent, profiling.profile_location) == (
        "memray",
        "gs://payment-audit-dev-memory-profiles",
    )


# ---------------------------------------------------------------------------------------------- what people get


def test_looker_studio_opens_on_the_current_state() -> None:
    link = urlparse(looker_studio("payment-audit-dev", tables.VIEWS_DATASET))
    assert (link.netloc, link.path) == ("lookerstudio.google.com", "/reporting/create")
    asked: dict[str, Any] = {key: value for key, [value] in parse_qs(link.query).items()}
    assert asked == {
        "c.mode": "edit",
        "r.reportName": "Payment audit",
        "ds.ds0.connector": "bigQuery",
        "ds.ds0.datasourceName": "payment_current",
        "ds.ds0.type": "TABLE",
        "ds.ds0.projectId": "payment-audit-dev",
        "ds.ds0.billingProjectId": "payment-audit-dev",
        "ds.ds0.datasetId": "payment_views",
        "ds.ds0.tableId": "payment_current",
    }


def test_a_looker_studio_template_gets_the_views_as_its_data_sources() -> None:
    link = graph_of("dev", {"lookerTemplate": "421c8150-e7ad-4190-b044-6a18ecdbd391"}).outputs["lookerStudio"]
    asked = {key: value for key, [value] in parse_qs(urlparse(link).query).items()}
    assert asked["c.reportId"] == "421c8150-e7ad-4190-b044-6a18ecdbd391"
    views = {key: value for key, value in asked.items() if key.endswith(".tableId")}
    assert views == {
        "ds.ds0.tableId": "payment_current",
        "ds.ds1.tableId": "payment_transitions",
        "ds.ds2.tableId": "payment_timeline",
        "ds.ds3.tableId": "complete_until",
    }
    for number in range(4):
        source = (asked[f"ds.ds{number}.{key}"] for key in ("connector", "type", "datasetId", "billingProjectId"))
        assert tuple(source) == ("bigQuery", "TABLE", "payment_views", "payment-audit-dev")


def test_the_outputs_tell_a_person_where_to_look(graph: Graph) -> None:
    project = graph.outputs["project"]
    assert graph.outputs["viewsDataset"] == "payment_views"
    assert f"project={project}" in graph.outputs["jobPage"]
    assert project in graph.outputs["viewsPage"]
    assert graph.outputs["sqlConnection"]["jdbc"].startswith("jdbc:bigquery://")
    place = f"gs://{project}-templates/connection.json"
    assert graph.outputs["commands"]["connect"] == f"gcloud storage cat {place} > connection.json"
    assert re.fullmatch(rf"https://console\.cloud\.google\.com/\S+project={project}", graph.outputs["dashboard"])


def test_who_has_no_pulumi_state_reads_the_connection_in_a_bucket(graph: Graph, tmp_path: Path) -> None:
    made = graph.one("BucketObject", "connection").inputs
    assert (made["bucket"], made["name"]) == (f"{graph.outputs['project']}-templates", "connection.json")
    file = tmp_path / "connection.json"
    # The SDK takes what is in any object for a secret.
    file.write_text(made["content"]["value"])
    assert connections.load(file).job_name == graph.outputs["jobName"]
    known = json.loads(file.read_text())
    assert known == {key: graph.outputs[key] for key in known}


def test_the_outputs_lead_to_the_runbooks_where_config_says_where_they_are() -> None:
    for stack in ("dev", "staging", "prod"):
        assert graph_of(stack).outputs["runbooks"].endswith("/runbooks")


@pytest.mark.parametrize("name", ["search", "searchByCard", "health"])
def test_a_command_of_the_outputs_is_one_that_audit_has(name: str) -> None:
    from click.testing import CliRunner

    from support.cli.main import main

    program, *arguments = graph_of("dev").outputs["commands"][name].split()
    assert program == "./audit"
    shown = CliRunner().invoke(main, [*arguments, "--help"])
    assert shown.exit_code == 0, shown.output
