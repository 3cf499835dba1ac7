"""Streaming calls over as many HTTP/2 connections as they need.

Google's front ends take 100 streams a connection (SETTINGS_MAX_CONCURRENT_STREAMS); gRPC keeps what is over it waiting,
without an answer and without an error. A tail query is such a stream for as long as its partition lives.
Source: grpc.io, "Performance Best Practices".
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

_LOG = logging.getLogger(__name__)

# A margin for calls that the server has not forgotten yet.
STREAMS_A_CHANNEL: Final = 90
# What no server is believed to allow less of: one that answers some of the calls may be slow with the others.
_LEAST_STREAMS: Final = 10


class StreamingCall:
    """A call that streams responses, as another thread sees it: since when it is silent, and how to end it.

    It keeps its place on its channel until its responses have come to an end, or it is cancelled.
    """

    def __init__(self, lane: _Lane, clock: Callable[[], float], ended: Callable[[StreamingCall], None]) -> None:
        self._call: Any = None
        self._clock = clock
        self._ended = ended
        self._waits_since: float | None = None
        self.lane = lane
        self.served = False

    def begin(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._waits_since = self._clock()
        try:
            response = next(self._call)
        except BaseException:
            self._ended(self)
            raise
        finally:
            self._waits_since = None
        self.served = True
        return response

    def silent_seconds(self) -> float:
        """How long the call has been waited on for its next response; 0 while nobody asks for one."""
        since = self._waits_since
        return 0.0 if since is None else self._clock() - since

    def cancel(self) -> None:
        self._call.cancel()
        # Whoever waits for a response gets an error in its place.
        if self._waits_since is None:
            self._ended(self)


class _Lane:
    """One channel and the streaming calls that are open on it."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.calls: set[StreamingCall] = set()
        self.methods: dict[str, Any] = {}


class StreamingChannels:
    """gRPC channels to one server, each its own connection, used as one. Safe for several threads.

    `connect` opens channel number n. A streaming call goes to the fullest channel that has room for one more; another
    is opened when none has, and closed when its last call has ended. Unary calls have a separate channel, where no
    stream keeps them waiting.
    """

    def __init__(
        self,
        connect: Callable[[int], Any],
        streams_a_channel: int | None = STREAMS_A_CHANNEL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._limit = streams_a_channel
        self._clock = clock
        self._lock = threading.Lock()
        self._unary: Any = None
        self._lanes: list[_Lane] = []
        self._opened = 0

    @classmethod
    def around(cls, channel: Any) -> StreamingChannels:
        """A channel that somebody else opened, and closes, for all the calls."""
        return channel if isinstance(channel, cls) else cls(lambda _: _Borrowed(channel), None)

    def unary_unary(self, method: str, **serializers: Any) -> Any:
        with self._lock:
            if self._unary is None:
                self._unary = self._open()
            return self._unary.unary_unary(method, **serializers)

    def unary_stream(self, method: str, **serializers: Any) -> Callable[..., StreamingCall]:
        """The method; a call of it takes what a gRPC one takes, and `avoid`: a call whose channel is not to be used."""

        def call(request: Any, *, avoid: StreamingCall | None = None, **options: Any) -> StreamingCall:
            with self._lock:
                lane = self._lane(avoid)
                streaming = StreamingCall(lane, self._clock, self._ended)
                lane.calls.add(streaming)
                if method not in lane.methods:
                    lane.methods[method] = lane.channel.unary_stream(method, **serializers)
            try:
                streaming.begin(lane.methods[method](request, **options))
            except BaseException:
                self._ended(streaming)
                raise
            return streaming

        return call

    def unserved(self, call: StreamingCall) -> None:
        """The call got no answer at all. If others on its channel still do, the server takes fewer than was thought."""
        with self._lock:
            silent = call.silent_seconds()
            served = sum(other.served and other.silent_seconds() < silent / 2 for other in call.lane.calls)
            if call.served or self._limit is None or not 0 < served < self._limit:
                return
            limit = max(_LEAST_STREAMS, served)
            if limit >= self._limit:
                return
            self._limit = limit
        _LOG.warning(
            "A connection to Spanner answers %d calls at once and leaves the others waiting. From now on %d calls "
            "share a connection.",
            served,
            limit,
        )

    @property
    def open_channels(self) -> int:
        """How many channels carry streaming calls."""
        return len(self._lanes)

    def close(self) -> None:
        """Closes every channel, and with them their calls."""
        with self._lock:
            channels = [lane.channel for lane in self._lanes]
            if self._unary is not None:
                channels.append(self._unary)
            self._lanes, self._unary = [], None
        for channel in channels:
            channel.close()

    def _lane(self, avoid: StreamingCall | None) -> _Lane:
        avoided = None if avoid is None or self._limit is None else avoid.lane
        free = [
            lane
            for lane in self._lanes
            if lane is not avoided and (self._limit is None or len(lane.calls) < self._limit)
        ]
        # The fullest: the others come to their end, and are closed.
        lane = max(free, key=lambda lane: len(lane.calls), default=None)
        if lane is None:
            lane = _Lane(self._open())
            self._lanes.append(lane)
        return lane

    def _open(self) -> Any:
        self._opened += 1
        return self._connect(self._opened)

    def _ended(self, call: StreamingCall) -> None:
        with self._lock:
            lane = call.lane
            lane.calls.discard(call)
            # One stays open for the next call.
            if lane.calls or len(self._lanes) < 2 or lane not in self._lanes:
                return
            self._lanes.remove(lane)
        lane.channel.close()


class _Borrowed:
    """A channel that is not ours to close."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.unary_unary = channel.unary_unary
        self.unary_stream = channel.unary_stream

    def close(self) -> None:
        pass
