"""WSGI (PEP 3333) over a stream: environ, input, start_response, and every way it can go wrong.

The environ and the response are Gunicorn's own, by `gunicorn.http.wsgi`: the rules of WSGI have one
home. What is ours is where the octets come from and where they go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from gunicorn.http import errors, wsgi

from gunicorn_h2.drivers.channel import Channel, StreamAborted
from gunicorn_h2.drivers.connection import Http2Connection
from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.headers import CONNECTION_SPECIFIC, Fields, check_response, check_response_trailers

from .answers import REASONS, date_value, error_answer, refusal_status
from .environ import EnvironFactory
from .input import StreamInput
from .refusals import RefusalLog
from .request import StreamRequest

__all__ = ["WSGIHandler"]

AnyHeaders = Iterable[tuple[str | bytes, str | bytes]]


class StreamResponse(wsgi.Response):  # type: ignore[misc]
    """Gunicorn's response, framed by HTTP/2. Octets reach the stream by `sendall`."""

    headers: list[tuple[str, str]]
    headers_sent: bool

    def __init__(self, req: StreamRequest, channel: Channel, cfg: Any) -> None:
        super().__init__(req, self, cfg)
        self._channel = channel
        self._status = 0
        self._fields: list[tuple[bytes, bytes]] | None = None
        self._trailers: Fields = []
        self.complete = False

    def is_chunked(self) -> bool:
        """HTTP/2 has frames of its own (RFC 9113 section 8.1)."""
        return False

    def can_sendfile(self) -> bool:
        """A file's octets need frames around them, too."""
        return False

    @property
    def omits_body(self) -> bool:
        """Whether RFC 9110 forbids a body, whatever the application gives."""
        return self.req.method == "HEAD" or self._status in (204, 304)

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """See PEP 3333; may be called again with `exc_info` until the head has gone out."""
        if exc_info and not self.headers_sent:
            self.headers = []
            self.response_length = None
        write: Callable[[bytes], None] = super().start_response(status, headers, exc_info)
        if not self.status_code or not 200 <= self.status_code <= 999:
            raise ValueError(f"{status!r} is no status of a final response")
        return write

    def send_headers(self) -> None:
        """Prepare the head; it leaves with the first data."""
        if self.headers_sent:
            return
        if self.status is None:
            raise RuntimeError("the application did not call start_response")
        self.headers_sent = True
        self._status = self.status_code
        names = set()
        self._fields = fields = []
        for name, value in self.headers:
            lower = name.lower().encode("latin-1")
            # RFC 9110 section 8.6: no Content-Length in a 204.
            if lower not in CONNECTION_SPECIFIC and (self._status != 204 or lower != b"content-length"):
                names.add(lower)
                fields.append((lower, value.encode("latin-1")))
        if b"server" not in names:
            fields.append((b"server", self.version.encode("latin-1")))
        if b"date" not in names:
            fields.append((b"date", date_value()))

    def sendall(self, data: bytes) -> None:
        """Gunicorn's way to send the body, already cut to Content-Length."""
        if self.complete:
            return
        if self.omits_body:
            self._send(b"", True)
        else:
            all_sent = self.response_length is not None and self.sent >= self.response_length
            self._send(data, all_sent and not self._may_have_trailers)

    def close(self) -> None:
        """End the response; too short a body is an error that the client must see."""
        self.send_headers()
        if self.complete:
            return
        if self.response_length is not None and self.sent < self.response_length and not self.omits_body:
            raise ValueError(f"{self.sent} octets of a response with Content-Length {self.response_length}")
        if self._trailers and not self.omits_body:
            self._send(b"", False)
            self.complete = True
            self._channel.send_trailers(self._trailers)
        else:
            self._send(b"", True)

    def send_early_hints(self, headers: AnyHeaders) -> None:
        """`wsgi.early_hints`: send a 103 response (RFC 8297), any number of times before the response.

        Raises RuntimeError when the response has begun, ValueError for a field that is not allowed.
        """
        if self.headers_sent:
            raise RuntimeError("early hints must come before the response")
        fields = octets(headers)
        check_response(fields)
        self._channel.send_interim(103, fields)

    def send_trailers(self, headers: AnyHeaders) -> None:
        """`gunicorn.http2.send_trailers`: end the response with these, too; until the iterable ends.

        Raises RuntimeError when the response has ended, which the last octet of Content-Length does
        for a client that did not send `te: trailers`; ValueError for a field that is not allowed.
        """
        if self.complete:
            raise RuntimeError("trailers must come before the end of the response")
        fields = octets(headers)
        check_response_trailers(fields)
        self._trailers += fields

    @property
    def _may_have_trailers(self) -> bool:
        return bool(self._trailers) or ("TE", "trailers") in self.req.headers

    def _send(self, data: bytes, end_stream: bool) -> None:
        self.complete = end_stream
        if self._fields is not None:
            fields, self._fields = self._fields, None
            self._channel.respond(self._status, fields, data, end_stream)
        elif data or end_stream:
            self._channel.send(data, end_stream)


