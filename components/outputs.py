"""The stack's outputs: what `audit` needs to know, and what a person opens or runs once a stack is up."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

import pulumi
from pulumi_gcp import storage

from components import naming
from components.bigquery import Warehouse
from components.console import Console
from components.dataflow import StreamJob
from components.image import Image
from components.logging import job_log
from components.monitoring import Monitoring
from components.secrets import MaskingKeys
from components.settings import Settings
from components.settings.pause import SINCE, UNTIL
from components.spanner import SourceDatabase
from components.storage import Storage
from components.views import Views
from contract import operations, queries

_LOOKER: Final = "https://lookerstudio.google.com/reporting/create"
# The data sources of a report made from a template, in the order of their aliases.
LOOKER_VIEWS: Final = (
    queries.PAYMENT_CURRENT,
    queries.PAYMENT_TRANSITIONS,
    queries.PAYMENT_TIMELINE,
    queries.COMPLETE_UNTIL,
)
_BIG_QUERY: Final = "https://console.cloud.google.com/bigquery"


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the outputs describe."""

    settings: Settings
    source: SourceDatabase
    masking_keys: MaskingKeys
    storage: Storage
    warehouse: Warehouse
    views: Views
    image: Image
    job: StreamJob
    monitoring: Monitoring


def export(stack: Outputs, console: Console, jobs: Mapping[str, str]) -> None:
    """Makes them the stack's outputs, and `connection.json` beside the templates, for who has no Pulumi state.

    The console is given the connection, and so comes after it.

    `jobs` are where `audit` has replays and erasures run; these jobs themselves run them.
    """
    known = {**connection(stack), **jobs, **for_runbooks(stack.settings)}
    # Not in the file: the launch names the template, which is beside the file and waits for its bucket.
    launch = {operations.LAUNCH: stack.job.launch}
    shown = {**known, **launch, **_links(stack), **_pause(stack.settings), "consoleUrl": console.url}
    for name, value in shown.items():
        pulumi.export(name, value)
    storage.BucketObject(
        "connection",
        bucket=stack.storage.templates.apply(lambda url: url.removeprefix("gs://")),
        name=naming.CONNECTION,
        content=pulumi.Output.json_dumps(known, indent=2),
        content_type="application/json",
        # It keeps its name: made first, the new one would go with the old.
        opts=pulumi.ResourceOptions(parent=stack.storage, delete_before_replace=True),
    )


def connection(stack: Outputs) -> Mapping[str, pulumi.Input[str]]:
    """The connection file of `audit`; `pulumi stack output --json` is one too."""
    settings, source = stack.settings, stack.source
    return {
        "project": settings.project,
        "location": stack.warehouse.location,
        "bigQueryEndpoint": settings.endpoints.big_query,
        "bigQueryStorageEndpoint": settings.endpoints.big_query_storage,
        "spannerEndpoint": settings.endpoints.spanner,
        "spannerInstance": source.instance,
        "spannerDatabase": source.database,
        "metadataInstance": source.metadata_instance,
        "metadataDatabase": source.metadata_database,
        "maskingKeys": stack.masking_keys.location,
        "deadLetterDirectory": stack.storage.dead_letters,
        "backupDirectory": stack.storage.backups,
        "backupCopyDirectory": stack.storage.backup_copies or "",
        "jobName": stack.job.name,
        "watchedTables": settings.watched.to_json(),
        operations.OWNER: settings.pipeline.owner,
        operations.PAUSED: "true" if settings.pause else "",
        "schemaOwner": settings.spanner.schema_owner,
        "sourceSchema": json.dumps(settings.watched.source_statements(frozenset(settings.spanner.schema_contexts))),
        # A table that was never there is made with it; None where no column is hidden.
        "personalTag": "" if stack.warehouse.personal is None else stack.warehouse.personal,
        **settings.for_audit(),
    }


