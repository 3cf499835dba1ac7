"""Rows that come late, and the merge of the current state, which has seen more than them."""

from __future__ import annotations

import time
from typing import Any, Final

from contract import queries, timestamps
from pipeline.sink.changelogs import Destinations

_PAUSES: Final = (0.5, 1.0, 2.0)


def rewind_merge(
    client: Any,
    destinations: Destinations,
    oldest: str,
    arrived: str | None = None,
    *,
    pauses: tuple[float, ...] = _PAUSES,
) -> None:
    """The merged state ends before the oldest row that came late, so that the next merge takes it in.

    After the append, which may have begun at `arrived`; without it, within the last minutes. The merge may be writing
    the same row: "could not serialize access" passes. `pauses`: between the tries, in seconds; then it raises what
    BigQuery's client raises.
    """
    from google.cloud.bigquery import QueryJobConfig, ScalarQueryParameter

    moments = {"commit_timestamp": oldest, "arrived": arrived or timestamps.now()}
    parameters = [ScalarQueryParameter(n, "TIMESTAMP", timestamps.to_datetime(at)) for n, at in moments.items()]
    rewind = queries.rewind_script(destinations.project, destinations.watched)
    for pause in (*pauses, None):
        try:
            client.query(rewind, job_config=QueryJobConfig(query_parameters=parameters)).result()
            return
        except Exception:
            if pause is None:
                raise
            time.sleep(pause)
