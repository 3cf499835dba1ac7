"""Who starts the operations: Cloud Scheduler, or DAGs of Cloud Composer."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Self

from components.settings.reader import Reader

SCHEDULER: Final = "scheduler"
COMPOSER: Final = "composer"
_ENVIRONMENT: Final = (
    r"projects/([a-z][a-z0-9-]{4,28}[a-z0-9])/locations/[a-z0-9-]+/environments/[a-z][a-z0-9-]*[a-z0-9]"
)
_ACCOUNT: Final = r"|[^@\s]+@[^@\s]+\.gserviceaccount\.com"
# Composer 3 alone: its machines and its database are in a project of Google's.
_IMAGE: Final = r"composer-3-airflow-[23](\.\d+\.\d+(-build\.\d+)?)?"
_SIZES: Final = ("small", "medium", "large")
_CREATED: Final = "unset without composerEnvironment, which names an environment of others"


@dataclass(frozen=True, kw_only=True)
class OrchestrationSettings:
    """`environment` is one of others, with its `bucket` and `account`; empty makes one, which has the rest."""

    form: str
    environment: str
    bucket: str
    account: str
    image: str
    size: str
    web_ranges: tuple[str, ...]

    @classmethod
    def read(cls, read: Reader) -> Self:
        return cls(
            form=read.text("orchestration", f"{SCHEDULER}|{COMPOSER}", f"{SCHEDULER} or {COMPOSER}"),
            environment=read.text(
                "composerEnvironment", rf"|{_ENVIRONMENT}", "empty or projects/P/locations/R/environments/E"
            ),
            bucket=read.text("composerBucket", r"|[a-z0-9][-_.a-z0-9]{1,61}[a-z0-9]", "empty or a bucket's name"),
            account=read.text("composerAccount", _ACCOUNT, "empty or a service account's e-mail"),
            image=read.text("composerImage", _IMAGE, "of Composer 3, such as composer-3-airflow-2"),
            size=read.text("composerSize", "|".join(_SIZES), " or ".join(_SIZES)),
            web_ranges=read.texts("composerWebRanges", r"[\d.]+/\d+", "ranges of addresses, such as 203.0.113.0/24"),
        )

    @property
    def composer(self) -> bool:
        return self.form == COMPOSER

    @property
    def own_environment(self) -> bool:
        """Whether the stack makes the environment."""
        return self.composer and not self.environment

    def relations(self, read: Reader, owner: str) -> None:
        if owner not in ("pulumi", self.form):
            rule = f"pulumi, or {self.form} as orchestration is: who starts the operations launches the job too"
            read.refuse("pipelineOwner", rule, owner)
        beside = {"composerBucket": self.bucket, "composerAccount": self.account}
        for key, value in beside.items():
            if self.environment and not value:
                read.refuse(key, "set together with composerEnvironment", value)
            if value and not self.environment:
                read.refuse(key, _CREATED, value)
        if self.environment and not self.composer:
            rule = "composer where composerEnvironment is set"
            read.refuse("orchestration", rule, self.form)
        if self.own_environment and not self.web_ranges:
            rule = "the addresses from which Airflow's page may be opened: without any, all of the internet may ask"
            read.refuse("composerWebRanges", rule, "[]")
        for each in self.web_ranges:
            if not _narrow(each):
                read.refuse("composerWebRanges", "ranges of /8 or fewer addresses, and not all of the internet", each)


def _narrow(addresses: str) -> bool:
    try:
        return ipaddress.IPv4Network(addresses).prefixlen >= 8
    except ValueError:
        return False


def project_of(environment: str) -> str:
    """The project of an environment's full name."""
    return re.sub(r"^projects/([^/]+)/.*", r"\1", environment)
