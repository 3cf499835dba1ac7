"""Kubernetes manifests as kustomize renders them, and what their own schemas say of them.

Argo CD's kinds are checked with its custom resource definitions, Kubernetes' own with its OpenAPI document; both come
with the Go modules that local/kustomize/schemas.txt pins. A key that a schema does not have is a problem, as it is to
a server that validates strictly. Not checked: defaults, and rules between fields.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from local.machine import installed

ARGO_CD: Final = Path(__file__).parents[2] / "delivery" / "argocd"
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
}

Manifest = dict[str, Any]


def rendered(folder: str) -> list[Manifest]:
    """What Argo CD makes of a folder of delivery/argocd/: kustomize without options."""
    return list(yaml.load_all(_built(folder), yaml.CSafeLoader))


@cache
def _built(folder: str) -> str:
    built = subprocess.run(
        [installed.kustomize() / "kustomize", "build", ARGO_CD / folder], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return built.stdout


def one(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    """The manifest of a kind whose name begins so."""
    [found] = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"].startswith(name)]
    return found


def problems(manifest: Manifest) -> list[str]:
    """What its schema refuses of a manifest."""
    kind = (manifest["apiVersion"], manifest["kind"])
    return list(_checked(manifest, _schema(*kind), f"{kind[1]} {manifest['metadata'].get('name', '')}"))


@cache
def _kubernetes() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((installed.kustomize() / "kubernetes.json").read_text())["definitions"]
    return found


@cache
def _definition(name: str) -> dict[str, Any]:
    text = (installed.kustomize() / f"{name}-crd.yaml").read_text()
    found: dict[str, Any] = yaml.load(text, yaml.CSafeLoader)["spec"]
    return found


@cache
def _schema(version: str, kind: str) -> dict[str, Any]:
    for name in ("application", "appproject"):
        definition = _definition(name)
        for each in definition["versions"]:
            if (f"{definition['group']}/{each['name']}", definition["names"]["kind"]) == (version, kind):
                schema: dict[str, Any] = each["schema"]["openAPIV3Schema"]
                meta = {"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
                return {**schema, "properties": {**schema["properties"], "metadata": meta}}
    group, _, number = version.rpartition("/")
    wanted = {"group": group, "version": number, "kind": kind}
    [found] = [each for each in _kubernetes().values() if wanted in each.get("x-kubernetes-group-version-kind", [])]
    return found


def _checked(value: Any, schema: dict[str, Any], where: str) -> Iterator[str]:
    if "$ref" in schema:
        schema = _kubernetes()[schema["$ref"].rpartition("/")[2]]
    kind = schema.get("type", "object" if "properties" in schema else "")
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        kind = ""
    if kind and (not isinstance(value, _TYPES[kind]) or (kind == "integer" and isinstance(value, bool))):
        yield f"{where} must be of type {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where} must be one of {schema['enum']}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{where} must match {schema['pattern']}"
    if kind == "array":
        for number, item in enumerate(value):
            yield from _checked(item, schema["items"], f"{where}[{number}]")
    if kind == "object":
        yield from _fields(value, schema, where)


def _fields(value: dict[str, Any], schema: dict[str, Any], where: str) -> Iterator[str]:
    known, rest = schema.get("properties", {}), schema.get("additionalProperties")
    yield from (f"{where}.{name} is required" for name in schema.get("required", []) if name not in value)
    for name, item in value.items():
        if name in known:
            yield from _checked(item, known[name], f"{where}.{name}")
        elif isinstance(rest, dict):
            yield from _checked(item, rest, f"{where}.{name}")
        elif not (rest or schema.get("x-kubernetes-preserve-unknown-fields")):
            yield f"{where}.{name} is not known"
