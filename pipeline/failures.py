"""The only maker of dead letters: a failure of a step, or a row that BigQuery refused, becomes one here.

A step says where its failures go, and a job reads as a list of steps:

    records | ToRows(transforms, encode).failures_to(failures) | AppendRows(sink, 200).failures_to(failures)
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.typehints.native_type_compatibility import convert_to_beam_type
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from contract import tables, timestamps
from contract.changes import Change, Coordinates, DeadLetter, Reason, StepError
from contract.watched import WatchedTable
from pipeline import logs

DEAD: Final = "dead_letters"
MAIN: Final = "main"


class Failures:
    """The dead letters of several steps, gathered while a pipeline is put together."""

    def __init__(self) -> None:
        self.parts: list[Any] = []

    def add(self, *parts: Any) -> None:
        """Adds PCollections of dead letters."""
        self.parts += parts

    def all(self) -> Any:
        """One PCollection of all that was added."""
        return tuple(self.parts) | "DeadLetters" >> beam.Flatten()


class Step(beam.DoFn):
    """A step of the job. What fails in it leaves by a separate output, as a dead letter.

    `OUTPUTS` are further outputs: a step with some gives a tuple, the main one first. `TYPES` are the types of outputs
    that have one, by name: what is keyed must say so.
    """

    OUTPUTS: ClassVar[tuple[str, ...]] = ()
    TYPES: ClassVar[Mapping[str, Any]] = {}

    def failures_to(self, failures: Failures) -> beam.PTransform:
        """This step as a transform, labelled by its class; its dead letters are added to `failures`."""
        return type(self).__name__ >> _Applied(self, failures)


class _Applied(beam.PTransform):
    def __init__(self, step: Step, failures: Failures) -> None:
        super().__init__()
        self._step = step
        self._failures = failures

    def expand(self, elements: Any) -> Any:
        outputs = self._step.OUTPUTS
        done = elements | beam.ParDo(self._step).with_outputs(DEAD, *outputs, main=MAIN)
        self._failures.add(done[DEAD])
        for name, kind in self._step.TYPES.items():
            done[name].element_type = convert_to_beam_type(kind)
        return (done[MAIN], *(done[name] for name in outputs)) if outputs else done[MAIN]


def failed(
    at: Coordinates, step: str, error: Exception, change: Change | None = None, table: WatchedTable | None = None
) -> Any:
    """The output of a step for what it cannot do. `change`, of `table`, must be masked."""
    return failed_at_commit(dead_letter(at, step, error, change, table))


def failed_at_commit(letter: DeadLetter) -> Any:
    """The output at the change's commit timestamp: no position passes that until the dead letter is durable."""
    micros = timestamps.to_micros(letter.coordinates.commit_timestamp)
    return beam.pvalue.TaggedOutput(DEAD, WindowedValue(letter, Timestamp(micros=micros), [GlobalWindow()]))


def dead_letter(
    at: Coordinates, step: str, error: Exception, change: Change | None = None, table: WatchedTable | None = None
) -> DeadLetter:
    """The dead letter of a change that failed in a step. `change` must be masked; `table` says which payment it is."""
    if isinstance(error, StepError):
        reason, message = error.reason, error.message
    else:
        # Not the exception's own text: it may quote a value.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = Reason.UNEXPECTED
        message = f"{type(error).__name__} in {step}, line {frame.lineno} of {frame.name}. Report it; then retry."
    now = timestamps.now()
    return DeadLetter(
        coordinates=at,
        step=step,
        reason=reason,
        message=message,
        attempts=0,
        first_failed_at=now,
        last_failed_at=now,
        payment=table.payment_in(change.keys, change.new, change.old) if change and table else None,
        change=change.to_dict() if change else None,
    )


def refused_row(row: dict[str, Any], stream: str, reason: str, message: str, table: WatchedTable) -> DeadLetter:
    """The dead letter of a row that BigQuery refused: the row as it was sent, and where to read the change again."""
    row = {name: _json(value) for name, value in row.items()}
    # A transaction's id may be any text, with a / in it too.
    commit_timestamp, _, rest = row[tables.CHANGE_ID].partition("/")
    transaction, sequence, mod_index = rest.rsplit("/", 2)
    now = timestamps.now()
    payment = row.get(tables.named(table, "payment") or "")
    return DeadLetter(
        coordinates=Coordinates(
            stream, row[tables.TABLE_NAME], commit_timestamp, transaction, sequence, int(mod_index)
        ),
        step="AppendRows",
        reason=reason,
        message=message,
        attempts=0,
        first_failed_at=now,
        last_failed_at=now,
        payment=None if payment is None else str(payment),
        change={"row": row},
    )


def _json(value: Any) -> Any:
    if isinstance(value, list):
        return [_json(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def error_fields(letters: Sequence[DeadLetter]) -> dict[str, Any]:
    """What a line about dead letters has: the class that most of them are of, and their changes."""
    most = Counter(letter.reason for letter in letters).most_common(1)[0][0]
    return {"error_class": most, "changes": [_traced(letter) for letter in letters[: logs.MOST_CHANGES]]}


def _traced(letter: DeadLetter) -> dict[str, Any]:
    """The change of a dead letter in a line. One that could not be masked has no payment to name."""
    return logs.traced(letter.coordinates.change_id, letter.payment, step=letter.step, error_class=letter.reason)
