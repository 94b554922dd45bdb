"""One connection as its driver sees it: a transport below, the core in the middle, channels above.

Every method is called by the one thread (or greenlet) that owns the connection. How that thread
waits is the driver's business: it asks `wants_read`, `wants_write` and `next_deadline`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.connection import ServerConnection
from gunicorn_h2.protocol.errors import ErrorCode, InvalidResponse
from gunicorn_h2.protocol.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    RequestRefused,
    StreamReset,
    StreamWritable,
    TrailersReceived,
)
from gunicorn_h2.protocol.upgrade import Upgrade

from .channel import Channel, ResponseFields
from .transport import Transport

__all__ = ["DriverHooks", "Http2Connection"]

# After our last octet the peer gets this long to read it: closing at once could make the kernel
# answer late frames with a TCP reset, which destroys what the peer has not read yet.
LINGER_SECONDS = 1.0
_FLUSH_ROUNDS = 4


class DriverHooks(Protocol):
    """What a driver gives its connections."""

    config: ConnectionConfig

    def start_request(self, connection: Http2Connection, channel: Channel) -> None:
        """Run the application for a new request, elsewhere."""

    def note_refusal(self, connection: Http2Connection, refusal: RequestRefused) -> None:
        """Log, elsewhere, a request that the core has answered itself."""

    def submit(self, connection: Http2Connection, do: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """Have `do(*arguments)` called by the connection's owner; callable from any thread."""

    def log_debug(self, message: str, *arguments: object) -> None:
        """Log what is of interest to few."""

    def log_warning(self, message: str, *arguments: object) -> None:
        """Log what an operator should see."""


