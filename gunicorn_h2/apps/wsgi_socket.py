"""WebSockets for WSGI: the stream as a socket in the environ, as over HTTP/1.1.

PEP 3333 knows no WebSockets. Libraries such as simple-websocket (flask-sock) take the connection's socket from the
environ, where Gunicorn has it as `gunicorn.socket`, and write a response with status 101 to it. They find the request
that a client of HTTP/1.1 would have sent, and a socket that stands for the stream (`SocketTunnel`). An application
that calls `start_response` instead has denied the request.
"""

from __future__ import annotations

import base64
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gunicorn.http import errors

from gunicorn_h2.drivers.channel import Channel, StreamAborted
from gunicorn_h2.drivers.connection import Http2Connection
from gunicorn_h2.drivers.log import Throttle
from gunicorn_h2.drivers.socket_tunnel import SocketTunnel
from gunicorn_h2.protocol.headers import RequestHead
from gunicorn_h2.protocol.websocket import upgrade_request

from .responses import REASONS
from .wsgi import StreamResponse, WSGIHandler, send_result

__all__ = ["WebSocketWSGIHandler"]

_WARNING_INTERVAL = 60.0
_NOT_A_WEBSOCKET = "501 " + REASONS[501]


class SocketResponse(StreamResponse):
    """The response to a WebSocket request whose application calls `start_response`, unless it has answered already."""

    tunnel: SocketTunnel
    """Where it may have answered."""

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """See PEP 3333. A 2xx would accept the WebSocket (RFC 9110 section 9.3.6), and so becomes a 501."""
        if self.has_tunnel():
            return self.write
        if status[:1] in ("1", "2"):
            super().start_response(_NOT_A_WEBSOCKET, [("Content-Length", "0")], exc_info)
            self._omits_body = True
            return self.write
        return super().start_response(status, headers, exc_info)

    def write(self, data: bytes) -> None:
        """See `StreamResponse.write`."""
        if not self.has_tunnel():
            super().write(data)

    def close(self) -> None:
        """See `StreamResponse.close`."""
        if not self.has_tunnel():
            super().close()

    def has_tunnel(self) -> bool:
        """Whether the application has answered through its socket."""
        return self.tunnel.status != 0 or (self.status is None and self.tunnel.settle() != 0)


class WebSocketWSGIHandler(WSGIHandler):
    """As `WSGIHandler`, with WebSockets."""

    def __init__(self, worker: Any, max_sockets: int | None = None) -> None:
        """`max_sockets` limits the WebSockets that are open at a time, where each holds a thread; None: no limit."""
        super().__init__(worker)
        self._max_sockets = max_sockets
        self._sockets = 0
        self._lock = threading.Lock()
        self._throttle = Throttle(_WARNING_INTERVAL)

    def serve_websocket(self, connection: Http2Connection, channel: Channel) -> None:
        """See `WSGIHandler.serve_websocket`."""
        if not self._admit():
            self._send_error(channel, channel.stream.head, 503)
            return
        try:
            self._serve_socket(connection, channel)
        finally:
            with self._lock:
                self._sockets -= 1

    def _admit(self) -> bool:
        with self._lock:
            if self._max_sockets is None or self._sockets < self._max_sockets:
                self._sockets += 1
                return True
        if self._throttle.admit(time.monotonic()) is not None:
            message = "%d WebSockets are open; each holds a thread, and more are refused (http2_max_waiting_threads)"
            self._log.warning(message, self._max_sockets)
        return False

    def _serve_socket(self, connection: Http2Connection, channel: Channel) -> None:
        stream = channel.stream
        head = upgrade_request(stream.head, base64.b64encode(os.urandom(16)))
        try:
            template = self._environs.template(head, connection)
        except errors.ParseException as error:
            self._refuse(connection, channel, error)
            return
        environ, request, started = template.environ, None, time.monotonic()
        response = SocketResponse(template, channel, self._cfg, self._heads)
        if self._observed:
            request = response.req = self._blank.for_stream(head, connection.peer, stream.stream_id)
            request.body, request.trailers = io.BytesIO(), []
            if self._pre_request is not None:
                self._pre_request(self._worker, request)
                environ = self._environs.from_request(request, connection)
        environ.update(_socket_keys(stream.stream_id))
        response.tunnel = tunnel = SocketTunnel(connection, channel, self._heads.make)
        environ["gunicorn.socket"] = tunnel.socket
        try:
            self._run_socket(connection, channel, environ, response)
        finally:
            tunnel.close()
            if request is not None:
                if tunnel.status:
                    response.status = str(tunnel.status)
                # What was spoken outside of the socket.
                self._account(request, {**environ, "SERVER_PROTOCOL": "HTTP/2.0"}, response, started)

    def _run_socket(
        self, connection: Http2Connection, channel: Channel, environ: dict[str, Any], response: SocketResponse
    ) -> None:
        try:
            with _aside(connection):
                result = self._worker.wsgi(environ, response.start_response)
            send_result(result, response)
        except StreamAborted as error:
            self._log.debug("Ignoring aborted stream: %s", error)
        except BaseException as error:  # Application code may raise anything, gevent.Timeout and GreenletExit too.
            if not response.has_tunnel():
                self._application_failed(channel, response)
            elif not isinstance(error, StopIteration):
                # By StopIteration flask-sock says to Gunicorn that it has answered.
                self._socket_failed(channel, channel.stream.head)

    def _socket_failed(self, channel: Channel, head: RequestHead) -> None:
        if channel.aborted:
            self._log.debug("Application ended after its stream was aborted", exc_info=True)
        else:
            self._log.exception("Error handling WebSocket %s", head.path.decode("latin-1"))


@contextmanager
def _aside(connection: Http2Connection) -> Iterator[None]:
    """Have another thread take the place of the calling one, which may wait for as long as the WebSocket is open."""
    # If this is the thread that does the I/O, it has to leave that to another one first.
    connection.prepare_wait(lambda: False)
    threads = connection.thread_count
    if threads is None:
        yield
        return
    if not threads.begin_wait():
        threads.stand_aside()
    try:
        yield
    finally:
        threads.end_wait()


def _socket_keys(stream_id: int) -> dict[str, Any]:
    """What the environ of a WebSocket request has beside that of the GET."""
    return {
        # Only there can a request ask for an upgrade, and it is what the application writes to the socket.
        "SERVER_PROTOCOL": "HTTP/1.1",
        "gunicorn.http2.stream_id": stream_id,
        "gunicorn.http2.trailers": [],
        "wsgi.input": io.BytesIO(),
    }
