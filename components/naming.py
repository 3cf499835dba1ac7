"""What things are called. The same name in every stack; what is unique in the world carries the project.

A stack with a `prefix` has it in front of each name (`Names`), so that a project can have another stack beside it. What
bootstrap makes has none: it is the project's, and serves all of its stacks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

INSTANCE: Final = "audit-instance"
AUDIT_DATABASE: Final = "audit-db"
METADATA_DATABASE: Final = "audit-metadata"
METADATA_INSTANCE: Final = "audit-metadata-instance"
BACKUPS: Final = "audit-db-backups"
STREAM_JOB: Final = "audit-stream-job"
MASKING_KEYS: Final = "masking-keys"
PROBE: Final = "audit-probe"
REPLAY: Final = "audit-replay"
LAUNCH_CHECK: Final = "audit-launch-check"
FILL: Final = "fill-payment-lookup"
CONSOLE: Final = "audit-console"
CARD_TOKENS: Final = "audit-card-tokens"
STARTER: Final = "audit-starter"
COMPOSER: Final = "audit-composer"
MERGE: Final = "merge-payment-state"
NETWORK: Final = "audit"
KEY_RING: Final = "audit"
LOG_BUCKET: Final = "audit-logs"
JOB_LOG: Final = "job"
DELIVERY: Final = "delivery"
PERIMETER: Final = "payment_audit"
CI_POOL: Final = "ci-pool"
CI_PROVIDER: Final = "ci-oidc"

# What bootstrap makes before the first `up`, in the stack's own project.
DEPLOYER: Final = "deployer-sa"
PREVIEW: Final = "preview-sa"
BOOTSTRAP_RING: Final = "bootstrap"
IMAGES: Final = "audit-images"
DRAINER: Final = "auditDrainer"
WORKER: Final = "auditWorker"
ACCESS_LOGGER: Final = "auditAccessLogger"
ON_CALL: Final = "auditOnCall"
DDL_READER: Final = "auditDdlReader"
TABLE_KEEPER: Final = "auditTableKeeper"

# The stack's addresses for `audit`, in the bucket of templates.
CONNECTION: Final = "connection.json"


# A prefix, and why it is no longer: a project id has up to 30 characters, `-memory-profiles` 16, a bucket's name 63; a
# service account's id 30, `-application-sa` 15. https://cloud.google.com/storage/docs/buckets#naming,
# https://cloud.google.com/iam/docs/service-accounts-create#creating. No hyphen is last: `-` follows.
LONGEST_PREFIX: Final = 12
PREFIX: Final = rf"|[a-z](?!.*--)[a-z0-9-]{{0,{LONGEST_PREFIX - 2}}}[a-z0-9]"
PREFIX_RULE: Final = (
    f"empty, or up to {LONGEST_PREFIX} of a-z, 0-9 and -, beginning with a-z, no hyphen last and no two together"
)
# The provider takes an instance's name of 6 to 30 characters: registry.terraform.io/providers/hashicorp/google,
# google_spanner_instance. So much is left in front of METADATA_INSTANCE.
LONGEST_PREFIX_OF_METADATA: Final = 30 - len(METADATA_INSTANCE) - 1


@dataclass(frozen=True, kw_only=True)
class Names:
    """What a stack of a project calls its things. Without a prefix each name is as it is given.

    `given` are accounts of others, as its config `serviceAccounts` has them.
    """

    project: str
    prefix: str = ""
    given: tuple[str, ...] = ()

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Self:
        """Of a stack's config by key."""
        return cls(
            project=str(config.get("project") or ""),
            prefix=str(config.get("prefix") or ""),
            given=tuple(config.get("serviceAccounts") or ()),
        )

    def of(self, name: str) -> str:
        """A name in which hyphens may be: `eu-audit-db`."""
        return f"{self.prefix}-{name}" if self.prefix else name

    def with_underscores(self, name: str) -> str:
        """A name in which no hyphen may be: `eu_personal_as_null`."""
        return f"{self.prefix.replace('-', '_')}_{name}" if self.prefix else name

    def without_prefix(self, name: str) -> str:
        """What a stack without a prefix calls it."""
        return name.removeprefix(self.of("")).removeprefix(self.with_underscores(""))

    def bucket(self, purpose: str) -> str:
        """A bucket's name. Bucket names are one namespace for the whole of Google Cloud."""
        return bucket(self.project, self.of(purpose))

    def account(self, name: str) -> str:
        """The e-mail of the stack's account of that name, which others may own."""
        theirs = dict(pair.split("=") for pair in self.given)
        return theirs.get(name) or account(self.of(name), self.project)


def bucket(project: str, purpose: str) -> str:
    """A bucket of the project, with no stack's prefix."""
    return f"{project}-{purpose}"


def account(name: str, project: str) -> str:
    """A service account's e-mail."""
    return f"{name}@{project}.iam.gserviceaccount.com"


def project_of(email: str) -> str:
    """The project of a service account."""
    return email.partition("@")[2].partition(".")[0]


def role(name: str, project: str) -> str:
    """A custom role of the stack's project, as a grant names it."""
    return f"projects/{project}/roles/{name}"


def database_role(name: str) -> str:
    """A database role of Spanner's, as the condition of a grant names it."""
    return f'resource.type == "spanner.googleapis.com/DatabaseRole" && resource.name.endsWith("/databaseRoles/{name}")'


def labels(stack: str, prefix: str = "") -> dict[str, str]:
    """Labels that every resource of the stack carries. By its prefix a console knows the alerts that are its own."""
    return {"service": "payment-audit", "stack": stack, "managed-by": "pulumi"} | ({"prefix": prefix} if prefix else {})


def component(role: str) -> str:
    """The Pulumi type of a component."""
    return f"payment-audit:components:{role}"
