"""VPC Service Controls: the stack's data stays in the project, whoever has credentials for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pulumi
from pulumi_gcp import accesscontextmanager, organizations

from components import naming
from components.identity import Identity
from components.image import repository_of
from components.settings import Settings
from components.settings.orchestration import project_of

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
# What a preview looks up, and the state that it reads.
_PREVIEW: Final = ("bigquery", "cloudkms", "logging", "storage")
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

_PULLS: Final = "artifactregistry.googleapis.com/DockerRead"


@dataclass(frozen=True, kw_only=True)
class PerimeterArgs:
    settings: Settings
    accounts: Identity


class Perimeter(pulumi.ComponentResource):
    """The perimeter round the stack's project, where its organisation has an access policy; else nothing."""

    def __init__(self, name: str, args: PerimeterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Perimeter"), name, {}, opts)
        self._settings, self._accounts = args.settings, args.accounts
        if args.settings.perimeter.on:
            self._perimeter()
        self.register_outputs({"on": args.settings.perimeter.on})

    def _perimeter(self) -> None:
        perimeter = self._settings.perimeter
        policy = f"accessPolicies/{perimeter.access_policy}"
        name = self._settings.names.with_underscores(f"{naming.PERIMETER}_{self._settings.stack}")
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
        preview = f"serviceAccount:{naming.account(naming.PREVIEW, settings.project)}"
        composer = ("composer",) if settings.orchestration.own_environment else ()
        calls: dict[str, tuple[list[pulumi.Input[str]], list[str]]] = {
            "Deployment": ([deployer, *settings.perimeter.members], ["*"]),
            "Previews of a change": ([preview], [_service(api) for api in _PREVIEW]),
        }
        people = {
            "Readers of the views": (settings.warehouse.readers, ("bigquery", "storage")),
            "Who is on call": (settings.identity.on_call, _ON_CALL),
            "Who ends the job": (settings.identity.drainers, ("dataflow",)),
            "Operators of dead letters": (settings.identity.dead_letter_operators, ("storage",)),
            "Card searchers": (settings.warehouse.card_searchers, ("run",)),
            "Who has customers erased": (settings.identity.erasers, ("run", "spanner", "storage")),
        }
        calls |= {title: ([*who], [_service(api) for api in apis]) for title, (who, apis) in people.items() if who}
        orchestration = settings.orchestration
        if orchestration.environment and project_of(orchestration.environment) != settings.project:
            calls["Cloud Composer, from its project"] = (
                [f"serviceAccount:{orchestration.account}"],
                [_service(api) for api in ("run", "logging")],
            )
        if settings.identity.kubernetes_project:
            application = self._accounts.application.member
            calls["The application, from its clusters' project"] = ([application], [_service("spanner")])
        return {
            "resources": [pulumi.Output.concat("projects/", number)],
            "restricted_services": [_service(api) for api in (*_GUARDED, *composer)],
            "vpc_accessible_services": {"enable_restriction": True, "allowed_services": ["RESTRICTED-SERVICES"]},
            "ingress_policies": [_ingress(title, who, what) for title, (who, what) in calls.items()],
            "egress_policies": [self._images_of(project) for project in image_projects(settings)],
        }

    def _images_of(self, project: str) -> dict[str, Any]:
        """What runs here pulls images from another stack's project: images alone, and nothing else of it.

        Any identity: workers pull as their account, Cloud Run as its agent, and each has a grant on the repository.
        Source: cloud.google.com/artifact-registry/docs/securing-with-vpc-sc.
        """
        look = pulumi.InvokeOutputOptions(parent=self)
        number = organizations.get_project_output(project_id=project, opts=look).number
        return {
            "title": f"Images of {project}",
            "egress_from": {"identity_type": "ANY_IDENTITY"},
            "egress_to": {
                "resources": [pulumi.Output.concat("projects/", number)],
                "operations": [
                    {"service_name": _service("artifactregistry"), "method_selectors": [{"method": _PULLS}]},
                ],
            },
        }


def image_projects(settings: Settings) -> list[str]:
    """The other projects that hold an image of this stack's, in the order of their names."""
    images = [image for image in (settings.pipeline.image, settings.console.image) if image]
    return sorted({repository_of(image)[1] for image in images} - {settings.project})


def _service(api: str) -> str:
    return f"{api}.googleapis.com"


def _ingress(title: str, members: Sequence[pulumi.Input[str]], services: Sequence[str]) -> dict[str, Any]:
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
