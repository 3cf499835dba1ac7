"""Who builds and deploys this stack, from which repository."""

from dataclasses import dataclass
from typing import Final, Self

from components.settings.reader import Reader

_ACCOUNT: Final = (
    r"|[a-z][a-z0-9-]{4,28}[a-z0-9]@[a-z0-9-]+\.iam\.gserviceaccount\.com",
    "empty or a service account's e-mail",
)
_IMAGE: Final = (
    r"|[a-z0-9-]+-docker\.pkg\.dev/[^/:@]+/[^/:@]+/[^:@]+",
    "empty or an image without a tag: REGION-docker.pkg.dev/PROJECT/REPOSITORY/IMAGE",
)


@dataclass(frozen=True, kw_only=True)
class DeliverySettings:
    """Cloud Build's triggers. An empty `repository` means none of them: then nothing else here is needed."""

    repository: str
    branch: str
    image: str
    promoted_from: str
    builder: str
    account: str
    preview_account: str
    approval: bool
    network: str
    state: str
    secrets_provider: str
    argo_cd: str

    @classmethod
    def read(cls, read: Reader) -> Self:
        return cls(
            repository=read.text(
                "deliveryRepository",
                r"|projects/[^/]+/locations/[^/]+/connections/[^/]+/repositories/[^/]+",
                "empty or projects/P/locations/R/connections/C/repositories/N",
            ),
            branch=read.text("deliveryBranch", r"\S+", "a regular expression, such as ^main$"),
            image=read.text("deliveryImage", *_IMAGE),
            promoted_from=read.text("deliveryPromotedFrom", r"|[a-z][a-z0-9-]*", "empty or the name of a stack"),
            builder=read.text("deliveryBuilder", r"|[^\s@]+@sha256:[0-9a-f]{64}", "empty or an image by its digest"),
            account=read.text("deliveryAccount", *_ACCOUNT),
            preview_account=read.text("deliveryPreviewAccount", *_ACCOUNT),
            approval=read.boolean("deliveryApproval"),
            network=read.text(
                "deliveryNetwork", r"|projects/[^/]+/global/networks/[^/]+", "empty or projects/P/global/networks/N"
            ),
            state=read.text("deliveryState", r"|gs://[^\s]+", "empty or a gs://… URL"),
            secrets_provider=read.text("deliverySecrets", r"|gcpkms://[^\s]+", "empty or a gcpkms://… URL"),
            argo_cd=read.text(
                "argoCdCluster",
                r"|projects/[^/]+/locations/[^/]+/memberships/[^/]+",
                "empty or the cluster's fleet membership, projects/P/locations/L/memberships/M",
            ),
        )

    def relations(self, read: Reader) -> None:
        if not self.repository:
            return
        needed = {
            "deliveryImage": self.image,
            "deliveryBuilder": self.builder,
            "deliveryAccount": self.account,
            "deliveryPreviewAccount": self.preview_account,
            "deliveryState": self.state,
            "deliverySecrets": self.secrets_provider,
            # The machines have no public address: over it they reach the repository.
            "deliveryNetwork": self.network,
        }
        for key, value in needed.items():
            if not value:
                read.refuse(key, "set together with deliveryRepository", value)
        if self.promoted_from == read.stack:
            read.refuse("deliveryPromotedFrom", "another stack than this one", self.promoted_from)
        if self.account and self.account == self.preview_account:
            rule = "another account than deliveryAccount: whoever proposes a change must not deploy with it"
            read.refuse("deliveryPreviewAccount", rule, self.preview_account)
        if read.stack == "prod":
            if not self.approval:
                read.refuse("deliveryApproval", "true in prod", "false")
            if not self.promoted_from:
                rule = "the stack before it, such as staging: prod runs only what passed there"
                read.refuse("deliveryPromotedFrom", rule, self.promoted_from)