class WSGIHandler:
    """Runs a WSGI application for streams; one for a worker."""

    def __init__(self, worker: Any) -> None:
        """`worker` is Gunicorn's: its cfg, log, hooks and `wsgi` are used."""
        self._worker = worker
        self._cfg = cfg = worker.cfg
        self._log = worker.log
        self._blank = StreamRequest(cfg)
        self._refusals = RefusalLog(cfg, worker.log)
        self.note_refusal = self._refusals.note_answered
        self._environs = EnvironFactory(cfg, self._blank)
        # Reading a setting costs Gunicorn a function call and two look-ups.
        self._pre_request, self._post_request = cfg.pre_request, cfg.post_request

    def __call__(self, connection: Http2Connection, channel: Channel) -> None:
        """Serve one request, in a thread that may block. Never raises."""
        try:
            if not channel.aborted:
                self._serve(connection, channel)
        except Exception:  # The top of a pool thread: hooks and loggers are application code, too.
            self._log.exception("Error handling HTTP/2 stream %d", channel.stream.stream_id)
            channel.reset(ErrorCode.INTERNAL_ERROR)
        finally:
            channel.finish()

    def _serve(self, connection: Http2Connection, channel: Channel) -> None:
        started = datetime.now()
        stream = channel.stream
        try:
            request = self._blank.of(stream.head, connection.peer, stream.stream_id)
            request.body = body = StreamInput(channel)
            request.trailers = body.trailers
            environ = self._environs.make(request, stream, connection)
        except errors.ParseException as error:
            self._refuse(connection, channel, error)
            return
        response = StreamResponse(request, channel, self._cfg)
        environ["wsgi.early_hints"] = response.send_early_hints
        environ["gunicorn.http2.send_trailers"] = response.send_trailers
        try:
            self._pre_request(self._worker, request)
            self._run(environ, response)
        except StreamAborted as error:
            self._log.debug("Ignoring aborted stream: %s", error)
        except BaseException:  # Application code: anything may come out of it, gevent.Timeout and GreenletExit too.
            self._application_failed(channel, request, response)
        finally:
            self._account(request, environ, response, datetime.now() - started)

    def _run(self, environ: dict[str, Any], response: StreamResponse) -> None:
        result: Iterable[bytes] = self._worker.wsgi(environ, response.start_response)
        try:
            for data in result:
                response.write(data)
            response.close()
        finally:
            if hasattr(result, "close"):
                result.close()

    def _application_failed(self, channel: Channel, request: StreamRequest, response: StreamResponse) -> None:
        """Answer 500 where nothing has gone out yet, else break the response off. Tells the client nothing."""
        if channel.aborted:
            self._log.debug("Application ended after its stream was aborted", exc_info=True)
            return
        self._log.exception("Error handling request %s %s", request.method, request.uri)
        if channel.responded:
            if not response.complete:
                channel.reset(ErrorCode.INTERNAL_ERROR)
        else:
            response.status = "500 " + REASONS[500]
            response.headers = []
            self._send_error(channel, request.method, 500)

    def _refuse(self, connection: Http2Connection, channel: Channel, error: Exception) -> None:
        """Answer a request that Gunicorn's rules refuse."""
        status, stream = refusal_status(error), channel.stream
        sent = self._send_error(channel, stream.head.method.decode("latin-1"), status)
        self._refusals.note(stream.head, connection.peer, stream.stream_id, status, str(error), sent)

    def _send_error(self, channel: Channel, method: str, status: int) -> int:
        """Answer with an error; return how many octets its body has."""
        fields, body = error_answer(status, wsgi.SERVER.encode())
        if method == "HEAD":
            body = b""
        try:
            channel.respond(status, fields, body, True)
        except StreamAborted:
            return 0
        return len(body)

    def _account(
        self, request: StreamRequest, environ: dict[str, Any], response: StreamResponse, duration: timedelta
    ) -> None:
        try:
            if response.status is not None:
                self._log.access(response, request, environ, duration)
            self._post_request(self._worker, request, environ, response)
        except Exception:  # A hook of the configuration: application code.
            self._log.exception("Exception in post_request hook")


def octets(headers: AnyHeaders) -> Fields:
    """Fields as the protocol core takes them: names in lower case, no white space around values.

    Raises UnicodeEncodeError, a ValueError, for text beyond latin-1.
    """
    return [(_latin1(name).lower(), _latin1(value).strip(b" \t")) for name, value in headers]


def _latin1(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")
