"""ASGI 3 over a stream: scope, receive, send, and every way in which it can go wrong.

What goes beyond the standard's `http` scope; `scope["extensions"]` names all but the messages of type
`http.response.informational`:

- `http.response.priority`: `weight` (1 to 256) and `depends_on` of RFC 7540, `urgency` (0 to 7) and
  `incremental` of RFC 9218.
- `http.response.early_hint`: the standard's message with `links`; sent as a 103. For other fields, or
  another 1xx status, there is `http.response.informational` with `status` and `headers`, as in
  Gunicorn's HTTP/1.
- `http.response.trailers`: the standard's `trailers: True` and message. An application that does not
  know at the start may also send the message right behind its last body, before it waits for
  anything else.
- `http.request.trailers`: the last `http.request` message of a request with trailers has the key
  `trailers`, a list of (name, value) as in `headers`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import unquote

from gunicorn.asgi.protocol import ASGIResponseInfo
from gunicorn.glogging import Logger
from gunicorn.http import errors

from gunicorn_h2.drivers.asyncio_channel import AsyncChannel
from gunicorn_h2.drivers.asyncio_driver import AsyncHttp2Connection
from gunicorn_h2.drivers.channel import StreamAborted
from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.headers import (
    CONNECTION_SPECIFIC,
    Fields,
    RequestHead,
    check_response,
    check_response_trailers,
)
from gunicorn_h2.protocol.priority import request_priority

from .answers import date_value, error_answer, refusal_status
from .refusals import RefusalLog
from .request import StreamRequest, joined_fields, log_environ, policy_names

__all__ = ["ASGIHandler", "Exchange"]

Message = dict[str, Any]

# What Gunicorn's HTTP/1 for ASGI says.
_SERVER = b"gunicorn/asgi"
# A whole response of this size at most is held until the end of the loop's turn: trailers may follow.
_SMALL = 16_384
# What asyncio takes from the end of one task to the cancellation of another by a third is three.
_TURNS_TO_CANCEL = 5


class Exchange:
    """One request and its response: `receive` and `send` are what the application is given."""

    def __init__(self, channel: AsyncChannel, method: str) -> None:
        self._channel = channel
        self._method = method
        self._request_read = False
        self._declared: int | None = None
        self._omits_body = False
        self._fields: Fields | None = None
        self._body_ended = False
        self._trailers: Fields | None = None
        self._held: bytes | None = None
        self.status = 0
        """Of the response; 0 until the application has given one."""
        self.headers: Iterable[tuple[Any, Any]] = ()
        """The response's, as the application gave them."""
        self.sent = 0
        """Octets of the response's body."""
        self.responded = False
        """Whether anything of the final response has gone out."""

    # Receiving

    async def receive(self) -> Message:
        """See the ASGI specification: a piece of the body, or a disconnect when response or stream is over."""
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

    # Sending

    async def send(self, message: Mapping[str, Any]) -> None:
        """See the ASGI specification.

        Raises StreamAborted, an OSError, when there is no one to send to; RuntimeError for a message
        out of order; ValueError for fields that must not go out.
        """
        take = _MESSAGES.get(message["type"])
        if take is None:
            raise RuntimeError(f"{message['type']!r} is no ASGI message for HTTP")
        if self._channel.aborted:
            # With nothing sent, and the reason in it.
            self._channel.send(b"", False)
        take(self, message)
        if self._channel.congested:
            await self._drain()
        if self._held is not None:
            self._channel.call_before_flush(self.flush)

    async def _drain(self) -> None:
        try:
            await self._channel.drain()
        except StreamAborted:
            # An application that listens for the disconnect meanwhile is to hear of it first, and may
            # cancel this task: Django does, and would not close its response after an OSError.
            for _ in range(_TURNS_TO_CANCEL):
                await asyncio.sleep(0)
            raise

    def _start(self, message: Mapping[str, Any]) -> None:
        if self.status:
            raise RuntimeError("http.response.start was sent already")
        status = message["status"]
        if not isinstance(status, int) or not 200 <= status <= 999:
            raise ValueError(f"{status!r} is no status of a final response")
        headers = list(message.get("headers") or ())
        self._fields, self._declared = _response_fields(status, headers)
        self._omits_body = self._method == "HEAD" or status in (204, 304)
        self._trailers = [] if message.get("trailers") else None
        self.headers = headers
        self.status = int(status)

    def _body(self, message: Mapping[str, Any]) -> None:
        if not self.status:
            raise RuntimeError("http.response.body before http.response.start")
        if self._body_ended:
            raise RuntimeError("http.response.body after the last one")
        data = message.get("body") or b""
        if type(data) is not bytes:
            # The application may use a buffer of its own again.
            data = bytes(memoryview(data))
        more_body = message.get("more_body", False)
        if self._omits_body:
            data = b""
        else:
            self._count(len(data), more_body)
        if more_body:
            self._put(data)
        else:
            self._body_ended = True
            self._end_body(data)

    def _count(self, octets: int, more_body: bool) -> None:
        """Hold the body against Content-Length: a client could not tell where a wrong one ends."""
        self.sent += octets
        if self._declared is not None and (
            self.sent > self._declared or (not more_body and self.sent != self._declared)
        ):
            raise RuntimeError(f"{self.sent} octets of a response with content-length {self._declared}")

    def _put(self, data: bytes) -> None:
        """Send data, the head before it where that is still to come."""
        if self._fields is not None:
            fields, self._fields = self._fields, None
            self.responded = True
            self._channel.respond(self.status, fields, data, False)
        elif data:
            self._channel.send(data, False)

    def _end_body(self, data: bytes) -> None:
        if self._trailers is not None:
            self._put(data)
            return
        # The stream's end waits for a trailers message in the same turn; as does all of a small response.
        if self._fields is None or len(data) > _SMALL:
            self._put(data)
            data = b""
        self._held = data

    def flush(self) -> None:
        """End the response, if it only waits for that."""
        if self._held is None:
            return
        data, self._held = self._held, None
        if self._channel.aborted:
            return
        if self._fields is not None:
            fields, self._fields = self._fields, None
            self.responded = True
            self._channel.respond(self.status, fields, data, True)
        else:
            self._channel.send(data, True)

    def _response_trailers(self, message: Mapping[str, Any]) -> None:
        if not self._body_ended:
            raise RuntimeError("http.response.trailers before the last http.response.body")
        if self._channel.complete:
            raise RuntimeError("the response has ended; http.response.start announces trailers by trailers: True")
        fields = _lower_fields(message.get("headers") or ())
        check_response_trailers(fields)
        if self._held is not None:
            self._put(self._held)
            self._held = None
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
        self._send_interim(status, _lower_fields(message.get("headers") or ()))

    def _early_hint(self, message: Mapping[str, Any]) -> None:
        links = [(b"link", _octets(link)) for link in message.get("links") or ()]
        if links:
            self._send_interim(103, links)

    def _send_interim(self, status: int, fields: Fields) -> None:
        if self.status:
            raise RuntimeError("an informational response after http.response.start")
        self._channel.send_interim(status, fields)

    # Errors

    def close(self) -> None:
        """The application has returned. Raises RuntimeError where its response is not complete."""
        self.flush()
        if not self._channel.complete and not self._channel.aborted:
            raise RuntimeError("the application returned without completing its response")

    def fail(self, status: int) -> None:
        """Answer with an error where nothing has gone out yet, else break the response off."""
        self.flush()
        if self._channel.aborted or self._channel.complete:
            return
        if self.responded:
            self._channel.reset(ErrorCode.INTERNAL_ERROR)
            return
        fields, body = error_answer(status, _SERVER)
        if self._method == "HEAD":
            body = b""
        self.status, self.headers, self.sent = status, fields, len(body)
        self.responded = True
        self._channel.respond(status, fields, body, True)


