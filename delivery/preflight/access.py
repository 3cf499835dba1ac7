"""APIs, what who deploys may do, and what the stack's accounts may do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from components import naming, services
from delivery.preflight import permissions as table
from delivery.preflight.findings import OWNER, Finding, State
from delivery.preflight.google import NotSeen
from delivery.preflight.target import Target, looked
from graph.resources import Node

# Without these nothing else can be looked at or switched on; the program enables the others itself.
_FIRST: Final = ("cloudresourcemanager", "serviceusage")
# cloud.google.com/service-usage/docs/reference/rest/v1/services/batchGet: 30 at a time.
_APIS_AT_ONCE: Final = 30
_PERMISSIONS_AT_ONCE: Final = 100
_INVALID: Final = 400
_TROUBLESHOOTING: Final = "policytroubleshooter.googleapis.com/v1/iam:troubleshoot"
_AT_ONCE: Final = 8

# What an account does with a role that the program grants: cloud.google.com/iam/docs/roles-permissions.
DOES: Final[Mapping[str, str]] = {
    "roles/bigquery.jobUser": "bigquery.jobs.create",
    f"roles/{naming.WORKER}": "dataflow.workItems.lease",
    "roles/monitoring.metricWriter": "monitoring.timeSeries.create",
    "roles/secretmanager.secretAccessor": "secretmanager.versions.access",
    "roles/spanner.databaseReader": "spanner.databases.select",
    "roles/spanner.databaseUser": "spanner.databases.write",
    "roles/storage.objectCreator": "storage.objects.create",
    "roles/storage.objectUser": "storage.objects.create",
    "roles/storage.objectViewer": "storage.objects.get",
}


def apis(target: Target) -> Iterator[Finding]:
    """Every API that the stack uses is on."""
    used = services.apis(bool(target.of("composer/environment")))
    names = [f"{name}.googleapis.com" for name in dict.fromkeys((*_FIRST, *used))]
    on = {name for batch in _batches(names, _APIS_AT_ONCE) for name in _enabled(target, batch)}
    for name in names:
        if name in on:
            continue
        api = name.removesuffix(".googleapis.com")
        yield Finding(
            check="APIs",
            what=name,
            state=State.BLOCKER if api in _FIRST else State.TO_DO,
            why=f"off; {used.get(api, 'this')} needs it. One that was just switched on refuses calls for minutes",
            repair=f"gcloud services enable {name} --project={target.project}",
            who=OWNER,
        )
    if on >= set(names):
        yield Finding(check="APIs", what=f"{len(names)} are on")


def _enabled(target: Target, names: Sequence[str]) -> Iterator[str]:
    parent = f"projects/{target.number}"
    full = [f"{parent}/services/{name}" for name in names]
    found = target.google.get(f"serviceusage.googleapis.com/v1/{parent}/services:batchGet", names=full) or {}
    for service in found.get("services", []):
        if service.get("state") == "ENABLED":
            yield service["name"].rpartition("/")[2]


def permissions(target: Target) -> Iterator[Finding]:
    """Who asks has every permission that making the stack takes."""
    types = {node.type for node in target.graph.nodes}
    places = {table.PROJECT: f"cloudresourcemanager.googleapis.com/v1/projects/{target.project}"}
    places[table.REPOSITORY] = f"artifactregistry.googleapis.com/v1/{target.repository}"
    if policy := target.graph.config.get("accessPolicy"):
        places[table.ACCESS_POLICY] = f"accesscontextmanager.googleapis.com/v1/accessPolicies/{policy}"
    if account := target.graph.config.get("billingAccount"):
        places[table.BILLING_ACCOUNT] = f"cloudbilling.googleapis.com/v1/billingAccounts/{account}"
    held = 0
    for place, url in places.items():
        needed = table.needed(types, place)
        unknown: list[str] = []
        found, unseen = looked("permissions", f"on the {place}", partial(_held, target, url, list(needed), unknown))
        if unseen:
            yield unseen
        if found is None:
            # There is no such repository, or access policy: another check's finding.
            continue
        held += len(found)
        for permission in needed:
            if permission in unknown:
                why = f"Google knows no such permission there; {', '.join(needed[permission])} was said to take it"
                what = f"{permission} on the {place}"
                yield Finding(check="permissions", what=what, state=State.NOT_SEEN, why=why)
            elif permission not in found:
                yield _lacks(target, place, permission, needed[permission])
    if held:
        yield Finding(check="permissions", what=f"{held} are held by {target.google.account or 'you'}")


def _held(target: Target, url: str, permissions: Sequence[str], unknown: list[str]) -> set[str] | None:
    """Those that are held; None where there is no such resource. `unknown` gets those that Google does not know.

    Source: cloud.google.com/resource-manager/reference/rest/v1/projects/testIamPermissions, which takes none itself. It
    refuses all for one permission that it does not know: they are sent in halves then.
    """
    held: set[str] = set()
    for batch in _batches(permissions, _PERMISSIONS_AT_ONCE):
        try:
            found = target.google.post(f"{url}:testIamPermissions", {"permissions": batch})
        except NotSeen as error:
            if error.status != _INVALID:
                raise
            half = len(batch) // 2
            parts = (batch[:half], batch[half:]) if half else ()
            unknown += [] if half else batch
            held |= {each for part in parts for each in _held(target, url, part, unknown) or ()}
            continue
        if found is None:
            return None
        held |= set(found.get("permissions", []))
    return held


def _lacks(target: Target, place: str, permission: str, kinds: Sequence[str]) -> Finding:
    page = table.NEEDS[kinds[0]].page
    return Finding(
        check="permissions",
        what=f"{permission} on the {place}",
        state=State.BLOCKER,
        why=f"not held; making {', '.join(kinds)} takes it (cloud.google.com/{page})",
        repair=f"run this as {naming.account(naming.DEPLOYER, target.project)}; if it is, "
        f"python -m bootstrap --stack {target.stack} grants what is missing",
        who=OWNER,
    )


def accounts(target: Target) -> Iterator[Finding]:
    """The accounts that will run the stack have what the program grants them, once they are there."""
    made = [node for node in target.of("serviceaccount/account") if _is_there(target, node)]
    theirs = {str(pair).partition("=")[2] for pair in target.graph.config["serviceAccounts"]}
    if not made:
        yield Finding(
            check="accounts",
            what="the stack's accounts",
            state=State.LATER,
            why="not made yet: `up` makes them with their grants. Run this again after it",
        )
        return
    emails = theirs | {naming.account(str(node.inputs["accountId"]), target.project) for node in made}
    grants = [(node, member, name) for node in target.graph.nodes for member, name in _granted(target, node, emails)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(lambda grant: _troubleshoot(target, *grant), grants))
    yield from (finding for finding in found if finding.state is not State.OK)
    if good := sum(finding.state is State.OK for finding in found):
        yield Finding(check="accounts", what=f"{good} grants of {len(emails)} accounts hold")


def _is_there(target: Target, node: Node) -> bool:
    email = naming.account(str(node.inputs["accountId"]), target.project)
    return target.google.get(f"iam.googleapis.com/v1/projects/{target.project}/serviceAccounts/{email}") is not None


def _granted(target: Target, node: Node, emails: set[str]) -> Iterator[tuple[str, str]]:
    """The account that a grant is for, and the resource's full name: cloud.google.com/iam/docs/full-resource-names."""
    member = str(node.inputs.get("member", "")).removeprefix("serviceAccount:")
    if member not in emails or _google_s(node) not in DOES:
        return
    given, project = node.inputs, target.project
    match table.kind_of(node.type):
        case "projects/iAMMember":
            yield member, f"//cloudresourcemanager.googleapis.com/projects/{project}"
        case "storage/bucketIAMMember":
            yield member, f"//storage.googleapis.com/projects/_/buckets/{given['bucket']}"
        case "secretmanager/secretIamMember":
            secret = str(given["secretId"]).rpartition("/")[2]
            yield member, f"//secretmanager.googleapis.com/projects/{target.number}/secrets/{secret}"
        case "spanner/databaseIAMMember":
            database = f"instances/{given['instance']}/databases/{given['database']}"
            yield member, f"//spanner.googleapis.com/projects/{project}/{database}"


