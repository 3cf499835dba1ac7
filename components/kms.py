"""Customer-managed keys: one key per store and location, and the encrypter grant of the service that uses it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import bigquery, kms, logging, organizations, projects, storage

from components import naming
from components.retained import retained
from components.settings import Settings

_DAY: Final = 24 * 3600
_ENCRYPTER: Final = "roles/cloudkms.cryptoKeyEncrypterDecrypter"


@dataclass(frozen=True, kw_only=True)
class KeysArgs:
    settings: Settings


class Keys(pulumi.ComponentResource):
    """Each attribute is the full name of a store's key, once the store's service may encrypt with it.

    With `keyRing` they are keys of others, by the same names: none is made, and only with `keyGrants` is one granted.
    None with customerManagedKeys false: Google's keys then. A multi-region Spanner has `spanner_replicas`, one key
    per region, in place of `spanner`, which is then of a separate instance for metadata. `pubsub` is there where the
    stack makes a topic, `composer` where it makes an environment, `backup_copies` where a second region has copies of
    the exports, `logging` and `secrets` where it makes the log bucket and the masking keys' secret.
    """

    spanner: pulumi.Output[str] | None
    spanner_replicas: Sequence[pulumi.Output[str]]
    big_query: pulumi.Output[str] | None
    storage: pulumi.Output[str] | None
    backups: pulumi.Output[str] | None
    backup_copies: pulumi.Output[str] | None
    dataflow: pulumi.Output[str] | None
    secrets: pulumi.Output[str] | None
    logging: pulumi.Output[str] | None
    run: pulumi.Output[str] | None
    pubsub: pulumi.Output[str] | None
    composer: pulumi.Output[str] | None

    def __init__(self, name: str, args: KeysArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Keys"), name, {}, opts)
        self._settings = settings = args.settings
        self._rings: dict[str, kms.KeyRing] = {}
        self._identities: dict[str, projects.ServiceIdentity] = {}
        spanner = settings.spanner
        # BigQuery's EU is `europe` in Cloud KMS: cloud.google.com/bigquery/docs/customer-managed-encryption.
        location = settings.warehouse.location.lower()
        region, warehouse = settings.region, {"eu": "europe"}.get(location, location)
        # A separate instance for metadata is in the stack's region.
        regional = not spanner.multi_region or spanner.metadata_processing_units
        self.spanner = self._key("spanner", region) if regional else None
        replicas = [self._key(f"spanner-{r}", r) for r in spanner.key_regions] if spanner.multi_region else []
        self.spanner_replicas = [key for key in replicas if key]
        self.big_query = self._key("bigquery", warehouse)
        self.storage = self._key("storage", region)
        self.backups = self._key("backups", warehouse)
        copies = settings.retention.backup_location
        self.backup_copies = self._key("backups-copies", copies) if copies else None
        self.dataflow = self._key("dataflow", region)
        self.secrets = None if settings.keys.masking_secret else self._key("secrets", region)
        self.logging = None if settings.retention.log_bucket else self._key("logging", region)
        self.run = self._key("run", region)
        self.pubsub = self._key("pubsub", region) if settings.replay.own_topic else None
        self.composer = self._key("composer", region) if settings.orchestration.own_environment else None
        self.register_outputs({})

    def _key(self, name: str, location: str) -> pulumi.Output[str] | None:
        if not self._settings.keys.customer_managed:
            return None
        if self._settings.keys.ring:
            return self._key_of_others(name, f"{self._settings.keys.ring_in(location)}/cryptoKeys/{name}")
        ring = self._ring(location)
        key = kms.CryptoKey(
            name,
            name=name,
            key_ring=ring.id,
            rotation_period=f"{self._settings.keys.rotation_days * _DAY}s",
            # A version that somebody destroys by mistake can be restored for so long.
            destroy_scheduled_duration=f"{30 * _DAY}s",
            opts=self._kept(f"{self._place(location)}/cryptoKeys/{name}"),
        )
        return self._granted(name, key.id, ring)

    def _key_of_others(self, name: str, key: str) -> pulumi.Output[str]:
        if not self._settings.keys.grants:
            return pulumi.Output.from_input(key)
        # What stands in for a ring: made by Pulumi once the APIs are on.
        self.agent("secretmanager")
        return self._granted(name, key, self._identities["secretmanager"])

    def _granted(self, name: str, key: pulumi.Input[str], made: pulumi.Resource) -> pulumi.Output[str]:
        """The key's name, once its store's agents may encrypt with it."""
        agents = self._agents(name.partition("-")[0], made)
        grants = [self._grant_encrypt(name, key, who, agent) for who, agent in agents.items()]
        return pulumi.Output.all(key, *(grant.id for grant in grants)).apply(_first)

    def _ring(self, location: str) -> kms.KeyRing:
        """The ring of a place: a key must be where its store is."""
        if location not in self._rings:
            self._rings[location] = kms.KeyRing(
                f"{naming.KEY_RING}-{location}",
                name=self._settings.names.of(naming.KEY_RING),
                location=location,
                opts=self._kept(self._place(location)),
            )
        return self._rings[location]

    def _place(self, location: str) -> str:
        ring = self._settings.names.of(naming.KEY_RING)
        return f"projects/{self._settings.project}/locations/{location}/keyRings/{ring}"

    def _kept(self, place: str) -> pulumi.ResourceOptions:
        return retained(self, place, adopt=self._settings.keys.adopt_retained, protect=self._settings.protect)

    def _agents(self, store: str, made: pulumi.Resource) -> dict[str, pulumi.Input[str]]:
        """The service agents that encrypt for a store, by the name of their service."""
        project = self._settings.project
        # An agent is requested when its API is on, as everything of this component that Pulumi makes is.
        look = pulumi.InvokeOutputOptions(parent=self, depends_on=[made])
        match store:
            case "storage" | "backups":
                found = storage.get_project_service_account_output(project=project, opts=look)
                return {"storage": found.email_address}
            case "bigquery":
                return {"bigquery": bigquery.get_default_service_account_output(project=project, opts=look).email}
            case "logging":
                return {
                    "logging": logging.get_project_cmek_settings_output(project=project, opts=look).service_account_id
                }
            case "dataflow":
                # Dataflow encrypts the job's state, Compute Engine its workers' disks. The latter's agent cannot
                # be asked for: it comes with the API, under the project's number.
                number = organizations.get_project_output(project_id=project, opts=look).number
                return {
                    "dataflow": self.agent("dataflow"),
                    "compute": pulumi.Output.concat("service-", number, "@compute-system.iam.gserviceaccount.com"),
                }
            case "composer":
                # What an environment is made of. Its database and machines are in a project of Google's.
                found = storage.get_project_service_account_output(project=project, opts=look)
                services = ("composer", "artifactregistry", "pubsub")
                return {"storage": found.email_address, **{service: self.agent(service) for service in services}}
            case _:
                service = {"secrets": "secretmanager"}.get(store, store)
                return {service: self.agent(service)}

    def agent(self, service: str) -> pulumi.Output[str]:
        """The service's agent in this project, made if it is not there yet."""
        if service not in self._identities:
            self._identities[service] = projects.ServiceIdentity(
                f"{service}-agent",
                project=self._settings.project,
                service=f"{service}.googleapis.com",
                opts=pulumi.ResourceOptions(parent=self),
            )
        return self._identities[service].email

    def _grant_encrypt(
        self, name: str, key: pulumi.Input[str], service: str, agent: pulumi.Input[str]
    ) -> kms.CryptoKeyIAMMember:
        return kms.CryptoKeyIAMMember(
            f"{name}-{service}",
            crypto_key_id=key,
            role=_ENCRYPTER,
            member=pulumi.Output.concat("serviceAccount:", agent),
            opts=pulumi.ResourceOptions(parent=self),
        )


def _first(values: Sequence[str]) -> str:
    return values[0]
