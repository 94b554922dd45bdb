"""Gunicorn's `Request`, made from the head of an HTTP/2 request.

Gunicorn decides which headers are trusted, dropped or refused, whichever version is installed: a request with
any header that its policy examines goes through its header parser. Other requests need no decision.
"""

from __future__ import annotations

from typing import Any

from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine
from gunicorn.http.message import Request, _ip_in_allow_list

from gunicorn_h2.drivers.peers import ProxiedPeer, connected_peer
from gunicorn_h2.protocol.headers import Fields, RequestHead

__all__ = [
    "Proxies",
    "ProxySenders",
    "StreamRequest",
    "TrustedPeers",
    "joined_fields",
    "log_environ",
    "peer_ip",
    "policy_names",
]

_MAX_NAMES = 1024
_MAX_VERDICTS = 1024
_upper_names: dict[bytes, str] = {}


def policy_names(cfg: Any) -> frozenset[bytes]:
    """The header names that Gunicorn's policy examines, besides those with an underscore."""
    return frozenset((b"expect", *(name.lower().encode("latin-1") for name in cfg.secure_scheme_headers)))


class TrustedPeers:
    """The peers in `forwarded_allow_ips`, as Gunicorn decides; recent decisions are cached by address.

    A client that a proxy has told of by the PROXY protocol is trusted if the proxy is, as in Gunicorn.
    """

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg
        self._verdicts: dict[str, bool] = {}

    def __contains__(self, peer: Any) -> bool:
        """Whether a peer is trusted; one on a Unix socket is, as in Gunicorn."""
        peer = connected_peer(peer)
        if not isinstance(peer, tuple):
            return True
        address: str = peer[0]
        verdict = self._verdicts.get(address)
        if verdict is None:
            verdict = self._allows(address)
            if len(self._verdicts) >= _MAX_VERDICTS:
                # Clients with many addresses must not fill the memory.
                self._verdicts.clear()
            self._verdicts[address] = verdict
        return verdict

    def _allows(self, address: str) -> bool:
        cfg = self._cfg
        return bool(_ip_in_allow_list(address, cfg.forwarded_allow_ips, cfg.forwarded_allow_networks()))


class ProxySenders(TrustedPeers):
    """The peers in `proxy_allow_ips`, which may send a PROXY header."""

    def _allows(self, address: str) -> bool:
        cfg = self._cfg
        return bool(_ip_in_allow_list(address, cfg.proxy_allow_ips, cfg.proxy_allow_networks()))


class Proxies:
    """The peers that stand for many clients: the trusted ones, and with `proxy_protocol` those in `proxy_allow_ips`."""

    def __init__(self, cfg: Any) -> None:
        self._peers = [TrustedPeers(cfg)] if cfg.proxy_protocol == "off" else [TrustedPeers(cfg), ProxySenders(cfg)]

    def __contains__(self, peer: Any) -> bool:
        """Whether a peer is one of them; a client that such a proxy has told of is none."""
        return not isinstance(peer, ProxiedPeer) and any(peer in peers for peers in self._peers)


def peer_ip(peer: Any) -> str:
    """A peer's IP address as Gunicorn logs it: "" for one on a Unix socket."""
    return str(peer[0]) if isinstance(peer, tuple) else ""


def _proxy_protocol_info(peer: ProxiedPeer) -> dict[str, Any]:
    """What a proxy has told, as Gunicorn's parser of HTTP/1 keeps it."""
    family, client, proxy = peer.addresses
    return {
        "proxy_protocol": family,
        "client_addr": client[0],
        "client_port": client[1],
        "proxy_addr": proxy[0],
        "proxy_port": proxy[1],
    }


class _NoUnreader:
    """Stands in for the input of Gunicorn's HTTP/1 parser."""

    def unread(self, data: bytes) -> None:
        """Ignore `data`: there is no text to put back."""


def joined_fields(head: RequestHead) -> Fields:
    """The fields of a head with `host` first and cookie crumbs joined (RFC 9113 sections 8.3.1 and 8.2.3)."""
    crumbs = [value for name, value in head.fields if name == b"cookie"]
    fields = [(b"host", head.authority)] if head.authority else []
    if len(crumbs) < 2:
        return fields + head.fields
    fields += [field for field in head.fields if field[0] != b"cookie"]
    fields.append((b"cookie", b"; ".join(crumbs)))
    return fields


