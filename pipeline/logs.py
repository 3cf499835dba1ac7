"""The job's log: one JSON object a line, on Dataflow's workers and on one machine alike, and no card number in it.

    {"severity": "WARNING", "time": "…Z", "logger": "pipeline.steps", "message": "…", "error_class": "…", …}

On Dataflow the line is the entry's `jsonPayload.message`, beside the severity, step and worker that Google adds.
Nothing is written for a single change: a bundle tells at its end, in one line, what was out of the ordinary; at DEBUG
also which changes it carried, so that one payment can be followed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from contract.logs import CHANGE_ID, ERROR_CLASS, PAYMENT
from pipeline.transforms.cards import hide_cards

# Imported by every worker before anything else: Beam's way to get at its handler.
WORKER_PLUGIN: Final = "pipeline.jobs.worker_logs"
OURS: Final = "pipeline"
# Some 15 KB. A longer list goes on in the next line at DEBUG, and is cut in a line that tells of trouble.
MOST_CHANGES: Final = 100


class JsonLines(logging.Formatter):
    """A record as one line of JSON, with every card number hidden, in a traceback too."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "severity": record.levelname,
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            entry.setdefault(ERROR_CLASS, record.exc_info[0].__name__)
            entry["trace"] = self.formatException(record.exc_info)
            # Beam's handler would send the traceback once more, as it is.
            record.exc_info = None
        return json.dumps(_hidden(entry), default=str)


def fields(**values: Any) -> dict[str, Any]:
    """What a line has beside its message: `_LOG.info("…", extra=fields(table=…))`."""
    return {"fields": values}


def traced(change_id: str, keys: Mapping[str, Any] | None, **more: Any) -> dict[str, Any]:
    """A change in a line, from its masked keys: by its id, and by the payment's where it has one."""
    payment = (keys or {}).get(PAYMENT)
    return {CHANGE_ID: change_id, **({PAYMENT: payment} if payment else {}), **more}


def trace(log: logging.Logger, did: str, table: str, changes: Sequence[Mapping[str, Any]]) -> None:
    """Which changes a step carried, at DEBUG. Ask `log.isEnabledFor` first: the list costs more than the line."""
    for start in range(0, len(changes), MOST_CHANGES):
        part = changes[start : start + MOST_CHANGES]
        log.debug("%s %d changes of %s.", did, len(part), table, extra=fields(table=table, changes=part))


def configure(level: str, stream: TextIO) -> None:
    """This process's log, on `stream`."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=_libraries(level), handlers=[handler])
    logging.getLogger(OURS).setLevel(level)


def dress(logger: logging.Logger) -> None:
    """Makes the handlers that a logger has write JSON lines."""
    for handler in logger.handlers:
        handler.setFormatter(JsonLines())


def worker_options(level: str) -> list[str]:
    """Beam's options that give the workers the same log."""
    ours = [f'--sdk_harness_log_level_overrides={{"{OURS}": "{level}"}}'] if level == "DEBUG" else []
    return [f"--default_sdk_harness_log_level={_libraries(level)}", *ours, f"--beam_plugins={WORKER_PLUGIN}"]


def _libraries(level: str) -> str:
    """Never DEBUG: there a client library writes what it sends and gets."""
    return "INFO" if level == "DEBUG" else level


def _hidden(value: Any, key: str = "") -> Any:
    """The value without card numbers. Spanner makes a change's id, of digits that can look like one."""
    if isinstance(value, Mapping):
        return {str(name): _hidden(each, str(name)) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(each, key) for each in value]
    text = str(value)
    shown = text if key == CHANGE_ID else hide_cards(text, set())
    return value if shown == text else shown
