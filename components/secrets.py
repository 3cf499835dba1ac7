"""The masking key's secret, and who may read it: the job, replay and validation, erasure, and who searches by card.

Secret Manager's own rotation is not used: it sends a message on dates that would be in the program, while a new key
takes effect when the job starts again. Rotating is adding a version: docs/operations.md.
"""

from dataclasses import dataclass

import pulumi
from pulumi_gcp import secretmanager

from components import naming
from components.identity import Identity
from components.settings import Settings


@dataclass(frozen=True, kw_only=True)
class MaskingKeysArgs:
    """`key` encrypts the secret; None leaves it to Google."""

    settings: Settings
    accounts: Identity
    key: pulumi.Input[str] | None = None


class MaskingKeys(pulumi.ComponentResource):
    """The secret whose versions are the masking keys. `location` is what the job's option maskingKeys takes.

    With `maskingSecret` it is one of others, of which nothing is changed but, in the stack's project, who reads it: in
    another one `python -m delivery.owners` prints what its owners run.

    Its versions are added outside Pulumi, so no key is ever in a state file; none is destroyed while rows use it.
    """

    location: pulumi.Output[str]

    def __init__(self, name: str, args: MaskingKeysArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("MaskingKeys"), name, {}, opts)
        self._args = args
        given = args.settings.keys.masking_secret
        secret: pulumi.Input[str] = given.rpartition("/")[2]
        self.location = pulumi.Output.from_input(given)
        if not given:
            made = self._secret()
            secret, self.location = made.secret_id, made.id
        if not given or given.startswith(f"projects/{args.settings.project}/"):
            self._grant_read(secret)
        for person in args.settings.warehouse.card_searchers:
            self._grant_act_as_card_search(person)
        self.register_outputs({"location": self.location})

    def _grant_read(self, secret: pulumi.Input[str]) -> None:
        accounts = self._args.accounts
        readers = {
            "pipeline": accounts.pipeline,
            "validation": accounts.validation,
            "erasure": accounts.erasure,
            "card-search": accounts.card_search,
        }
        for who, account in readers.items():
            # The viewer lists the versions; it does not read them.
            for role in ("secretAccessor", "viewer"):
                self._access(secret, who, role, account.member)

    def _secret(self) -> secretmanager.Secret:
        replica: secretmanager.SecretReplicationUserManagedReplicaArgsDict = {"location": self._args.settings.region}
        if self._args.key is not None:
            replica["customer_managed_encryption"] = {"kms_key_name": self._args.key}
        return secretmanager.Secret(
            naming.MASKING_KEYS,
            secret_id=self._args.settings.names.of(naming.MASKING_KEYS),
            replication={"user_managed": {"replicas": [replica]}},
            # A version that was destroyed by mistake can be had back for a week: rows masked with it need it.
            version_destroy_ttl=f"{7 * 24 * 3600}s",
            deletion_protection=self._args.settings.protect,
            opts=pulumi.ResourceOptions(parent=self, protect=self._args.settings.protect),
        )

    def _access(self, secret: pulumi.Input[str], who: str, role: str, member: pulumi.Input[str]) -> None:
        secretmanager.SecretIamMember(
            f"{naming.MASKING_KEYS}-{role}-{who}",
            secret_id=secret,
            role=f"roles/secretmanager.{role}",
            member=member,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _grant_act_as_card_search(self, person: str) -> None:
        """A person never reads the key: who searches by card acts as an account that may, and that is logged."""
        accounts = self._args.accounts
        accounts.card_search.grant(self, f"card-search-{person}", "serviceAccountTokenCreator", person)
