"""The stack, in the order data flows: services write to Spanner, the job carries every change into BigQuery."""

from components.backup import Backup, BackupArgs
from components.bigquery import Warehouse, WarehouseArgs
from components.console import Console, ConsoleArgs
from components.dag_sync import DagSync, DagSyncArgs
from components.dataflow import StreamJob, StreamJobArgs, WorkerPlace
from components.delivery import Delivery, DeliveryArgs
from components.erasure import Erasure, ErasureArgs
from components.identity import Identity, IdentityArgs
from components.image import Image, ImageArgs
from components.kms import Keys, KeysArgs
from components.launch_check import LaunchCheck, LaunchCheckArgs
from components.logging import Logs, LogsArgs
from components.monitoring import Monitoring, MonitoringArgs
from components.network import Network, NetworkArgs
from components.orchestration import Orchestration, OrchestrationArgs
from components.outputs import Outputs, connection, export
from components.perimeter import Perimeter, PerimeterArgs
from components.personal_data import PersonalData, PersonalDataArgs
from components.probe import Probe, ProbeArgs
from components.provider import google, under
from components.replay import Replay, ReplayArgs
from components.run import RunPlace
from components.secrets import MaskingKeys, MaskingKeysArgs
from components.services import Services, ServicesArgs
from components.settings import Settings
from components.spanner import SourceDatabase, SourceDatabaseArgs
from components.storage import Storage, StorageArgs
from components.upkeep import Upkeep, UpkeepArgs
from components.validation import Validation, ValidationArgs
from components.views import Views, ViewsArgs

settings = Settings.load()
provider = google(settings)
services = Services("services", ServicesArgs(settings=settings), under(provider))
opts = under(provider, services)

accounts = Identity("accounts", IdentityArgs(settings=settings), opts)
network = Network("network", NetworkArgs(settings=settings, worker=accounts.pipeline.email), opts)
keys = Keys("keys", KeysArgs(settings=settings), opts)
logs = Logs("logs", LogsArgs(settings=settings, accounts=accounts, key=keys.logging), opts)
perimeter = Perimeter("perimeter", PerimeterArgs(settings=settings, accounts=accounts), opts)

source = SourceDatabase("source", SourceDatabaseArgs(settings=settings, accounts=accounts, keys=keys), opts)
masking_keys = MaskingKeys("masking", MaskingKeysArgs(settings=settings, accounts=accounts, key=keys.secrets), opts)
storage = Storage("storage", StorageArgs(settings=settings, accounts=accounts, keys=keys), opts)

personal = PersonalData("personal", PersonalDataArgs(settings=settings, accounts=accounts), opts)
warehouse = Warehouse(
    "warehouse",
    WarehouseArgs(settings=settings, accounts=accounts, key=keys.big_query, personal=personal.tag),
    opts,
)
views = Views("views", ViewsArgs(settings=settings, accounts=accounts, warehouse=warehouse, key=keys.big_query), opts)

image = Image("image", ImageArgs(settings=settings, accounts=accounts, keys=keys, storage=storage), opts)
job = StreamJob(
    "stream",
    StreamJobArgs(
        settings=settings,
        source=source,
        storage=storage,
        masking_keys=masking_keys.location,
        image=image,
        accounts=accounts,
        place=WorkerPlace(subnetwork=network.subnetwork, key=keys.dataflow),
        needs=[accounts, source, masking_keys, storage, warehouse],
    ),
    opts,
)

delivery = Delivery("delivery", DeliveryArgs(settings=settings), opts)
monitoring = Monitoring("monitoring", MonitoringArgs(settings=settings), opts)

outputs = Outputs(
    settings=settings,
    source=source,
    masking_keys=masking_keys,
    storage=storage,
    warehouse=warehouse,
    views=views,
    image=image,
    job=job,
    monitoring=monitoring,
)
place = RunPlace(settings=settings, keys=keys, network=network)
needs = [accounts, source, storage, warehouse, views, monitoring]
measure = ProbeArgs(place=place, accounts=accounts, connection=connection(outputs), needs=needs)
probe = Probe("probe", measure, opts)
needs = [accounts, source, masking_keys, storage, warehouse]
check = LaunchCheckArgs(place=place, accounts=accounts, parameters=job.parameters, needs=needs)
launch = LaunchCheck("launch", check, opts)
needs = [accounts, source, masking_keys, warehouse, personal]
again = ReplayArgs(
    place=place, accounts=accounts, storage=storage, image=image, connection=connection(outputs), needs=needs
)
replays = Replay("replays", again, opts)
needs = [accounts, source, masking_keys, warehouse, personal, replays]
validate = ValidationArgs(place=place, accounts=accounts, connection=connection(outputs), needs=needs)
validation = Validation("validation", validate, opts)
needs = [accounts, source, storage, warehouse, personal]
backup = BackupArgs(place=place, accounts=accounts, connection=connection(outputs), needs=needs)
backups = Backup("backups", backup, opts)
needs = [accounts, source, masking_keys, storage, warehouse, views, personal, backups]
erase = ErasureArgs(place=place, accounts=accounts, connection=connection(outputs), needs=needs)
erasure = Erasure("erasure", erase, opts)
needs = [accounts, source, storage, warehouse, views, image]
keep = UpkeepArgs(place=place, accounts=accounts, launch=job.launch, connection=connection(outputs), needs=needs)
upkeep = Upkeep("upkeep", keep, opts)
jobs = {**upkeep.jobs, **validation.jobs, **backups.jobs, **erasure.jobs}
made = {"launch": job.launch, "template": image.template}
started = OrchestrationArgs(place=place, accounts=accounts, jobs=jobs, probe=probe.job, **made)
orchestration = Orchestration("orchestration", started, opts)
dag_sync = DagSync("dags", DagSyncArgs(settings=settings, needs=orchestration), opts)
needs = [accounts, source, masking_keys, storage, warehouse, views, image]
there = {**connection(outputs), "replayJob": replays.job}
show = ConsoleArgs(place=place, accounts=accounts, connection=there, needs=needs)
console = Console("console", show, opts)
export(outputs, console, {"replayJob": replays.job, "erasureJob": erasure.job})
