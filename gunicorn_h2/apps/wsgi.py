"""WSGI (PEP 3333) over a stream: environ, input, start_response, and what becomes of errors.

`gunicorn.http.wsgi` implements the rules of WSGI; this module connects them to the stream. The rules give the
same result for the same request head and the same arguments of `start_response`, so results are cached: a
repeated request costs a copy of the environ, a repeated response a look-up. Gunicorn's Request is made only if a
hook or the access log needs it.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from typing import Any

from gunicorn.http import errors, wsgi

from gunicorn_h2.drivers.channel import Channel, StreamAborted
from gunicorn_h2.drivers.connection import Http2Connection
from gunicorn_h2.drivers.files import FilePart, FileSource
from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.headers import Fields, RequestHead, ResponseHead, check_response_trailers
from gunicorn_h2.protocol.stream import DEFAULT_WEIGHT, Source

from .environ import EnvironFactory
from .input import StreamInput
from .observers import active_hook, logs_access
from .refusals import RefusalLog
from .request import StreamRequest
from .responses import REASONS, PreparedHead, ResponseHeads, refusal_status

__all__ = ["StreamResponse", "WSGIHandler", "send_result"]

AnyHeaders = Iterable[tuple[str | bytes, str | bytes]]


class StreamResponse(wsgi.Response):  # type: ignore[misc]
    """Gunicorn's response, framed by HTTP/2; Gunicorn's code writes through `sendall`."""

    # The defaults of Gunicorn's constructor.
    version = wsgi.SERVER
    status: str | None = None
    status_code: int | None = None
    chunked = False
    must_close = False
    headers_sent = False
    response_length: int | None = None
    sent = 0
    upgrade = False
    _omits_body = False
    _omits_body_warned = False

    complete = False
    """Whether the whole response has been given to the channel."""
    detached = False
    """Whether the connection has taken the rest of the response over, and will say when it has ended."""
    on_end: Callable[[], None] | None = None
    """What remains to be done after that."""
    _prepared: PreparedHead | None = None
    _trailers: Fields | None = None

    def __init__(self, req: Any, channel: Channel, cfg: Any, heads: ResponseHeads) -> None:
        self.req = req
        self.cfg = cfg
        self.headers: list[tuple[str, str]] = []
        self._channel = channel
        self._heads = heads

    @property
    def sock(self) -> StreamResponse:
        """The object whose `sendall` Gunicorn's code calls. As an attribute it would be a reference cycle."""
        return self

    def is_chunked(self) -> bool:
        """Never: HTTP/2 has no chunked coding (RFC 9113 section 8.1)."""
        return False

    def can_sendfile(self) -> bool:
        """Never: a file's octets need frames."""
        return False

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """See PEP 3333; with `exc_info` it may be called again until the head is sent."""
        key: tuple[object, ...] | None = None
        prepared = None
        if type(headers) is list and exc_info is None and self.status is None:
            key = (status, *headers)
            try:
                prepared = self._heads.find(key)
            except TypeError:
                # The key is not hashable: a header may be a list, for instance.
                key = None
        if prepared is None:
            prepared = self._prepare(key, status, headers, exc_info)
        else:
            self.status = status
            self.status_code = prepared.head.status
            self.headers = prepared.headers
            self.response_length = prepared.content_length
        self._prepared = prepared
        self._omits_body = prepared.omits_body or self.req.method == "HEAD"
        return self.write

    def _prepare(self, key: object, status: str, headers: list[tuple[str, str]], exc_info: Any) -> PreparedHead:
        if exc_info and not self.headers_sent:
            self.headers = []
            self.response_length = None
        super().start_response(status, headers, exc_info)
        code = self.status_code
        if not code or not 200 <= code <= 999:
            raise ValueError(f"{status!r} is no status of a final response")
        return self._heads.prepare(key, code, octets(self.headers), self.response_length, self.headers.copy())

    def send_headers(self) -> None:
        """Mark the head as final; it is sent with the first data. Raises RuntimeError without `start_response`."""
        if self.status is None:
            raise RuntimeError("the application did not call start_response")
        self.headers_sent = True

    def write(self, data: bytes) -> None:
        """Send a piece of the body; the `write` callable of PEP 3333."""
        length = self.response_length
        if (
            type(data) is not bytes
            or self._omits_body
            or self.status is None
            or (length is not None and self.sent + len(data) > length)
        ):
            super().write(data)
        elif data:
            self.headers_sent = True
            self.sent += len(data)
            self._send(data, self.sent == length and not self._may_have_trailers)

    def write_all(self, data: bytes) -> None:
        """Send the whole body, as `write` and `close` would; in one step if possible."""
        length = self.response_length
        if (
            type(data) is bytes
            and (length is None or length == len(data))
            and not (self.headers_sent or self._omits_body or self.status is None)
        ):
            assert self._prepared is not None
            self.headers_sent = self.complete = True
            self.sent = len(data)
            if self._trailers:
                self._channel.respond_with_trailers(self._prepared.head, data, self._trailers)
            else:
                self._channel.respond(self._prepared.head, data, True)
        else:
            self.write(data)
            self.close()

    @property
    def omits_body(self) -> bool:
        """Whether the body is not sent, whatever the application returns: for HEAD, and 204 and 304."""
        return self._omits_body

    def can_send_whole(self, octets: int) -> bool:
        """Whether a body of so many octets would be all of the response."""
        begun = self.headers_sent or self.status is None
        return not (begun or self._omits_body or self._trailers) and self.response_length in (None, octets)

    def send_source(self, source: Source) -> None:
        """Send the whole body from a source, without waiting. Raises StreamAborted; the source is not taken then."""
        assert self._prepared is not None
        self._channel.respond(self._prepared.head, b"", False)
        self.headers_sent = self.complete = self.detached = True
        self.sent = len(source)
        self._channel.send_source(source)

    def sendall(self, data: bytes) -> None:
        """Called by Gunicorn's code to send body data, already cut to Content-Length."""
        if self.complete:
            return
        if self._omits_body:
            self._send(b"", True)
        elif data:
            all_sent = self.response_length is not None and self.sent >= self.response_length
            self._send(data, all_sent and not self._may_have_trailers)

    def close(self) -> None:
        """End the response. Raises ValueError for a body shorter than Content-Length, which the client must notice."""
        self.send_headers()
        if self.complete:
            return
        if self.response_length is not None and self.sent < self.response_length and not self._omits_body:
            raise ValueError(f"{self.sent} octets of a response with Content-Length {self.response_length}")
        if self._trailers and not self._omits_body:
            self._send(b"", False)
            self.complete = True
            self._channel.send_trailers(self._trailers)
        else:
            self._send(b"", True)

    def send_early_hints(self, headers: AnyHeaders) -> None:
        """`wsgi.early_hints`: send a 103 response (RFC 8297); any number may precede the response.

        Raises RuntimeError if the response has begun, ValueError for a field that is not allowed.
        """
        if self.headers_sent:
            raise RuntimeError("early hints must come before the response")
        self._channel.send_interim(ResponseHead(103, octets(headers)))

    def send_trailers(self, headers: AnyHeaders) -> None:
        """`gunicorn.http2.send_trailers`: add trailers to the end of the response; callable until the iterable ends.

        Raises RuntimeError if the response has ended, which it does with the last octet of Content-Length
        for a client that did not send `te: trailers`; ValueError for a field that is not allowed.
        """
        if self.complete:
            raise RuntimeError("trailers must come before the end of the response")
        fields = octets(headers)
        check_response_trailers(fields)
        self._trailers = [*(self._trailers or ()), *fields]

    # `gunicorn.http2.stream`

    @property
    def request_fields(self) -> Fields:
        """The request's fields as the client sent them: (name, value) pairs, names in lower case. Not to be changed."""
        return self._channel.stream.head.fields

    def send_head(self) -> None:
        """Send the head of the response now, not with the first data. Raises RuntimeError without `start_response`."""
        self.send_headers()
        if not self._channel.responded:
            assert self._prepared is not None
            self._channel.respond(self._prepared.head, b"", False)

    def on_abort(self, callback: Callable[[], object]) -> None:
        """Have `callback()` called once if the client is gone, or has lost interest; see `Channel.on_abort`."""
        self._channel.on_abort(callback)

    def lift_read_timeout(self) -> None:
        """Let reads wait for as long as the client is connected, though it sends nothing."""
        self._channel.limits_reads = False

    def cut_short(self, headers: AnyHeaders, trailers: AnyHeaders) -> None:
        """End the response although the application goes on, from any thread; see `Channel.cut_short`.

        A client that has no response yet gets one of status 200 with `headers` and no body.
        """
        self._channel.cut_short(self._heads.make(200, octets(headers)), octets(trailers))

    @property
    def _may_have_trailers(self) -> bool:
        return bool(self._trailers) or (b"te", b"trailers") in self._channel.stream.head.fields

    def _send(self, data: bytes, end_stream: bool) -> None:
        self.complete = end_stream
        if not self._channel.responded:
            assert self._prepared is not None
            self._channel.respond(self._prepared.head, data, end_stream)
        elif data or end_stream:
            self._channel.send(data, end_stream)


