"""The upgrade from HTTP/1.1 to HTTP/2 in the clear: Gunicorn's parser reads the request that asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gunicorn.http import get_parser
from gunicorn.http.errors import ParseException

from gunicorn_h2.protocol.upgrade import Upgrade, validate_upgrade

__all__ = ["parse_upgrade"]

MAX_BODY_SIZE = 65_536
"""A larger body is left to HTTP/1: an upgraded request's is held in memory."""
_END_OF_HEAD = b"\r\n\r\n"


class _Incomplete(Exception):
    """The parser asks for more than was read; to it, the end of its input may be an error of the client's."""


def parse_upgrade(cfg: Any, peer: Any, data: bytes) -> tuple[Upgrade, bytes] | bool:
    """See `UpgradeParser`."""
    head, found, _ = data.partition(_END_OF_HEAD)
    max_head_size = cfg.limit_request_line + cfg.limit_request_fields * (cfg.limit_request_field_size + 2)
    if not found:
        return len(data) <= (max_head_size or MAX_BODY_SIZE)
    if b"http2-settings" not in head.lower():
        return False
    try:
        return _parse(cfg, peer, data)
    except _Incomplete:
        return len(data) <= len(head) + MAX_BODY_SIZE
    except (ParseException, OSError, ValueError):
        # Gunicorn's own code will find the same error, and knows how to answer.
        return False


def _parse(cfg: Any, peer: Any, data: bytes) -> tuple[Upgrade, bytes] | bool:
    parser = get_parser(cfg, _source(data), peer)
    request = next(parser)
    if request.version != (1, 1):
        return False
    if any(name == "EXPECT" for name, _ in request.headers):
        # The body will not come before a 100, which HTTP/1 has to send.
        return False
    lengths = [int(value) for name, value in request.headers if name == "CONTENT-LENGTH"]
    if lengths and lengths[0] > MAX_BODY_SIZE:
        return False
    body = request.body.read() or b""
    if len(body) > MAX_BODY_SIZE:
        return False
    fields = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers]
    upgrade = validate_upgrade(request.method.encode("latin-1"), request.uri.encode("latin-1"), fields, body)
    return (upgrade, parser.unreader.buf.getvalue()) if upgrade is not None else False


def _source(data: bytes) -> Iterator[bytes]:
    yield data
    raise _Incomplete
