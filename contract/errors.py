"""The base of every error whose message is for people, and so of what `audit` and its relatives show without a trace.

A message gives the rule that is broken, the setting, and the remedy; never a value of a payment. Errors that only steer
the code (a fence, a retry) are outside: `tests/docs/test_errors.py` lists them with the reason, and holds this tree.

    AuditError
    ├── exit code 1
    │   ├── alerts.runbooks.UnknownBlock
    │   ├── bootstrap.__main__.BootstrapError
    │   ├── components.bigquery_schema.SchemaUnknownError
    │   ├── components.config.StackFileError
    │   ├── components.settings.reader.SettingsError
    │   ├── components.spanner.SchemaOwnerError
    │   ├── contract.ddl.SchemaError
    │   ├── contract.dialects.UnknownDialect
    │   ├── contract.queries.QueryError
    │   ├── contract.watched.WatchedError
    │   ├── delivery.cost.CostError
    │   ├── delivery.dag_sync.SyncError
    │   ├── delivery.draft.DraftError
    │   ├── delivery.lock.JobIsLaunched
    │   ├── delivery.owners.NothingOfOthers
    │   ├── delivery.pin.PinError
    │   ├── delivery.preflight.google.NotSeen
    │   ├── delivery.prices.PriceError
    │   ├── delivery.schema.LiquibaseError
    │   ├── delivery.schema.SchemaUnknown
    │   ├── delivery.stacks.DeliveryError
    │   ├── guardrails.iam.UnnamedResource
    │   ├── local.check.command.CheckError
    │   ├── local.emulators.launch.EmulatorError
    │   ├── local.gameday.day.GameDayError
    │   ├── local.machine.installed.NotInstalled
    │   ├── local.machine.processes.ProcessError
    │   ├── local.provision.place.ProviderError
    │   ├── local.stack.supervisor.StackError
    │   ├── local.traffic.commits.CommitError
    │   ├── pipeline.jobs.checks.CheckFailed
    │   ├── pipeline.replay.records.ReplayUnavailable
    │   ├── pipeline.sink.dead_letters.DeadLetterError
    │   ├── pipeline.source.partition_threads.QueryRefused
    │   ├── pipeline.source.records.UnreadableStream
    │   ├── pipeline.transforms.keys.MaskingKeyError
    │   ├── probe.state.ProbeError
    │   ├── support.backup.records.BackupError
    │   ├── support.cli.backfill.BackfillIncomplete
    │   ├── support.cli.erase.ErasuresLeft
    │   ├── support.cli.replay.ReplaysLeft
    │   ├── support.cloud_run.CloudRunError
    │   ├── support.console.app.NotAllowed
    │   ├── support.console.app.NotFound
    │   ├── support.console.card_tokens.TokenServiceError
    │   ├── support.console.identity.NotIdentified
    │   ├── support.console.personal.PersonalDataError
    │   ├── support.erasure.store.ErasureWaits
    │   ├── support.operations.dataflow.DataflowError
    │   ├── support.operations.status.NotOurs
    │   ├── support.promql.MonitoringError
    │   ├── support.validation.findings.ValidationError
    │   ├── support.validation.state.Busy
    │   ├── support.warehouse.WarehouseError
    ├── exit code 2
    │   ├── pipeline.jobs.settings.SettingsError
    │   ├── pipeline.replay.records.ReplayError
    │   ├── pipeline.transforms.cards.CardNumberError
    │   ├── support.connection.ConnectionFileError
    │   ├── support.console.asked.AskedError
    │   ├── support.console.cloud.CloudSettingsError
    │   ├── support.erasure.store.ErasureError
    │   ├── support.operations.runs.OperationError
    │   ├── support.operations.source_schema.SchemaUnread
    │   ├── support.operations.warehouse.WarehouseUnread
    │   ├── support.reports.ReportError
    │   ├── support.search.SearchError
    │   ├── support.starter.StarterError
"""

from __future__ import annotations

from typing import ClassVar


class AuditError(Exception):
    """Shown as it is. `exit_code` is that of the program: 1 there is no answer, 2 the request was wrong."""

    exit_code: ClassVar[int] = 1