class WSGIHandler:
    """Runs a WSGI application, one call for each stream; one handler for each worker."""

    def __init__(self, worker: Any) -> None:
        """`worker` is Gunicorn's; its cfg, log, hooks and `wsgi` are used."""
        self._worker = worker
        self._cfg = cfg = worker.cfg
        self._log = worker.log
        self._blank = StreamRequest(cfg)
        self._refusals = RefusalLog(cfg, worker.log)
        self.note_refusal = self._refusals.note_answered
        self._environs = EnvironFactory(cfg, self._blank)
        self._heads = ResponseHeads(wsgi.SERVER.encode())
        self._pre_request, self._post_request = active_hook(worker, "pre_request"), active_hook(worker, "post_request")
        self._logs_access = logs_access(worker)
        self._observed = self._logs_access or self._pre_request is not None or self._post_request is not None

    def __call__(self, connection: Http2Connection, channel: Channel) -> None:
        """Serve one request, in a thread that may block. Never raises."""
        try:
            if not channel.aborted:
                self._serve(connection, channel)
        except Exception:  # The top of a pool thread; hooks and loggers are application code, too.
            self._log.exception("Error handling HTTP/2 stream %d", channel.stream.stream_id)
            channel.reset(ErrorCode.INTERNAL_ERROR)
        finally:
            channel.finish()

    def _serve(self, connection: Http2Connection, channel: Channel) -> None:
        stream = channel.stream
        head = stream.head
        template = head.derived
        if template is None:
            if head.protocol:
                self.serve_websocket(connection, channel)
                return
            try:
                template = head.derived = self._environs.template(head, connection)
            except errors.ParseException as error:
                self._refuse(connection, channel, error)
                return
        environ = _stream_environ(template.environ, channel)
        if self._observed:
            self._run_observed(connection, channel, environ)
            return
        response = StreamResponse(template, channel, self._cfg, self._heads)
        self._run(connection, channel, environ, response)

    def serve_websocket(self, connection: Http2Connection, channel: Channel) -> None:
        """Serve an extended CONNECT. Only a handler that can is given one: see `ConnectionConfig.websocket`."""
        raise NotImplementedError

    def _run_observed(self, connection: Http2Connection, channel: Channel, environ: dict[str, Any]) -> None:
        """Run the application with hooks or the access log, which need Gunicorn's request."""
        started = time.monotonic()
        stream = channel.stream
        request = self._blank.for_stream(stream.head, connection.peer, stream.stream_id)
        request.body, request.trailers = environ["wsgi.input"], environ["gunicorn.http2.trailers"]
        response = StreamResponse(request, channel, self._cfg, self._heads)
        try:
            if self._pre_request is not None:
                try:
                    self._pre_request(self._worker, request)
                    # The hook may have changed the request.
                    environ = {**self._environs.from_request(request, connection), **_stream_keys(environ)}
                except BaseException:  # A hook of the configuration: application code.
                    self._application_failed(channel, response)
                    return
            response.on_end = partial(self._account, request, environ, response, started)
            self._run(connection, channel, environ, response)
        finally:
            if not response.detached:
                # It holds the environ, which holds the response.
                response.on_end = None
                self._account(request, environ, response, started)

    def _run(
        self, connection: Http2Connection, channel: Channel, environ: dict[str, Any], response: StreamResponse
    ) -> None:
        environ["wsgi.early_hints"] = response.send_early_hints
        environ["gunicorn.http2.send_trailers"] = response.send_trailers
        environ["gunicorn.http2.stream"] = response
        try:
            result: Iterable[bytes] = self._worker.wsgi(environ, response.start_response)
            if type(result) is list and len(result) == 1:
                response.write_all(result[0])
            elif type(result) is wsgi.FileWrapper:
                self._send_file(connection, response, result)
            else:
                send_result(result, response)
        except StreamAborted as error:
            self._log.debug("Ignoring aborted stream: %s", error)
        except BaseException:  # Application code may raise anything, gevent.Timeout and GreenletExit too.
            self._application_failed(channel, response)

    def _send_file(self, connection: Http2Connection, response: StreamResponse, wrapper: Any) -> None:
        """Send what `wsgi.file_wrapper` has made; the connection reads a regular file, unless it is small."""
        try:
            part = FilePart.of(wrapper.filelike, response.response_length)
            if response.omits_body:
                response.close()
            elif part is None or not response.can_send_whole(part.octets):
                for data in wrapper:
                    response.write(data)
                response.close()
            elif part.octets <= connection.stream_buffer_size:
                response.write_all(os.pread(part.file.fileno(), part.octets, part.position))
            else:
                on_close = partial(self._leave_file, connection, response, wrapper)
                response.send_source(FileSource(part, on_close, self._log))
        finally:
            if not response.detached:
                _close(wrapper)

    def _leave_file(self, connection: Http2Connection, response: StreamResponse, wrapper: Any, left: int) -> None:
        """Have the rest done where application code may run: `left` octets of a file were not sent."""
        response.sent -= left
        connection.run(partial(self._end_file, response, wrapper))

    def _end_file(self, response: StreamResponse, wrapper: Any) -> None:
        try:
            _close(wrapper)
        except BaseException:  # Application code.
            self._log.exception("Error closing the file of a response")
        on_end, response.on_end = response.on_end, None
        if on_end is not None:
            on_end()

    def _application_failed(self, channel: Channel, response: StreamResponse) -> None:
        """Answer 500 if nothing has been sent, else reset the stream; the client learns nothing about the error."""
        if channel.aborted:
            self._log.debug("Application ended after its stream was aborted", exc_info=True)
            return
        head = channel.stream.head
        self._log.exception("Error handling request %s %s", response.req.method, head.path.decode("latin-1"))
        if channel.responded:
            if not response.complete:
                channel.reset(ErrorCode.INTERNAL_ERROR)
        else:
            response.status = "500 " + REASONS[500]
            response.headers = []
            response.sent = self._send_error(channel, head, 500)

    def _refuse(self, connection: Http2Connection, channel: Channel, error: Exception) -> None:
        """Answer and log a request that Gunicorn's rules refuse."""
        status, stream = refusal_status(error), channel.stream
        sent = self._send_error(channel, stream.head, status)
        self._refusals.note(stream.head, connection.peer, stream.stream_id, status, str(error), sent)

    def _send_error(self, channel: Channel, request: RequestHead, status: int) -> int:
        """Answer with an error status; return the number of octets in the body."""
        head, body = self._heads.error(status)
        if request.method == b"HEAD":
            body = b""
        try:
            channel.respond(head, body, True)
        except StreamAborted:
            return 0
        return len(body)

    def _account(
        self, request: StreamRequest, environ: dict[str, Any], response: StreamResponse, started: float
    ) -> None:
        duration = timedelta(seconds=time.monotonic() - started)
        # Hooks and loggers may change the headers, which are shared.
        response.headers = response.headers.copy()
        try:
            if response.status is not None:
                self._log.access(response, request, environ, duration)
            if self._post_request is not None:
                self._post_request(self._worker, request, environ, response)
        except Exception:  # A hook of the configuration: application code.
            self._log.exception("Exception in post_request hook")


