"""What things are called. The same name in every stack; what is unique in the world carries the project."""

from typing import Final

INSTANCE: Final = "audit-instance"
AUDIT_DATABASE: Final = "audit-db"
METADATA_DATABASE: Final = "audit-metadata"
METADATA_INSTANCE: Final = "audit-metadata-instance"
BACKUPS: Final = "audit-db-backups"
STREAM_JOB: Final = "audit-stream-job"
MASKING_KEYS: Final = "masking-keys"
PROBE: Final = "audit-probe"
REPLAY: Final = "audit-replay"
VALIDATION: Final = "audit-validation"
REPAIR: Final = "audit-repair"
ERASURE: Final = "audit-erasure"
BACKUP: Final = "audit-backup"
BACKUP_DRILL: Final = "audit-backup-drill"
FILL: Final = "fill-payment-lookup"
CONSOLE: Final = "audit-console"
CARD_TOKENS: Final = "audit-card-tokens"
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
ACCESS_LOGGER: Final = "auditAccessLogger"
ON_CALL: Final = "auditOnCall"

# The stack's addresses for `audit`, in the bucket of templates.
CONNECTION: Final = "connection.json"


def bucket(project: str, purpose: str) -> str:
    """A bucket's name. Bucket names are one namespace for the whole of Google Cloud."""
    return f"{project}-{purpose}"


def account(name: str, project: str) -> str:
    """A service account's e-mail."""
    return f"{name}@{project}.iam.gserviceaccount.com"


def role(name: str, project: str) -> str:
    """A custom role of the stack's project, as a grant names it."""
    return f"projects/{project}/roles/{name}"


def labels(stack: str) -> dict[str, str]:
    """Labels that every resource of the stack carries."""
    return {"service": "payment-audit", "stack": stack, "managed-by": "pulumi"}


def component(role: str) -> str:
    """The Pulumi type of a component."""
    return f"payment-audit:components:{role}"
