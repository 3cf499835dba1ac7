"""Beam's UnboundedSource, with a backlog that reaches the runner.

Beam 2.77 reports an unbounded source as a size of 1, always (github.com/apache/beam/issues/19137): an autoscaler can do
nothing with it. Here a source says how many bytes it has not read yet. The runner gets them at two places, as it does
from the Java SDK: with each restriction that it is to resume, and as the work that remains of the one that runs. Of a
bundle that has put out nothing so far the SDK passes the latter on as a share of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import apache_beam as beam
from apache_beam.io.iobase import RestrictionProgress
from apache_beam.io.unbounded_source import (
    UnboundedSource,
    _ReadFromUnboundedSourceDoFn,
    _UnboundedSourceRestrictionProvider,
    _UnboundedSourceRestrictionTracker,
)
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator

# What Beam reports of every source.
_UNKNOWN: Final = 1


class SourceWithBacklog(UnboundedSource):
    """A source that knows how much it has not read yet."""

    def backlog(self) -> int | None:
        """Bytes that were not read yet, as the process knows that reads; None where it does not know."""
        raise NotImplementedError


class _Tracker(_UnboundedSourceRestrictionTracker):
    def current_progress(self) -> RestrictionProgress:
        return RestrictionProgress(completed=0, remaining=_size(self._restriction))


class _Provider(_UnboundedSourceRestrictionProvider):
    def create_tracker(self, restriction: Any) -> _Tracker:
        return _Tracker(restriction)

    def restriction_size(self, element: Any, restriction: Any) -> int:
        return _size(restriction)


def _size(restriction: Any) -> int:
    if restriction.is_done:
        return 0
    known = restriction.source.backlog()
    return _UNKNOWN if known is None else int(known)


_PROVIDER: Final = _Provider()


class _Read(_ReadFromUnboundedSourceDoFn):
    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        element: Any,
        bundle_finalizer: Any = beam.DoFn.BundleFinalizerParam,
        tracker: Any = beam.DoFn.RestrictionParam(_PROVIDER),
        watermark_estimator: Any = beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider()),
    ) -> Any:
        return super().process(element, bundle_finalizer, tracker, watermark_estimator)


class ReadWithBacklog(beam.PTransform):
    """Reads sources with a backlog, all in one stage."""

    def __init__(self, sources: Sequence[SourceWithBacklog], **limits: float) -> None:
        """`limits`: of a bundle, as `_ReadFromUnboundedSourceDoFn` takes them."""
        super().__init__()
        self._sources = sources
        self._limits = limits

    def expand(self, pipeline: Any) -> Any:
        return pipeline | "Create" >> beam.Create(self._sources) | "ReadUnbounded" >> beam.ParDo(_Read(**self._limits))
