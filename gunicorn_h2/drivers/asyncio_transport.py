"""An asyncio transport over a TLS connection whose handshake is done, for protocols that are not ours.

ALPN has chosen http/1.1, and the connection goes to a protocol that expects a transport as `loop.create_server`
makes it. The loop's own TLS transport cannot take the connection over: it needs the socket before the handshake.

A connection is closed in three steps: the protocol's output is sent; TLS and TCP are closed in our direction; the
peer's further data is read and dropped for a moment. If a socket is closed with unread data, the kernel sends a
TCP reset, which destroys data that the peer has not read yet.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from .connection import LINGER_SECONDS
from .transport import Transport

__all__ = ["TlsTransport"]

_HIGH_WATER = 65_536
_STALL_SECONDS = 30.0


class _State(Enum):
    OPEN = auto()
    FLUSHING = auto()
    """Closing: the remaining output is sent."""
    LINGERING = auto()
    """Closed in our direction; the peer has a moment to read."""
    LOST = auto()
    """`connection_lost` has been called, or is about to be."""


class TlsTransport(asyncio.Transport):
    """See `asyncio.Transport`. There is no half-closing, as with every TLS transport of asyncio."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: Transport, protocol: asyncio.Protocol, peer: object
    ) -> None:
        """The protocol's `connection_made` is called before this returns."""
        sock = transport.sock
        assert isinstance(sock, ssl.SSLSocket)
        extra = {
            "peername": peer,
            "sockname": transport.local_address(),
            "socket": sock,
            "ssl_object": sock,
            "sslcontext": sock.context,
            "cipher": sock.cipher(),
            "compression": sock.compression(),
            "peercert": sock.getpeercert(),
        }
        super().__init__(extra)
        self._loop = loop
        self._transport = transport
        self._protocol = protocol
        self._fd = transport.fileno()
        self._state = _State.OPEN
        self._buffer = bytearray()
        self._high, self._low = _HIGH_WATER, _HIGH_WATER // 4
        self._writing_paused = False
        """Whether the protocol has been asked to pause."""
        self._reading_paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._stall_deadline = 0.0
        self._untaken = 0
        """Octets that the peer had not acknowledged at the last check of its progress."""
        self._guarded(protocol.connection_made, self)
        self._watch_reader()

    # asyncio.BaseTransport

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See `asyncio.BaseTransport.set_protocol`."""
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.Protocol:
        """See `asyncio.BaseTransport.get_protocol`."""
        return self._protocol

    def is_closing(self) -> bool:
        """See `asyncio.BaseTransport.is_closing`."""
        return self._state is not _State.OPEN

    def close(self) -> None:
        """See `asyncio.BaseTransport.close`; the remaining output is sent as long as the peer reads it."""
        if self._state is _State.OPEN:
            self._state = _State.FLUSHING
            self._loop.remove_reader(self._fd)
            self._stall_deadline = self._loop.time() + _STALL_SECONDS
            if self._buffer:
                self._set_timer()
            else:
                self._half_close()

    def abort(self) -> None:
        """See `asyncio.WriteTransport.abort`."""
        self._end(None)

    # asyncio.ReadTransport

    def is_reading(self) -> bool:
        """See `asyncio.ReadTransport.is_reading`."""
        return self._state is _State.OPEN and not self._reading_paused

    def pause_reading(self) -> None:
        """See `asyncio.ReadTransport.pause_reading`."""
        if self.is_reading():
            self._reading_paused = True
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        """See `asyncio.ReadTransport.resume_reading`."""
        if self._reading_paused:
            self._reading_paused = False
            self._watch_reader()

    def _watch_reader(self) -> None:
        if self.is_reading():
            self._loop.add_reader(self._fd, self._guarded, self._handle_readable)

    def _handle_readable(self) -> None:
        data = self._receive()
        if data:
            self._protocol.data_received(data)
            # uvloop stops watching a socket with a pending error, even if there was data to read.
            error = None if self._state is _State.LOST else self._transport.take_error()
            if error is not None:
                self._end(error)
        elif data is not None:
            self._protocol.eof_received()
            self.close()

    def _receive(self) -> bytes | None:
        try:
            return self._transport.receive()
        except OSError as error:
            self._end(error)
            return None

    # asyncio.WriteTransport

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See `asyncio.WriteTransport.set_write_buffer_limits`."""
        if high is None:
            high = _HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        self._control_protocol()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """See `asyncio.WriteTransport.get_write_buffer_limits`."""
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        """See `asyncio.WriteTransport.get_write_buffer_size`."""
        return len(self._buffer)

    def can_write_eof(self) -> bool:
        """See `asyncio.WriteTransport.can_write_eof`."""
        return False

    def write_eof(self) -> None:
        """See `asyncio.WriteTransport.write_eof`."""
        raise NotImplementedError("TLS is not half-closed")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See `asyncio.WriteTransport.write`; data written after `close` is dropped."""
        if self._state is not _State.OPEN:
            return
        view = memoryview(data).cast("B")
        sent = 0 if self._buffer else self._send(view)
        if sent is not None and sent < len(view):
            if not self._buffer:
                self._loop.add_writer(self._fd, self._guarded, self._handle_writable)
            self._buffer += view[sent:]
            self._control_protocol()

    def _handle_writable(self) -> None:
        with memoryview(self._buffer) as view:
            sent = self._send(view)
        if sent is None:
            return
        del self._buffer[:sent]
        self._stall_deadline = self._loop.time() + _STALL_SECONDS
        if not self._buffer:
            self._loop.remove_writer(self._fd)
            if self._state is _State.FLUSHING:
                self._half_close()
        self._control_protocol()

    def _send(self, view: memoryview) -> int | None:
        """Return how many octets the socket took; None if it failed, which ends the connection."""
        try:
            return self._transport.send(view)
        except OSError as error:
            self._end(error)
            return None

    def _control_protocol(self) -> None:
        """Ask the protocol to pause or resume writing, by the buffer's limits."""
        size = len(self._buffer)
        if size > self._high and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()
        elif size <= self._low and self._writing_paused:
            self._writing_paused = False
            self._protocol.resume_writing()

    # The end

    def _half_close(self) -> None:
        self._state = _State.LINGERING
        self._transport.half_close()
        self._loop.add_reader(self._fd, self._guarded, self._discard)
        self._set_timer()

    def _discard(self) -> None:
        if self._receive() == b"":
            self._end(None)

    def _set_timer(self) -> None:
        """Set the timer of the next check of the peer's progress."""
        if self._timer is not None:
            self._timer.cancel()
        self._untaken = len(self._buffer) + self._transport.untaken_octets()
        self._timer = self._loop.call_later(LINGER_SECONDS, self._guarded, self._check_progress)

    def _check_progress(self) -> None:
        before, now = self._untaken, self._loop.time()
        self._set_timer()
        if self._untaken < before:
            self._stall_deadline = now + _STALL_SECONDS
        elif now >= self._stall_deadline or not self._untaken:
            self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self._state is _State.LOST:
            return
        self._state = _State.LOST
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        if self._timer is not None:
            self._timer.cancel()
        self._buffer = bytearray()
        self._loop.call_soon(self._lose, error)

    def _lose(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._transport.close()

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception as error:  # The top of a callback: the protocol is not our code.
            context = {"message": "Fatal error in a protocol", "exception": error, "transport": self}
            self._loop.call_exception_handler({**context, "protocol": self._protocol})
            self._end(error)
