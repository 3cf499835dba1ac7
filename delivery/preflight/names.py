"""Names that are taken, the images, and the places of the keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from components import naming
from delivery.owners import places, used_keys
from delivery.preflight.findings import OWNER, Finding, State
from delivery.preflight.google import NotSeen
from delivery.preflight.target import Target, looked, not_seen
from graph.resources import Node

_FORBIDDEN: Final = 403

# Where a resource that the stack names is read.
_PLACES: Final[Mapping[str, Callable[[Target, Mapping[str, Any]], str]]] = {
    # cloud.google.com/storage/docs/json_api/v1/buckets/get
    "storage/bucket": lambda target, given: f"storage.googleapis.com/storage/v1/b/{given['name']}",
    # cloud.google.com/bigquery/docs/reference/rest/v2/datasets/get
    "bigquery/dataset": lambda target, given: (
        f"bigquery.googleapis.com/bigquery/v2/projects/{target.project}/datasets/{given['datasetId']}"
    ),
    # cloud.google.com/spanner/docs/reference/rest/v1/projects.instances/get
    "spanner/instance": lambda target, given: (
        f"spanner.googleapis.com/v1/projects/{target.project}/instances/{given['name']}"
    ),
}


def names(target: Target) -> Iterator[Finding]:
    """A bucket's name is one in the whole of Google Cloud, a dataset's and an instance's in the project."""
    free = 0
    for kind, place in _PLACES.items():
        for node in target.of(kind):
            finding = _name(target, kind, node, place(target, node.inputs))
            free += finding is None
            if finding:
                yield finding
    if free:
        yield Finding(check="names", what=f"{free} are free, or this stack's own")


def _name(target: Target, kind: str, node: Node, url: str) -> Finding | None:
    name = f"{kind.rpartition('/')[2]} {url.rpartition('/')[2]}"
    try:
        found = target.google.get(url)
    except NotSeen as error:
        if kind == "storage/bucket" and error.status == _FORBIDDEN and "is off" not in str(error):
            why = (
                "taken, by somebody else or where you may not look: a bucket's name is one in the whole of Google Cloud"
            )
            repair = "set another payment-audit:project: the name has it in it"
            return Finding(check="names", what=name, state=State.BLOCKER, why=why, repair=repair)
        return not_seen("names", name, error)
    if found is None or _ours(target, found):
        return None
    why = "there already, and not made by this stack: `up` would end with 409, already exists"
    repair = "move what is there to another name, or delete it if it is a remainder of a test"
    labels = found.get("labels") or {}
    if labels.get("service") == naming.labels(target.stack)["service"]:
        why = f"stack {labels.get('stack')} of this project has it: `up` would end with 409, already exists"
        repair = "set another payment-audit:prefix in the stack's file, and projectWide to false in one of the two"
    return Finding(check="names", what=name, state=State.BLOCKER, why=why, repair=repair, who=OWNER)


def _ours(target: Target, found: Mapping[str, Any]) -> bool:
    labels = found.get("labels") or {}
    return all(labels.get(key) == value for key, value in naming.labels(target.stack, target.names.prefix).items())


def images(target: Target) -> Iterator[Finding]:
    """The repository is there, and in it the digests that the stack's file names.

    Sources: cloud.google.com/artifact-registry/docs/reference/rest/v1/projects.locations.repositories/get and
    …repositories.dockerImages/get.
    """
    api = "artifactregistry.googleapis.com/v1"
    found, unseen = looked("images", target.repository, lambda: target.google.get(f"{api}/{target.repository}"))
    if unseen:
        yield unseen
    elif found is None:
        why = "not there, or not to be seen: the job's image is taken from it"
        repair = f"python -m bootstrap --stack {target.stack}"
        what = f"repository {target.repository}"
        yield Finding(check="images", what=what, state=State.BLOCKER, why=why, repair=repair, who=OWNER)
    else:
        yield Finding(check="images", what=f"repository {target.repository}")
    for setting in ("image", "consoleImage"):
        yield from _image(target, api, setting)


def _image(target: Target, api: str, setting: str) -> Iterator[Finding]:
    image = target.pinned.get(setting, "")
    if not image:
        if setting == "image":
            why = "none is pinned: `up` makes all but the job until one is"
            repair = f"python -m delivery.pin image -s {target.stack} --name … --tag …; until then up --without-job"
            yield Finding(check="images", what=setting, state=State.LATER, why=why, repair=repair)
        return
    parts = re.fullmatch(r"([a-z0-9-]+)-docker\.pkg\.dev/([^/]+)/([^/]+)/(.+)", image)
    if not parts:
        why = "its registry answers no question of this kind"
        yield Finding(check="images", what=f"{setting} {image}", state=State.NOT_SEEN, why=why)
        return
    region, project, repository, name = parts.groups()
    url = f"{api}/projects/{project}/locations/{region}/repositories/{repository}/dockerImages/{quote(name, safe='')}"
    found, unseen = looked("images", f"{setting} {image}", lambda: target.google.get(url))
    if unseen:
        yield unseen
    elif found is None:
        why = "this digest is not in the registry, so no worker starts"
        repair = f"push it, and python -m delivery.pin image -s {target.stack} --setting {setting} --name … --tag …"
        yield Finding(check="images", what=f"{setting} {image}", state=State.BLOCKER, why=why, repair=repair)
    else:
        yield Finding(check="images", what=f"{setting} {image}")


