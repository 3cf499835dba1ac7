"""A service in Cloud Run, as each of this stack is: an account, the stack's key, network and region."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import cloudrunv2

from components.identity import Account
from components.kms import Keys
from components.network import Network
from components.settings import Settings

_PORT: Final = 8080
_LISTEN: Final = ["--host", "0.0.0.0", "--port", str(_PORT)]  # noqa: S104 - the container's own address


@dataclass(frozen=True, kw_only=True)
class RunService:
    """What differs between two services. `instances`: the least and the most of them.

    Behind the `proxy` a service answers every network that it lets in, others only the stack's own.
    """

    name: str
    description: str
    image: str
    module: str
    account: Account
    environment: Mapping[str, pulumi.Input[str]]
    instances: tuple[int, int]
    request_seconds: int
    proxy: bool = False


@dataclass(frozen=True, kw_only=True)
class RunPlace:
    """What is the same for all of them."""

    settings: Settings
    keys: Keys
    network: Network


def service(
    parent: pulumi.Resource, place: RunPlace, what: RunService, depends_on: Sequence[pulumi.Resource]
) -> cloudrunv2.Service:
    """The service, child of a component."""
    settings = place.settings
    open_to_all = what.proxy and not settings.console.internal
    least, most = what.instances
    return cloudrunv2.Service(
        what.name,
        name=settings.names.of(what.name),
        location=settings.region,
        description=what.description,
        deletion_protection=False,
        iap_enabled=what.proxy,
        ingress="INGRESS_TRAFFIC_ALL" if open_to_all else "INGRESS_TRAFFIC_INTERNAL_ONLY",
        labels=settings.labels,
        template={
            "containers": [
                {
                    "image": what.image,
                    "commands": ["python", "-m", what.module, *_LISTEN],
                    "ports": {"container_port": _PORT},
                    "envs": [{"name": name, "value": value} for name, value in what.environment.items()],
                    "resources": {
                        "limits": {"cpu": "1", "memory": "1Gi"},
                        "cpu_idle": True,
                        "startup_cpu_boost": True,
                    },
                    "startup_probe": {"http_get": {"path": "/healthz"}, "period_seconds": 2, "failure_threshold": 30},
                }
            ],
            "service_account": what.account.email,
            "encryption_key": place.keys.run,
            "execution_environment": "EXECUTION_ENVIRONMENT_GEN2",
            "timeout": f"{what.request_seconds}s",
            "scaling": {"min_instance_count": least, "max_instance_count": most},
            # As the workers: no way to Google's APIs but the private one.
            "vpc_access": {
                "egress": "ALL_TRAFFIC",
                "network_interfaces": [{"subnetwork": place.network.run_subnetwork}],
            },
        },
        opts=pulumi.ResourceOptions(parent=parent, depends_on=depends_on),
    )


def grant_call(
    parent: pulumi.Resource, who: str, called: cloudrunv2.Service, member: pulumi.Input[str]
) -> cloudrunv2.ServiceIamMember:
    """Lets a member call one service."""
    return _grant(parent, who, called, "invoker", member)


def grant_look(parent: pulumi.Resource, person: str, seen: cloudrunv2.Service) -> None:
    """Lets who is on call see whether a service runs, and from which revision."""
    _grant(parent, person, seen, "viewer", person)


def _grant(
    parent: pulumi.Resource, who: str, service: cloudrunv2.Service, role: str, member: pulumi.Input[str]
) -> cloudrunv2.ServiceIamMember:
    return cloudrunv2.ServiceIamMember(
        f"{service._name}-{who}",
        location=service.location,
        name=service.name,
        role=f"roles/run.{role}",
        member=member,
        opts=pulumi.ResourceOptions(parent=parent),
    )
