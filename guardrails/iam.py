"""Who may do what: every grant of the three stacks, each with its reason.

    python -m guardrails.iam         writes docs/iam.md

REASONS is where a new grant says why it is needed; a test refuses a grant without a reason, a reason without a grant,
and a docs/iam.md that says something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from components import naming
from components.config import ROOT
from contract import operations
from contract.errors import AuditError
from graph.resources import Graph, Node, graph_of

DOCUMENT: Final = ROOT / "docs" / "iam.md"
STACKS: Final = ("dev", "staging", "prod")


class Grant(NamedTuple):
    """`principal` is an account's name, `readers`, or what is in the member; `role` is without `roles/`."""

    principal: str
    resource: str
    role: str


class UnnamedResource(AuditError, LookupError):
    """A kind of grant that nobody has said how to name; the message says where to."""


_ENCRYPTER: Final = "cloudkms.cryptoKeyEncrypterDecrypter"

# The principal, the resource, the role, and why nothing smaller does. In the order of the data's way.
REASONS: Final[Mapping[Grant, str]] = {
    Grant("application-sa", "Spanner database audit-db", "spanner.databaseUser"): (
        "services read and write payments; it reaches no other database"
    ),
    Grant("application-sa", "Spanner database audit-db", "spanner.fineGrainedAccessUser"): (
        "services use the database as a database role, and as nothing else"
    ),
    Grant("application-sa", "Spanner database audit-db, audit_writer", "spanner.databaseRoleUser"): (
        "the role reads, inserts and updates payments; it changes no schema"
    ),
    Grant("dataflow-sa", "Spanner database audit-db", "spanner.databaseReader"): (
        "the job reads the change streams, also again for a dead letter that holds no change"
    ),
    Grant("dataflow-sa", "Spanner database audit-db", "spanner.fineGrainedAccessUser"): (
        "the job uses the database as a database role, and as nothing else"
    ),
    Grant("dataflow-sa", "Spanner database audit-db, audit_reader", "spanner.databaseRoleUser"): (
        "the role sees the change streams, and no table"
    ),
    Grant("dataflow-sa", "Spanner database audit-metadata", "spanner.databaseUser"): (
        "the job keeps its generation, write streams and resume position there"
    ),
    Grant("dataflow-sa", "secret masking-keys", "secretmanager.secretAccessor"): "the job masks with the keys",
    Grant("dataflow-sa", "secret masking-keys", "secretmanager.viewer"): (
        "the job lists the keys' versions; this role reads none of them"
    ),
    Grant("dataflow-sa", "bucket dead-letters", "storage.objectUser"): (
        "the job writes, retries and moves dead letters; it cannot change the bucket"
    ),
    Grant("dataflow-sa", "bucket temp", "storage.objectUser"): "workers write and remove scratch files",
    Grant(
        "dataflow-sa", "bucket staging", "storage.objectUser"
    ): "the launch puts the job's files there for the workers",
    Grant("dataflow-sa", "bucket templates", "storage.objectViewer"): "the launch reads the template",
    Grant("dataflow-sa", "bucket memory-profiles", "storage.objectCreator"): (
        "the job leaves a memory profile there; it can neither read nor replace one"
    ),
    Grant("dataflow-sa", "dataset payment_audit", "bigquery.dataEditor"): (
        "the job appends rows, adds columns and makes tables as the source gets new ones"
    ),
    Grant("dataflow-sa", "dataset audit_service_dataset", "bigquery.dataEditor"): (
        "the job appends rows, adds columns and makes tables as the source gets new ones"
    ),
    Grant("dataflow-sa", "project", "bigquery.jobUser"): "the job looks change ids up by query after a doubt",
    Grant("dataflow-sa", "project", naming.WORKER): "a worker leases work; Google grants it on a project alone",
    Grant("dataflow-sa", "bucket temp", "storage.legacyBucketReader"): "a worker looks at the bucket that it works in",
    Grant("dataflow-sa", "bucket staging", "storage.legacyBucketReader"): "a worker looks at the bucket of its files",
    Grant("dataflow-sa", "repository audit-images", "artifactregistry.reader"): "workers start from the job's image",
    Grant(
        "merge-sa", "table payment_audit.payment_audit_trail_bq", "bigquery.dataViewer"
    ): "merge and fill read new changes",
    Grant("merge-sa", "table audit_service_dataset.audit_logs", "bigquery.dataViewer"): "the fill reads new changes",
    Grant("merge-sa", "table payment_audit.payment_lookup", "bigquery.dataEditor"): (
        "the fill adds on which days something happened to a payment"
    ),
    Grant("merge-sa", "table payment_audit.resume_positions", "bigquery.dataViewer"): (
        "the merge never passes the job's resume position"
    ),
    Grant("merge-sa", "table payment_audit.payment_state", "bigquery.dataEditor"): "the merge writes the current state",
    Grant("merge-sa", "table payment_audit.payment_state_progress", "bigquery.dataEditor"): (
        "the merge notes how far it has come"
    ),
    Grant("merge-sa", "project", "bigquery.jobUser"): "the merge is a query",
    Grant("merge-sa", "policy tag personal", "datacatalog.categoryFineGrainedReader"): (
        "the merge copies personal columns; masked, it would write NULL"
    ),
    Grant("probe-sa", "Spanner database audit-db", "spanner.databaseReader"): "the probe counts what was committed",
    Grant("probe-sa", "Spanner database audit-db", "spanner.fineGrainedAccessUser"): (
        "the probe uses the database as a database role, and as nothing else"
    ),
    Grant("probe-sa", "Spanner database audit-db, audit_probe", "spanner.databaseRoleUser"): (
        "the role sees the change streams and, of a payment, its id, status and time of change"
    ),
    Grant("probe-sa", "Spanner database audit-metadata", "spanner.databaseUser"): "the probe keeps its totals there",
    Grant("probe-sa", "dataset payment_audit", "bigquery.dataViewer"): "the probe counts what arrived, and when",
    Grant(
        "probe-sa", "dataset audit_service_dataset", "bigquery.dataViewer"
    ): "the probe counts what arrived, and when",
    Grant("probe-sa", "dataset payment_views", "bigquery.dataViewer"): "the probe counts payments by state",
    Grant("probe-sa", "table payment_audit.stuck_payments_seen", "bigquery.dataEditor"): (
        "the probe appends which payments are stuck; no smaller role of Google's appends, and it is on this table alone"
    ),
    Grant("probe-sa", "project", "bigquery.jobUser"): "the probe's counts are queries",
    Grant("probe-sa", "data policy personal_as_null", "bigquerydatapolicy.maskedReader"): (
        "the probe reads views with personal columns, and NULL in these"
    ),
    Grant("probe-sa", "bucket dead-letters", "storage.objectViewer"): "the probe counts the dead letters and their age",
    Grant("probe-sa", "project", "monitoring.metricWriter"): (
        "the probe writes its series; Google grants it on a project alone"
    ),
    Grant("backup-sa", "dataset payment_audit", "bigquery.dataViewer"): (
        "a snapshot is made by who may read the table; the account writes none of these tables"
    ),
    Grant("backup-sa", "dataset audit_service_dataset", "bigquery.dataViewer"): (
        "a snapshot is made by who may read the table; the account writes none of these tables"
    ),
    Grant("backup-sa", "dataset payment_access", "bigquery.dataViewer"): (
        "the access log is backed up too; its partitions are listed by who reads the dataset"
    ),
    Grant("backup-sa", "dataset payment_backups", "bigquery.dataEditor"): (
        "adds snapshots and says when they expire; this role deletes no snapshot"
    ),
    Grant("backup-sa", "dataset payment_restored", "bigquery.dataEditor"): (
        "a drill restores a backup there, compares it and drops it"
    ),
    Grant("backup-sa", "project", "bigquery.jobUser"): "snapshots are copy jobs; checksums and exports are queries",
    Grant("backup-sa", "policy tag personal", "datacatalog.categoryFineGrainedReader"): (
        "a table with personal columns is copied by who may read them; with NULL in them it could not be restored"
    ),
    Grant("backup-sa", "bucket backups", "storage.objectUser"): (
        "writes exports, and deletes those that no backup holds any more; old versions stay for a week"
    ),
    Grant("backup-sa", "Spanner database audit-metadata", "spanner.databaseUser"): (
        "what each backup holds, and what its drill found, is recorded there"
    ),
    Grant("backup-sa", "repository audit-images", "artifactregistry.reader"): "its jobs run from the job's image",
    Grant("validation-sa", "Spanner database audit-db", "spanner.databaseReader"): (
        "validation and replay read payments at a timestamp"
    ),
    Grant("validation-sa", "Spanner database audit-db", "spanner.fineGrainedAccessUser"): (
        "validation uses the database as a database role, and as nothing else"
    ),
    Grant("validation-sa", "Spanner database audit-db, audit_validation", "spanner.databaseRoleUser"): (
        "the role reads the watched tables whole, cards too: what is masked is compared with what it was made from"
    ),
    Grant("validation-sa", "Spanner database audit-metadata", "spanner.databaseUser"): (
        "validation reads the resume position; who replayed what is recorded there"
    ),
    Grant("validation-sa", "dataset payment_audit", "bigquery.dataEditor"): (
        "validation compares rows, a replay or backfill appends some, and both note what they did"
    ),
    Grant("validation-sa", "dataset audit_service_dataset", "bigquery.dataEditor"): (
        "validation compares rows, and a replay or backfill appends some"
    ),
    Grant(
        "validation-sa", "project", "bigquery.jobUser"
    ): "validation's counts and checksums are queries, and so is what a backfill leaves out",
    Grant("validation-sa", "secret masking-keys", "secretmanager.secretAccessor"): (
        "what is read in Spanner is masked as the job masks it, and then compared or appended"
    ),
    Grant("validation-sa", "secret masking-keys", "secretmanager.viewer"): (
        "lists the keys' versions; this role reads none of them"
    ),
    Grant("validation-sa", "policy tag personal", "datacatalog.categoryFineGrainedReader"): (
        "personal columns are compared too"
    ),
    Grant("validation-sa", "bucket dead-letters", "storage.objectUser"): (
        "a replay resolves dead letters that it was for"
    ),
    Grant("validation-sa", "bucket staging", "storage.objectUser"): "a replay of many payments is launched from there",
    Grant("validation-sa", "bucket temp", "storage.objectUser"): "workers of a replay write and remove scratch files",
    Grant("validation-sa", "project", "dataflow.developer"): (
        "a replay of many payments is a Dataflow job; Google grants its launch on a project alone"
    ),
    Grant("validation-sa", "bucket temp", "storage.legacyBucketReader"): "a replay's worker looks at the bucket",
    Grant("validation-sa", "bucket staging", "storage.legacyBucketReader"): "a replay's worker looks at the bucket",
    Grant("validation-sa", "project", naming.WORKER): (
        "a replay's worker leases work; Google grants it on a project alone"
    ),
    Grant("validation-sa", "account validation-sa", "iam.serviceAccountUser"): (
        "the Dataflow job that it launches runs as itself"
    ),
    Grant("validation-sa", "repository audit-images", "artifactregistry.reader"): (
        "workers of a replay start from the job's image"
    ),
    Grant("erasure-sa", "Spanner database audit-metadata", "spanner.databaseUser"): (
        "who is to be erased, the tokens by which they are known, and the resume position that it waits for"
    ),
    Grant(
        "erasure-sa", "dataset payment_audit", "bigquery.dataEditor"
    ): "redacts rows, and deletes from the lookup table",
    Grant("erasure-sa", "dataset audit_service_dataset", "bigquery.dataEditor"): "redacts rows",
    Grant("erasure-sa", "table payment_access.access_log", "bigquery.dataEditor"): (
        "takes out what was asked about a customer; no smaller role changes a row"
    ),
    Grant("erasure-sa", "dataset payment_access", "bigquery.dataViewer"): (
        "after an erasure it makes a backup, of the access log too"
    ),
    Grant("erasure-sa", "dataset payment_backups", "bigquery.dataOwner"): (
        "deletes snapshots that hold a customer; no smaller role does"
    ),
    Grant(
        "erasure-sa", "bucket backups", "storage.objectUser"
    ): "deletes exports that hold a customer, and makes new ones",
    Grant("erasure-sa", "dataset payment_views", "bigquery.dataViewer"): "finds a customer's payments as a search does",
    Grant("erasure-sa", "project", "bigquery.jobUser"): "redaction is queries",
    Grant("erasure-sa", "policy tag personal", "datacatalog.categoryFineGrainedReader"): (
        "a customer is found by a personal column, and personal columns are what it empties"
    ),
    Grant("erasure-sa", "secret masking-keys", "secretmanager.secretAccessor"): "makes the tokens of who was erased",
    Grant("erasure-sa", "secret masking-keys", "secretmanager.viewer"): (
        "lists the keys' versions; this role reads none of them"
    ),
    Grant("erasure-sa", "bucket dead-letters", "storage.objectUser"): "empties dead letters of a customer's changes",
    Grant("launcher-sa", "Spanner database audit-metadata", "spanner.databaseUser"): (
        "who keeps the pipeline reads generations and the resume position, and records what it did"
    ),
    Grant("launcher-sa", "dataset payment_audit", naming.TABLE_KEEPER): (
        "compares tables with the contract, and makes one that was never made; it reads and deletes no row"
    ),
    Grant("launcher-sa", "dataset audit_service_dataset", naming.TABLE_KEEPER): (
        "compares tables with the contract, and makes one that was never made; it reads and deletes no row"
    ),
    Grant("launcher-sa", "dataset payment_views", "bigquery.metadataViewer"): (
        "sees whether the views are there; it reads none"
    ),
    Grant("launcher-sa", "project", "dataflow.viewer"): (
        "sees whether one job runs, where Pulumi owns it; Google grants it on a project alone"
    ),
    Grant("schema-sa", "Spanner database audit-db", naming.DDL_READER): (
        "compares the database with the changelog; a custom role, since each of Google's with the DDL reads rows too"
    ),
    Grant("schema-sa", "Spanner database audit-metadata", "spanner.databaseUser"): "records its runs",
    Grant("dead-letters-sa", "bucket dead-letters", "storage.objectViewer"): "counts dead letters by reason and age",
    Grant("dead-letters-sa", "Spanner database audit-metadata", "spanner.databaseUser"): "records its runs",
    Grant("retry-sa", "bucket dead-letters", "storage.objectUser"): (
        "moves parked dead letters back to where the job retries them"
    ),
    Grant("retry-sa", "Spanner database audit-metadata", "spanner.databaseUser"): "records its runs",
    Grant("scheduler-sa", "Cloud Run service audit-starter", "run.invoker"): (
        "Cloud Scheduler calls the starter as this account, which may do nothing else"
    ),
    **{
        Grant("starter-sa", f"Cloud Run job {job}", role): reason
        for job in (naming.PROBE, *(operation.job for operation in operations.SCHEDULED))
        for role, reason in (
            ("run.invoker", "starts it by its schedule; the role overrides nothing of it"),
            ("run.viewer", "sees whether it runs, so that it is not started twice"),
        )
    },
    Grant("erasers", "Cloud Run job audit-erasure", "run.invoker"): (
        "has recorded erasures run; the job's command is fixed, and the role changes none of it"
    ),
    Grant("erasers", "Cloud Run job audit-erasure", "run.viewer"): "sees how an erasure ended",
    Grant("erasers", "Spanner database audit-metadata", "spanner.fineGrainedAccessUser"): (
        "records erasures as a database role, and does nothing else there"
    ),
    Grant("erasers", "Spanner database audit-metadata, erasure_submitter", "spanner.databaseRoleUser"): (
        "the role adds an erasure and reads what became of erasures"
    ),
    Grant("console-sa", "Cloud Run job audit-replay", "run.invoker"): (
        "the console has recorded replays run, and chooses nothing of how; it reads no payment in Spanner itself"
    ),
    Grant("console-sa", "Spanner database audit-metadata", "spanner.fineGrainedAccessUser"): (
        "the console records replays as a database role, and does nothing else there"
    ),
    Grant("console-sa", "Spanner database audit-metadata, replay_submitter", "spanner.databaseRoleUser"): (
        "the role adds a replay and reads how far replays are"
    ),
    Grant("console-sa", "dataset payment_views", "bigquery.dataViewer"): "the console searches the views",
    Grant("console-sa", "project", "bigquery.jobUser"): "a search is a query",
    Grant("console-sa", "policy tag personal", "datacatalog.categoryFineGrainedReader"): (
        "the console shows personal columns to personalDataReaders, and hides them from its other viewers"
    ),
    Grant("console-sa", "table payment_access.access_log", naming.ACCESS_LOGGER): (
        "the console notes who looked at what; a custom role, since Google's smallest reads and deletes the table too"
    ),
    Grant("console-sa", "bucket dead-letters", "storage.objectUser"): (
        "the console lists dead letters, and moves those that a lead retries"
    ),
    Grant("console-sa", "project", "monitoring.viewer"): (
        "the console shows what the objectives attained; Google grants it on a project alone"
    ),
    Grant("iap service agent", "Cloud Run service audit-console", "run.invoker"): (
        "Identity-Aware Proxy calls the console for who it lets in; nobody else may"
    ),
    Grant("console viewers", "proxy of audit-console", "iap.httpsResourceAccessor"): (
        "people whom config names open the console; what they may do there, it decides by its lists"
    ),
    Grant("console-sa", "Cloud Run service audit-card-tokens", "run.invoker"): (
        "the console asks the token service for the tokens of a card"
    ),
    Grant("card-search-sa", "dataset payment_views", "bigquery.dataViewer"): "a search by card searches the views",
    Grant("card-search-sa", "project", "bigquery.jobUser"): "a search is a query",
    Grant("card-search-sa", "secret masking-keys", "secretmanager.secretAccessor"): (
        "a card number becomes its token with the keys"
    ),
    Grant("card-search-sa", "secret masking-keys", "secretmanager.viewer"): (
        "lists the keys' versions; this role reads none of them"
    ),
    Grant("card-search-sa", "data policy personal_as_null", "bigquerydatapolicy.maskedReader"): (
        "a search by card shows NULL in personal columns"
    ),
    Grant("card searchers", "account card-search-sa", "iam.serviceAccountTokenCreator"): (
        "people search by card as this account; none has a grant on the key"
    ),
    Grant("personal data readers", "policy tag personal", "datacatalog.categoryFineGrainedReader"): (
        "those of the readers whom config chose see who the customer is"
    ),
    Grant("readers", "data policy personal_as_null", "bigquerydatapolicy.maskedReader"): (
        "all other readers see NULL in personal columns"
    ),
    Grant("readers", "dataset payment_views", "bigquery.dataViewer"): (
        "support reads the views and the prebuilt queries, and no table"
    ),
    Grant("readers", "project", "bigquery.jobUser"): "a search is a query",
    Grant("readers", "bucket templates", "storage.objectViewer"): "read connection.json, without Pulumi's state",
    Grant("on-call", "log view job", "logging.viewAccessor"): (
        "reads what the job said; who read or wrote data is in the same bucket, and not in this view"
    ),
    Grant("on-call", "project", "logging.viewer"): (
        "reads admin activity and what probe and merge said, which is in none of our buckets; no Data Access logs"
    ),
    Grant("on-call", "project", "monitoring.viewer"): (
        "sees dashboards, alerts and objectives; Google grants it on a project alone"
    ),
    Grant("on-call", "Cloud Run job audit-probe", "run.viewer"): (
        "sees whether the probe runs, and how its runs ended"
    ),
    Grant("on-call", "Cloud Run service audit-console", "run.viewer"): (
        "sees whether the console runs, and from which image"
    ),
    Grant("on-call", "Cloud Run service audit-starter", "run.viewer"): (
        "sees whether the service that starts jobs runs, and from which image"
    ),
    Grant("on-call", "Cloud Run job audit-replay", "run.invoker"): (
        "has recorded replays run, and chooses nothing of how; reads no payment in Spanner"
    ),
    Grant("on-call", "Cloud Run job audit-replay", "run.viewer"): "sees how the runs of replays ended",
    Grant("on-call", "Spanner database audit-metadata", "spanner.fineGrainedAccessUser"): (
        "records replays as a database role"
    ),
    Grant("on-call", "Spanner database audit-metadata, replay_submitter", "spanner.databaseRoleUser"): (
        "the role adds a replay and reads how far replays are"
    ),
    Grant("on-call", "Cloud Run job audit-validation", "run.viewer"): (
        "sees whether validation runs, and how its runs ended"
    ),
    Grant("on-call", "Cloud Run job audit-repair", "run.viewer"): "sees how a repair ended",
    Grant("on-call", "Cloud Run job audit-erasure", "run.viewer"): "sees why an erasure waits",
    Grant("on-call", "Cloud Run job audit-backup", "run.viewer"): "sees whether backups are made",
    Grant("on-call", "Cloud Run job audit-backup-drill", "run.viewer"): "sees whether backups are tried",
    **{
        Grant("on-call", f"Cloud Run job {operation.job}", role): reason
        for operation in (
            operations.PIPELINE,
            operations.SCHEMA,
            operations.DEAD_LETTERS,
            operations.DEAD_LETTERS_RETRY,
        )
        for role, reason in (
            ("run.invoker", "has it run now; its command is fixed, and the role changes none of it"),
            ("run.viewer", "sees how its runs ended"),
        )
    },
    Grant("on-call", "Cloud Run job audit-backup", "run.invoker"): (
        "has a backup made where the night's is not good; chooses nothing of it"
    ),
    Grant("on-call", "Cloud Run job audit-backup-drill", "run.invoker"): (
        "has the newest backup tried; chooses nothing of it"
    ),
    Grant("on-call", "Cloud Run job audit-repair", "run.invoker"): (
        "has repaired what validation found; the job's command is fixed, and the role changes none of it"
    ),
    Grant(
        "on-call", "Cloud Run job audit-probe", "run.invoker"
    ): "starts a run of the probe by hand, with its own options",
    Grant("on-call", "project", naming.ON_CALL): (
        "looks at schedule, DDL, backups, key versions and the cost of queries, resumes the schedule, silences alerts; "
        "a custom role, since each of Google's smallest roles for one of these also changes or reads data"
    ),
    Grant("on-call", "dataset payment_views", "bigquery.dataViewer"): (
        "the runbooks begin with a search, and query the views; no table"
    ),
    Grant("on-call", "project", "bigquery.jobUser"): "a search is a query",
    Grant("on-call", "data policy personal_as_null", "bigquerydatapolicy.maskedReader"): (
        "sees NULL in personal columns"
    ),
    Grant("on-call", "bucket templates", "storage.objectViewer"): "reads connection.json, without Pulumi's state",
    Grant("on-call", "bucket dead-letters", "storage.objectViewer"): (
        "sees what could not be written, masked, and why; it retries by the job for that, and discards none"
    ),
    Grant("dead letter operators", "bucket dead-letters", "storage.objectUser"): (
        "retry and discard dead letters, which moves or deletes their files; they cannot change the bucket"
    ),
    Grant("dead letter operators", "bucket templates", "storage.objectViewer"): (
        "read connection.json, which says where the dead letters are"
    ),
    Grant("on-call", "Spanner database audit-metadata", "spanner.databaseReader"): (
        "sees resume position, generations and the probe's totals; no payment is there"
    ),
    Grant("drainers", "project", naming.DRAINER): (
        "drains or cancels the job, and starts none; a custom role, since Google's smallest starts jobs too"
    ),
    Grant(
        "deployer-sa", "account dataflow-sa", "iam.serviceAccountUser"
    ): "who makes the job launches it as this account",
    Grant(
        "deployer-sa", "account merge-sa", "iam.serviceAccountUser"
    ): "who makes the merge schedules it as this account",
    Grant(
        "deployer-sa", "account probe-sa", "iam.serviceAccountUser"
    ): "who makes the probe lets it run as this account",
    Grant(
        "deployer-sa", "account console-sa", "iam.serviceAccountUser"
    ): "who makes the console lets it run as this account",
    Grant(
        "deployer-sa", "account card-search-sa", "iam.serviceAccountUser"
    ): "who makes the token service lets it run as this account",
    Grant(
        "deployer-sa", "account backup-sa", "iam.serviceAccountUser"
    ): "who makes the backups' jobs lets them run as this account",
    Grant(
        "deployer-sa", "account validation-sa", "iam.serviceAccountUser"
    ): "who makes the replays' job lets it run as this account",
    Grant(
        "deployer-sa", "account erasure-sa", "iam.serviceAccountUser"
    ): "who makes the erasures' job lets it run as this account",
    Grant("deployer-sa", "account launcher-sa", "iam.serviceAccountUser"): (
        "who makes the job that keeps the pipeline lets it run as this account"
    ),
    Grant("deployer-sa", "account schema-sa", "iam.serviceAccountUser"): (
        "who makes the job that verifies the schema lets it run as this account"
    ),
    Grant("deployer-sa", "account dead-letters-sa", "iam.serviceAccountUser"): (
        "who makes the job that counts dead letters lets it run as this account"
    ),
    Grant("deployer-sa", "account retry-sa", "iam.serviceAccountUser"): (
        "who makes the job that retries dead letters lets it run as this account"
    ),
    Grant("deployer-sa", "account starter-sa", "iam.serviceAccountUser"): (
        "who makes the starter lets it run as this account"
    ),
    Grant("deployer-sa", "account scheduler-sa", "iam.serviceAccountUser"): (
        "who makes a schedule lets Cloud Scheduler call as this account"
    ),
    Grant("deployer-sa", "data policy personal_as_null", "bigquerydatapolicy.maskedReader"): (
        "BigQuery checks a view's query as who makes it; NULL in personal columns is all that it reads of them"
    ),
    Grant("spanner service agent", "key spanner", _ENCRYPTER): "Spanner encrypts the databases",
    Grant(
        "spanner service agent", "key spanner-us-east4", _ENCRYPTER
    ): "Spanner encrypts the databases' replicas in this region",
    Grant(
        "spanner service agent", "key spanner-us-east1", _ENCRYPTER
    ): "Spanner encrypts the databases' replicas in this region",
    Grant(
        "spanner service agent", "key spanner-us-central1", _ENCRYPTER
    ): "Spanner encrypts the databases' replicas in this region",
    Grant("bigquery-encryption service agent", "key bigquery", _ENCRYPTER): "BigQuery encrypts the datasets",
    Grant("gs-project-accounts service agent", "key storage", _ENCRYPTER): "Cloud Storage encrypts the buckets",
    Grant("gs-project-accounts service agent", "key backups", _ENCRYPTER): "Cloud Storage encrypts the backups",
    Grant(
        "dataflow-service-producer-prod service agent", "key dataflow", _ENCRYPTER
    ): "Dataflow encrypts the job's state",
    Grant("compute-system service agent", "key dataflow", _ENCRYPTER): "Compute Engine encrypts the workers' disks",
    Grant("secretmanager service agent", "key secrets", _ENCRYPTER): "Secret Manager encrypts the masking keys",
    Grant("logging service agent", "key logging", _ENCRYPTER): "Cloud Logging encrypts the log bucket",
    Grant("serverless-robot-prod service agent", "key run", _ENCRYPTER): "Cloud Run encrypts its copy of the image",
    Grant("serverless-robot-prod service agent", "repository audit-images", "artifactregistry.reader"): (
        "Cloud Run pulls the images of the probe, of replays and of the console as its own agent"
    ),
}