class StreamRequest(Request):  # type: ignore[misc]
    """Gunicorn's request, made from a request head instead of from text."""

    scheme: str

    def __init__(self, cfg: Any) -> None:
        """Make a blank request, which `for_stream` and `for_log` copy."""
        self._policy_names = policy_names(cfg)
        self._trusted = TrustedPeers(cfg)
        super().__init__(cfg, _NoUnreader(), None)

    def for_stream(self, head: RequestHead, peer: Any, stream_id: int) -> StreamRequest:
        """Return the request of a stream. Raises Gunicorn's `ParseException` for what its rules refuse."""
        request = self._copy(peer, stream_id)
        request._fill(head)
        return request

    def for_log(self, head: RequestHead, peer: Any, stream_id: int) -> StreamRequest:
        """Return a request for the log, its fields unchecked and its URI cut to `limit_request_line`."""
        request = self._copy(peer, stream_id)
        uri = (head.path or head.authority).decode("latin-1")
        request._fill_line(head.method.decode("latin-1"), uri[: self.limit_request_line or None])
        request.headers = [(_upper_name(name), value.decode("latin-1")) for name, value in joined_fields(head)]
        request.body = None
        return request

    def _copy(self, peer: Any, stream_id: int) -> StreamRequest:
        request = StreamRequest.__new__(StreamRequest)
        request.__dict__.update(self.__dict__)
        request.peer_addr = request.remote_addr = connected_peer(peer)
        if isinstance(peer, ProxiedPeer):
            request.proxy_protocol_info = _proxy_protocol_info(peer)
        request.req_number = stream_id
        return request

    def parse(self, unreader: Any) -> bytes:
        """Parse nothing; Gunicorn's constructor calls this."""
        self.version = (2, 0)
        return b""

    def _fill(self, head: RequestHead) -> None:
        uri = head.path.decode("latin-1")
        if 0 < self.limit_request_line < len(uri):
            raise LimitRequestLine(len(uri), self.limit_request_line)
        self._fill_line(head.method.decode("latin-1"), uri)
        scheme = head.scheme.decode("latin-1").lower()
        if scheme != self.scheme and scheme in ("http", "https") and self.peer_addr in self._trusted:
            # A trusted proxy may set its client's scheme, here or by a forwarding header, which comes next.
            self.scheme = scheme
        self.headers = self._apply_policy(joined_fields(head))
        # An interim response on the stream answers Expect, not text on the socket.
        self._expected_100_continue = False

    def _fill_line(self, method: str, uri: str) -> None:
        self.method = method.upper() if self.cfg.casefold_http_method else method
        self.uri = uri
        # The core has checked that the path starts with "/" (or is "*") and has no fragment.
        self.path, _, self.query = uri.partition("?")
        self.fragment = ""

    def set_body_reader(self) -> None:
        """Do nothing: the body is read from the stream."""

    def should_close(self) -> bool:
        """Never: a request does not end its connection."""
        return False

    def _apply_policy(self, fields: Fields) -> list[tuple[str, str]]:
        if len(fields) > self.limit_request_fields:
            raise LimitRequestHeaders("limit request headers fields")
        limit = self.limit_request_field_size
        plain: list[tuple[str, str]] = []
        has_type = False
        for name, value in fields:
            repeated = has_type and name == b"content-type"
            if name in self._policy_names or repeated or b"_" in name:
                parsed: list[tuple[str, str]] = self.parse_headers(_as_text(fields))
                return parsed
            if len(name) + len(value) + 4 > limit > 0:
                raise LimitRequestHeaders("limit request headers fields size")
            has_type = has_type or name == b"content-type"
            plain.append((_upper_name(name), value.decode("latin-1")))
        return plain


def log_environ(request: StreamRequest) -> dict[str, Any]:
    """An environ for the access log of a request without a WSGI environ."""
    told = request.proxy_protocol_info
    environ = {
        "REQUEST_METHOD": request.method,
        "RAW_URI": request.uri,
        "PATH_INFO": request.path,
        "QUERY_STRING": request.query,
        "SERVER_PROTOCOL": "HTTP/2.0",
        "REMOTE_ADDR": told["client_addr"] if told else peer_ip(request.peer_addr) or "-",
        "gunicorn.http2.stream_id": request.req_number,
    }
    for name, value in request.headers:
        environ["HTTP_" + name.replace("-", "_")] = value
    return environ


def _as_text(fields: Fields) -> bytes:
    """The fields as lines of HTTP/1; they contain neither CR nor LF."""
    return b"\r\n".join([b"%s: %s" % field for field in fields])


def _upper_name(name: bytes) -> str:
    known = _upper_names.get(name)
    if known is None:
        known = name.decode("latin-1").upper()
        if len(_upper_names) < _MAX_NAMES and len(name) <= 64:
            _upper_names[name] = known
    return known
