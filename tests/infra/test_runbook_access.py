"""Who runs which command of the runbooks, and that the grants of each stack suffice: for on-call no more than that.

A command that the table does not know fails: say who runs it, and what it needs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from bootstrap import roles
from components import naming
from graph.resources import Graph
from guardrails import iam
from tests import documents
from tests.docs.test_runbooks import ALL, FOLDER, INLINE, PAGES, sections
from tests.infra.graphs import graph_of

PEOPLE = {
    "onCall": ["group:on-call@example.com"],
    "drainers": ["user:drainer@example.com"],
    "deadLetterOperators": ["user:operator@example.com"],
    "erasers": ["group:privacy@example.com"],
    "readers": ["group:support@example.com"],
    "cardSearchers": ["group:cards@example.com"],
}
ON_CALL, DRAINERS, OPERATORS, CARDS = "on-call", "drainers", "dead letter operators", "card searchers"
ERASERS = "erasers"
# Of people whose roles the program does not grant.
DEPLOYER, OWNER = "deployer-sa", "owner"
# What each is called in runbooks/README.md.
CALLED = {
    ON_CALL: "`onCall`",
    DRAINERS: "`drainers`",
    OPERATORS: "`deadLetterOperators`",
    ERASERS: "`erasers`",
    CARDS: "`cardSearchers`",
    DEPLOYER: "who deploys, as `deployer-sa`",
    OWNER: "the project's owner",
}

# Role → its permissions among those that a command needs: https://cloud.google.com/iam/docs/roles-permissions.
ROLES: dict[str, set[str]] = {
    "bigquery.admin": {
        "bigquery.jobs.create", "bigquery.jobs.listAll", "bigquery.jobs.update", "bigquery.tables.create",
        "bigquery.tables.getData", "bigquery.tables.updateData",
    },
    "bigquery.dataViewer": {"bigquery.datasets.get", "bigquery.tables.get", "bigquery.tables.getData"},
    "bigquery.jobUser": {"bigquery.jobs.create"},
    "bigquerydatapolicy.maskedReader": {"bigquery.dataPolicies.maskedGet"},
    "cloudkms.admin": {
        "cloudkms.cryptoKeyVersions.create", "cloudkms.cryptoKeyVersions.restore", "cloudkms.cryptoKeyVersions.update",
    },
    "iam.serviceAccountTokenCreator": {"iam.serviceAccounts.getAccessToken"},
    "logging.viewAccessor": {"logging.views.access"},
    "logging.viewer": {"logging.logEntries.list"},
    "monitoring.viewer": {"monitoring.alerts.list", "monitoring.timeSeries.list"},
    "run.invoker": {"run.jobs.run"},
    "run.viewer": {"run.executions.list", "run.revisions.list", "run.services.get"},
    "spanner.admin": {
        "spanner.backups.create", "spanner.databases.createFromBackup" , "spanner.databases.select",
        "spanner.databases.updateDdl", "spanner.databases.write", "spanner.instances.update",
    },
    "spanner.databaseReader": {"spanner.databases.getDdl", "spanner.databases.select"},
    "spanner.databaseRoleUser": {"spanner.databaseRoles.use"},
    "spanner.fineGrainedAccessUser": {"spanner.databases.useRoleBasedAccess"},
    "storage.objectUser": {
        "storage.objects.create", "storage.objects.delete", "storage.objects.get", "storage.objects.list",
    },
    "storage.objectViewer": {"storage.objects.get", "storage.objects.list"},
    **{role.id: set(role.permissions) for role in (roles.DRAIN, roles.ON_CALL)},
}  # fmt: skip

PROJECT, VIEWS, LETTERS = "project", "dataset payment_views", "bucket dead-letters"
METADATA, SOURCE = "Spanner database audit-metadata", "Spanner database audit-db"
CONSOLE, STARTER = "Cloud Run service audit-console", "Cloud Run service audit-starter"
JOB_LOG, PROBE, REPLAY = "log view job", "Cloud Run job audit-probe", "Cloud Run job audit-replay"
VALIDATION, REPAIR = "Cloud Run job audit-validation", "Cloud Run job audit-repair"
ERASURE = "Cloud Run job audit-erasure"
BACKUP, DRILL = "Cloud Run job audit-backup", "Cloud Run job audit-backup-drill"
# The one of a longer name first: a pattern that ends at a hyphen matches both.
UPKEEP = ("audit-pipeline", "audit-schema", "audit-dead-letters-retry", "audit-dead-letters")
PERSONAL = ("bigquery.dataPolicies.maskedGet", "data policy personal_as_null")

Need = tuple[str, str]
QUERY: tuple[Need, ...] = (("bigquery.jobs.create", PROJECT), ("bigquery.tables.getData", VIEWS), PERSONAL)
READ_LETTERS: tuple[Need, ...] = (("storage.objects.list", LETTERS), ("storage.objects.get", LETTERS))
CONNECTION: Need = ("storage.objects.get", "bucket templates")


@dataclass(frozen=True)
class Command:
    """What a command begins with, as a pattern; who runs it; the permissions that it needs, and on what."""

    pattern: str
    who: str
    needs: tuple[Need, ...] = ()


# The first that matches counts.
COMMANDS = (
    Command(r"\. runbooks/stack\.sh", ON_CALL, (CONNECTION, ("dataflow.jobs.list", PROJECT))),
    Command(r"\./audit search --card", CARDS, (("iam.serviceAccounts.getAccessToken", "account card-search-sa"),)),
    Command(r"\./audit (search|payment|timeline|stuck|failures|summary)\b", ON_CALL, QUERY),
    Command(
        r"\./audit health\b",
        ON_CALL,
        (*QUERY, *READ_LETTERS, ("monitoring.timeSeries.list", PROJECT), ("monitoring.alerts.list", PROJECT)),
    ),
    Command(r"\./audit dead-letters (list|show)\b", ON_CALL, READ_LETTERS),
    Command(
        r"\./audit dead-letters (retry|discard)\b",
        OPERATORS,
        (CONNECTION, *READ_LETTERS, ("storage.objects.create", LETTERS), ("storage.objects.delete", LETTERS)),
    ),
    Command(
        r"\./audit (replay|backfill) (start|resume)\b",
        ON_CALL,
        (
            *QUERY,
            ("spanner.databases.useRoleBasedAccess", METADATA),
            ("spanner.databaseRoles.use", f"{METADATA}, replay_submitter"),
            ("run.jobs.run", REPLAY),
            ("run.executions.list", REPLAY),
        ),
    ),
    Command(r"\./audit schema verify\b", ON_CALL, (("spanner.databases.getDdl", SOURCE),)),
    # A launch is as the deployer's of the same job.
    Command(r"\./audit pipeline (drain|resume)\b", DEPLOYER),
    Command(r"gcloud dataflow jobs list\b", ON_CALL, (("dataflow.jobs.list", PROJECT),)),
    Command(r"gcloud dataflow jobs cancel\b", DRAINERS, (("dataflow.jobs.cancel", PROJECT),)),
    Command(r"gcloud dataflow jobs (drain|update-options)\b", DRAINERS, (("dataflow.jobs.updateContents", PROJECT),)),
    Command(r"gcloud logging read .*--resource-names=\$JOB_LOG\b", ON_CALL, (("logging.views.access", JOB_LOG),)),
    Command(r"gcloud logging read\b", ON_CALL, (("logging.logEntries.list", PROJECT),)),
    Command(
        r"gcloud run jobs executions list --job=\S*audit-validation\b", ON_CALL, (("run.executions.list", VALIDATION),)
    ),
    Command(r"gcloud run jobs executions list --job=\S*-backup-drill\b", ON_CALL, (("run.executions.list", DRILL),)),
    Command(r"gcloud run jobs executions list --job=\S*-backup\b", ON_CALL, (("run.executions.list", BACKUP),)),
    Command(r"gcloud run jobs executions list --job=\S*audit-erasure\b", ON_CALL, (("run.executions.list", ERASURE),)),
    Command(r"gcloud run jobs executions list --job=\S*audit-probe\b", ON_CALL, (("run.executions.list", PROBE),)),
    *(
        Command(
            rf"gcloud run jobs executions list --job=\S*{job}\b",
            ON_CALL,
            (("run.executions.list", f"Cloud Run job {job}"),),
        )
        for job in UPKEEP
    ),
    *(
        Command(
            rf"gcloud run jobs execute \S*{job}\b",
            ON_CALL,
            (("run.jobs.run", f"Cloud Run job {job}"), ("run.executions.list", f"Cloud Run job {job}")),
        )
        for job in UPKEEP
    ),
    Command(
        r"gcloud run jobs execute \S*-backup-drill\b",
        ON_CALL,
        (("run.jobs.run", DRILL), ("run.executions.list", DRILL)),
    ),
    Command(
        r"gcloud run jobs execute \S*-backup\b", ON_CALL, (("run.jobs.run", BACKUP), ("run.executions.list", BACKUP))
    ),
    Command(
        r"\./audit erase list\b",
        ON_CALL,
        (
            ("spanner.databases.useRoleBasedAccess", METADATA),
            ("spanner.databaseRoles.use", f"{METADATA}, replay_submitter"),
        ),
    ),
    Command(
        r"\./audit erase (start|show|resume)\b",
        ERASERS,
        (
            ("spanner.databases.useRoleBasedAccess", METADATA),
            ("spanner.databaseRoles.use", f"{METADATA}, erasure_submitter"),
            ("run.jobs.run", ERASURE),
            ("run.executions.list", ERASURE),
        ),
    ),
    # The metadata database alone: no table of BigQuery.
    Command(r"\./audit backup list\b", ON_CALL, (("spanner.databases.select", METADATA),)),
    # It waits for the execution's end.
    Command(
        r"gcloud run jobs execute \S*-repair\b", ON_CALL, (("run.jobs.run", REPAIR), ("run.executions.list", REPAIR))
    ),
    Command(r"gcloud run jobs execute \S*audit-probe\b", ON_CALL, (("run.jobs.run", PROBE),)),
    Command(r"gcloud run services describe \S*audit-console\b", ON_CALL, (("run.services.get", CONSOLE),)),
    Command(r"gcloud run services describe \S*audit-starter\b", ON_CALL, (("run.services.get", STARTER),)),
    Command(r"gcloud run revisions list --service=\S*audit-console\b", ON_CALL, (("run.revisions.list", CONSOLE),)),
    Command(r"gcloud scheduler jobs list\b", ON_CALL, (("cloudscheduler.jobs.list", PROJECT),)),
    Command(r"gcloud scheduler jobs resume\b", ON_CALL, (("cloudscheduler.jobs.enable", PROJECT),)),
    Command(r"gcloud monitoring snoozes create\b", ON_CALL, (("monitoring.snoozes.create", PROJECT),)),
    Command(r"gcloud kms keys versions list\b", ON_CALL, (("cloudkms.cryptoKeyVersions.list", PROJECT),)),
    Command(r"gcloud kms keys versions create\b", DEPLOYER, (("cloudkms.cryptoKeyVersions.create", PROJECT),)),
    Command(r"gcloud kms keys versions enable\b", DEPLOYER, (("cloudkms.cryptoKeyVersions.update", PROJECT),)),
    Command(r"gcloud kms keys versions restore\b", DEPLOYER, (("cloudkms.cryptoKeyVersions.restore", PROJECT),)),
    Command(r"gcloud secrets versions list\b", ON_CALL, (("secretmanager.versions.list", PROJECT),)),
    Command(r"head -c 32 /dev/urandom \| gcloud secrets versions add\b", OWNER),
    Command(r"gcloud spanner instances describe\b", ON_CALL, (("spanner.instances.get", PROJECT),)),
    Command(r"gcloud spanner instances update\b", DEPLOYER, (("spanner.instances.update", PROJECT),)),
    Command(r"gcloud spanner backups list\b", ON_CALL, (("spanner.backups.list", PROJECT),)),
    Command(r"gcloud spanner backups create\b", DEPLOYER, (("spanner.backups.create", PROJECT),)),
    Command(r"gcloud spanner databases restore\b", DEPLOYER, (("spanner.databases.createFromBackup", PROJECT),)),
    Command(r"gcloud spanner databases ddl describe\b", ON_CALL, (("spanner.databases.getDdl", SOURCE),)),
    Command(r"gcloud spanner databases ddl update\b", DEPLOYER, (("spanner.databases.updateDdl", PROJECT),)),
    Command(r"gcloud spanner databases execute-sql .*UPDATE ", DEPLOYER, (("spanner.databases.write", PROJECT),)),
    Command(r"gcloud spanner databases execute-sql \$METADATA", ON_CALL, (("spanner.databases.select", METADATA),)),
    Command(r"gcloud spanner databases execute-sql \$DATABASE\b", DEPLOYER, (("spanner.databases.select", PROJECT),)),
    Command(r"bq query .*(INSERT INTO|UPDATE) ", DEPLOYER, (("bigquery.tables.updateData", PROJECT),)),
    Command(r"bq query .*\$(TABLES|CHANGELOG)\b", DEPLOYER, (("bigquery.tables.getData", PROJECT),)),
    Command(
        r"bq query .*INFORMATION_SCHEMA\.JOBS_BY_PROJECT\b",
        ON_CALL,
        (("bigquery.jobs.create", PROJECT), ("bigquery.jobs.listAll", PROJECT)),
    ),
    Command(r"bq query .*\$VIEWS\b", ON_CALL, QUERY),
    Command(r"bq show \$VIEWS\b", ON_CALL, (("bigquery.datasets.get", VIEWS),)),
    Command(r"bq cp\b", DEPLOYER, (("bigquery.tables.create", PROJECT),)),
    Command(r"bq cancel\b", DEPLOYER, (("bigquery.jobs.update", PROJECT),)),
    # What an `up` needs is in bootstrap/roles.py, and compared with the program elsewhere.
    Command(r"pulumi (up|config set)\b", DEPLOYER),
)  # fmt: skip


# Commands that people run on one machine alone.
_HERE = r"\./audit (local|gameday|validate|backup create|backup drill)\b"


def in_the_cloud(text: str) -> list[str]:
    found = [" ".join(command.split()) for command in documents.commands_in(text, "sh", "console", "cloud")]
    return [command for command in found if not re.match(_HERE, command)]


RUN = sorted({c for page in ALL for c in in_the_cloud((FOLDER.parent / page).read_text())} | {
    command for command in INLINE if not re.match(_HERE, command)
})  # fmt: skip


def known(command: str) -> Command:
    found = next((each for each in COMMANDS if re.match(each.pattern, command)), None)
    assert found, f"{command}: say in COMMANDS who runs it, and what it needs"
    return found


@pytest.fixture(scope="module", params=["dev", "staging", "prod"])
def staffed(request: pytest.FixtureRequest) -> Graph:
    return graph_of(request.param, PEOPLE | {"personalDataReaders": PEOPLE["readers"]})


def granted(graph: Graph, principal: str) -> dict[tuple[str, str], set[str]]:
    """(role, resource) → its permissions, of what the program grants; of the deployer, what bootstrap does."""
    if principal == DEPLOYER:
        return {(role, PROJECT): ROLES.get(role.removeprefix("roles/"), set()) for role in roles.DEPLOYER}
    return {
        (grant.role, grant.resource): ROLES.get(grant.role.rpartition("/")[2], set())
        for grant in iam.grants(graph)
        if grant.principal == principal
    }


def covers(resource: str, wanted: str) -> bool:
    return resource in (PROJECT, wanted)


def test_every_command_s_permissions_are_held_by_who_runs_it_in_every_stack(staffed: Graph) -> None:
    lacking = {
        (command.who, permission, on): text
        for text in RUN
        for command in [known(text)]
        for held in [granted(staffed, command.who)]
        for permission, on in command.needs
        if not any(permission in has and covers(resource, on) for (_, resource), has in held.items())
    }
    assert lacking == {}


# No command: the job's page in the console (stage, workers, messages), which the outputs link.
JOB_PAGE = {"dataflow.jobs.get", "dataflow.messages.list", "dataflow.metrics.get"}


def test_on_call_holds_nothing_that_no_command_needs(staffed: Graph) -> None:
    needs = {need for text in RUN for command in [known(text)] if command.who == ON_CALL for need in command.needs}
    for (role, resource), has in granted(staffed, ON_CALL).items():
        of_use = {permission for permission, on in needs if permission in has and covers(resource, on)}
        assert of_use, f"{role} on {resource}: no command of the runbooks needs it"
        if role.rpartition("/")[2] == naming.ON_CALL:
            assert of_use == has - JOB_PAGE, "a permission of the custom role that no command needs"


def test_nobody_else_on_the_list_holds_what_no_command_needs(staffed: Graph) -> None:
    for who in (DRAINERS, OPERATORS):
        needs = {need for text in RUN for command in [known(text)] if command.who == who for need in command.needs}
        for (role, resource), has in granted(staffed, who).items():
            assert {p for p, on in needs if p in has and covers(resource, on)}, f"{who}: {role} on {resource}"


@pytest.mark.parametrize("page", PAGES)
def test_on_call_runs_all_of_the_first_five_minutes_and_of_verify(page: str) -> None:
    for section in ("First five minutes", "Verify"):
        others = [c for c in in_the_cloud(sections(page)[section]) if known(c).who != ON_CALL]
        assert others == [], section


def test_the_index_says_who_runs_what_on_call_does_not() -> None:
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", (FOLDER / "README.md").read_text(), re.M))
    for text in RUN:
        if (who := known(text).who) != ON_CALL:
            command = text.removeprefix("head -c 32 /dev/urandom | ")
            assert command.startswith(tuple(re.findall(r"`([^`]+)`", rows[CALLED[who]]))), f"{who}: {text}"


def test_every_role_of_a_person_is_looked_up(staffed: Graph) -> None:
    """A role that the table does not know would count as one without permissions."""
    people = (ON_CALL, DRAINERS, OPERATORS, CARDS)
    unknown = {g.role for g in iam.grants(staffed) if g.principal in people and g.role.rpartition("/")[2] not in ROLES}
    assert unknown == set()
