"""ASGI 3 over a stream: scope, receive, send, and what becomes of errors.

Extensions of the standard's `http` scope; `scope["extensions"]` names all of them except
`http.response.informational`:

- `http.response.priority`: `weight` (1 to 256) and `depends_on` of RFC 7540, `urgency` (0 to 7) and
  `incremental` of RFC 9218.
- `http.response.early_hint`: the standard's message with `links`; sent as a 103. For other fields, or
  another 1xx status, there is `http.response.informational` with `status` and `headers`, as in
  Gunicorn's HTTP/1.
- `http.response.trailers`: the standard's `trailers: True` and message. An application that does not announce
  trailers may still send the message right after its last body, before it awaits anything else.
- `http.response.pathsend`: the standard's `path`, instead of a body. The connection reads the file as its client takes
  it; the application's call is over before that.
- `http.request.trailers`: the last `http.request` message of a request with trailers has the key
  `trailers`, a list of (name, value) as in `headers`.

Two of the standard's are not there. `http.response.zerocopysend` has no use: what goes to the client is cut into
frames, and mostly encrypted, so the kernel cannot send a file by itself. `http.response.push`: browsers do without it.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

from gunicorn.asgi.protocol import ASGIResponseInfo
from gunicorn.http import errors

from gunicorn_h2.drivers.asyncio_channel import AsyncChannel
from gunicorn_h2.drivers.asyncio_driver import AsyncHttp2Connection
from gunicorn_h2.drivers.channel import StreamAborted
from gunicorn_h2.drivers.files import FilePart, FileSource
from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.headers import Fields, ResponseHead, check_response_trailers

from .observers import active_hook, logs_access
from .refusals import RefusalLog
from .request import StreamRequest, log_environ
from .responses import PreparedHead, ResponseHeads, log_headers, refusal_status
from .scope import ScopeFactory, ScopeTemplate

__all__ = ["ASGIHandler", "Exchange"]

Message = dict[str, Any]

# The Server field of Gunicorn's HTTP/1 for ASGI.
_SERVER = b"gunicorn/asgi"
# A complete body of this size or less is held until the end of the loop's turn, because trailers may follow.
_SMALL = 16_384
# When one task ends, asyncio takes three turns until a task that waited for it has cancelled another one.
_TURNS_TO_CANCEL = 5


class Exchange:
    """One request and its response: `receive` and `send` are what the application is given.

    Fields that a small response to a request without a body does not need are class attributes.
    """

    status = 0
    """The response's status; 0 until the application has given one."""
    headers: Iterable[tuple[Any, Any]] = ()
    """The response's headers, as the application gave them."""
    sent = 0
    """Octets of the response's body."""
    held: bytes | None = None
    """See `HeldEnd.held`."""

    _request_read = False
    _prepared: PreparedHead | None = None
    """The response's head until it is sent."""
    _declared: int | None = None
    _omits_body = False
    _body_ended = False
    _sends_file = False
    """Whether the connection has taken over a file, for whose end nobody waits."""
    _trailers: Fields | None = None

    def __init__(self, channel: AsyncChannel, is_head: bool, heads: ResponseHeads) -> None:
        """`is_head` says whether the request's method is HEAD."""
        self._channel = channel
        self._is_head = is_head
        self._heads = heads

    # Receiving

    async def receive(self) -> Message:
        """See the ASGI specification: a piece of the body, or a disconnect once the response or stream is over."""
        if self.held is not None:
            self.flush()
        channel = self._channel
        if self._request_read or channel.complete:
            await channel.wait_over()
            return {"type": "http.disconnect"}
        try:
            data = b"" if channel.at_end else await channel.read()
        except StreamAborted:
            return {"type": "http.disconnect"}
        message: Message = {"type": "http.request", "body": data, "more_body": not channel.at_end}
        if channel.at_end:
            self._request_read = True
            if channel.trailers is not None:
                message["trailers"] = channel.trailers
        return message

    # `scope["gunicorn.http2.stream"]`

    def __deepcopy__(self, memo: object) -> Exchange:
        """Return itself: a copy of a scope is of the same request."""
        return self

    @property
    def request_fields(self) -> Fields:
        """The request's fields as the client sent them: (name, value) pairs, names in lower case. Not to be changed."""
        return self._channel.stream.head.fields

    def on_abort(self, callback: Callable[[], object]) -> None:
        """Have `callback()` called once if the client is gone, even while its body waits to be received.

        The event loop calls it: it must neither block nor raise.
        """
        self._channel.on_abort(callback)

    def lift_read_timeout(self) -> None:
        """Let `receive` wait for as long as the client is connected, though it sends nothing."""
        self._channel.limits_reads = False

    # Sending

    async def send(self, message: Mapping[str, Any]) -> None:
        """See the ASGI specification.

        Raises StreamAborted, an OSError, if the stream is gone; RuntimeError for a message out of order;
        ValueError for fields that must not be sent.
        """
        take = _MESSAGES.get(message["type"])
        if take is None:
            raise RuntimeError(_UNSUPPORTED.get(message["type"], f"{message['type']!r} is no ASGI message for HTTP"))
        channel = self._channel
        if channel.aborted:
            channel.raise_if_aborted()
        take(self, message)
        if channel.stream.above_high_mark:
            await self._drain()
        if self.held is not None:
            connection = channel.connection
            connection.held.append(self)
            if not connection.flush_scheduled:
                connection.schedule_flush()

    async def _drain(self) -> None:
        if self._sends_file:
            return
        try:
            await self._channel.drain(self._body_ended)
        except StreamAborted:
            # A task of the application that awaits the disconnect must see it first, because it may cancel
            # this one: Django does that, and would not close its response after an OSError.
            for _ in range(_TURNS_TO_CANCEL):
                await asyncio.sleep(0)
            raise

    def _start(self, message: Mapping[str, Any]) -> None:
        if self.status:
            raise RuntimeError("http.response.start was sent already")
        status = message["status"]
        headers = list(message.get("headers") or ())
        key = (status, *headers)
        try:
            prepared = self._heads.find(key)
        except TypeError:
            prepared = self._prepare(None, status, headers)
        else:
            if prepared is None:
                prepared = self._prepare(key, status, headers)
        self._prepared = prepared
        self._declared = prepared.content_length
        self.headers = prepared.headers
        self.status = status = prepared.head.status
        if self._is_head or prepared.omits_body:
            self._omits_body = True
        if message.get("trailers"):
            self._trailers = []

    def _prepare(self, key: object, status: Any, headers: list[tuple[Any, Any]]) -> PreparedHead:
        if not isinstance(status, int) or not 200 <= status <= 999:
            raise ValueError(f"{status!r} is no status of a final response")
        fields = lower_fields(headers)
        length = None
        for name, value in fields:
            if name == b"content-length" and status != 204:
                if not value.isdigit():
                    raise ValueError(f"content-length is {value!r}")
                length = int(value)
        return self._heads.prepare(key, int(status), fields, length, headers)

    def _body(self, message: Mapping[str, Any]) -> None:
        if not self.status:
            raise RuntimeError("http.response.body before http.response.start")
        if self._body_ended:
            raise RuntimeError("http.response.body after the last one")
        data = message.get("body") or b""
        if type(data) is not bytes:
            # The application may reuse its buffer.
            data = bytes(memoryview(data))
        more_body = message.get("more_body", False)
        if self._omits_body:
            data = b""
        else:
            self._count(len(data), more_body)
        if more_body:
            self._put(data)
            return
        self._body_ended = True
        if self._trailers is not None:
            self._put(data)
        elif self._prepared is not None and len(data) <= _SMALL:
            # Hold the whole of a small response until the end of this turn: trailers may follow.
            self.held = data
        else:
            # Hold only the end of a larger one.
            self._put(data)
            self.held = b""

    def _count(self, octets: int, more_body: bool) -> None:
        """Count octets of the body. Raises RuntimeError where it would be malformed (RFC 9113 section 8.1.1)."""
        self.sent += octets
        declared = self._declared
        if declared is not None and (self.sent > declared or (not more_body and self.sent != declared)):
            raise RuntimeError(f"{self.sent} octets of a response with content-length {declared}")

    def _path(self, message: Mapping[str, Any]) -> None:
        if not self.status:
            raise RuntimeError("http.response.pathsend before http.response.start")
        if self._body_ended or self._prepared is None:
            raise RuntimeError("http.response.pathsend beside http.response.body")
        part = _open_file(message["path"])
        try:
            self._send_file(part)
        except BaseException:
            part.file.close()
            raise

    def _send_file(self, part: FilePart) -> None:
        """Send a file as the whole body; its source, or the caller in case of an exception, closes it."""
        channel = self._channel
        if self._omits_body or part.octets <= channel.connection.stream_buffer_size:
            data = b"" if self._omits_body else os.pread(part.file.fileno(), part.octets, 0)
            self._body({"body": data})
            part.file.close()
            return
        self._count(part.octets, False)
        assert self._prepared is not None
        prepared, self._prepared = self._prepared, None
        channel.respond(prepared.head, b"", False)
        self._body_ended = self._sends_file = True
        source = FileSource(part, lambda left: part.file.close(), channel.connection.log)
        channel.send_source(source, self._trailers is None)

    def _put(self, data: bytes) -> None:
        """Send data, and the head before it if it has not been sent."""
        if self._prepared is not None:
            prepared, self._prepared = self._prepared, None
            self._channel.respond(prepared.head, data, False)
        elif data:
            self._channel.send(data, False)

    def flush(self) -> None:
        """See `HeldEnd.flush`."""
        data, self.held = self.held, None
        if data is None or self._channel.aborted:
            return
        if self._prepared is not None:
            prepared, self._prepared = self._prepared, None
            self._channel.respond(prepared.head, data, True)
        else:
            self._channel.send(data, True)

    def _response_trailers(self, message: Mapping[str, Any]) -> None:
        if not self._body_ended:
            raise RuntimeError("http.response.trailers before the last http.response.body")
        if self._channel.complete:
            raise RuntimeError("the response has ended; http.response.start announces trailers by trailers: True")
        fields = lower_fields(message.get("headers") or ())
        check_response_trailers(fields)
        if self.held is not None:
            self._put(self.held)
            self.held = None
        self._trailers = [*(self._trailers or ()), *fields]
        if message.get("more_trailers", False):
            return
        self._put(b"")
        if self._omits_body:
            self._channel.send(b"", True)
        else:
            self._channel.send_trailers(self._trailers)

    def _informational(self, message: Mapping[str, Any]) -> None:
        status = message["status"]
        if not isinstance(status, int) or not 100 <= status <= 199 or status == 101:
            raise ValueError(f"{status!r} is no status of an informational response of HTTP/2")
        self._send_interim(int(status), lower_fields(message.get("headers") or ()))

    def _early_hint(self, message: Mapping[str, Any]) -> None:
        links = [(b"link", _octets(link)) for link in message.get("links") or ()]
        if links:
            self._send_interim(103, links)

    def _send_interim(self, status: int, fields: Fields) -> None:
        if self.status:
            raise RuntimeError("an informational response after http.response.start")
        self._channel.send_interim(ResponseHead(status, fields))

    def fail(self, status: int) -> None:
        """Answer with an error status if nothing has been sent, else reset the stream."""
        self.flush()
        channel = self._channel
        if channel.aborted or channel.complete:
            return
        if channel.responded:
            channel.reset(ErrorCode.INTERNAL_ERROR)
            return
        head, body = self._heads.error(status)
        if self._is_head:
            body = b""
        self.status, self.headers, self.sent = status, log_headers(head), len(body)
        channel.respond(head, body, True)


