"""The job's network, and the perimeter round the stack's project."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Self

from components.settings.reader import Reader

_MEMBER: Final = r"(user|serviceAccount):[^@\s]+@[^@\s]+"
# A subnetwork of a shared VPC is another project's, so its name says which.
_URL: Final = "https://www.googleapis.com/compute/v1/"
_SUBNETWORK: Final = r"regions/[^/]+/subnetworks/[^/]+"
_SHARED: Final = rf"({re.escape(_URL)})?projects/[^/]+/{_SUBNETWORK}"


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """`subnetwork` is one that is there already, the project's or a shared VPC's; empty makes a new network."""

    subnetwork: str
    addresses: str
    nat: bool

    @classmethod
    def read(cls, read: Reader) -> Self:
        addresses = read.text("subnetworkRange", r"[\d./]+", _RANGE_RULE)
        if not _private(addresses):
            read.refuse("subnetworkRange", _RANGE_RULE, addresses)
        return cls(
            subnetwork=read.text(
                "subnetwork",
                rf"|{_SUBNETWORK}|{_SHARED}",
                "empty, regions/R/subnetworks/S, or projects/HOST/regions/R/subnetworks/S of a shared VPC",
            ),
            addresses=addresses,
            nat=read.boolean("cloudNat"),
        )

    def shared(self, project: str) -> bool:
        """Whether the subnetwork is another project's."""
        return bool(self.subnetwork) and not self.place(project).startswith(f"projects/{project}/")

    def place(self, project: str) -> str:
        """The given subnetwork's full name, in the stack's project where it names none; empty without one."""
        given = self.subnetwork.removeprefix(_URL)
        return given if not given or given.startswith("projects/") else f"projects/{project}/{given}"

    @property
    def url(self) -> str:
        """As Dataflow takes it: one of another project by its whole URL.

        Source: cloud.google.com/dataflow/docs/guides/specifying-networks.
        """
        return _URL + self.subnetwork if self.subnetwork.startswith("projects/") else self.subnetwork

    def relations(self, read: Reader, region: str) -> None:
        if self.subnetwork and f"regions/{region}/" not in self.subnetwork:
            read.refuse("subnetwork", f"in the stack's region, {region}", self.subnetwork)
        if self.subnetwork and self.nat:
            read.refuse("cloudNat", "false where subnetwork names a network that somebody else keeps", "true")


_RANGE_RULE: Final = "a private IPv4 range from /20 to /26, such as 10.10.0.0/24"


def _private(addresses: str) -> bool:
    try:
        network = ipaddress.IPv4Network(addresses)
    except ValueError:
        return False
    return network.is_private and 20 <= network.prefixlen <= 26


@dataclass(frozen=True, kw_only=True)
class PerimeterSettings:
    """VPC Service Controls. `access_policy` is the organisation's number for it; empty means no perimeter."""

    access_policy: str
    enforced: bool
    members: tuple[str, ...]
    waiver: str

    @classmethod
    def read(cls, read: Reader) -> Self:
        mode = read.text("perimeterMode", "dryRun|enforced", "dryRun or enforced")
        return cls(
            access_policy=read.text("accessPolicy", r"|\d+", "empty or the number of an access policy"),
            enforced=mode == "enforced",
            members=read.texts("perimeterMembers", _MEMBER, "members such as user:ops@example.com"),
            waiver=read.text("perimeterWaiver", r".*", "text"),
        )

    def relations(self, read: Reader, shared_subnetwork: bool, secret_elsewhere: bool, project_wide: bool) -> None:
        if self.on and not project_wide:
            # A project is in one perimeter alone: cloud.google.com/vpc-service-controls/docs/service-perimeters.
            rule = "empty where projectWide is false: the stack that has it true keeps the project's one perimeter"
            read.refuse("accessPolicy", rule, self.access_policy)
        if self.on and self.enforced and shared_subnetwork:
            # What is called in a network's name is outside, and a project is in one perimeter alone:
            # cloud.google.com/vpc-service-controls/docs/service-perimeters.
            rule = (
                "dryRun where subnetwork is another project's, which the stack's perimeter has outside, workers too; "
                "or leave accessPolicy empty, and say in perimeterWaiver which perimeter has both projects"
            )
            read.refuse("perimeterMode", rule, "enforced")
        if self.on and self.enforced and secret_elsewhere:
            rule = (
                "dryRun where maskingSecret is another project's, which the stack's perimeter has outside: no worker "
                "could read the key; or leave accessPolicy empty, and say in perimeterWaiver which perimeter has both"
            )
            read.refuse("perimeterMode", rule, "enforced")
        if read.stack != "prod" or self.waiver:
            return
        if not (self.access_policy and self.enforced):
            rule = "enforced, with an accessPolicy, in prod; or say in perimeterWaiver why there is no perimeter"
            mode = "enforced" if self.enforced else "dryRun"
            read.refuse("perimeterMode", rule, mode if self.access_policy else f"{mode} without accessPolicy")

    @property
    def on(self) -> bool:
        return bool(self.access_policy)
