"""A warehouse with views, made once and emptied for each test that asks for it."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from changelog import Changelog

from pipeline import clients


@pytest.fixture(scope="session")
def _changelog(bigquery_emulator: Any) -> Changelog:
    project = f"audit-{uuid.uuid4().hex[:8]}"
    made = Changelog(clients.bigquery_client(bigquery_emulator.rest, project), project)
    made.create()
    return made


@pytest.fixture
def changelog(_changelog: Changelog) -> Changelog:
    """The tables and views of the contract in a BigQuery project, without rows."""
    _changelog.clear()
    return _changelog