_MESSAGES: dict[str, Callable[[Exchange, Mapping[str, Any]], None]] = {
    "http.response.start": Exchange._start,
    "http.response.body": Exchange._body,
    "http.response.trailers": Exchange._response_trailers,
    "http.response.informational": Exchange._informational,
    "http.response.early_hint": Exchange._early_hint,
    "http.response.pathsend": Exchange._path,
}
_UNSUPPORTED = {
    "http.response.push": "http.response.push is not supported: browsers take no pushed responses. "
    "Name what the client will need by http.response.early_hint",
    "http.response.zerocopysend": "http.response.zerocopysend is not supported: HTTP/2 sends a file in frames. "
    "Send it by http.response.pathsend, or its content by http.response.body",
}


class ASGIHandler:
    """Runs an ASGI application, one call for each stream; one handler for each worker."""

    def __init__(self, worker: Any) -> None:
        """`worker` is Gunicorn's; its cfg, log, hooks, `certificates`, `state` and `asgi` are used."""
        self._worker = worker
        self._log = worker.log
        cfg = worker.cfg
        self._application: Callable[..., Awaitable[object]] = worker.asgi
        self._blank = StreamRequest(cfg)
        self._scopes = ScopeFactory(cfg, self._blank, worker.certificates)
        self._heads = ResponseHeads(_SERVER)
        self._refusals = RefusalLog(cfg, worker.log)
        self.note_refusal = self._refusals.note_answered
        self._pre_request, self._post_request = active_hook(worker, "pre_request"), active_hook(worker, "post_request")
        self._accounts = self._post_request is not None or logs_access(worker)
        self._observed = self._accounts or self._pre_request is not None

    async def __call__(self, connection: AsyncHttp2Connection, channel: AsyncChannel) -> None:
        """Serve one request, in a task of its own. Raises nothing but CancelledError."""
        stream = channel.stream
        exchange = Exchange(channel, stream.head.method.upper() == b"HEAD", self._heads)
        request, started = None, 0.0
        try:
            template = stream.head.derived or self._template(connection, channel, exchange)
            if template is None:
                if stream.head.protocol:
                    await self.serve_websocket(connection, channel, exchange)
                return
            scope = template.make(stream, self._worker.state)
            scope["gunicorn.http2.stream"] = exchange
            if self._observed:
                started = time.monotonic()
                request = self._blank.for_stream(stream.head, connection.peer, stream.stream_id)
                if self._pre_request is not None:
                    self._pre_request(self._worker, request)
            await self._application(scope, exchange.receive, exchange.send)
            if exchange.held is not None:
                exchange.flush()
            if not channel.complete and not channel.aborted:
                raise RuntimeError("the application returned without completing its response")
        except asyncio.CancelledError:
            if not channel.complete:
                channel.reset(ErrorCode.CANCEL)
            raise
        except GeneratorExit:
            # The event loop is gone, and the task with it.
            raise
        except BaseException:  # Application code may raise anything.
            self._application_failed(channel, exchange)
        finally:
            if request is not None and self._accounts:
                self._account(request, exchange, time.monotonic() - started)
            channel.finish()

    def _template(
        self, connection: AsyncHttp2Connection, channel: AsyncChannel, exchange: Exchange
    ) -> ScopeTemplate | None:
        """Make and keep the template of a head; None as from `make_template`, and for a WebSocket."""
        head = channel.stream.head
        if head.protocol:
            return None
        template = head.derived = self.make_template(connection, channel, exchange)
        return template

    def make_template(
        self, connection: AsyncHttp2Connection, channel: AsyncChannel, exchange: Exchange
    ) -> ScopeTemplate | None:
        """Make the template of a head; None if Gunicorn's rules refuse the request, which is then answered."""
        stream = channel.stream
        head = stream.head
        try:
            return self._scopes.template(head, connection)
        except errors.ParseException as error:
            status = refusal_status(error)
            exchange.fail(status)
            self._refusals.note(head, connection.peer, stream.stream_id, status, str(error), exchange.sent)
            return None

    async def serve_websocket(
        self, connection: AsyncHttp2Connection, channel: AsyncChannel, exchange: Exchange
    ) -> None:
        """Serve an extended CONNECT. Only a handler that can is given one: see `ConnectionConfig.websocket`."""
        raise NotImplementedError

    def _application_failed(self, channel: AsyncChannel, exchange: Exchange) -> None:
        """Log the exception, and answer 500 or reset the stream; the client learns nothing about it."""
        if channel.aborted:
            self._log.debug("Application ended after its stream was aborted", exc_info=True)
            return
        head = channel.stream.head
        self._log.exception("Error handling request %s %s", head.method.decode("latin-1"), head.path.decode("latin-1"))
        exchange.fail(500)

    def _account(self, request: StreamRequest, exchange: Exchange, seconds: float) -> None:
        try:
            environ = log_environ(request)
            response = ASGIResponseInfo(exchange.status, list(exchange.headers), exchange.sent)
            self._log.access(response, request, environ, timedelta(seconds=seconds))
            if self._post_request is not None:
                self._post_request(self._worker, request, environ, response)
        except Exception:  # A hook of the configuration: application code.
            self._log.exception("Exception in post_request hook")


def _open_file(path: Any) -> FilePart:
    """Open a regular file. Raises OSError, or ValueError for what is none."""
    # A FIFO that nobody writes to would block the event loop.
    file = io.FileIO(path, opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK))
    part = FilePart.of(file, None)
    if part is None:
        file.close()
        raise ValueError(f"{path!r} is no regular file")
    return part


def lower_fields(headers: Iterable[tuple[Any, Any]]) -> Fields:
    """Fields in the core's form: names in lower case, no white space around values."""
    return [(_octets(name).lower(), _octets(value).strip(b" \t")) for name, value in headers]


def _octets(value: Any) -> bytes:
    """Convert to bytes: ASGI requires them, but Gunicorn's HTTP/1 accepts text as well."""
    if type(value) is bytes:
        return value
    return value.encode("latin-1") if isinstance(value, str) else bytes(memoryview(value))
