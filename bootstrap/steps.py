"""The steps, in order: each checks whether its resource exists, and makes it if not. Nothing is changed or deleted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bootstrap import roles
from components import naming
from components.services import LOOKED_WITH, apis

_ENCRYPTER: Final = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
_DECRYPTER: Final = "roles/cloudkms.cryptoKeyDecrypter"
_PROJECT: Final = ("projects",)
_BUCKET: Final = ("storage", "buckets")
_ACCOUNT: Final = ("iam", "service-accounts")
STATE: Final = "pulumi-state"
SECRETS: Final = "pulumi-secrets"
IMAGES: Final = "images"
# How many a request enables at most: cloud.google.com/service-usage/docs/reference/rest/v1/services/batchEnable.
_AT_ONCE: Final = 20
# Services whose agents bootstrap or the program grants something. Storage's has a separate command, Compute Engine's
# comes with the API: cloud.google.com/iam/docs/service-agents.
_AGENTS: Final = {
    "artifactregistry": "Artifact Registry",
    "dataflow": "Dataflow",
    "iap": "Identity-Aware Proxy",
    "pubsub": "Pub/Sub",
    "run": "Cloud Run",
    "secretmanager": "Secret Manager",
    "spanner": "Spanner",
}


@dataclass(frozen=True, kw_only=True)
class Stack:
    """`number` is the project's; `operators` may act as deployer-sa; projects in `promotes_to` take our images.

    `composer`: the program makes an environment of Cloud Composer.
    """

    name: str
    project: str
    region: str
    number: str
    access_policy: str = ""
    operators: tuple[str, ...] = ()
    promotes_to: tuple[str, ...] = ()
    composer: bool = False

    @property
    def state(self) -> str:
        return f"gs://{naming.bucket(self.project, STATE)}"

    @property
    def secrets(self) -> str:
        return f"gcpkms://{self.key(SECRETS)}"

    @property
    def deployer(self) -> str:
        return naming.account(naming.DEPLOYER, self.project)

    @property
    def preview(self) -> str:
        return naming.account(naming.PREVIEW, self.project)

    def key(self, name: str) -> str:
        ring = f"projects/{self.project}/locations/{self.region}/keyRings/{naming.BOOTSTRAP_RING}"
        return f"{ring}/cryptoKeys/{name}"


@dataclass(frozen=True, kw_only=True)
class Condition:
    """When a grant holds. A policy keeps it under the title."""

    title: str
    expression: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """`look` and `make` are arguments of gcloud.

    There already is what `look` finds: without `has` by its success, with `has` by all those words in its answer, which
    for a `grant` (member, role, condition) is a policy.
    """

    what: str
    look: tuple[str, ...]
    make: tuple[str, ...]
    has: tuple[str, ...] = ()
    grant: tuple[str, str, str] | None = None


def steps(stack: Stack) -> Iterator[Step]:
    """Everything that a stack's first `pulumi up` needs, in the order in which it can be made."""
    yield from _apis(stack)
    yield from _keys(stack)
    yield from _state(stack)
    yield from _images(stack)
    yield from _accounts(stack)
    # Google's own roles first: a custom role that IAM refuses then keeps back no grant but that of itself.
    grants = [*_deployers_access(stack), *_previews_access(stack)]
    yield from (step for step in grants if not _of_our_role(step))
    yield from _roles(stack)
    yield from (step for step in grants if _of_our_role(step))


def _of_our_role(step: Step) -> bool:
    return bool(step.grant and step.grant[1].startswith("projects/"))


def _apis(stack: Stack) -> Iterator[Step]:
    """All that the program enables, long before it needs them: an API that was just enabled refuses calls for minutes,
    and cloud.google.com/service-usage/docs/enable-disable has no way to see when that ends."""
    every = ("serviceusage", *apis(stack.composer), *LOOKED_WITH)
    for first in range(0, len(every), _AT_ONCE):
        names = every[first : first + _AT_ONCE]
        services = tuple(f"{name}.googleapis.com" for name in names)
        yield Step(
            what=f"APIs {', '.join(names)}",
            look=("services", "list", "--enabled", "--format=value(config.name)", f"--project={stack.project}"),
            has=services,
            make=("services", "enable", *services, f"--project={stack.project}"),
        )


