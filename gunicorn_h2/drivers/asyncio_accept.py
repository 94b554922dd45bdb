"""How connections come to an event loop: accepted while there is room, then asked what they speak."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import Protocol, cast

from .base import Log
from .handshake_errors import HandshakeLog
from .opening import Opening

__all__ = ["Acceptor", "AcceptorHooks", "Room"]

# The peer was gone before it was accepted; the system had nothing to do with it.
_NOT_AN_ERROR = (errno.EAGAIN, errno.ECONNABORTED, errno.EPROTO, errno.EPERM)
_RETRY_SECONDS = 1.0
# asyncio takes no number for "no limit".
_NO_LIMIT = 1e6


class AcceptorHooks(Protocol):
    """What the worker decides."""

    log: Log

    def connection_opened(self) -> None:
        """A connection was accepted: it counts from here."""

    def connection_closed(self) -> None:
        """It is gone, before anyone took it over."""

    def opening(self, peer: object) -> Opening | None:
        """How HTTP/2 may begin in the clear for this peer; None where it may not."""

    def serve_http2(self, transport: asyncio.Transport, opening: Opening | None) -> None:
        """Take a connection that speaks HTTP/2; the opening holds what has been read."""

    def serve_http1(self, transport: asyncio.Transport, data: bytes) -> None:
        """Take one that does not."""


class Room:
    """How many more connections the worker takes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._free = asyncio.Event()
        self._free.set()

    def update(self, connections: int) -> None:
        """So many connections are open."""
        if connections < self._capacity:
            self._free.set()
        else:
            self._free.clear()

    async def wait(self) -> None:
        """Return when there is room for one more."""
        await self._free.wait()


class Acceptor:
    """Accepts connections on one listening socket.

    Gunicorn closes it as it would close an `asyncio.Server`, whose two methods it has.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        room: Room,
        hooks: AcceptorHooks,
        context: ssl.SSLContext | None,
        timeout: float,
        handshakes: HandshakeLog,
    ) -> None:
        """`timeout` limits the TLS handshake and the search for the preface; 0: no limit."""
        self._loop = loop
        self._sock = sock
        self._room = room
        self._hooks = hooks
        self._context = context
        self._timeout = timeout or _NO_LIMIT
        self._handshakes = handshakes
        self._setups: set[asyncio.Task[None]] = set()
        sock.setblocking(False)
        self._task = loop.create_task(self._accept())

    def close(self) -> None:
        """Accept no more."""
        self._task.cancel()

    async def wait_closed(self) -> None:
        """Return when nothing more will be accepted."""
        await asyncio.wait([self._task])

    async def _accept(self) -> None:
        while True:
            await self._room.wait()
            try:
                sock, peer = await self._loop.sock_accept(self._sock)
            except OSError as error:
                if error.errno not in _NOT_AN_ERROR:
                    # As when descriptors run out: later there may be some again.
                    self._hooks.log.warning("Cannot accept connections: %s", error)
                    await asyncio.sleep(_RETRY_SECONDS)
                continue
            self._hooks.connection_opened()
            task = self._loop.create_task(self._set_up(sock, peer))
            self._setups.add(task)
            task.add_done_callback(self._setups.discard)

    async def _set_up(self, sock: socket.socket, peer: object) -> None:
        negotiation = _Negotiation(self._loop, self._hooks, self._timeout)
        try:
            await self._loop.connect_accepted_socket(
                lambda: negotiation,
                sock,
                ssl=self._context,
                ssl_handshake_timeout=self._timeout if self._context is not None else None,
            )
        except OSError as error:
            self._handshakes.failed(peer, error)
        finally:
            if not negotiation.connected:
                sock.close()
                self._hooks.connection_closed()


class _Negotiation(asyncio.Protocol):
    """Which protocol a connection speaks: by ALPN under TLS, by what the client sends first in the clear."""

    def __init__(self, loop: asyncio.AbstractEventLoop, hooks: AcceptorHooks, timeout: float) -> None:
        self.connected = False
        self._loop = loop
        self._hooks = hooks
        self._timeout = timeout
        self._transport: asyncio.Transport
        self._opening: Opening | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol.connection_made`: the TLS handshake, if any, is done."""
        # No isinstance: uvloop's have a base of their own.
        self._transport = transport = cast("asyncio.Transport", transport)
        self.connected = True
        ssl_object: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if ssl_object is not None:
            self._decide(ssl_object.selected_alpn_protocol() == "h2")
            return
        self._opening = self._hooks.opening(transport.get_extra_info("peername"))
        if self._opening is not None:
            self._timer = self._loop.call_later(self._timeout, transport.abort)
        else:
            self._decide(False)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol.data_received`."""
        assert self._opening is not None
        if self._opening.feed(data):
            self._decide(self._opening.http2)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol.connection_lost`: no one has taken the connection yet."""
        self._cancel_timer()
        self._hooks.connection_closed()

    def _decide(self, http2: bool) -> None:
        self._cancel_timer()
        if http2:
            self._hooks.serve_http2(self._transport, self._opening)
        else:
            self._hooks.serve_http1(self._transport, b"" if self._opening is None else self._opening.data)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
