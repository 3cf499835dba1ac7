"""The job's log: one JSON object a line, on Dataflow's workers and on one machine alike, and no card number in it.

    {"severity": "WARNING", "time": "…Z", "logger": "pipeline.steps", "message": "…", "error_class": "…", …}

On Dataflow the line is the entry's `jsonPayload.message`, beside the severity, step and worker that Google adds.
Nothing is written for a single change: a bundle writes one line at its end if anything was unusual; at DEBUG
also which changes it carried, so that one payment can be followed.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, Final, TextIO

from contract.logs import CHANGE_ID, ERROR_CLASS, PAYMENT
from pipeline.transforms.cards import hide_cards

# Imported by every worker before anything else: Beam's way to get at its handler.
WORKER_PLUGIN: Final = "pipeline.jobs.worker"
OURS: Final = "pipeline"
# Some 15 KB. A longer list continues in the next line at DEBUG, and is cut in a line that reports an error.
MOST_CHANGES: Final = 100
# Characters of one text in a line. Cloud Logging takes 256 KB per entry.
LONGEST_TEXT: Final = 20_000
# What is looked at beyond it, so that a number at the end is never cut into two halves that are not found.
_MARGIN: Final = 1_000

_LOG = logging.getLogger(__name__)


class JsonLines(logging.Formatter):
    """A record as one line of JSON, with every card number hidden, in a traceback too.

    It never raises: who catches that, `logging` and Beam, writes the arguments as they are.
    """

    def format(self, record: logging.LogRecord) -> str:
        try:
            return self._line(record)
        except Exception as error:
            return _broken(record, type(error).__name__)

    def _line(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "severity": record.levelname,
            "time": _time(record),
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


def traced(change_id: str, payment: object, **more: Any) -> dict[str, Any]:
    """A change in a line: by its id, and by the masked one of its payment where that is known."""
    return {CHANGE_ID: change_id, **({PAYMENT: payment} if payment else {}), **more}


def trace(log: logging.Logger, did: str, table: str, changes: Sequence[Mapping[str, Any]]) -> None:
    """Which changes a step carried, at DEBUG. Ask `log.isEnabledFor` first: the list costs more than the line."""
    for start in range(0, len(changes), MOST_CHANGES):
        part = changes[start : start + MOST_CHANGES]
        log.debug("%s %d changes of %s.", did, len(part), table, extra=fields(table=table, changes=part))


def configure(level: str, stream: TextIO) -> None:
    """This process's log, on `stream`, and nothing beside it."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=_libraries(level), handlers=[handler])
    logging.getLogger(OURS).setLevel(level)
    # A line for each type hint that Beam cannot convert, which is not an error.
    logging.getLogger("apache_beam.typehints.native_type_compatibility").setLevel(logging.WARNING)
    close_side_doors()


def close_side_doors() -> None:
    """What Python writes on stderr by itself, values and all, becomes a line of the log or is not written.

    That is a handler's own failure, a warning, and an exception that nobody catches: in the main thread, in another
    one, in a finalizer.
    """
    logging.raiseExceptions = False
    if logging.lastResort:
        logging.lastResort.setFormatter(JsonLines())
    logging.captureWarnings(True)

    def uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            _LOG.critical("The process ends: nobody caught its exception.", exc_info=(kind, error, trace))

    def in_a_thread(args: Any) -> None:
        if not issubclass(args.exc_type, SystemExit):
            _LOG.error("A thread ended: nobody caught its exception.", exc_info=_exception(args))

    def ignored(args: Any) -> None:
        _LOG.error("An exception was ignored: nobody can catch it there.", exc_info=_exception(args))

    sys.excepthook, threading.excepthook, sys.unraisablehook = uncaught, in_a_thread, ignored


def _exception(args: Any) -> Any:
    return args.exc_type, args.exc_value, args.exc_traceback


def install_json_formatter(logger: logging.Logger) -> None:
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
        return {_shown(str(name)): _hidden(each, str(name)) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(each, key) for each in value]
    text = str(value)
    shown = text if key == CHANGE_ID else _shown(text)
    return value if shown == text else shown


def _shown(text: str) -> str:
    """A text without card numbers, and without its end where it is too long."""
    if len(text) <= LONGEST_TEXT:
        return hide_cards(text, set())
    begin = hide_cards(text[: LONGEST_TEXT + _MARGIN], set())
    return f"{begin[: min(LONGEST_TEXT, max(0, len(begin) - _MARGIN))]}…"


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _broken(record: logging.LogRecord, error: str) -> str:
    """The line in place of one that cannot be written: where it was to be written, and nothing of what it was about."""
    try:
        text = repr(_shown(record.msg)) if isinstance(record.msg, str) else "no text"
        where = f"{PurePath(record.pathname).name}:{record.lineno}"
    except Exception:
        text = where = "unknown"
    # Other handlers get the record as well, and Beam's sends the traceback of it.
    record.msg, record.args, record.exc_info = f"A line of the log could not be written: {text}, {where}.", None, None
    return json.dumps(
        {
            "severity": "ERROR",
            "time": _time(record),
            "logger": record.name,
            "message": record.msg,
            ERROR_CLASS: error,
        }
    )