def _stream_environ(template: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Make the environ of a request from the template for its head."""
    environ = template.copy()
    stream = channel.stream
    body = channel.take_complete_body() if channel.has_body else b""
    if body is not None:
        environ["wsgi.input"] = io.BytesIO(body)
        environ["gunicorn.http2.trailers"] = []
    else:
        environ["wsgi.input"] = stream_input = StreamInput(channel)
        environ["gunicorn.http2.trailers"] = stream_input.trailers
    environ["gunicorn.http2.stream_id"] = stream.stream_id
    if stream.weight != DEFAULT_WEIGHT or stream.depends_on:
        environ["gunicorn.http2.priority_weight"] = stream.weight
        environ["gunicorn.http2.priority_depends_on"] = stream.depends_on
    return environ


def _stream_keys(environ: dict[str, Any]) -> dict[str, Any]:
    """The keys of an environ that belong to its stream."""
    return {key: value for key, value in environ.items() if key == "wsgi.input" or key.startswith("gunicorn.http2.")}


def send_result(result: Iterable[bytes], response: StreamResponse) -> None:
    """Send an application's result, and close it."""
    try:
        for data in result:
            response.write(data)
        response.close()
    finally:
        _close(result)


def _close(result: Iterable[bytes]) -> None:
    if hasattr(result, "close"):
        result.close()


def octets(headers: AnyHeaders) -> Fields:
    """Fields in the core's form: names in lower case, no white space around values.

    Raises UnicodeEncodeError, a ValueError, for text beyond latin-1.
    """
    return [(_latin1(name).lower(), _latin1(value).strip(b" \t")) for name, value in headers]


def _latin1(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")