def _keys(stack: Stack) -> Iterator[Step]:
    place = (f"--location={stack.region}", f"--project={stack.project}")
    ring = f"--keyring={naming.BOOTSTRAP_RING}"
    yield Step(
        what="key ring, apart from the stack's: it outlives the stack",
        look=("kms", "keyrings", "describe", naming.BOOTSTRAP_RING, *place),
        make=("kms", "keyrings", "create", naming.BOOTSTRAP_RING, *place),
    )
    for name, what in {
        STATE: "key of the state",
        SECRETS: "key of the secrets in the state",
        IMAGES: "key of the images",
    }.items():
        rotation = ("--purpose=encryption", "--rotation-period=90d", "--next-rotation-time=+p90d")
        yield Step(
            what=what,
            look=("kms", "keys", "describe", name, ring, *place),
            make=("kms", "keys", "create", name, ring, *place, *rotation),
        )
    # Asking for an agent makes it, so looking is all there is to do.
    asked = ("storage", "service-agent", f"--project={stack.project}")
    yield Step(what="Cloud Storage's service agent", look=asked, make=asked)
    for service, what in {**_AGENTS, **({"composer": "Cloud Composer"} if stack.composer else {})}.items():
        agent = ("beta", "services", "identity", "create", f"--service={service}.googleapis.com")
        yield Step(
            what=f"{what}'s service agent",
            look=(*agent, f"--project={stack.project}"),
            make=(*agent, f"--project={stack.project}"),
        )
    for name, agent_domain in {STATE: "gs-project-accounts", IMAGES: "gcp-sa-artifactregistry"}.items():
        member = f"serviceAccount:service-{stack.number}@{agent_domain}.iam.gserviceaccount.com"
        yield _on_key(stack, name, member)


def _state(stack: Stack) -> Iterator[Step]:
    describe = ("storage", "buckets", "describe", stack.state, f"--project={stack.project}")
    yield Step(
        what="bucket of the state",
        look=describe,
        make=(
            *("storage", "buckets", "create", stack.state, f"--project={stack.project}", f"--location={stack.region}"),
            *("--uniform-bucket-level-access", "--public-access-prevention", "--soft-delete-duration=30d"),
            f"--default-encryption-key={stack.key(STATE)}",
        ),
    )
    yield Step(
        what="old versions of the state",
        look=(*describe, "--format=value(versioning_enabled)"),
        has=("True",),
        make=("storage", "buckets", "update", stack.state, "--versioning", f"--project={stack.project}"),
    )


def _images(stack: Stack) -> Iterator[Step]:
    place = (f"--location={stack.region}", f"--project={stack.project}")
    yield Step(
        what="repository of the job's images",
        look=("artifacts", "repositories", "describe", naming.IMAGES, *place),
        make=(
            *("artifacts", "repositories", "create", naming.IMAGES, *place),
            *("--repository-format=docker", f"--kms-key={stack.key(IMAGES)}"),
        ),
    )


def _accounts(stack: Stack) -> Iterator[Step]:
    for name, what in {naming.DEPLOYER: "Runs pulumi up", naming.PREVIEW: "Previews a proposed change"}.items():
        yield Step(
            what=f"account {name}",
            look=(*_ACCOUNT, "describe", naming.account(name, stack.project), f"--project={stack.project}"),
            make=(*_ACCOUNT, "create", name, f"--display-name={what}", f"--project={stack.project}"),
        )


def _roles(stack: Stack) -> Iterator[Step]:
    """Custom roles. A permission that a later version of this program asks for is added."""
    for role in roles.CUSTOM:
        of = ("iam", "roles")
        place = (role.id, f"--project={stack.project}")
        permissions = ",".join(role.permissions)
        yield Step(
            what=f"role {role.id}",
            look=(*of, "describe", *place),
            make=(*of, "create", *place, f"--title={role.title}", f"--permissions={permissions}", "--stage=GA"),
        )
        yield Step(
            what=f"permissions of the role {role.id}",
            look=(*of, "describe", *place, "--format=value(includedPermissions)"),
            has=tuple(role.permissions),
            make=(*of, "update", *place, f"--add-permissions={permissions}"),
        )


