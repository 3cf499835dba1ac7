"""Lets the strict BigQuery start in under a second as its own process.

Its message types are in a package whose `__init__` imports Google's clients (0.5 CPU s), which a server never needs:
here the package is entered without it. In any other process nothing happens.
"""

from __future__ import annotations

import importlib.util
import sys
import types

_PACKAGE = "google.cloud.bigquery_storage_v1"


def enter_without_clients() -> None:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(_PACKAGE)
    package = types.ModuleType(_PACKAGE)
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules[_PACKAGE] = package


if getattr(sys.modules["__main__"].__spec__, "name", "") == "tests.strict.bigquery":
    enter_without_clients()
