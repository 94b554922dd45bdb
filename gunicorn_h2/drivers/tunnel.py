"""What takes the place of a channel when a stream becomes a tunnel (RFC 9113 section 8.5).

The requests of an extended CONNECT begin with a channel like all others. Their application layer puts a `Tunnel` into
`stream.context`, which then gets what the connection has for the stream. Nothing else of a connection knows of tunnels,
but its shutdown.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Protocol

from gunicorn_h2.protocol.stream import Stream

__all__ = ["SocketWatch", "Tunnel"]


class SocketWatch(Protocol):
    """A socket beside those of the connections, which the owner of one acts on when it is ready."""

    def expect(self, reads: bool, writes: bool) -> None:
        """Have the owner act while the socket is readable, or writable, or neither."""

    def close(self) -> None:
        """Stop watching, before the socket is closed."""


class _Channel(Protocol):
    """What a tunnel needs of the channel before it."""

    stream: Stream

    def wake(self) -> None:
        """Wake a waiting application."""

    def abort(self, code: int, reason: str) -> bool:
        """Note that the stream is gone; return whether the application call has returned already."""


class Tunnel(ABC):
    """The base of tunnels; every method is for the owner of the connection."""

    starving_since = math.inf
    """Never: an application that waits for an idle client is no stalled one (see `Channel.starving_since`)."""

    def __init__(self, channel: _Channel) -> None:
        self._inner = channel

    @abstractmethod
    def deliver(self, data: bytes, ended: bool) -> None:
        """Take what the client has sent, and whether it has ended its side."""

    @abstractmethod
    def go_away(self) -> None:
        """Have the client leave, because the worker is about to end."""

    def wake(self) -> None:
        """Note that there is room for output again."""
        self._inner.wake()

    def abort(self, code: int, reason: str) -> bool:
        """See `Channel.abort`."""
        return self._inner.abort(code, reason)
