"""The WSGI environ: made once for a connection and a request head, copied for every request that has it.

`gunicorn.http.wsgi.create` decides what an environ holds. It is asked when a connection serves its
first request, for one without contents; what a head adds to that is put in here. A head with a field
that Gunicorn's policy looks at, and what depends on SCRIPT_NAME, or on the Host field behind a Unix
socket, is left to Gunicorn's code.
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
"""In the place of an environ key: Gunicorn's policy has to look at the field."""
_OWN_KEYS = ("REQUEST_METHOD", "QUERY_STRING", "RAW_URI", "PATH_INFO", "SCRIPT_NAME", "wsgi.url_scheme")


class _Errors(io.RawIOBase):
    """`wsgi.errors`: finds Gunicorn's log streams when written to, for they change at SIGUSR1."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg

    def write(self, data: Any) -> None:
        """Write text to Gunicorn's error log."""
        wsgi.WSGIErrorsWrapper(self._cfg).write(data)


class EnvironTemplate:
    """What all requests with the same head share.

    It stands for Gunicorn's request where nobody looks at that: all that the response asks for is the method.
    """

    __slots__ = ("environ", "is_plain", "method")

    def __init__(self, environ: dict[str, Any], is_plain: bool) -> None:
        self.environ = environ
        """To be copied."""
        self.is_plain = is_plain
        """Whether nothing but the request line depends on the path: Gunicorn's policy had no part in it."""
        self.method: str = environ["REQUEST_METHOD"]


class EnvironFactory:
    """Makes environs for one worker."""

    def __init__(self, cfg: Any, blank: StreamRequest) -> None:
        """`blank` is the request without contents that others are made from."""
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
        """What the environs of all requests with this head share.

        What belongs to one stream is still to be added. Raises Gunicorn's errors for what its limits and
        its policy refuse.
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
        """What Gunicorn's own code makes of a request."""
        return {**self._create(request, connection), **connection.context}

    def _add_request_line(self, environ: dict[str, Any], head: RequestHead, connection: Http2Connection) -> None:
        method = head.method.decode("latin-1")
        environ["REQUEST_METHOD"] = method.upper() if self._casefold else method
        self._add_path(environ, head)
        environ["SCRIPT_NAME"] = ""
        environ["wsgi.url_scheme"] = self._blank.scheme
        scheme = head.scheme.decode("latin-1").lower()
        if scheme != self._blank.scheme and scheme in ("http", "https") and connection.peer in self._trusted:
            # A proxy may speak for its client.
            environ["wsgi.url_scheme"] = scheme

    def _add_path(self, environ: dict[str, Any], head: RequestHead) -> None:
        environ["RAW_URI"] = uri = head.path.decode("latin-1")
        if 0 < self._max_line < len(uri):
            raise LimitRequestLine(len(uri), self._max_line)
        # The core has seen to it that the path starts with "/" (or is "*") and has no fragment.
        path, _, environ["QUERY_STRING"] = uri.partition("?")
        environ["PATH_INFO"] = unquote_to_wsgi_str(path) if "%" in path else path

    def _add_fields(self, environ: dict[str, Any], head: RequestHead) -> bool:
        """Add what `create` would; False where Gunicorn's policy has to look at a field."""
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
        """The key of a field's name, remembered where it is short."""
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
        """What the environs of all requests of a connection share."""
        blank = self._blank.for_stream(_BLANK, connection.peer, 0)
        blank.path = os.environ.get("SCRIPT_NAME", "")
        environ = self._create(blank, connection)
        for key in _OWN_KEYS:
            del environ[key]
        if isinstance(connection.local_address, str):
            del environ["SERVER_NAME"], environ["SERVER_PORT"]
        environ["wsgi.multithread"] = True
        environ["wsgi.errors"] = self._errors
        # RFC 7540 section 5.3.5: what a stream has by default.
        environ["gunicorn.http2.priority_weight"] = DEFAULT_WEIGHT
        environ["gunicorn.http2.priority_depends_on"] = 0
        session = connection.transport.session
        if session is not None:
            environ.update(tls_environ(session))
        return environ
