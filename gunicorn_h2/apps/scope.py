"""The ASGI scope: made once for a connection and a request head, copied for every request with that head.

Gunicorn's limits and header policy apply: a head beyond a limit, or with a field that the policy examines, goes
through Gunicorn's code, which may drop fields, trust a proxy, or refuse the request.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from gunicorn_h2.drivers.asyncio_driver import AsyncHttp2Connection
from gunicorn_h2.drivers.certificates import Certificates
from gunicorn_h2.protocol.headers import Fields, RequestHead
from gunicorn_h2.protocol.stream import Stream

from .request import StreamRequest, joined_fields, policy_names
from .tls import TlsExtension

__all__ = ["ScopeFactory", "ScopeTemplate", "websocket_scope"]


class ScopeTemplate:
    """The scope that all requests with the same head share."""

    __slots__ = ("_fields", "_incremental", "_shared", "_tls", "_urgency", "method")

    def __init__(self, shared: dict[str, Any], tls: dict[str, Any] | None, fields: Fields, head: RequestHead) -> None:
        """`shared` is what all requests of the connection share, and `tls` the extension of that name."""
        self.method: str = shared["method"]
        self._shared = shared
        self._tls = tls
        self._fields = fields
        self._urgency, self._incremental = head.priority

    def make(self, stream: Stream, state: dict[str, Any]) -> dict[str, Any]:
        """Make the scope of one request. It shares no mutable object with other scopes, but the values in `state`."""
        scope = self._shared.copy()
        scope["asgi"] = {"version": "3.0", "spec_version": "2.4"}
        scope["headers"] = self._fields.copy()
        scope["state"] = state.copy()
        scope["extensions"] = extensions = {
            "http.response.early_hint": {},
            "http.response.pathsend": {},
            "http.response.trailers": {},
            "http.request.trailers": {},
            "http.response.priority": {
                "weight": stream.weight,
                "depends_on": stream.depends_on,
                "urgency": self._urgency,
                "incremental": self._incremental,
            },
        }
        if self._tls is not None:
            extensions["tls"] = self._tls.copy()
        return scope


class ScopeFactory:
    """Makes the scope templates of one worker."""

    def __init__(self, cfg: Any, blank: StreamRequest, certificates: Certificates) -> None:
        """`blank` is the blank request that others are copied from, `certificates` tells what the server presents."""
        self._blank = blank
        self._tls = TlsExtension(certificates)
        self._policy_names = policy_names(cfg)
        self._root_path = cfg.root_path or ""
        self._scheme = b"https" if cfg.is_ssl else b"http"
        self._max_line, self._max_fields = cfg.limit_request_line, cfg.limit_request_fields
        self._max_field_size = cfg.limit_request_field_size or float("inf")

    def template(self, head: RequestHead, connection: AsyncHttp2Connection) -> ScopeTemplate:
        """Make the template of a head. Raises Gunicorn's `ParseException` for what its limits or policy refuse."""
        if connection.context is None:
            connection.context = self._connection_scope(connection), self._tls.make(connection.transport)
        connection_scope, tls = connection.context
        raw_path, _, query = head.path.partition(b"?")
        path = raw_path.decode("latin-1")
        fields = joined_fields(head)
        shared: dict[str, Any] = connection_scope.copy()
        shared["method"] = head.method.decode("latin-1").upper()
        shared["path"] = unquote(path) if "%" in path else path
        shared["raw_path"] = raw_path
        shared["query_string"] = query
        if self._needs_policy(head, fields):
            request = self._blank.for_stream(head, connection.peer, 0)
            shared["scheme"] = request.scheme
            fields = _kept(fields, request)
        return ScopeTemplate(shared, tls, fields, head)

    def _connection_scope(self, connection: AsyncHttp2Connection) -> dict[str, Any]:
        """Make the part of the scope that all requests of a connection share."""
        server = connection.local_address
        return {
            "type": "http",
            "http_version": "2",
            "scheme": "https" if connection.transport.tls else "http",
            "root_path": self._root_path,
            "client": _host_and_port(connection.peer),
            "server": _host_and_port(server) or ((server or None) and (server, None)),
        }

    def _needs_policy(self, head: RequestHead, fields: Fields) -> bool:
        """Whether Gunicorn's limits or policy must decide about a head."""
        if head.scheme != self._scheme or len(fields) > self._max_fields or 0 < self._max_line < len(head.path):
            return True
        types = 0
        for name, value in fields:
            types += name == b"content-type"
            if name in self._policy_names or b"_" in name or len(name) + len(value) + 4 > self._max_field_size:
                return True
        return types > 1


def websocket_scope(template: ScopeTemplate, stream: Stream, state: dict[str, Any]) -> dict[str, Any]:
    """Make the scope of a WebSocket from the template of its request."""
    scope = template.make(stream, state)
    del scope["method"]
    tls = scope["extensions"].get("tls")
    offered = b",".join([value for name, value in scope["headers"] if name == b"sec-websocket-protocol"])
    scope.update(
        type="websocket",
        scheme="wss" if scope["scheme"] == "https" else "ws",
        subprotocols=[name.strip() for name in offered.decode("latin-1").split(",") if name.strip()],
        extensions={"websocket.http.response": {}} | ({} if tls is None else {"tls": tls}),
    )
    return scope


def _kept(fields: Fields, request: StreamRequest) -> Fields:
    """The fields that Gunicorn's policy has not dropped."""
    names = {name for name, _ in request.headers}
    return [field for field in fields if b"_" not in field[0] or field[0].decode("latin-1").upper() in names]


def _host_and_port(address: Any) -> tuple[str, int] | None:
    """An internet address in ASGI's form; None for other addresses."""
    return tuple(address[:2]) if isinstance(address, tuple) else None
