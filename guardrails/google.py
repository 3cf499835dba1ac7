"""What Google Cloud adds to a resource's own inputs, as far as the program reads it: an account's e-mail, a URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def server_made(project: str, kind: str, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are there once the resource is made. `id` is always among them."""
    if kind == "gcp:serviceaccount/account:Account":
        email = f"{inputs['accountId']}@{project}.iam.gserviceaccount.com"
        return {"id": email, "email": email, "member": f"serviceAccount:{email}"}
    if kind == "gcp:storage/bucket:Bucket":
        return {"id": inputs["name"], "url": f"gs://{inputs['name']}"}
    if kind == "gcp:secretmanager/secret:Secret":
        return {"id": f"projects/{project}/secrets/{inputs['secretId']}"}
    if kind == "pulumi:index:Stash":
        return {"id": name, "output": inputs["input"]}
    return {"id": name}
