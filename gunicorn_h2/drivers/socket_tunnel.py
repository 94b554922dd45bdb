"""A WebSocket's stream as a socket, for applications that block (see `gunicorn_h2.apps.wsgi_socket`).

The application has one end of a pair of sockets, the connection's owner the other one, which it never waits for. What
the application writes begins with the head of its reply, which becomes the response of the stream; all that follows
is passed on. Each direction is bounded: the owner reads while the stream's queue has room, so that the application
waits in its `send`; and returns credit for what the application's end has taken, so that the client waits.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from gunicorn_h2.protocol.errors import ErrorCode, InvalidResponse
from gunicorn_h2.protocol.headers import Fields, ResponseHead
from gunicorn_h2.protocol.stream import BodyBuffer
from gunicorn_h2.protocol.websocket import FrameTracker, close_frame, parse_reply

from .channel import Channel
from .connection import Http2Connection
from .tunnel import SocketWatch, Tunnel

__all__ = ["SocketTunnel"]

# What the kernel keeps in each direction; it doubles the number, for its own overhead.
_BUFFER_SIZE = 65_536
_READ_SIZE = 65_536
_MAX_READS = 4
_GOING_AWAY = 1001
_LINGER_SECONDS = 0.1


class SocketTunnel(Tunnel):
    """The two ends of one WebSocket, and what passes between them."""

    def __init__(
        self, connection: Http2Connection, channel: Channel, make_head: Callable[[int, Fields], ResponseHead]
    ) -> None:
        """`make_head` makes the head of the response; the owner's thread calls it."""
        super().__init__(channel)
        self._connection = connection
        self._channel = channel
        self._stream = channel.stream
        self._make_head = make_head
        self._ours, self.socket = _make_pair(sends_all=connection.thread_count is None)
        """The application's end is `socket`."""
        self.status = 0
        """The status with which the application has answered through its end; 0 if it has not."""
        # What follows is the owner's.
        self._watch: SocketWatch | None = None
        self._expected = False, False
        self._closed = False
        """Whether our end is closed."""
        self._input = BodyBuffer(ended=False)
        self._piece = memoryview(b"")
        """What is left of the piece of input that the application's end has taken a part of."""
        self._input_ended = self._input_shut = False
        self._reply = bytearray()
        """What has been read of the reply's head."""
        self._tracker = FrameTracker()
        self._output_ended = False
        """Whether nothing more is read from the application."""
        self._output_end = threading.Event()
        """Set when the application's end has been closed."""
        self._leaves = self._has_left = False
        """Whether a Close of our own is to be sent, or was: what the application writes behind it is dropped."""
        connection.submit(connection, self._attach)

    # The application's side

    def settle(self) -> int:
        """Return `status`, as of all that the application has written; if it is 0, nothing more is read from there."""
        settled = threading.Event()
        connection = self._connection
        connection.submit(connection, self._settle, settled)
        if not connection.prepare_wait(settled.is_set):
            settled.wait()
        return self.status

    def close(self) -> None:
        """The application call has returned: end the stream behind what it has written. Call `Channel.finish` next.

        Another thread of the application may still read from the socket, and may be about to answer a Close: that of
        simple-websocket does so when it has told the one that returns. So it is woken, and has a moment.
        """
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RD)
            if self.status == 200:
                self._output_end.wait(_LINGER_SECONDS)
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self._connection.submit(self._connection, self._finish)

    # The owner's side

    def _attach(self) -> None:
        if self._channel.aborted:
            self._close()
            return
        self._watch = self._connection.watch_socket(self._ours, self._act)
        body = self._channel._body
        self._stream.context = self
        self._leaves = self._connection.leaving
        self.deliver(self._channel._take_whole_body(), False)
        while piece := body.take():
            self.deliver(piece, False)
        self.deliver(b"", body.ended)

    def deliver(self, data: bytes, ended: bool) -> None:
        """See `Tunnel.deliver`."""
        if self._closed:
            return
        if data:
            self._input.append(data)
        self._input_ended = self._input_ended or ended
        self._write()
        self._expect()

    def wake(self) -> None:
        """See `Tunnel.wake`."""
        super().wake()
        self._expect()

    def abort(self, code: int, reason: str) -> bool:
        """See `Tunnel.abort`."""
        self._close()
        return super().abort(code, reason)

    def go_away(self) -> None:
        """See `Tunnel.go_away`: between two frames of the application, send a Close."""
        self._leaves = True
        if self.status == 200:
            self._leave_between_frames()

    def _act(self) -> None:
        """Do what our end is ready for."""
        if not self._closed:
            self._write()
            self._read()
            self._expect()

    def _expect(self) -> None:
        if self._watch is not None:
            reads = not self._output_ended and not self._stream.above_high_mark
            expected = reads, len(self._piece) > 0
            if expected != self._expected:
                self._expected = expected
                self._watch.expect(*expected)

    def _close(self) -> None:
        if not self._closed:
            self._closed = self._output_ended = True
            self._output_end.set()
            if self._watch is not None:
                self._watch.close()
                self._watch = None
            self._ours.close()
            self._input = BodyBuffer(ended=True)
            self._piece = memoryview(b"")

    # From the client to the application

    def _write(self) -> None:
        taken = 0
        while self._piece or (piece := self._input.take()):
            if not self._piece:
                self._piece = memoryview(piece)
            try:
                sent = self._ours.send(self._piece)
            except BlockingIOError:
                break
            except OSError:
                # The application has closed its end.
                sent = len(self._piece)
            taken += sent
            self._piece = self._piece[sent:]
        if taken:
            self._connection.core.acknowledge(self._stream, taken, self._connection.now())
        if self._input_ended and not self._input_shut and not self._piece:
            self._input_shut = True
            with suppress(OSError):
                self._ours.shutdown(socket.SHUT_WR)

    # From the application to the client

    def _read(self) -> None:
        for _ in range(_MAX_READS):
            if self._output_ended or self._stream.above_high_mark or not self._read_once():
                return

    def _read_once(self) -> bool:
        """Read and pass on; return False if there is nothing to read."""
        try:
            data = self._ours.recv(_READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self._take(data)
        else:
            self._output_ended = True
            self._output_end.set()
            if self.status:
                self._connection.core.send_data(self._stream, b"", True)
        return len(data) > 0

    def _take(self, data: bytes) -> None:
        if not self.status:
            self._reply += data
            try:
                reply = parse_reply(bytes(self._reply))
                if reply is None:
                    return
                head = self._make_head(reply.status, reply.fields)
            except InvalidResponse as error:
                self._refuse(error)
                return
            self.status, data = reply.status, reply.rest
            self._reply.clear()
            self._connection.core.send_headers(self._stream, head, False)
        if self.status != 200:
            self._send(data)
        elif self._leaves:
            self._leave_between_frames(data)
        else:
            self._tracker.advance(data)
            self._send(data)

    def _refuse(self, error: InvalidResponse) -> None:
        connection, stream = self._connection, self._stream
        connection.log.warning("Invalid reply of a WSGI application to a WebSocket request: %s", error)
        connection.core.reset(stream, ErrorCode.INTERNAL_ERROR)
        self.abort(ErrorCode.INTERNAL_ERROR, "the reply is invalid")

    def _leave_between_frames(self, data: bytes = b"") -> None:
        """Send our Close behind the frame that the application has begun, of which this is a part."""
        if self._has_left:
            return
        tracker = self._tracker
        if not tracker.is_between:
            self._send(data[: tracker.advance(data, to_boundary=True)])
        if tracker.is_between:
            self._has_left = True
            if not tracker.closed:
                self._send(close_frame(_GOING_AWAY))

    def _send(self, data: bytes) -> None:
        self._connection.core.send_data(self._stream, data, False)

    # The end

    def _settle(self, settled: threading.Event) -> None:
        if not self.status and not self._closed:
            self._read()
            if not self.status:
                self._output_ended = True
                self._expect()
        settled.set()

    def _finish(self) -> None:
        # What the kernel has kept, which is bounded.
        while not self._output_ended and self._read_once():
            pass
        if self.status and not self._closed:
            self._connection.core.send_data(self._stream, b"", True)
        self._close()


def _make_pair(sends_all: bool) -> tuple[socket.socket, Any]:
    """Make our end, which never waits, and the application's; both are patched as the socket module is."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_SIZE)
    ours.setblocking(False)
    if sends_all:
        kind: Any = type(theirs)
        theirs.__class__ = _sending_all(kind)
    return ours, theirs


@cache
def _sending_all(kind: Any) -> Any:
    """Make a socket class of gevent or eventlet whose `send` sends all.

    The kernel's does so for a socket that blocks, and simple-websocket relies on it.
    """

    class SendingAll(kind):  # type: ignore[misc]
        """See `_sending_all`."""

        __slots__ = ()

        def send(self, data: bytes, flags: int = 0) -> int:
            """See `socket.socket.send`."""
            sent = int(super().send(data, flags))
            while sent < len(data) and self.gettimeout() is None:
                sent += super().send(memoryview(data)[sent:], flags)
            return sent

    return SendingAll