# How a kind of grant names what it is on; a field is one of its inputs.
_RESOURCES: Final[Mapping[str, str]] = {
    "gcp:projects/iAMMember:IAMMember": "project",
    "gcp:spanner/instanceIAMMember:InstanceIAMMember": "Spanner instance {instance}",
    "gcp:spanner/databaseIAMMember:DatabaseIAMMember": "Spanner database {database}",
    "gcp:storage/bucketIAMMember:BucketIAMMember": "bucket {bucket}",
    "gcp:bigquery/datasetIamMember:DatasetIamMember": "dataset {datasetId}",
    "gcp:bigquerydatapolicy/dataPolicyIamMember:DataPolicyIamMember": "data policy {dataPolicyId}",
    "gcp:datacatalog/policyTagIamMember:PolicyTagIamMember": "policy tag {policyTag}",
    "gcp:bigquery/iamMember:IamMember": "table {datasetId}.{tableId}",
    "gcp:secretmanager/secretIamMember:SecretIamMember": "secret {secretId}",
    "gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember": "key {cryptoKeyId}",
    "gcp:serviceaccount/iAMMember:IAMMember": "account {serviceAccountId}",
    "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember": "repository {repository}",
    "gcp:cloudrunv2/jobIamMember:JobIamMember": "Cloud Run job {name}",
    "gcp:cloudrunv2/serviceIamMember:ServiceIamMember": "Cloud Run service {name}",
    "gcp:iap/webCloudRunServiceIamMember:WebCloudRunServiceIamMember": "proxy of {cloudRunServiceName}",
    "gcp:pubsub/topicIAMMember:TopicIAMMember": "topic {topic}",
    "gcp:compute/subnetworkIAMMember:SubnetworkIAMMember": "subnetwork {subnetwork}",
    "gcp:logging/logViewIamMember:LogViewIamMember": "log view {name}",
}


