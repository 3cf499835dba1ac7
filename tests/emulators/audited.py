"""A stack whose changes have all arrived: committed to Spanner, and written to BigQuery by the sink itself."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from google.cloud import spanner

from contract import payments, tables, timestamps
from contract.changes import DeadLetter, Reason
from pipeline.clients import Endpoints
from pipeline.sink.changelogs import Destinations
from pipeline.sink.config import MetadataDatabase, SinkSettings
from pipeline.sink.dead_letters import DeadLetterQueue
from pipeline.sink.fencing import take_over
from pipeline.sink.retry import Retrier, RetrySettings
from pipeline.source.query import ChangeStream
from pipeline.transforms.erased import ErasedTokens
from pipeline.transforms.filter import Ignored
from pipeline.transforms.settings import TransformSettings
from support.connection import Connection
from support.validation.findings import Report
from support.validation.run import Validation
from support.validation.source import Source
from tests.conftest import AuditDatabase
from tests.emulators.changelog import Changelog
from tests.emulators.payments import write
from tests.shipped import AUDIT_LOG_TABLE, PAYMENT_DATASET, PAYMENT_TABLE, WATCHED

JOB = "job"


@dataclass
class Audited:
    """Writes payments, has them carried, and validates."""

    connection: Connection
    database: AuditDatabase
    changelog: Changelog
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def payment(self, puid: str, status: str = "CAPTURED", **values: Any) -> None:
        write(self.database, puid, status, **values)

    def audit_log(self, puid: str, **values: Any) -> None:
        row = {"PUID": puid, "Action": "PAY", "Timestamp": datetime.now(UTC), "Status": "CAPTURED"} | values
        with self.database.database.batch() as batch:
            batch.insert_or_update(AUDIT_LOG_TABLE, tuple(row), [tuple(row.values())])

    def delete(self, puid: str) -> None:
        with self.database.database.batch() as batch:
            batch.delete(PAYMENT_TABLE, spanner.KeySet(keys=[[puid]]))

    def carry(self, *, but: tuple[str, ...] = ()) -> None:
        """Every committed change arrives, but those of some payments. The position moves past all of it."""
        assert self._settings
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
        time.sleep(max(0.0, (until - datetime.now(UTC)).total_seconds()) + 0.05)
        source = Source(self.connection)
        letters = [
            _letter(change)
            for stream in WATCHED.change_streams
            for change in source.changes(stream, self.began, until)
            if change.keys["PUID"] not in but
        ]
        DeadLetterQueue(self.connection.dead_letter_directory).put(letters)
        self.position(until)
        self.retry()

    def retry(self) -> None:
        """A round of the job's retries."""
        Retrier(self._settings).run()

    def ahead(self) -> None:
        """The position is a minute ahead: nothing comes by the stream."""
        assert self._settings
        self.position(datetime.now(UTC) + timedelta(minutes=1))

    def position(self, moment: datetime) -> None:
        values = {"JobName": JOB, "ResumePosition": moment, "UpdatedAt": spanner.COMMIT_TIMESTAMP}
        with self.database.metadata_database.batch() as batch:
            batch.update("jobs", tuple(values), [tuple(values.values())])

    def validate(self, **options: Any) -> Report:
        return Validation(self.connection).run(**options)

    def table(self, name: str = PAYMENT_TABLE) -> str:
        return f"`{self.changelog.project}.{tables.changelogs(WATCHED)[name].id}`"

    def sql(self, sql: str) -> list[dict[str, Any]]:
        return self.changelog.query(sql)

    @cached_property
    def _settings(self) -> RetrySettings:
        stack = self.connection
        sink = SinkSettings(
            endpoints=Endpoints(
                spanner=stack.spanner_endpoint,
                bigquery=stack.big_query_endpoint,
                bigquery_storage=stack.big_query_storage_endpoint,
            ),
            metadata=MetadataDatabase(
                project=stack.project, instance=stack.spanner_instance, database=stack.metadata_database
            ),
            destinations=Destinations(project=stack.project, watched=WATCHED, dataset=PAYMENT_DATASET),
            job_name=JOB,
        )
        # The job has everything of these tests behind it.
        taken = take_over(sink, "2100-01-01T00:00:00.000000000Z")
        return RetrySettings(
            directory=stack.dead_letter_directory,
            every_seconds=600,
            max_retries=2,
            transforms=TransformSettings(
                masking_keys=stack.masking_keys,
                new_columns="scan",
                payment_states=payments.PAYMENT_STATES,
                ignored=Ignored(),
                watched=WATCHED,
                erased=ErasedTokens(
                    endpoint=stack.spanner_endpoint,
                    project=stack.project,
                    instance=stack.spanner_instance,
                    database=stack.metadata_database,
                ),
            ),
            streams=tuple(
                ChangeStream(name=name, database=self.database.database.name, endpoint=stack.spanner_endpoint)
                for name in WATCHED.change_streams
            ),
            sink=replace(sink, generation=taken.generation, fenced_at=taken.fenced_at),
        )


def _letter(change: Any) -> DeadLetter:
    now = timestamps.now()
    return DeadLetter(
        coordinates=change.coordinates,
        step="Validate",
        reason=Reason.MISSING,
        message="carried by a test",
        attempts=0,
        first_failed_at=now,
        last_failed_at=now,
    )
