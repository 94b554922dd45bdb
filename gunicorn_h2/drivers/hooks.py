"""What the connections of a driver whose applications block need from it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from gunicorn_h2.protocol.errors import ErrorCode, StreamLimit
from gunicorn_h2.protocol.events import RequestRefused

from .channel import Channel
from .dispatch import Shared
from .tunnel import SocketWatch
from .waiting import ThreadCount

if TYPE_CHECKING:
    from .connection import Http2Connection

__all__ = ["DriverHooks"]


class DriverHooks(Shared, Protocol):
    """What a connection needs from its driver, or from its owner there."""

    @property
    def thread_count(self) -> ThreadCount | None:
        """See `StreamOwner.thread_count`."""

    def start_request(self, connection: Http2Connection, channel: Channel) -> None:
        """Have the application serve a new request in another thread or greenlet."""

    def note_refusal(self, connection: Http2Connection, refusal: RequestRefused) -> None:
        """Have a request that the core has answered itself logged, in another thread or greenlet."""

    def note_closed(self, connection: Any, code: ErrorCode, reason: str) -> None:
        """See `EventDispatcher.note_closed`."""

    def note_limit(self, connection: Any, limit: StreamLimit, stream_id: int | None) -> None:
        """See `EventDispatcher.note_limit`."""

    def act_now(self, connection: Any) -> None:
        """See `StreamOwner.act_now`."""

    def defer(self, connection: Any) -> bool:
        """See `TransportConnection.defer`."""

    def run(self, call: Callable[[], object]) -> None:
        """Call application code, which may block but should not raise, in another thread or greenlet."""

    def watch_socket(self, connection: Any, sock: socket.socket, act: Callable[[], None]) -> SocketWatch:
        """Watch a socket, and have the owner call `act()` while it is ready; the connection is flushed then."""

    def submit(self, connection: Any, do: Callable[..., None], *arguments: Any) -> None:
        """See `StreamOwner.submit`; the connection is flushed then."""

    def submit_last(self, connection: Any, do: Callable[..., None], *arguments: Any) -> None:
        """See `StreamOwner.submit_last`; the connection is flushed then."""

    def submit_reply(self, connection: Any, do: Callable[..., None], *arguments: Any) -> None:
        """See `StreamOwner.submit_reply`; the connection is flushed then."""

    def prepare_wait(self, ready: Callable[[], bool]) -> bool:
        """See `StreamOwner.prepare_wait`."""