_MESSAGES: dict[str, Callable[[Exchange, Mapping[str, Any]], None]] = {
    "http.response.start": Exchange._start,
    "http.response.body": Exchange._body,
    "http.response.trailers": Exchange._response_trailers,
    "http.response.informational": Exchange._informational,
    "http.response.early_hint": Exchange._early_hint,
}


class ASGIHandler:
    """Runs an ASGI application for streams; one for a worker."""

    def __init__(self, worker: Any) -> None:
        """`worker` is Gunicorn's: its cfg, log, hooks, `state` and `asgi` are used."""
        self._worker = worker
        self._log = worker.log
        cfg = worker.cfg
        self._application: Callable[..., Awaitable[object]] = worker.asgi
        self._blank = StreamRequest(cfg)
        self._refusals = RefusalLog(cfg, worker.log)
        self.note_refusal = self._refusals.note_answered
        self._decided = policy_names(cfg)
        self._root_path = cfg.root_path or ""
        self._scheme = b"https" if cfg.is_ssl else b"http"
        self._max_line, self._max_fields = cfg.limit_request_line, cfg.limit_request_fields
        self._max_field_size = cfg.limit_request_field_size or float("inf")
        self._pre_request = None if _does_nothing("pre_request", worker) else cfg.pre_request
        self._post_request = None if _does_nothing("post_request", worker) else cfg.post_request
        self._accounts = self._post_request is not None or _logs_access(worker)

    async def __call__(self, connection: AsyncHttp2Connection, channel: AsyncChannel) -> None:
        """Serve one request, in a task of its own. Raises nothing but CancelledError."""
        head = channel.stream.head
        exchange = Exchange(channel, head.method.decode("latin-1").upper())
        request = None
        started = time.monotonic() if self._accounts else 0.0
        try:
            fields = joined_fields(head)
            if self._needs_gunicorn(head, fields):
                request = self._blank.of(head, connection.peer, channel.stream.stream_id)
            scope = self._scope(connection, channel, exchange, fields, request)
            if self._pre_request is not None:
                self._pre_request(self._worker, request)
            await self._application(scope, exchange.receive, exchange.send)
            exchange.close()
        except asyncio.CancelledError:
            if not channel.complete:
                channel.reset(ErrorCode.CANCEL)
            raise
        except errors.ParseException as error:
            self._refuse(connection, channel, exchange, error)
            request = None
        except (Exception, SystemExit):  # Application code: anything may come out of it.
            self._application_failed(channel, exchange)
        finally:
            if request is not None and self._accounts:
                self._account(request, exchange, time.monotonic() - started)
            channel.finish()

    # The request

    def _needs_gunicorn(self, head: RequestHead, fields: Fields) -> bool:
        """Whether Gunicorn's own request has to be made: for a hook, the log, or a decision of its policy."""
        if self._accounts or self._pre_request is not None:
            return True
        if head.scheme != self._scheme or len(fields) > self._max_fields or 0 < self._max_line < len(head.path):
            return True
        types = 0
        for name, value in fields:
            types += name == b"content-type"
            if name in self._decided or b"_" in name or len(name) + len(value) + 4 > self._max_field_size:
                return True
        return types > 1

    def _scope(
        self,
        connection: AsyncHttp2Connection,
        channel: AsyncChannel,
        exchange: Exchange,
        fields: Fields,
        request: StreamRequest | None,
    ) -> dict[str, Any]:
        stream = channel.stream
        raw_path, _, query = stream.head.path.partition(b"?")
        path = raw_path.decode("latin-1")
        shared = connection.context
        if shared is None:
            shared = connection.context = self._shared(connection)
        scope: dict[str, Any] = shared.copy()
        scope["asgi"] = {"version": "3.0", "spec_version": "2.4"}
        scope["method"] = exchange._method
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = raw_path
        scope["query_string"] = query
        if request is not None:
            scope["scheme"] = request.scheme
            fields = _kept(fields, request)
        scope["headers"] = fields
        scope["state"] = self._worker.state.copy()
        urgency, incremental = request_priority(fields)
        scope["extensions"] = {
            "http.response.early_hint": {},
            "http.response.trailers": {},
            "http.request.trailers": {},
            "http.response.priority": {
                "weight": stream.weight,
                "depends_on": stream.depends_on,
                "urgency": urgency,
                "incremental": incremental,
            },
        }
        return scope

    def _shared(self, connection: AsyncHttp2Connection) -> dict[str, Any]:
        """What the scopes of a connection's requests have in common."""
        return {
            "type": "http",
            "http_version": "2",
            "scheme": "http" if connection.ssl_object is None else "https",
            "root_path": self._root_path,
            "client": _host_and_port(connection.peer),
            "server": _host_and_port(connection.server) or ((connection.server or None) and (connection.server, None)),
        }

    # The end

    def _refuse(
        self, connection: AsyncHttp2Connection, channel: AsyncChannel, exchange: Exchange, error: Exception
    ) -> None:
        """Answer a request that Gunicorn's rules refuse."""
        status, stream = refusal_status(error), channel.stream
        exchange.fail(status)
        self._refusals.note(stream.head, connection.peer, stream.stream_id, status, str(error), exchange.sent)

    def _application_failed(self, channel: AsyncChannel, exchange: Exchange) -> None:
        """Tell the client that there was an error, and nothing about it."""
        head = channel.stream.head
        if channel.aborted:
            self._log.debug("Application ended after its stream was aborted", exc_info=True)
            return
        self._log.exception("Error handling request %s %s", exchange._method, head.path.decode("latin-1"))
        exchange.fail(500)

    def _account(self, request: StreamRequest, exchange: Exchange, seconds: float) -> None:
        try:
            environ = log_environ(request)
            response = ASGIResponseInfo(exchange.status, exchange.headers, exchange.sent)
            self._log.access(response, request, environ, timedelta(seconds=seconds))
            if self._post_request is not None:
                self._post_request(self._worker, request, environ, response)
        except Exception:  # A hook of the configuration: application code.
            self._log.exception("Exception in post_request hook")


