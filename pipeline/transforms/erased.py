"""Who was erased: the tokens in the table `erased` of the metadata database, as everything that writes reads them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final, Self

from pipeline import clients
from pipeline.transforms.erase import Erased
from pipeline.transforms.keys import MaskingKeyError, MaskingKeys

# A row is never redacted by tokens that were read longer ago: an erasure waits for as long.
OLDEST_SECONDS: Final = 30.0
_RENEWED_SECONDS: Final = 10.0
_READ_SECONDS: Final = 5.0
_LOG = logging.getLogger(__name__)

# Tokens and when they were recorded: those since a time, or all of them. None is ever taken back.
ReadTokens = Callable[[datetime | None], Mapping[str, datetime]]


@dataclass(frozen=True, kw_only=True)
class ErasedTokens:
    """Where the tokens are; plain settings, which travel. It is a ReadTokens. Raises what Spanner's client does."""

    endpoint: str
    project: str
    instance: str
    database: str

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Self:
        """From launch options."""
        return cls(
            endpoint=values["spannerEndpoint"],
            project=values["spannerMetadataProjectId"] or values["spannerProjectId"],
            instance=values["spannerMetadataInstanceId"],
            database=values["spannerMetadataDatabase"],
        )

    def __call__(self, since: datetime | None) -> Mapping[str, datetime]:
        from google.cloud.spanner_v1 import param_types

        sql, values = "SELECT Token, ErasedAt FROM erased", {}
        if since:
            # What is new is a seek: every worker reads that all the time, and there are tokens of years.
            sql, values = f"{sql}@{{FORCE_INDEX=ErasedByTime}} WHERE ErasedAt >= @since", {"since": since}
        with _database(self).snapshot() as snapshot:
            # The changes that are to be written wait for the answer.
            types = dict.fromkeys(values, param_types.TIMESTAMP)
            rows = snapshot.execute_sql(sql, params=values, param_types=types, timeout=_READ_SECONDS, retry=None)
            return dict(rows)


class ErasedNow:
    """Who is erased, at most `OLDEST_SECONDS` old: read again in between; where that fails, at the latest then.

    `load` gives the masking keys: once, and again where a token is of a key that came since.
    """

    def __init__(
        self, read: ReadTokens, load: Callable[[], MaskingKeys], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read, self._load, self._clock = read, load, clock
        self._keys = load()
        self._tokens: frozenset[str] = frozenset()
        self._since: datetime | None = None
        self._erased: Erased | None = None
        self._read_at = self._next = 0.0

    def current(self) -> Erased:
        """Raises what the read raises, or MaskingKeyError, where what is known is too old."""
        now = self._clock()
        known = self._erased
        if known is None or now >= self._next or now - self._read_at >= OLDEST_SECONDS:
            self._next = now + _RENEWED_SECONDS
            try:
                known = self._renewed()
                self._read_at = now
            except Exception as error:
                if known is None or now - self._read_at >= OLDEST_SECONDS:
                    raise
                _LOG.warning("Who was erased could not be read again (%s); trying again.", type(error).__name__)
        return known

    def _renewed(self) -> Erased:
        found = self._read(self._since)
        tokens = self._tokens | found.keys()
        if self._erased is None or tokens != self._tokens:
            self._erased = self._of(tokens)
            self._tokens, self._since = tokens, max(found.values(), default=None)
        return self._erased

    def _of(self, tokens: frozenset[str]) -> Erased:
        try:
            return Erased(tokens, self._keys)
        except MaskingKeyError:
            self._keys = self._load()
            return Erased(tokens, self._keys)


@cache
def _database(at: ErasedTokens) -> Any:
    return clients.spanner_database(at.endpoint, at.project, at.instance, at.database)
