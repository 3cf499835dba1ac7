"""What Google's REST APIs say of a project, on loopback, for preflight; they refuse what Google's pages say is refused.

Each API is under its host's name, and each method cites its page. A test takes things away from a `Project` in which
nothing is missing. Not enforced: who asks, and how often.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from contract import dialects
from tests.infra.published import PERMISSIONS
from tests.strict.google_apis import Dropped, Refused

NUMBER = "123456789012"
# cloud.google.com/kms/docs/locations: regions, and multi-regions, of which the EU's is `europe`.
_KMS_PLACES = re.compile(r"[a-z]+-[a-z]+\d+|us|europe|asia|global|nam3|nam4|eur4|ca|in|au")
_BATCH, _PERMISSIONS = 30, 100

Answer = Mapping[str, Any]
Query = Mapping[str, list[str]]


@dataclass
class Project:
    """A project in which nothing is missing and nothing of the stack is made.

    `refuse`: hosts that answer 403; `silent`, that do not answer; `off`, whose APIs are off. `lacking`: permissions
    that who asks does not have; `unknown`, that Google does not know. `limits`: metric → limit, 10,000 where it has
    none. `rules`: constraint → rules of its effective policy. `taken`: bucket, dataset or instance → labels, or None
    for a bucket of somebody else. `accounts` exist, and lack the (account's name, permission) of `ungranted`.
    `tables`: the database's, None while there is no database. `others`: what others own, by its full name.
    """

    id: str
    lacking: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    off: set[str] = field(default_factory=set)
    refuse: set[str] = field(default_factory=set)
    limits: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    taken: dict[str, Mapping[str, str] | None] = field(default_factory=dict)
    repository: bool = True
    digests: set[str] = field(default_factory=set)
    accounts: bool = False
    ungranted: set[tuple[str, str]] = field(default_factory=set)
    tables: Mapping[str, Mapping[str, str]] | None = None
    dialect: str = dialects.GOOGLE_SQL
    others: Mapping[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def ask(self, method: str, path: str, body: Answer) -> Answer:
        whole, _, query = path.lstrip("/").partition("?")
        host, _, rest = whole.partition("/")
        self.asked.append((method, whole))
        if host in self.silent:
            raise Dropped
        if host in self.refuse:
            raise Refused(403, "PERMISSION_DENIED", f"The caller does not have permission on {host}")
        if host in self.off:
            raise Refused(403, "PERMISSION_DENIED", f"{host} has not been used in project {NUMBER}", "SERVICE_DISABLED")
        for pattern, answer in _METHODS.items():
            if found := re.fullmatch(pattern, f"{method} {host}/{rest}"):
                return answer(self, found, parse_qs(query), body)
        raise Refused(404, "NOT_FOUND", f"no such method: {method} {host}/{rest}")

    # ------------------------------------------------------------------ Resource Manager, Service Usage, IAM

    def get_project(self, found: re.Match[str], query: Query, body: Answer) -> Answer:
        """cloud.google.com/resource-manager/reference/rest/v1/projects/get: 403 for one that there is not."""
        if found[1] != self.id:
            raise Refused(403, "PERMISSION_DENIED", "The caller does not have permission")
        return {"projectId": self.id, "projectNumber": NUMBER, "lifecycleState": "ACTIVE"}

    def ancestry(self, found: re.Match[str], query: Query, body: Answer) -> Answer:
        """cloud.google.com/resource-manager/reference/rest/v1/projects/getAncestry."""
        kinds = {"project": self.id, "folder": "77", "organization": "99"}
        return {"ancestor": [{"resourceId": {"type": kind, "id": id}} for kind, id in kinds.items()]}

    def test_permissions(self, found: re.Match[str], query: Query, body: Answer) -> Answer:
        """cloud.google.com/iam/docs/testing-permissions: one that there is not is refused, and so are too many."""
        permissions = body["permissions"]
        if len(permissions) > _PERMISSIONS:
            raise Refused(400, "INVALID_ARGUMENT", "too many permissions")
        for permission in permissions:
            if permission not in PERMISSIONS or permission in self.unknown:
                raise Refused(400, "INVALID_ARGUMENT", f"Permission {permission} is not valid for this resource.")
        if "repositories" in found[0] and not self.repository:
            raise Refused(404, "NOT_FOUND", "Repository not found")
        held = [permission for permission in permissions if permission not in self.lacking]
        return {"permissions": held} if held else {}

    def services(self, found: re.Match[str], query: Query, body: Answer) -> Answer:
        """cloud.google.com/service-usage/docs/reference/rest/v1/services/batchGet."""
        names = query.get("names", [])
        if not 0 < len(names) <= _BATCH or not all(name.startswith(f"{found[1]}/services/") for name in names):
            raise Refused(400, "INVALID_ARGUMENT", "names must be 1 to 30 services of the parent")
        return {"services": [{"name": name, "state": self._state(name)} for name in names]}

    def _state(self, name: str) -> str:
        return "DISABLED" if name.rpartition("/")[2] in self.off else "ENABLED"

    def account(self, found: re.Match[str], query: Query, body: Answer) -> Answer:
        """cloud.google.com/iam/docs/reference/rest/v1/projects.serviceAccounts/get."""
        if not found[1].startswith(f"projects/{self.id}/"):
            return self.of_others(found, query, body)
        if not self.accounts:
            raise Refused(404, "NOT_FOUND", "Unknown service account")
        return {"email": found[1].rpartition("/")[2]}

    def troubleshoot(self, found: re.Match[str], query: Query, body: Answer) -> Answer:
        """cloud.google.com/policy-intelligence/docs/reference/policytroubleshooter/rest/v1/iam/troubleshoot."""
        asked = body["accessTuple"]
        if not re.fullmatch(r"//[a-z]+\.googleapis\.com/projects/.+", asked["fullResourceName"]):
            raise Refused(400, "INVALID_ARGUMENT", "fullResourceName")
        missing = (asked["principal"].partition("@")[0], asked["permission"]) in self.ungranted
        return {"access": "NOT_GRANTED" if missing else "GRANTED"}

    # ------------------------------------------------------------------ quotas and policies

    def region(self, found: re.Match[str], query: Query, body: Answer) -> Answer:
        """cloud.google.com/compute/docs/reference/rest/v1/regions/get, and …/projects/get, which has fewer metrics."""
        metrics = ("CPUS", "N2_CPUS", "IN_USE_ADDRESSES") if "/regions/" in found[0] else ("CPUS_ALL_REGIONS",)
        return {"quotas": [{"metric": m, "limit": self.limits.get(m, 10_000), "usage": 0} for m in metrics]}

    def quotas(self, found: re.Match[str], query: Query, body: Answer) -> Answer:
        """cloud.google.com/docs/quotas/reference/rest/v1/projects.locations.services.quotaInfos/list: two pages."""
        service = found[1]
        names = {"spanner": ("nodes", "nodes_nam3"), "dataflow": ("job_count",)}[service.partition(".")[0]]
        infos = [self._quota(f"{service}/{name}") for name in names]
        if query.get("pageToken", [""]) == ["2"]:
            return {"quotaInfos": infos}
        return {"quotaInfos": [self._quota(f"{service}/other")], "nextPageToken": "2"}

    def _quota(self, metric: str) -> Answer:
        dimension = {"details": {"value": str(int(self.limits.get(metric, 10_000)))}}
        return {"metric": metric, "dimensionsInfos": [dimension]}

    def policy(self, found: re.Match[str], query: Query, body: Answer) -> Answer:
        """…/orgpolicy/rest/v2/projects.policies/getEffectivePolicy: without a policy, the constraint's default."""
        return {"name": found[1], "spec": {"rules": self.rules.get(found[1], [{"allowAll": True}])}}

    # ------------------------------------------------------------------ names, images, keys, columns

    def named(self, found: re.Match[str], query: Query, body: Answer) -> Answer:
        """…/storage/docs/json_api/v1/buckets/get and its like: 404 for a name that is free, 403 for another's."""
        name = found[1]
        if name in self.others:
            return self.of_others(found, query, body)
        if name not in self.taken:
            raise Refused(404, "NOT_FOUND", f"{name} is not there")
        labels = self.taken[name]
        if labels is None:
            raise Refused(403, "forbidden", f"does not have storage.buckets.get access to {name}")
        return {"id": name, "labels": labels}

    def images(self, found: re.Match[str], query: Query, body: Answer) -> Answer:
        """cloud.google.com/artifact-registry/docs/reference/rest/v1/projects.locations.repositories/get."""
        if not self.repository:
            raise Refused(404, "NOT_FOUND", "Repository not found")
        return {"name": found[0]}

    def image(self, found: re.Match[str], query: Query, body: Answer) -> Answer:
        if unquote(found[1]).rpartition("@")[2] not in self.digests:
            raise Refused(404, "NOT_FOUND", "image not found")
        return {"name": found[0]}

    def key_place(self, found: re.Match[str], query: Query, body: Answer) -> Answer:
        """cloud.google.com/kms/docs/reference/rest/v1/projects.locations/get."""
        if not _KMS_PLACES.fullmatch(found[1]):
            raise Refused(404, "NOT_FOUND", f"Location {found[1]} not found")
        return {"locationId": found[1]}

    def of_others(self, found: re.Match[str], query: Query, body: Answer) -> Answer:
        """…/compute/docs/reference/rest/v1/subnetworks/get, …keyRings.cryptoKeys/get, …locations.buckets/get."""
        if found[1] not in self.others:
            raise Refused(404, "NOT_FOUND", f"{found[1]} was not found")
        return {"name": found[1], **self.others[found[1]]}

    def session(self, found: re.Match[str], query: Query, body: Answer) -> Answer:
        """cloud.google.com/spanner/docs/reference/rest/v1/projects.instances.databases.sessions/create."""
        if self.tables is None:
            raise Refused(404, "NOT_FOUND", "Database not found")
        return {"name": f"{found[1]}/sessions/1"}

    def sql(self, found: re.Match[str], query: Query, body: Answer) -> Answer:
        if body["sql"] == dialects.WHICH:
            return {"rows": [[self.dialect]]}
        dialect = dialects.named(self.dialect)
        asked = re.findall(r"'(\w*)'", body["sql"])
        assert body["sql"] == dialect.columns(dialect.table(schema, "t") for schema in asked)
        places = ((dialect.of_table(table), has) for table, has in (self.tables or {}).items())
        rows = [[*place, column, kind] for place, has in places for column, kind in has.items() if place[0] in asked]
        return {"rows": rows}

    def nothing(self, found: re.Match[str], query: Query, body: Answer) -> Answer:
        return {}


_METHODS: dict[str, Callable[[Project, re.Match[str], Query, Answer], Answer]] = {
    r"GET cloudresourcemanager\.googleapis\.com/v1/projects/([^/:]+)": Project.get_project,
    r"POST cloudresourcemanager\.googleapis\.com/v1/projects/[^/:]+:getAncestry": Project.ancestry,
    r"POST (?:cloudresourcemanager\.googleapis\.com/v1/projects/[^/:]+"
    r"|artifactregistry\.googleapis\.com/v1/projects/.+/repositories/[^/:]+"
    r"|accesscontextmanager\.googleapis\.com/v1/accessPolicies/\d+):testIamPermissions": Project.test_permissions,
    r"GET serviceusage\.googleapis\.com/v1/(projects/\d+)/services:batchGet": Project.services,
    r"GET iam\.googleapis\.com/v1/(projects/[^/]+/serviceAccounts/[^/]+)": Project.account,
    r"POST policytroubleshooter\.googleapis\.com/v1/iam:troubleshoot": Project.troubleshoot,
    r"GET compute\.googleapis\.com/compute/v1/projects/[^/]+(?:/regions/[^/]+)?": Project.region,
    r"GET cloudquotas\.googleapis\.com/v1/projects/[^/]+/locations/global/services/([^/]+)/quotaInfos": Project.quotas,
    r"GET orgpolicy\.googleapis\.com/v2/projects/[^/]+/policies/([\w.]+):getEffectivePolicy": Project.policy,
    r"GET storage\.googleapis\.com/storage/v1/b/([^/]+)": Project.named,
    r"GET bigquery\.googleapis\.com/bigquery/v2/projects/[^/]+/datasets/([^/]+)": Project.named,
    r"GET spanner\.googleapis\.com/v1/projects/[^/]+/instances/([^/]+)": Project.named,
    r"GET artifactregistry\.googleapis\.com/v1/projects/[^/]+/locations/[^/]+/repositories/[^/]+": Project.images,
    r"GET artifactregistry\.googleapis\.com/v1/projects/.+/dockerImages/([^/]+)": Project.image,
    r"GET cloudkms\.googleapis\.com/v1/projects/[^/]+/locations/([^/]+)": Project.key_place,
    r"GET cloudkms\.googleapis\.com/v1/(projects/[^/]+/locations/.+/cryptoKeys/[^/]+)": Project.of_others,
    r"GET compute\.googleapis\.com/compute/v1/(projects/[^/]+/regions/[^/]+/subnetworks/[^/]+)": Project.of_others,
    r"GET secretmanager\.googleapis\.com/v1/(projects/[^/]+/secrets/[^/]+)": Project.of_others,
    r"GET logging\.googleapis\.com/v2/(projects/[^/]+/locations/[^/]+/buckets/[^/]+)": Project.of_others,
    r"POST spanner\.googleapis\.com/v1/(projects/[^/]+/instances/[^/]+/databases/[^/]+)/sessions": Project.session,
    r"POST spanner\.googleapis\.com/v1/.+/sessions/1:executeSql": Project.sql,
    r"DELETE spanner\.googleapis\.com/v1/.+/sessions/1": Project.nothing,
}
