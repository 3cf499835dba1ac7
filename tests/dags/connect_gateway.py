"""Kubernetes behind Google's Connect gateway, with Argo CD in it: one Application, as far as a delivery can see it.

Paths: cloud.google.com/kubernetes-engine/enterprise/multicluster-management/gateway. Who asks may do what the stack's
Role says (delivery/argocd/applications/access.yaml), an Application that its schema refuses is refused, and Argo CD
ends an operation after two looks: it takes `operation` away and says how it ended in `status`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.dags.manifests import Manifest, one, problems, rendered
from tests.strict.google_apis import Refused

CLUSTER: Final = "projects/p/locations/global/memberships/argo"
_PLACE: Final = (
    "/v1/projects/p/locations/global/gkeMemberships/argo/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/"
)


@dataclass
class ConnectGateway:
    """`phase` and `health`: how the next operation ends, after so many `looks`. `patches`: what was requested."""

    stack: str
    phase: str = "Succeeded"
    health: str = "Healthy"
    looks: int = 2
    patches: list[Manifest] = field(default_factory=list)

    def __post_init__(self) -> None:
        found = rendered("applications")
        self._role = one(found, "Role", f"payment-audit-{self.stack}-delivery")
        self.application = copy.deepcopy(one(found, "Application", f"payment-audit-{self.stack}"))
        self._looks = 0

    def ask(self, method: str, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        name = path.removeprefix(_PLACE)
        [rule] = self._role["rules"]
        if not path.startswith(_PLACE) or {"GET": "get", "PATCH": "patch"}.get(method) not in rule["verbs"]:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        if name not in rule["resourceNames"]:
            raise Refused(403, "Forbidden", f'applications.argoproj.io "{name}" is forbidden')
        if method == "PATCH":
            self._patch(body)
        else:
            self._control()
        return self.application

    def _patch(self, body: Mapping[str, Any]) -> None:
        patched = _merged(self.application, body)
        if wrong := problems(patched):
            raise Refused(422, "Invalid", "; ".join(wrong))
        self.patches.append(dict(body))
        self.application, self._looks = patched, 0

    def _control(self) -> None:
        """Argo CD's controller, once per look."""
        operation = self.application.get("operation")
        self._looks += 1
        if not operation:
            return
        state = {"phase": "Running", "operation": operation, "startedAt": "2026-11-30T08:00:00Z"}
        status: dict[str, Any] = {"operationState": state}
        if self._looks > self.looks:
            del self.application["operation"]
            at = operation["sync"]["revision"]
            state |= {"phase": self.phase, "message": "one or more synchronization tasks completed unsuccessfully"}
            compared = {"destination": {}, "source": self.application["spec"]["source"]}
            status["sync"] = {"status": "Synced", "revision": at, "comparedTo": compared}
            status["health"] = {"status": self.health}
        self.application["status"] = status
        assert problems(self.application) == []


def _merged(value: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return patch
    found = dict(value) if isinstance(value, Mapping) else {}
    for name, item in patch.items():
        if item is None:
            found.pop(name, None)
        else:
            found[name] = _merged(found.get(name), item)
    return found