def for_runbooks(settings: Settings) -> Mapping[str, str]:
    """What runbooks/stack.sh names besides: who looks at a stack has its config, but not the names that follow of it.

    `keyRing` has `{location}` where the place of a key goes; empty where the keys are Google's.
    """
    ring = f"projects/{settings.project}/locations/{{location}}/keyRings/{settings.names.of(naming.KEY_RING)}"
    return {
        "viewsDataset": settings.watched.views_dataset,
        "changelog": settings.watched.payments.id,
        "jobLog": job_log(settings),
        "keyRing": (settings.keys.ring or ring) if settings.keys.customer_managed else "",
    }


def _pause(settings: Settings) -> Mapping[str, str]:
    """Of a paused stack: since when it is, and when Spanner forgets the first change that no job has read."""
    pause = settings.pause
    if pause is None:
        return {}
    until = pause.until(settings.looked_at.retention_hours)
    return {SINCE: pause.since.isoformat(timespec="seconds"), UNTIL: until.isoformat(timespec="seconds")}


def _links(stack: Outputs) -> Mapping[str, Any]:
    """For people: pages, the way in for other tools, and commands."""
    settings = stack.settings
    project, views = settings.project, settings.watched.views_dataset
    return {
        "viewsPage": views_page(project, views),
        "lookerStudio": looker_studio(project, views, settings.warehouse.looker_template),
        "sqlConnection": sql_connection(project, views, settings.warehouse.location),
        "templatePath": stack.image.template,
        "jobPage": stack.job.page,
        "dashboard": stack.monitoring.dashboard,
        "runbooks": settings.monitoring.runbooks,
        "commands": commands(settings.names),
    }


def looker_studio(project: str, dataset: str, template: str = "") -> str:
    """Opens a new report for who may read the views: over the current state of the payments, or a copy of a template
    report whose data sources, by their aliases ds0, ds1, ds2, ds3, become LOOKER_VIEWS.

    Parameters: Looker Studio's Linking API, https://developers.google.com/looker-studio/integrate/linking-api. With no
    template there is one data source; "Add data" adds the others.
    """
    settings = {"c.mode": "edit", "r.reportName": "Payment audit"} | ({"c.reportId": template} if template else {})
    for number, view in enumerate(LOOKER_VIEWS if template else LOOKER_VIEWS[:1]):
        source = {
            "connector": "bigQuery",
            "datasourceName": view,
            "type": "TABLE",
            "projectId": project,
            "datasetId": dataset,
            "tableId": view,
            "billingProjectId": project,
        }
        settings |= {f"ds.ds{number}.{key}": value for key, value in source.items()}
    return f"{_LOOKER}?{urlencode(settings, quote_via=quote)}"


def views_page(project: str, dataset: str) -> str:
    """The dataset of the views in BigQuery's console."""
    return f"{_BIG_QUERY}?{urlencode({'project': project, 'p': project, 'd': dataset, 'page': 'dataset'})}"


def sql_connection(project: str, dataset: str, location: str) -> Mapping[str, str]:
    """What any SQL client asks for: BigQuery's JDBC URL, with the person's own login, and a first query."""
    return {
        "jdbc": "jdbc:bigquery://https://www.googleapis.com/bigquery/v2:443;"
        f"ProjectId={project};DefaultDataset={dataset};Location={location};OAuthType=1",
        "query": f"SELECT * FROM `{project}.{dataset}.{queries.PAYMENT_CURRENT}` LIMIT 10",
        "function": f"SELECT * FROM `{project}.{dataset}.timeline_of_payment`('<PUID>')",
    }


def commands(names: naming.Names) -> Mapping[str, str]:
    """Search and health, from a clone of the repository."""
    connection = f"gs://{names.bucket('templates')}/{naming.CONNECTION}"
    return {
        "connect": f"gcloud storage cat {connection} > connection.json",
        "search": "./audit --connection connection.json search --since 1h",
        "searchByCard": "./audit --connection connection.json search --card",
        "health": "./audit --connection connection.json health",
    }
