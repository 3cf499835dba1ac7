"""The stack, in the order data flows: services write to Spanner, the job carries every change into BigQuery."""

import pulumi

from components.bigquery import Warehouse, WarehouseArgs
from components.dataflow import StreamJob, StreamJobArgs
from components.identity import Identity
from components.provider import google
from components.secrets import MaskingKeys, MaskingKeysArgs
from components.settings import Settings
from components.spanner import SourceDatabase, SourceDatabaseArgs
from components.storage import Storage, StorageArgs

settings = Settings.load()
here = pulumi.ResourceOptions(provider=google(settings))

accounts = Identity("accounts", here)

source = SourceDatabase(
    "source",
    SourceDatabaseArgs(settings=settings, application=accounts.application.member, pipeline=accounts.pipeline.member),
    here,
)

masking_keys = MaskingKeys("masking", MaskingKeysArgs(settings=settings, pipeline=accounts.pipeline.member), here)

storage = Storage("storage", StorageArgs(settings=settings, pipeline=accounts.pipeline.member), here)

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
        needs=[source, masking_keys, storage, warehouse],
    ),
    here,
)

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
