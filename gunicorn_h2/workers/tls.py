"""TLS for a worker: one context, made once from Gunicorn's settings."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any

from gunicorn import sock as gunicorn_sock

__all__ = ["TLSWrapper", "make_context", "make_wrapper"]

_OPENSSL_TICKETS = 2

TLSWrapper = Callable[[socket.socket], ssl.SSLSocket]


def make_context(cfg: Any, protocols: tuple[str, ...]) -> ssl.SSLContext:
    """Gunicorn's context, its `ssl_context` hook included, made fit for HTTP/2 (RFC 9113 section 9.2).

    TLS 1.2 or newer, without compression and renegotiation; ALPN offers `protocols` in their order. A
    client gets one session ticket, unless the hook sets another number: OpenSSL's two are meant for
    clients that open several connections, and each costs as much as a tenth of the handshake.
    """
    context: ssl.SSLContext = gunicorn_sock.ssl_context(cfg)
    if context.minimum_version not in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if context.num_tickets == _OPENSSL_TICKETS:
        context.num_tickets = 1
    context.set_alpn_protocols(list(protocols))
    return context


def make_wrapper(cfg: Any, protocols: tuple[str, ...]) -> TLSWrapper:
    """Return what puts TLS around an accepted socket; the handshake is still to come."""
    return partial(
        make_context(cfg, protocols).wrap_socket,
        server_side=True,
        do_handshake_on_connect=False,
        suppress_ragged_eofs=cfg.suppress_ragged_eofs,
    )