def grants(graph: Graph) -> Iterator[Grant]:
    """Every grant of a stack. Raises UnnamedResource."""
    for node in graph.nodes:
        if "role" in node.inputs and "member" in node.inputs:
            role = re.sub(r"^(projects/[^/]+/)?roles/", "", str(node.inputs["role"]))
            yield Grant(_principal(graph, str(node.inputs["member"]), role), _resource(graph, node), role)


def problems(graphs: Iterable[Graph]) -> list[str]:
    """Grants without a reason, and reasons without a grant."""
    there = {grant for graph in graphs for grant in grants(graph)}
    return [
        *(
            f"{_text(g)}: a grant without a reason. Add it to REASONS in guardrails/iam.py."
            for g in there - set(REASONS)
        ),
        *(f"{_text(g)}: a reason without a grant. Take it out of REASONS." for g in set(REASONS) - there),
    ]


def document(graphs: Iterable[Graph]) -> str:
    """docs/iam.md."""
    held = [(graph.stack, set(grants(graph))) for graph in graphs]
    lines = [
        "# Who may do what",
        "",
        "Every grant that the program makes, from the graphs of the three stacks. Written by `make docs` from",
        "`guardrails/iam.py`, which has the reasons. All of them are on one resource; a grant on `project` is one that",
        "Google grants nowhere else. `readers` are the members that a stack's config names; `on-call`, `drainers` and",
        "`dead letter operators` too. A role whose name begins with `audit` is a custom one, made by bootstrap.",
        "",
        "| who | on | role | stacks | why |",
        "|---|---|---|---|---|",
    ]
    for grant, reason in REASONS.items():
        stacks = [stack for stack, there in held if grant in there]
        where = "all" if len(stacks) == len(held) else ", ".join(stacks)
        lines.append(f"| {grant.principal} | {grant.resource} | `{grant.role}` | {where} | {reason} |")
    return "\n".join([*lines, ""])