def _google_s(node: Node) -> str:
    """A grant's role as Google's are named, those of the project too."""
    return re.sub(r"^projects/[^/]+/", "", str(node.inputs.get("role")))


def _troubleshoot(target: Target, node: Node, account: str, resource: str) -> Finding:
    """Source: cloud.google.com/policy-intelligence/docs/reference/policytroubleshooter/rest/v1/iam/troubleshoot."""
    role = _google_s(node)
    name, permission = account.partition("@")[0], DOES[role]
    what = f"{name}: {permission} on {resource.rpartition('/')[2]}"
    asked = {"accessTuple": {"principal": account, "fullResourceName": resource, "permission": permission}}
    answer, unseen = looked("accounts", what, lambda: target.google.post(_TROUBLESHOOTING, asked))
    if unseen:
        return unseen
    access = (answer or {}).get("access", "UNKNOWN_INFO_DENIED")
    if access == "GRANTED":
        return Finding(check="accounts", what=what)
    if access != "NOT_GRANTED":
        why = f"Policy Troubleshooter answers {access}: it may not see every policy"
        return Finding(check="accounts", what=what, state=State.NOT_SEEN, why=why, who=OWNER)
    return Finding(
        check="accounts",
        what=what,
        state=State.TO_DO,
        why=f"not granted, though the program grants {role} as {node.name}",
        repair=f"python -m delivery.deploy up -s {target.stack} --refresh",
    )


def _batches(values: Sequence[str], size: int) -> Iterator[list[str]]:
    for first in range(0, len(values), size):
        yield list(values[first : first + size])
