"""Datasets that tests leave behind: each makes every query of the BigQuery emulator slower."""

from __future__ import annotations

from typing import Any


def drop_all(client: Any) -> None:
    """Everything in the client's BigQuery project."""
    for dataset in list(client.list_datasets()):
        client.delete_dataset(dataset.reference, delete_contents=True)
