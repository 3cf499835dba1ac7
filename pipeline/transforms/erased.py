"""Who was erased: the tokens in the table `erased` of the metadata database, as everything that writes reads them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Self

from pipeline import clients
from pipeline.transforms.erase import Erased
from pipeline.transforms.keys import MaskingKeyError, MaskingKeys

# A row is never redacted by tokens that were read longer ago: an erasure waits for as long.
OLDEST_SECONDS: Final = 30.0
_RENEWED_SECONDS: Final = 10.0
_READ_SECONDS: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class ErasedTokens:
    """Where the tokens are; plain settings, which travel. Called, it reads them. Raises what Spanner's client does."""

    endpoint: str
    project: str
    instance: str
    database: str

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Self:
        """From launch options."""
        return cls(
            endpoint=values["spannerEndpoint"],
            project=values["spannerProjectId"],
            instance=values["spannerMetadataInstanceId"],
            database=values["spannerMetadataDatabase"],
        )

    def __call__(self) -> frozenset[str]:
        from google.cloud.spanner_v1 import KeySet

        with _database(self).snapshot() as snapshot:
            # Whoever asks waits with the changes that are to be written.
            rows = snapshot.read("erased", ("Token",), KeySet(all_=True), timeout=_READ_SECONDS, retry=None)
            return frozenset(token for (token,) in rows)


class ErasedNow:
    """Who is erased, at most `OLDEST_SECONDS` old: read again in between; where that fails, at the latest then."""

    def __init__(
        self, read: Callable[[], frozenset[str]], keys: MaskingKeys, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read, self._keys, self._clock = read, keys, clock
        self._tokens: frozenset[str] | None = None
        self._erased: Erased
        self._read_at = self._next = 0.0

    def current(self) -> Erased:
        """Raises what the read raises, where what is known is too old; and MaskingKeyError."""
        now = self._clock()
        too_old = self._tokens is None or now - self._read_at >= OLDEST_SECONDS
        if too_old or now >= self._next:
            self._next = now + _RENEWED_SECONDS
            try:
                self._renew(now)
            except MaskingKeyError:
                raise
            except Exception:
                if too_old:
                    raise
        return self._erased

    def _renew(self, now: float) -> None:
        tokens = self._read()
        if tokens != self._tokens:
            self._erased = Erased(tokens, self._keys)
            self._tokens = tokens
        self._read_at = now


@cache
def _database(at: ErasedTokens) -> Any:
    return clients.spanner_database(at.endpoint, at.project, at.instance, at.database)
