"""A warehouse with views, made once and emptied for each test that asks for it."""

from __future__ import annotations

from typing import Any

import pytest

from local.emulators.launch import PROJECT
from pipeline import clients
from tests.emulators.changelog import Changelog


@pytest.fixture(scope="session")
def _changelog(bigquery_emulator: Any) -> Changelog:
    # The project of the Spanner emulator's instance: a connection names one project for both.
    made = Changelog(clients.bigquery_client(bigquery_emulator.rest, PROJECT), PROJECT)
    made.create()
    return made


@pytest.fixture
def changelog(_changelog: Changelog) -> Changelog:
    """The tables and views of the contract in a BigQuery project, without rows."""
    _changelog.clear()
    return _changelog
