"""The job's network, and the perimeter round the stack's project."""

import ipaddress
from dataclasses import dataclass
from typing import Final, Self

from components.settings.reader import Reader

_MEMBER: Final = r"(user|serviceAccount):[^@\s]+@[^@\s]+"
# A subnetwork of a shared VPC is another project's, so its name says which.
_SHARED: Final = r"https://www\.googleapis\.com/compute/v1/projects/[^/]+/regions/[^/]+/subnetworks/[^/]+"


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
                rf"|regions/[^/]+/subnetworks/[^/]+|{_SHARED}",
                "empty, regions/R/subnetworks/S, or the https:// URL of a shared VPC's",
            ),
            addresses=addresses,
            nat=read.boolean("cloudNat"),
        )

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

    def relations(self, read: Reader) -> None:
        if read.stack != "prod" or self.waiver:
            return
        if not (self.access_policy and self.enforced):
            rule = "enforced, with an accessPolicy, in prod; or say in perimeterWaiver why there is no perimeter"
            mode = "enforced" if self.enforced else "dryRun"
            read.refuse("perimeterMode", rule, mode if self.access_policy else f"{mode} without accessPolicy")

    @property
    def on(self) -> bool:
        return bool(self.access_policy)
