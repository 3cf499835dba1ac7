"""The stack, in the order data flows: services write to Spanner, the job carries every change into BigQuery."""

import pulumi

from components.bigquery import Warehouse, WarehouseArgs
from components.dataflow import StreamJob, StreamJobArgs
from components.delivery import Delivery, DeliveryArgs
from components.identity import Identity, IdentityArgs
from components.kms import Keys, KeysArgs
from components.logging import Logs, LogsArgs
from components.network import Network, NetworkArgs
from components.perimeter import Perimeter, PerimeterArgs
from components.provider import google
from components.secrets import MaskingKeys, MaskingKeysArgs
from components.services import Services, ServicesArgs
from components.settings import Settings
from components.spanner import SourceDatabase, SourceDatabaseArgs
from components.storage import Storage, StorageArgs

settings = Settings.load()
provider = google(settings)
services = Services("services", ServicesArgs(settings=settings), pulumi.ResourceOptions(provider=provider))
here = pulumi.ResourceOptions(provider=provider, depends_on=[services])

accounts = Identity("accounts", IdentityArgs(settings=settings), here)
network = Network("network", NetworkArgs(settings=settings, worker=accounts.pipeline.email), here)
keys = Keys("keys", KeysArgs(settings=settings), here)
logs = Logs("logs", LogsArgs(settings=settings, key=keys.logging), here)
perimeter = Perimeter("perimeter", PerimeterArgs(settings=settings), here)

source = SourceDatabase(
    "source",
    SourceDatabaseArgs(settings=settings, application=accounts.application.member, pipeline=accounts.pipeline.member),
    here,
)

masking_keys = MaskingKeys("masking", MaskingKeysArgs(settings=settings, pipeline=accounts.pipeline.member), here)

storage = Storage("storage", StorageArgs(settings=settings, pipeline=accounts.pipeline.member, keys=keys), here)

warehouse = Warehouse(
    "warehouse",
    WarehouseArgs(settings=settings, pipeline=accounts.pipeline.member, merge=accounts.merge.email),
    here,
)

job = StreamJob(
    "stream",
    StreamJobArgs(
        settings=settings,
        source=source,
        storage=storage,
        masking_keys=masking_keys.location,
        account=accounts.pipeline,
        subnetwork=network.subnetwork,
        needs=[source, masking_keys, storage, warehouse],
    ),
    here,
)

delivery = Delivery("delivery", DeliveryArgs(settings=settings), here)

# What `audit` needs to know: `pulumi stack output --json` is its connection file.
pulumi.export("project", settings.project)
pulumi.export("location", warehouse.location)
pulumi.export("bigQueryEndpoint", settings.endpoints.big_query)
pulumi.export("spannerEndpoint", settings.endpoints.spanner)
pulumi.export("spannerInstance", source.instance)
pulumi.export("spannerDatabase", source.database)
pulumi.export("metadataDatabase", source.metadata_database)
pulumi.export("maskingKeys", masking_keys.location)
pulumi.export("deadLetterDirectory", storage.dead_letters)
pulumi.export("jobName", job.name)
