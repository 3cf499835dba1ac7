"""What stands in for Google Cloud on one machine: a table from resource type to how it is really made here.

Spanner and BigQuery resources are made in the emulators, buckets are folders, the masking key is a file. The job and
the scheduled query are handed back: the stack runs them as a process and a loop. What is not in HANDLERS has no
counterpart here.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from local.provision.bigquery_resources import Dataset, Table, TableFunction, table_there
from local.provision.place import Handler, Inputs, LocalMachine, State
from local.provision.spanner_resources import SpannerDatabase, SpannerInstance

JOB: Final = "gcp:dataflow/flexTemplateJob:FlexTemplateJob"
SCHEDULED_QUERY: Final = "gcp:bigquery/dataTransferConfig:DataTransferConfig"


class Folder(Handler):
    """A bucket is a folder with the resource's name."""

    def read(self, on: LocalMachine, name: str, inputs: Inputs) -> Any:
        return (on.folder / name).is_dir() or None

    def create(self, on: LocalMachine, name: str, inputs: Inputs) -> None:
        (on.folder / name).mkdir(parents=True)

    def delete(self, on: LocalMachine, name: str, inputs: Inputs) -> None:
        shutil.rmtree(on.folder / name)

    def outputs(self, on: LocalMachine, name: str, inputs: Inputs) -> State:
        return {"url": str(on.folder / name)}


class KeyFile(Handler):
    """The masking keys are a file that only its owner reads, with one version."""

    def read(self, on: LocalMachine, name: str, inputs: Inputs) -> Any:
        return self._file(on, name).exists() or None

    def create(self, on: LocalMachine, name: str, inputs: Inputs) -> None:
        file = self._file(on, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        # Its mode from the start: between creation and a chmod others could read it.
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as keys:
            json.dump({"v1": base64.b64encode(secrets.token_bytes(32)).decode()}, keys)

    def delete(self, on: LocalMachine, name: str, inputs: Inputs) -> None:
        self._file(on, name).unlink()

    def _file(self, on: LocalMachine, name: str) -> Path:
        return on.folder / f"{name}.json"

    def outputs(self, on: LocalMachine, name: str, inputs: Inputs) -> State:
        return {"id": f"file:{self._file(on, name)}"}


class HandedBack(Handler):
    """What the stack itself runs, from the resource's inputs."""

    def read(self, on: LocalMachine, name: str, inputs: Inputs) -> Any:
        return None

    def create(self, on: LocalMachine, name: str, inputs: Inputs) -> None:
        """The stack starts it."""

    def delete(self, on: LocalMachine, name: str, inputs: Inputs) -> None:
        """The stack ends it."""


HANDLERS: Final[Mapping[str, Handler]] = {
    "gcp:spanner/instance:Instance": SpannerInstance(),
    "gcp:spanner/database:Database": SpannerDatabase(),
    "gcp:bigquery/dataset:Dataset": Dataset(),
    "gcp:bigquery/table:Table": Table(),
    "gcp:bigquery/routine:Routine": TableFunction(),
    "gcp:storage/bucket:Bucket": Folder(),
    "gcp:secretmanager/secret:Secret": KeyFile(),
    JOB: HandedBack(),
    SCHEDULED_QUERY: HandedBack(),
}

# What the program looks up that is here: function → its answer; {} where there is nothing.
LOOKUPS: Final[Mapping[str, Callable[[LocalMachine, Inputs], State]]] = {"gcp:bigquery/getTable:getTable": table_there}