def keys(target: Target) -> Iterator[Finding]:
    """Cloud KMS has each place that the stack's key rings are in: its names differ from those of the stores. A key of
    others is there.

    Sources: cloud.google.com/kms/docs/reference/rest/v1/projects.locations/get and …keyRings.cryptoKeys/get.
    """
    for key in used_keys(target.graph) if target.graph.config["keyRing"] else ():
        yield _key(target, key)
    for ring in target.of("kms/keyRing"):
        location = str(ring.inputs["location"])
        url = f"cloudkms.googleapis.com/v1/projects/{target.project}/locations/{location}"
        what = f"key ring {ring.inputs['name']} in {location}"
        found, unseen = looked("keys", what, partial(target.google.get, url))
        if unseen:
            yield unseen
        elif found is None:
            why = "Cloud KMS has no such place. For data in EU its place is europe, for US us"
            repair = "set payment-audit:region or payment-audit:warehouseLocation to one where keys can be"
            yield Finding(check="keys", what=what, state=State.BLOCKER, why=why, repair=repair)
        else:
            yield Finding(check="keys", what=what)
    if not (target.of("kms/keyRing") or target.graph.config["keyRing"]):
        yield Finding(check="keys", what="Google's own keys: customerManagedKeys is false")


def _key(target: Target, key: str) -> Finding:
    found, unseen = looked("keys", key, partial(target.google.get, f"cloudkms.googleapis.com/v1/{key}"))
    if unseen or found:
        return unseen or Finding(check="keys", what=key)
    return _of_others(target, "keys", key, "there is no such key, and keyRing says that its owners make them")


def existing(target: Target) -> Iterator[Finding]:
    """What config names of others is there: the subnetwork, with Private Google Access, log bucket, secret, datasets
    and accounts.

    Sources: cloud.google.com/compute/docs/reference/rest/v1/subnetworks/get and
    cloud.google.com/logging/docs/reference/v2/rest/v2/projects.locations.buckets/get.
    """
    subnetwork, bucket = places(target.graph.config)
    if subnetwork:
        url = f"compute.googleapis.com/compute/v1/{subnetwork}"
        found, unseen = looked("existing", subnetwork, lambda: target.google.get(url))
        if unseen:
            yield unseen
        elif not (found or {}).get("privateIpGoogleAccess"):
            why = "without Private Google Access, by which workers reach Google" if found else "no such subnetwork"
            yield _of_others(target, "existing", subnetwork, why)
        else:
            yield Finding(check="existing", what=subnetwork)
    if bucket:
        found, unseen = looked("existing", bucket, lambda: target.google.get(f"logging.googleapis.com/v2/{bucket}"))
        if unseen or found:
            yield unseen or Finding(check="existing", what=bucket)
        else:
            yield _of_others(target, "existing", bucket, "there is no such log bucket: what is sent there is lost")
    config = target.graph.config
    if secret := str(config["maskingSecret"]):
        yield _there(target, secret, f"secretmanager.googleapis.com/v1/{secret}", "there is no such secret")
    for dataset in config["existingDatasets"]:
        yield _dataset(target, str(dataset))
    accounts = [str(pair).partition("=")[2] for pair in target.graph.config["serviceAccounts"]]
    for email in accounts:
        yield _account(target, email)
    if not (subnetwork or bucket or accounts or secret or config["existingDatasets"]):
        yield Finding(check="existing", what="network, log bucket, datasets, secret and accounts are the stack's own")


def _there(target: Target, what: str, url: str, why: str) -> Finding:
    found, unseen = looked("existing", what, partial(target.google.get, url))
    if unseen or found is not None:
        return unseen or Finding(check="existing", what=what)
    return _of_others(target, "existing", what, why)


def _dataset(target: Target, name: str) -> Finding:
    """Source: cloud.google.com/bigquery/docs/reference/rest/v2/datasets/get."""
    url = f"bigquery.googleapis.com/bigquery/v2/projects/{target.project}/datasets/{name}"
    what, location = f"dataset {name}", str(target.graph.config["warehouseLocation"])
    found, unseen = looked("existing", what, partial(target.google.get, url))
    if unseen:
        return unseen
    if found and str(found.get("location")).lower() == location.lower():
        return Finding(check="existing", what=what)
    why = f"is in {found.get('location')}, and warehouseLocation is {location}" if found else "there is no such dataset"
    return _of_others(target, "existing", what, why)


def _account(target: Target, email: str) -> Finding:
    """Source: cloud.google.com/iam/docs/reference/rest/v1/projects.serviceAccounts/get."""
    url = f"iam.googleapis.com/v1/projects/{naming.project_of(email)}/serviceAccounts/{email}"
    found, unseen = looked("existing", email, partial(target.google.get, url))
    if unseen or (found and not found.get("disabled")):
        return unseen or Finding(check="existing", what=email)
    why = "is disabled" if found else "there is no such service account, and serviceAccounts names it"
    return _of_others(target, "existing", email, why)


def _of_others(target: Target, check: str, what: str, why: str) -> Finding:
    repair = f"run what python -m delivery.owners -s {target.stack} prints, or correct the name in the stack's file"
    return Finding(check=check, what=what, state=State.BLOCKER, why=why, repair=repair, who="its owners")
