"""The WSGI environ: made once for a connection and a request head, copied for every request with that head.

`gunicorn.http.wsgi.create` decides what an environ contains. It is called once for a connection, with a blank
request; this module adds what depends on the head. Heads with a field that Gunicorn's policy examines go through
Gunicorn's code, and so do all heads if SCRIPT_NAME is set, or on a Unix socket, where the Host field matters.
"""

from __future__ import annotations

import io
import os
from typing import Any

from gunicorn.http import wsgi
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine
from gunicorn.util import unquote_to_wsgi_str

from gunicorn_h2.drivers.connection import Http2Connection
from gunicorn_h2.protocol.headers import RequestHead
from gunicorn_h2.protocol.stream import DEFAULT_WEIGHT

from .request import StreamRequest, TrustedPeers, joined_fields, policy_names
from .tls import tls_environ

__all__ = ["EnvironFactory", "EnvironTemplate"]

_BLANK = RequestHead(b"GET", b"", b"", b"/", [])
_MAX_KEYS = 1024
_FOR_POLICY = ""
"""In place of an environ key: Gunicorn's policy must examine the field."""
_OWN_KEYS = ("REQUEST_METHOD", "QUERY_STRING", "RAW_URI", "PATH_INFO", "SCRIPT_NAME", "wsgi.url_scheme")


class _Errors(io.RawIOBase):
    """`wsgi.errors`: looks Gunicorn's log streams up at each write, because SIGUSR1 replaces them."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg

    def write(self, data: Any) -> None:
        """Write text to Gunicorn's error log."""
        wsgi.WSGIErrorsWrapper(self._cfg).write(data)


class EnvironTemplate:
    """The environ that all requests with the same head share.

    It also stands in for Gunicorn's request if no hook or log needs one: a response only reads its `method`.
    """

    __slots__ = ("environ", "is_plain", "method")

    def __init__(self, environ: dict[str, Any], is_plain: bool) -> None:
        self.environ = environ
        """Copied for each request."""
        self.is_plain = is_plain
        """Whether Gunicorn's policy was not involved, so that a head with another path may start from this environ."""
        self.method: str = environ["REQUEST_METHOD"]


class EnvironFactory:
    """Makes environs for one worker."""

    def __init__(self, cfg: Any, blank: StreamRequest) -> None:
        """`blank` is the blank request that others are copied from."""
        self._cfg = cfg
        self._blank = blank
        self._errors = _Errors(cfg)
        self._trusted = TrustedPeers(cfg)
        self._max_line, self._max_fields = blank.limit_request_line, blank.limit_request_fields
        self._max_field_size = blank.limit_request_field_size or float("inf")
        self._casefold = cfg.casefold_http_method
        self._keys = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH", b"script-name": _FOR_POLICY}
        self._keys.update(dict.fromkeys(policy_names(cfg), _FOR_POLICY))

    def template(self, head: RequestHead, connection: Http2Connection) -> EnvironTemplate:
        """Make the environ that all requests with this head share; keys of the stream are to be added.

        Raises Gunicorn's `ParseException` for what its limits or its policy refuse.
        """
        sibling: EnvironTemplate | None = None if head.sibling is None else head.sibling.derived
        if sibling is not None and sibling.is_plain:
            environ = sibling.environ.copy()
            self._add_path(environ, head)
            return EnvironTemplate(environ, True)
        if connection.context is None:
            connection.context = self._shared(connection)
        environ = connection.context.copy()
        is_plain = (
            not isinstance(connection.local_address, str)
            and "SCRIPT_NAME" not in os.environ
            and self._add_fields(environ, head)
        )
        if is_plain:
            self._add_request_line(environ, head, connection)
        else:
            environ = self.from_request(self._blank.for_stream(head, connection.peer, 0), connection)
        urgency, incremental = head.priority
        environ["gunicorn.http2.urgency"] = urgency
        environ["gunicorn.http2.incremental"] = incremental
        return EnvironTemplate(environ, is_plain)

    def from_request(self, request: StreamRequest, connection: Http2Connection) -> dict[str, Any]:
        """Make the environ of a request by Gunicorn's own code."""
        return {**self._create(request, connection), **connection.context}

    def _add_request_line(self, environ: dict[str, Any], head: RequestHead, connection: Http2Connection) -> None:
        method = head.method.decode("latin-1")
        environ["REQUEST_METHOD"] = method.upper() if self._casefold else method
        self._add_path(environ, head)
        environ["SCRIPT_NAME"] = ""
        environ["wsgi.url_scheme"] = self._blank.scheme
        scheme = head.scheme.decode("latin-1").lower()
        if scheme != self._blank.scheme and scheme in ("http", "https") and connection.peer in self._trusted:
            # A trusted proxy may set its client's scheme.
            environ["wsgi.url_scheme"] = scheme

    def _add_path(self, environ: dict[str, Any], head: RequestHead) -> None:
        environ["RAW_URI"] = uri = head.path.decode("latin-1")
        if 0 < self._max_line < len(uri):
            raise LimitRequestLine(len(uri), self._max_line)
        # The core has checked that the path starts with "/" (or is "*") and has no fragment.
        path, _, environ["QUERY_STRING"] = uri.partition("?")
        environ["PATH_INFO"] = unquote_to_wsgi_str(path) if "%" in path else path

    def _add_fields(self, environ: dict[str, Any], head: RequestHead) -> bool:
        """Add the fields as `create` would; return False if Gunicorn's policy must examine one."""
        fields = joined_fields(head)
        if len(fields) > self._max_fields:
            raise LimitRequestHeaders("limit request headers fields")
        keys, limit = self._keys, self._max_field_size
        for name, value in fields:
            key = keys.get(name)
            if key is None:
                key = self._add_key(name)
            if not key or (key == "CONTENT_TYPE" and key in environ):
                return False
            if len(name) + len(value) + 4 > limit:
                raise LimitRequestHeaders("limit request headers fields size")
            text = value.decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
        return True

    def _add_key(self, name: bytes) -> str:
        """Return the environ key of a field name, and cache it if the name is short."""
        key = _FOR_POLICY if b"_" in name else "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
        if len(self._keys) < _MAX_KEYS and len(name) <= 64:
            self._keys[name] = key
        return key

    def _create(self, request: StreamRequest, connection: Http2Connection) -> dict[str, Any]:
        environ: dict[str, Any] = wsgi.create(
            request, connection.transport.sock, connection.peer, connection.local_address, self._cfg
        )[1]
        return environ

    def _shared(self, connection: Http2Connection) -> dict[str, Any]:
        """Make the part of the environ that all requests of a connection share."""
        blank = self._blank.for_stream(_BLANK, connection.peer, 0)
        blank.path = os.environ.get("SCRIPT_NAME", "")
        environ = self._create(blank, connection)
        for key in _OWN_KEYS:
            del environ[key]
        if isinstance(connection.local_address, str):
            del environ["SERVER_NAME"], environ["SERVER_PORT"]
        environ["wsgi.multithread"] = True
        environ["wsgi.errors"] = self._errors
        # The defaults of RFC 7540 section 5.3.5.
        environ["gunicorn.http2.priority_weight"] = DEFAULT_WEIGHT
        environ["gunicorn.http2.priority_depends_on"] = 0
        session = connection.transport.session
        if session is not None:
            environ.update(tls_environ(session))
        return environ