def _deployers_access(stack: Stack) -> Iterator[Step]:
    deployer = f"serviceAccount:{stack.deployer}"
    for role, reason in {**roles.DEPLOYER, **(roles.OF_COMPOSER if stack.composer else {})}.items():
        yield _on_project(stack, deployer, role, reason)
    for own in (roles.SECRETS, roles.LOG_VIEWS):
        yield _on_project(stack, deployer, own.of(stack.project), own.reason)
    only = Condition(title="only-the-programs-roles", expression=roles.grants_condition(stack.project, stack.composer))
    yield _on_project(stack, deployer, roles.GRANTS, roles.GRANTS_REASON, only)
    yield _grant("the stack's state", _BUCKET, stack.state, (), deployer, "roles/storage.objectUser")
    yield _on_key(stack, SECRETS, deployer)
    # Whoever takes the image lets its own workers read it: a grant on the repository.
    for project in (stack.project, *stack.promotes_to):
        member = f"serviceAccount:{naming.account(naming.DEPLOYER, project)}"
        yield _on_images(stack, member, "admin")
    for project in stack.promotes_to:
        # Of the project they see its number, which the egress rule of their perimeter names.
        for account in (naming.DEPLOYER, naming.PREVIEW):
            member = f"serviceAccount:{naming.account(account, project)}"
            yield _on_project(stack, member, "roles/browser", "the project's number, for their perimeter")
    # Who makes a trigger must be allowed to act as the account that its builds run as.
    for account in (stack.deployer, stack.preview):
        yield _on_account(stack, "its triggers' builds run as it", account, deployer, "serviceAccountUser")
    for operator in stack.operators:
        yield _on_account(stack, "acts as deployer-sa", stack.deployer, operator, "serviceAccountTokenCreator")
    if stack.access_policy:
        policy = ("access-context-manager", "policies")
        yield _grant(
            "the perimeter, on the organisation's access policy",
            *(policy, stack.access_policy, (), deployer, "roles/accesscontextmanager.policyEditor"),
        )


def _previews_access(stack: Stack) -> Iterator[Step]:
    """It reads the state and its secrets, and holds its lock while it looks; it can change neither state nor stack."""
    preview = f"serviceAccount:{stack.preview}"
    for role, reason in roles.PREVIEW.items():
        yield _on_project(stack, preview, role, reason)
    yield _on_project(stack, preview, roles.LOOK.of(stack.project), roles.LOOK.reason)
    yield _grant("the stack's state", _BUCKET, stack.state, (), preview, "roles/storage.objectViewer")
    bucket = stack.state.removeprefix("gs://")
    locks = Condition(
        title="only-locks",
        expression=f"resource.name.startsWith('projects/_/buckets/{bucket}/objects/.pulumi/locks/')",
    )
    yield _grant("the state's lock", _BUCKET, stack.state, (), preview, "roles/storage.objectUser", locks)
    yield _on_key(stack, SECRETS, preview, _DECRYPTER)
    for project in (stack.project, *stack.promotes_to):
        yield _on_images(stack, f"serviceAccount:{naming.account(naming.PREVIEW, project)}", "reader")


def _on_project(stack: Stack, member: str, role: str, reason: str, condition: Condition | None = None) -> Step:
    return _grant(reason, _PROJECT, stack.project, (), member, role, condition)


def _on_key(stack: Stack, name: str, member: str, role: str = _ENCRYPTER) -> Step:
    place = (f"--keyring={naming.BOOTSTRAP_RING}", f"--location={stack.region}", f"--project={stack.project}")
    return _grant(f"the key {name}", ("kms", "keys"), name, place, member, role)


def _on_images(stack: Stack, member: str, role: str) -> Step:
    place = (f"--location={stack.region}", f"--project={stack.project}")
    repository = ("artifacts", "repositories")
    return _grant("images", repository, naming.IMAGES, place, member, f"roles/artifactregistry.{role}")


def _on_account(stack: Stack, reason: str, account: str, member: str, role: str) -> Step:
    return _grant(reason, _ACCOUNT, account, (f"--project={stack.project}",), member, f"roles/iam.{role}")


def _grant(
    reason: str,
    kind: tuple[str, ...],
    name: str,
    place: tuple[str, ...],
    member: str,
    role: str,
    condition: Condition | None = None,
) -> Step:
    # A condition has commas, so gcloud is given another separator. None keeps it from asking which of several is meant.
    conditional = f"^;^title={condition.title};expression={condition.expression}" if condition else "None"
    asked = (f"--condition={conditional}",) if kind in (_PROJECT, _BUCKET) else ()
    return Step(
        what=f"{member.rpartition(':')[2].partition('@')[0]}: {role.rpartition('roles/')[2]} ({reason})",
        look=(*kind, "get-iam-policy", name, *place, "--format=json"),
        grant=(member, role, condition.expression if condition else ""),
        make=(*kind, "add-iam-policy-binding", name, *place, f"--member={member}", f"--role={role}", *asked),
    )