class Http2Connection:
    """A connection that speaks HTTP/2."""

    def __init__(self, transport: Transport, peer: object, server: object, hooks: DriverHooks) -> None:
        self.transport = transport
        self.peer = peer
        self.server = server
        self.stream_buffer_size = hooks.config.stream_buffer_size
        self.read_timeout = hooks.config.stream_timeout or None
        self.closed = False
        """There is nothing left to do but to close the socket."""
        self.environ: dict[str, Any] | None = None
        """What the application layer keeps for the connection's requests."""
        self._hooks = hooks
        self._core = ServerConnection(hooks.config, time.monotonic())
        self._unsent: memoryview | None = None
        self._write_deadline: float | None = None
        self._linger_deadline: float | None = None

    # What the owner waits for

    @property
    def wants_write(self) -> bool:
        """Whether there is something that the socket did not take."""
        return self._unsent is not None

    def next_deadline(self) -> float | None:
        """When `handle_timeout` is due."""
        if self._linger_deadline is not None:
            return self._linger_deadline
        deadline = self._core.next_deadline()
        if self._write_deadline is None:
            return deadline
        return self._write_deadline if deadline is None else min(deadline, self._write_deadline)

    # What happens

    def receive(self, data: bytes) -> None:
        """Take octets from the socket and answer."""
        self._core.receive_data(data, time.monotonic())
        self.flush()

    def receive_upgrade(self, upgrade: Upgrade) -> None:
        """Begin with a request that came by HTTP/1.1."""
        self._core.receive_upgrade(upgrade)

    def handle_readable(self) -> None:
        """Read what there is."""
        try:
            data = self.transport.receive()
        except OSError as error:
            self._hooks.log_debug("HTTP/2 connection broke: %s", error)
            self.abandon()
            return
        if data is None:
            return
        if not data:
            # Under TLS the client's close_notify wants one in return (RFC 8446 section 6.1).
            self.transport.half_close()
            self.abandon()
        elif self._linger_deadline is None:
            self.receive(data)

    def handle_timeout(self) -> None:
        """Act on deadlines that have passed."""
        now = time.monotonic()
        if self._linger_deadline is not None:
            if self._linger_deadline <= now:
                self.abandon()
            return
        if self._write_deadline is not None and self._write_deadline <= now:
            self._hooks.log_debug("HTTP/2 client %s does not read; closing", self.peer)
            self.abandon()
            return
        self._core.handle_timeout(now)
        self.flush()

    def shutdown(self) -> None:
        """Begin to end gracefully."""
        self._core.shutdown(time.monotonic())
        self.flush()

    def fail(self, code: ErrorCode, reason: str) -> None:
        """End the connection with an error of the peer's that only the driver can see."""
        self._core.fail(code, reason)
        self.flush()

    def flush(self) -> None:
        """Pass events on and write what there is, until the socket takes no more."""
        if self.closed:
            return
        self._dispatch()
        for _ in range(_FLUSH_ROUNDS):
            if self._unsent is None:
                data = self._core.data_to_send(time.monotonic())
                if not data:
                    break
                self._unsent = memoryview(data)
            if not self._send_unsent():
                break
        else:
            # Others' turn; the socket will be found writable again.
            data = self._core.data_to_send(time.monotonic())
            self._unsent = memoryview(data) if data else None
        self._dispatch()
        if self._core.closed and self._unsent is None and self._linger_deadline is None and not self.closed:
            self.transport.half_close()
            self._linger_deadline = time.monotonic() + LINGER_SECONDS

    def _send_unsent(self) -> bool:
        """Write; False where the socket is full or broken."""
        assert self._unsent is not None
        try:
            sent = self.transport.send(self._unsent)
        except OSError as error:
            self._hooks.log_debug("HTTP/2 connection broke: %s", error)
            self.abandon()
            return False
        if sent == len(self._unsent):
            self._unsent = self._write_deadline = None
            return True
        if (sent or self._write_deadline is None) and self.read_timeout:
            self._write_deadline = time.monotonic() + self.read_timeout
        self._unsent = self._unsent[sent:]
        return False

    def abandon(self) -> None:
        """Tell everyone that the connection is gone; the driver closes the socket."""
        if not self.closed:
            self.closed = True
            self._unsent = self._write_deadline = None
            self._core.receive_eof()
            self._dispatch()

    # Events

    def _dispatch(self) -> None:
        for event in self._core.events():
            _REACTIONS[type(event)](self, event)

    def _on_request(self, event: RequestReceived) -> None:
        event.stream.context = channel = Channel(self, event.stream, event.end_stream)
        self._hooks.start_request(self, channel)

    def _on_data(self, event: DataReceived) -> None:
        event.stream.context.deliver(event.data, event.end_stream)

    def _on_trailers(self, event: TrailersReceived) -> None:
        event.stream.context.deliver_trailers(event.fields)

    def _on_reset(self, event: StreamReset) -> None:
        self._hooks.log_debug("HTTP/2 stream %d was reset: %s", event.stream.stream_id, event.reason)
        if event.stream.context is not None:
            event.stream.context.abort(event.code, event.reason)

    def _on_writable(self, event: StreamWritable) -> None:
        # Of a request that has returned, data may still be queued.
        if event.stream.context is not None:
            event.stream.context.wake()

    def _on_refused(self, event: RequestRefused) -> None:
        self._hooks.log_debug("HTTP/2 request %d from %s refused: %s", event.stream_id, self.peer, event.reason)
        if event.status:
            self._hooks.note_refusal(self, event)

    def _on_terminated(self, event: ConnectionTerminated) -> None:
        if event.code:
            self._hooks.log_warning(
                "HTTP/2 connection from %s closed with %s: %s", self.peer, event.code.name, event.reason
            )

    # What applications want done

    def submit(self, do: Callable[..., None], *arguments: Any) -> None:
        """See `StreamOwner.submit`."""
        self._hooks.submit(self, do, arguments)

    def do_respond(self, channel: Channel, status: int, fields: ResponseFields, data: bytes, end_stream: bool) -> None:
        """See `StreamOwner.do_respond`."""
        try:
            if end_stream:
                self._core.send_response(channel.stream, status, fields, data)
            else:
                self._core.send_headers(channel.stream, status, fields, False)
        except InvalidResponse as error:
            self._hooks.log_warning("HTTP/2 stream %d: response not sent: %s", channel.stream.stream_id, error)
            self.do_reset(channel, ErrorCode.INTERNAL_ERROR)
            channel.abort(ErrorCode.INTERNAL_ERROR, "the response is invalid")
            return
        if not end_stream:
            self._core.send_data(channel.stream, data, False)
        channel.accept(len(data))

    def do_send(self, channel: Channel, data: bytes, end_stream: bool) -> None:
        """See `StreamOwner.do_send`."""
        self._core.send_data(channel.stream, data, end_stream)
        channel.accept(len(data))

    def do_send_trailers(self, channel: Channel, fields: ResponseFields) -> None:
        """See `StreamOwner.do_send_trailers`."""
        try:
            self._core.send_trailers(channel.stream, fields)
        except InvalidResponse as error:
            self._hooks.log_warning("HTTP/2 stream %d: trailers not sent: %s", channel.stream.stream_id, error)
            self.do_reset(channel, ErrorCode.INTERNAL_ERROR)

    def do_acknowledge(self, channel: Channel, octets: int) -> None:
        """See `StreamOwner.do_acknowledge`."""
        self._core.acknowledge(channel.stream, octets)

    def do_reset(self, channel: Channel, code: ErrorCode) -> None:
        """See `StreamOwner.do_reset`."""
        self._core.reset(channel.stream, code)

    def do_finish(self, channel: Channel) -> None:
        """See `StreamOwner.do_finish`."""
        self._core.finish(channel.stream, time.monotonic())
        channel.stream.context = None


_REACTIONS: dict[type[Event], Callable[[Http2Connection, Any], None]] = {
    RequestReceived: Http2Connection._on_request,
    DataReceived: Http2Connection._on_data,
    TrailersReceived: Http2Connection._on_trailers,
    StreamReset: Http2Connection._on_reset,
    StreamWritable: Http2Connection._on_writable,
    RequestRefused: Http2Connection._on_refused,
    ConnectionTerminated: Http2Connection._on_terminated,
}