def _response_fields(status: int, headers: list[tuple[Any, Any]]) -> tuple[Fields, int | None]:
    """The fields of a response's head, completed and checked, and its content-length."""
    names = set()
    fields: Fields = []
    length = None
    for name, value in _lower_fields(headers):
        if name in CONNECTION_SPECIFIC:
            continue
        if name == b"content-length":
            # RFC 9110 section 8.6: none in a 204.
            if status == 204:
                continue
            if not value.isdigit():
                raise ValueError(f"content-length is {value!r}")
            length = int(value)
        names.add(name)
        fields.append((name, value))
    if b"server" not in names:
        fields.append((b"server", _SERVER))
    if b"date" not in names:
        fields.append((b"date", date_value()))
    check_response(fields)
    return fields, length


def _lower_fields(headers: Iterable[tuple[Any, Any]]) -> Fields:
    return [(_octets(name).lower(), _octets(value)) for name, value in headers]


def _octets(value: Any) -> bytes:
    """ASGI wants bytes; Gunicorn's HTTP/1 takes text as well."""
    if type(value) is bytes:
        return value
    return value.encode("latin-1") if isinstance(value, str) else bytes(memoryview(value))


def _kept(fields: Fields, request: StreamRequest) -> Fields:
    """The fields that Gunicorn's policy has not dropped."""
    names = {name for name, _ in request.headers}
    return [field for field in fields if b"_" not in field[0] or field[0].decode("latin-1").upper() in names]


def _host_and_port(address: Any) -> tuple[str, int] | None:
    """ASGI's form of an internet address; None for others."""
    return tuple(address[:2]) if isinstance(address, tuple) else None


def _does_nothing(hook: str, worker: Any) -> bool:
    """Whether a hook is Gunicorn's default. That of pre_request has something to say at debug level."""
    setting = worker.cfg.settings[hook]
    if setting.get() is not setting.default:
        return False
    return hook != "pre_request" or (
        isinstance(worker.log, Logger) and not worker.log.error_log.isEnabledFor(logging.DEBUG)
    )


def _logs_access(worker: Any) -> bool:
    """Whether the access log, or statsd, has any use for a request."""
    if type(worker.log) is not Logger:
        return True
    cfg = worker.cfg
    return bool(cfg.accesslog or cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json or cfg.syslog)
