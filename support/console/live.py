"""One poller for all viewers: it looks at the stack while somebody watches, and everybody is shown what it saw."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

from contract.errors import AuditError
from support.console import failed
from support.monitored import Monitored
from support.overview import Overview

log = logging.getLogger(__name__)

# The least pause, and how many times longer than a look: the emulator has one core.
_PAUSE_SECONDS: Final = 5.0
_PAUSE_FACTOR: Final = 8
# BigQuery is charged by what a look reads: it pauses so that an hour of looking reads no more than this.
_BYTES_AN_HOUR: Final = 250 * 2**30
# Nobody has asked for so long: nobody watches. Who comes then is the first viewer, for whom it looks at once.
_WATCHED_SECONDS: Final = 60.0
# A line that says nothing keeps a proxy from ending the stream.
_KEEP_ALIVE_SECONDS: Final = 15.0
# How often a stream looks for news, which costs nothing.
_NEWS_SECONDS: Final = 0.25


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the poller saw: `number` counts its looks. `error` is why the last of them saw no new overview."""

    number: int = 0
    overview: Overview | None = None
    monitored: Monitored = field(default_factory=Monitored)
    error: str = ""


class Poller:
    """Looks repeatedly in a background thread, from the first viewer on. `pause` in seconds."""

    def __init__(
        self,
        look: Callable[[], Overview],
        measure: Callable[[], Monitored],
        *,
        pause: float = _PAUSE_SECONDS,
    ) -> None:
        self._look, self._measure, self._pause = look, measure, pause
        self._changed = threading.Condition()
        self._seen = Seen()
        self._watched = 0.0
        # Since when somebody watches without a gap, and whether its first viewer waits for a look.
        self._since = 0.0
        self._awaited = False
        self._thread: threading.Thread | None = None
        self._ended = False

    def seen(self) -> Seen:
        """What was seen last; it is not waited for. Somebody watches from now on."""
        with self._changed:
            self._watch()
            return self._seen

    def after(self, number: int, seconds: float) -> Seen:
        """What is seen after look `number`, or at the latest after that time."""
        with self._changed:
            self._watch()
            self._changed.wait_for(lambda: self._seen.number > number or self._ended, seconds)
            return self._seen

    async def events(self, show: Callable[[Seen], str]) -> AsyncIterator[str]:
        """Server-sent events, one for each look, each with what `show` makes of it.

        A viewer who waits takes no thread: there are forty of them for all requests.
        """
        number, said = -1, time.monotonic()
        while not self._ended:
            seen = self.seen()
            if seen.number <= number and time.monotonic() - said < _KEEP_ALIVE_SECONDS:
                await asyncio.sleep(_NEWS_SECONDS)
                continue
            said = time.monotonic()
            if seen.number > number:
                number = seen.number
                yield "".join(["event: seen\n", *(f"data: {line}\n" for line in show(seen).splitlines()), "\n"])
            else:
                yield ": nothing new\n\n"

    def watched_seconds(self) -> float:
        """For how long somebody has watched without a gap."""
        with self._changed:
            return time.monotonic() - self._since

    def end(self) -> None:
        """Ends the streams and the thread."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _watch(self) -> None:
        now = time.monotonic()
        if now - self._watched > _WATCHED_SECONDS:
            self._since, self._awaited = now, True
            self._changed.notify_all()
        self._watched = now
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="console-poller", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._ended:
            began, self._awaited = time.monotonic(), False
            error, found = "", None
            measured = self._measure()
            try:
                found = self._look()
            except AuditError as problem:
                error = failed.explained(problem, "A look at the stack")
            except Exception as problem:
                log.warning("The stack could not be looked at: %s.", type(problem).__name__)
                error = "The stack could not be looked at; the console's log has the kind of the error."
            with self._changed:
                last = self._seen
                self._seen = Seen(
                    number=last.number + 1,
                    overview=found or last.overview,
                    monitored=measured,
                    error=error,
                )
                self._changed.notify_all()
                took, read = time.monotonic() - began, found.bytes_read if found else 0
                # What is paid for is never cut short.
                paid = 3600 * read / _BYTES_AN_HOUR
                pause = max(self._pause, took * _PAUSE_FACTOR, paid)
                self._changed.wait_for(lambda: self._ended, paid)
                self._changed.wait_for(lambda: self._ended or self._awaited, pause - paid)
                if time.monotonic() - self._watched > max(_WATCHED_SECONDS, 2 * pause):
                    # The next viewer starts it again.
                    self._thread = None
                    return