# Config keys → what their members are called, and the roles that they get for it. Any other role of a person is
# on-call's.
_CHOSEN: Final[Mapping[str, tuple[str, frozenset[str]]]] = {
    "consoleViewers consoleAgents consoleLeads readers": ("console viewers", frozenset({"iap.httpsResourceAccessor"})),
    "cardSearchers": ("card searchers", frozenset({"iam.serviceAccountTokenCreator"})),
    "personalDataReaders": ("personal data readers", frozenset({"datacatalog.categoryFineGrainedReader"})),
    "drainers": ("drainers", frozenset({naming.DRAINER})),
    "erasers": (
        "erasers",
        frozenset({"run.invoker", "run.viewer", "spanner.fineGrainedAccessUser", "spanner.databaseRoleUser"}),
    ),
    "deadLetterOperators": (
        "dead letter operators",
        frozenset({"storage.objectUser", "storage.objectViewer"}),
    ),
    "readers": (
        "readers",
        frozenset(
            {"bigquery.dataViewer", "bigquery.jobUser", "bigquerydatapolicy.maskedReader", "storage.objectViewer"}
        ),
    ),
}


def _principal(graph: Graph, member: str, role: str) -> str:
    for settings, (called, roles) in _CHOSEN.items():
        if role in roles and any(member in (graph.config.get(setting) or []) for setting in settings.split()):
            return called
    if member in (graph.config.get("onCall") or []):
        return "on-call"
    theirs = {email: name for name, _, email in (pair.partition("=") for pair in graph.config["serviceAccounts"])}
    if known := theirs.get(member.removeprefix("serviceAccount:")):
        return str(known)
    if agent := re.fullmatch(r"serviceAccount:.*@(?:gcp-sa-)?([\w-]+)\.iam\.gserviceaccount\.com", member):
        project = str(graph.config["project"])
        account = naming.Names.of_config(graph.config).without_prefix(member.partition(":")[2].partition("@")[0])
        return account if agent[1] == project else f"{agent[1]} service agent"
    return member.replace(str(graph.config["project"]), "<project>")


def _resource(graph: Graph, node: Node) -> str:
    if node.type not in _RESOURCES:
        raise UnnamedResource(f"{node.type}: say in _RESOURCES of guardrails/iam.py how the table names such a grant.")
    named = _RESOURCES[node.type].format_map({key: _short(graph, value) for key, value in node.inputs.items()})
    condition = node.inputs.get("condition")
    return f"{named}, {condition['title']}" if condition else named


def _short(graph: Graph, value: Any) -> str:
    """The last part of a full name, without the project before it and the stack's prefix."""
    name = str(value).rpartition("/")[2].partition("@")[0].removeprefix(f"{graph.config['project']}-")
    return naming.Names.of_config(graph.config).without_prefix(name)


def _text(grant: Grant) -> str:
    return f"{grant.principal}, {grant.resource}, roles/{grant.role}"


def main() -> None:
    graphs = [graph_of(stack) for stack in STACKS]
    if found := problems(graphs):
        raise SystemExit("\n".join(found))
    DOCUMENT.write_text(document(graphs))


if __name__ == "__main__":
    main()
