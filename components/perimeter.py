"""VPC Service Controls: the stack's data stays in the project, whoever has credentials for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pulumi
from pulumi_gcp import accesscontextmanager, organizations

from components import naming
from components.settings import Settings

# What holds or moves the stack's data, without `.googleapis.com`.
_GUARDED: Final = (
    "artifactregistry",
    "bigquery",
    "bigquerydatatransfer",
    "cloudkms",
    "cloudscheduler",
    "dataflow",
    "logging",
    "monitoring",
    "pubsub",
    "run",
    "secretmanager",
    "spanner",
    "storage",
)
# What the runbooks' commands call.
_ON_CALL: Final = (
    "bigquery",
    "cloudkms",
    "cloudscheduler",
    "dataflow",
    "logging",
    "monitoring",
    "run",
    "secretmanager",
    "spanner",
    "storage",
)


@dataclass(frozen=True, kw_only=True)
class PerimeterArgs:
    settings: Settings


class Perimeter(pulumi.ComponentResource):
    """The perimeter round the stack's project, where its organisation has an access policy; else nothing."""

    def __init__(self, name: str, args: PerimeterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Perimeter"), name, {}, opts)
        self._settings = args.settings
        if args.settings.perimeter.on:
            self._perimeter()
        self.register_outputs({"on": args.settings.perimeter.on})

    def _perimeter(self) -> None:
        perimeter = self._settings.perimeter
        policy, name = f"accessPolicies/{perimeter.access_policy}", f"{naming.PERIMETER}_{self._settings.stack}"
        guarded = self._guarded()
        accesscontextmanager.ServicePerimeter(
            "perimeter",
            parent=policy,
            name=f"{policy}/servicePerimeters/{name}",
            title=name,
            perimeter_type="PERIMETER_TYPE_REGULAR",
            # A dry run logs what it would have refused; both at once would be two perimeters to keep alike.
            use_explicit_dry_run_spec=not perimeter.enforced,
            status=guarded if perimeter.enforced else None,
            spec=None if perimeter.enforced else guarded,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _guarded(self) -> Any:
        """What is inside, and who may call in. `status` and `spec` have this shape alike."""
        settings = self._settings
        look = pulumi.InvokeOutputOptions(parent=self)
        number = organizations.get_project_output(project_id=settings.project, opts=look).number
        deployer = f"serviceAccount:{naming.account(naming.DEPLOYER, settings.project)}"
        calls = {"Deployment": ([deployer, *settings.perimeter.members], ["*"])}
        people = {
            "Readers of the views": (settings.warehouse.readers, ("bigquery", "storage")),
            "Who is on call": (settings.identity.on_call, _ON_CALL),
            "Who ends the job": (settings.identity.drainers, ("dataflow",)),
            "Operators of dead letters": (settings.identity.dead_letter_operators, ("storage",)),
        }
        calls |= {title: ([*who], [_service(api) for api in apis]) for title, (who, apis) in people.items() if who}
        if settings.identity.kubernetes_project:
            application = f"serviceAccount:{naming.account('application-sa', settings.project)}"
            calls["The application, from its clusters' project"] = ([application], [_service("spanner")])
        return {
            "resources": [pulumi.Output.concat("projects/", number)],
            "restricted_services": [_service(api) for api in _GUARDED],
            "vpc_accessible_services": {"enable_restriction": True, "allowed_services": ["RESTRICTED-SERVICES"]},
            "ingress_policies": [_ingress(title, who, what) for title, (who, what) in calls.items()],
        }


def _service(api: str) -> str:
    return f"{api}.googleapis.com"


def _ingress(title: str, members: Sequence[str], services: Sequence[str]) -> dict[str, Any]:
    """These members may call these services from anywhere: their identity is what is checked."""
    # Every method: the members' roles say which of them they may use.
    methods = [] if "*" in services else [{"method": "*"}]
    return {
        "title": title,
        "ingress_from": {"identities": list(members), "sources": [{"access_level": "*"}]},
        "ingress_to": {
            "resources": ["*"],
            "operations": [{"service_name": service, "method_selectors": methods} for service in services],
        },
    }
