"""Which permissions to write the job's account lacks, asked of the services that would refuse it. Writes nothing.

A job that finds it out when it writes has drained the one before it already.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import requests

# The Storage Write API appends, and a new column is added to the table: cloud.google.com/bigquery/docs/access-control.
ON_TABLE: Final = ("bigquery.tables.get", "bigquery.tables.update", "bigquery.tables.updateData")
# A dead letter is written, read again, moved and removed: cloud.google.com/storage/docs/access-control/iam-permissions.
ON_BUCKET: Final = (
    "storage.objects.create",
    "storage.objects.delete",
    "storage.objects.get",
    "storage.objects.list",
)
_STORAGE: Final = "https://storage.googleapis.com"
_SECONDS: Final = 30


def lacking_on_table(client: Any, table: str) -> list[str]:
    """Of `project.dataset.table`, by BigQuery's client. Raises its errors: NotFound for a table that is not there.

    Source: cloud.google.com/bigquery/docs/reference/rest/v2/tables/testIamPermissions.
    """
    held = client.test_iam_permissions(table, list(ON_TABLE)).get("permissions", [])
    return _absent(ON_TABLE, held)


def lacking_on_bucket(session: requests.Session, bucket: str, endpoint: str = "") -> list[str]:
    """Of a bucket, by an authorised session. Raises requests.RequestException.

    Source: cloud.google.com/storage/docs/json_api/v1/buckets/testIamPermissions, which gives what is held.
    """
    url = f"{endpoint or _STORAGE}/storage/v1/b/{bucket}/iam/testPermissions"
    answer = session.get(url, params=[("permissions", each) for each in ON_BUCKET], timeout=_SECONDS)
    answer.raise_for_status()
    return _absent(ON_BUCKET, answer.json().get("permissions", []))


def _absent(needed: Iterable[str], held: Iterable[str]) -> list[str]:
    has = set(held)
    return [each for each in needed if each not in has]
