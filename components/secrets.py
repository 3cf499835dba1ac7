"""The masking key's secret."""

from dataclasses import dataclass

import pulumi
from pulumi_gcp import secretmanager

from components import naming
from components.settings import Settings


@dataclass(frozen=True, kw_only=True)
class MaskingKeysArgs:
    """`pipeline`: the member that the job runs as."""

    settings: Settings
    pipeline: pulumi.Input[str]


class MaskingKeys(pulumi.ComponentResource):
    """The secret whose versions are the masking keys. `location` is what the job's option maskingKeys takes.

    Its versions are added outside Pulumi, so no key ever stands in a state file; none is destroyed while rows use it.
    """

    location: pulumi.Output[str]

    def __init__(self, name: str, args: MaskingKeysArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("MaskingKeys"), name, {}, opts)
        self._args = args
        secret = self._secret()
        # The viewer lists the versions; it does not read them.
        for role in ("secretAccessor", "viewer"):
            self._access(secret, role)
        self.location = secret.id
        self.register_outputs({"location": self.location})

    def _secret(self) -> secretmanager.Secret:
        return secretmanager.Secret(
            naming.MASKING_KEYS,
            secret_id=naming.MASKING_KEYS,
            replication={"user_managed": {"replicas": [{"location": self._args.settings.region}]}},
            deletion_protection=self._args.settings.protect,
            opts=pulumi.ResourceOptions(parent=self, protect=self._args.settings.protect),
        )

    def _access(self, secret: secretmanager.Secret, role: str) -> None:
        secretmanager.SecretIamMember(
            f"{naming.MASKING_KEYS}-{role}-pipeline",
            secret_id=secret.secret_id,
            role=f"roles/secretmanager.{role}",
            member=self._args.pipeline,
            opts=pulumi.ResourceOptions(parent=self),
        )
