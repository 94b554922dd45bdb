"""The WSGI environ of a stream: Gunicorn's own, the part that a connection's requests share made once.

`gunicorn.http.wsgi.create` decides what an environ holds. It is asked for a request without
contents when a connection serves its first one, and every request starts from a copy of that. What
depends on SCRIPT_NAME, or on the Host field behind a Unix socket, is left to Gunicorn each time.
"""

from __future__ import annotations

import io
import os
import ssl
from typing import Any

from gunicorn.http import wsgi
from gunicorn.util import unquote_to_wsgi_str

from gunicorn_h2.drivers.connection import Http2Connection
from gunicorn_h2.protocol.headers import RequestHead
from gunicorn_h2.protocol.priority import request_priority
from gunicorn_h2.protocol.stream import Stream

from .request import StreamRequest
from .tls import tls_environ

__all__ = ["EnvironFactory"]

_BLANK = RequestHead(b"GET", b"", b"", b"/", [], None, False)
_MAX_KEYS = 1024
_keys = {"CONTENT-TYPE": "CONTENT_TYPE", "CONTENT-LENGTH": "CONTENT_LENGTH"}


class _Errors(io.RawIOBase):
    """`wsgi.errors`: finds Gunicorn's log streams when written to, for they change at SIGUSR1."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg

    def write(self, data: Any) -> None:
        """Write text to Gunicorn's error log."""
        wsgi.WSGIErrorsWrapper(self._cfg).write(data)


class EnvironFactory:
    """Makes environs for one worker."""

    def __init__(self, cfg: Any, blank: StreamRequest) -> None:
        """`blank` is the request without contents that others are made from."""
        self._cfg = cfg
        self._blank = blank
        self._errors = _Errors(cfg)

    def make(self, request: StreamRequest, stream: Stream, connection: Http2Connection) -> dict[str, Any]:
        """The environ of a request. Raises Gunicorn's ConfigurationProblem for a wrong SCRIPT_NAME."""
        shared = connection.environ
        if shared is None:
            connection.environ = shared = self._shared(connection)
        environ = None if self._needs_gunicorn(request, connection) else _own(request, shared)
        if environ is None:
            environ = {**self._gunicorns(request, connection), **shared}
        environ["wsgi.input"] = request.body
        environ["gunicorn.http2.trailers"] = request.trailers
        environ["gunicorn.http2.stream_id"] = request.req_number
        _add_priority(environ, stream)
        return environ

    def _gunicorns(self, request: StreamRequest, connection: Http2Connection) -> dict[str, Any]:
        environ: dict[str, Any] = wsgi.create(
            request, connection.transport.sock, connection.peer, connection.server, self._cfg
        )[1]
        return environ

    def _shared(self, connection: Http2Connection) -> dict[str, Any]:
        sock = connection.transport.sock
        blank = self._blank.of(_BLANK, connection.peer, 0)
        blank.path = os.environ.get("SCRIPT_NAME", "")
        environ = self._gunicorns(blank, connection)
        for key in ("REQUEST_METHOD", "QUERY_STRING", "RAW_URI", "PATH_INFO", "SCRIPT_NAME", "wsgi.url_scheme"):
            del environ[key]
        if isinstance(connection.server, str):
            del environ["SERVER_NAME"], environ["SERVER_PORT"]
        environ["wsgi.multithread"] = True
        environ["wsgi.errors"] = self._errors
        if isinstance(sock, ssl.SSLSocket):
            environ.update(tls_environ(sock))
        return environ

    def _needs_gunicorn(self, request: StreamRequest, connection: Http2Connection) -> bool:
        return isinstance(connection.server, str) or "SCRIPT_NAME" in os.environ


def _add_priority(environ: dict[str, Any], stream: Stream) -> None:
    """What the client said of the response's priority, by RFC 7540 section 5.3 and by RFC 9218."""
    environ["gunicorn.http2.priority_weight"] = stream.weight
    environ["gunicorn.http2.priority_depends_on"] = stream.depends_on
    urgency, incremental = request_priority(stream.head.fields)
    environ["gunicorn.http2.urgency"] = urgency
    environ["gunicorn.http2.incremental"] = incremental


def _own(request: StreamRequest, shared: dict[str, Any]) -> dict[str, Any] | None:
    """What `create` would make; None where the request names its SCRIPT_NAME."""
    path = request.path
    environ = shared.copy()
    environ["REQUEST_METHOD"] = request.method
    environ["QUERY_STRING"] = request.query
    environ["RAW_URI"] = request.uri
    environ["wsgi.url_scheme"] = request.scheme
    environ["PATH_INFO"] = unquote_to_wsgi_str(path) if "%" in path else path
    environ["SCRIPT_NAME"] = ""
    for name, value in request.headers:
        key = _keys.get(name) or _remember(name)
        if key in environ and key[:5] == "HTTP_":
            value = f"{environ[key]},{value}"
        environ[key] = value
    return None if "HTTP_SCRIPT_NAME" in environ else environ


def _remember(name: str) -> str:
    key = "HTTP_" + name.replace("-", "_")
    if len(_keys) < _MAX_KEYS and len(name) <= 64:
        _keys[name] = key
    return key
