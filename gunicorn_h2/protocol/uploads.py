"""A minimum rate for the bodies that clients send: against Slowloris and R-U-Dead-Yet.

A client that has declared the length of a body, and has credit to send it, must send it. Each such upload has an
account of time, `stream_timeout` seconds at most and at first: time is spent as it passes, and octets earn it
at the minimum rate. An upload whose account is empty is given up.

Nothing is charged where it is not the client that is waited for: if the application has not read all that has come,
or has only just returned credit, or has not asked for a body that the client offered (`Expect: 100-continue`).
Nor while the connection as a whole keeps the rate of all its uploads together: a client on a slow path may send
one after another.

Nothing is counted as data arrives. The accounts are brought up to date when the first of them could be empty, and
not more than once a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from .config import ConnectionConfig
from .events import RequestReceived
from .stream import HELD, OPEN, Stream
from .windows import ReceiveWindow

__all__ = ["UploadWatch"]

_MIN_INTERVAL = 1.0


class UploadWatch:
    """Watches the uploads of one connection."""

    __slots__ = ("deadline", "_accounts", "_checked_at", "_patience", "_position", "_rate", "_streams", "_window")

    def __init__(
        self, config: ConnectionConfig, streams: Mapping[int, Stream], window: ReceiveWindow, now: float
    ) -> None:
        """`streams` are the open ones; `window` is the connection's."""
        self.deadline = math.inf
        """When to call `check`; infinite: never."""
        self._rate = config.min_body_rate
        self._patience = config.stream_timeout or math.inf
        self._streams = streams
        self._window = window
        self._accounts: dict[int, tuple[float, float, int]] = {}
        """By stream: the time of the last check, the seconds left then, and the octets of the body received by then."""
        self._checked_at = now
        self._position = window.position

    def watch(self, requests: Iterable[RequestReceived]) -> None:
        """Watch new requests whose bodies have not arrived with them."""
        if self.deadline == math.inf:
            for request in requests:
                stream = request.stream
                if stream.state is OPEN and stream.head.declares_body:
                    self.deadline = stream.opened_at + self._patience
                    self._restart(stream.opened_at)
                    return

    def _restart(self, now: float) -> None:
        self._checked_at = now
        self._position = self._window.position

    def check(self, now: float) -> list[Stream]:
        """Return the streams that are to be given up, and set the deadline of the next check."""
        uploads = [stream for stream in self._streams.values() if self._is_upload(stream)]
        octets = self._window.position - self._position
        keeps_rate = octets >= self._rate * len(uploads) * (now - self._checked_at) > 0
        accounts: dict[int, tuple[float, float, int]] = {}
        given_up, least = [], self._patience
        for stream in uploads:
            left = self._patience if keeps_rate else self._left(stream, now)
            if left <= 0:
                given_up.append(stream)
            else:
                least = min(least, left)
                accounts[stream.stream_id] = (now, left, stream.received)
        self._accounts = accounts
        self._restart(now)
        self.deadline = now + max(least, _MIN_INTERVAL) if accounts else math.inf
        return given_up

    def _is_upload(self, stream: Stream) -> bool:
        if stream.state is not OPEN or not stream.has_reader or not stream.head.declares_body:
            return False
        # Without a minimum rate, the driver limits the time between two pieces for an application that reads.
        return stream.call is HELD or self._rate > 0

    def _left(self, stream: Stream, now: float) -> float:
        """Return the seconds left on the account of an upload."""
        window = stream.receive_window
        account = self._accounts.get(stream.stream_id)
        if account is None:
            if stream.head.expects_continue:
                # The time of the 100, if there was one, is not known.
                return self._patience
            account = stream.opened_at, self._patience, 0
        since, left, received = account
        if (window.renewed_at or 0.0) > since or not self._is_awaited(stream, window):
            return self._patience
        progress = stream.received - received
        if self._rate:
            left += progress / self._rate
        elif progress:
            return self._patience
        return min(left - (now - since), self._patience)

    @staticmethod
    def _is_awaited(stream: Stream, window: ReceiveWindow) -> bool:
        """Whether the server has nothing left to do but to wait for more of the body."""
        if stream.call is HELD:
            return True
        if stream.head.expects_continue and not stream.continue_sent:
            return False
        return window.size - window.available - window.owed - stream.kept <= 0
