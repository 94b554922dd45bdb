"""The TLS context of a worker, made once from Gunicorn's settings."""

from __future__ import annotations

import ssl
from typing import Any

from gunicorn import sock as gunicorn_sock

__all__ = ["make_context"]


def make_context(cfg: Any, protocols: tuple[str, ...]) -> ssl.SSLContext:
    """Gunicorn's context, its `ssl_context` hook included, made fit for HTTP/2 (RFC 9113 section 9.2).

    TLS 1.2 or newer, without compression and renegotiation; ALPN offers `protocols` in their order.
    """
    context: ssl.SSLContext = gunicorn_sock.ssl_context(cfg)
    if context.minimum_version not in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(list(protocols))
    return context
