"""TLS for a worker: one context, made from Gunicorn's settings."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any

from gunicorn import sock as gunicorn_sock

__all__ = ["TLSWrapper", "keep_secrets", "make_context", "make_wrapper"]

_OPENSSL_TICKETS = 2

TLSWrapper = Callable[[socket.socket], ssl.SSLSocket]
"""Wraps an accepted socket in TLS."""


def make_context(cfg: Any, protocols: tuple[str, ...]) -> ssl.SSLContext:
    """Make Gunicorn's context, with its `ssl_context` hook, and adapt it to HTTP/2 (RFC 9113 section 9.2).

    TLS 1.2 or newer, without compression and renegotiation; ALPN offers `protocols` in their order. A
    client gets one session ticket, unless the hook sets another number: OpenSSL's default of two is for clients
    that open several connections, and each ticket costs a tenth of a handshake.
    """
    context: ssl.SSLContext = gunicorn_sock.ssl_context(cfg)
    if context.minimum_version not in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if context.num_tickets == _OPENSSL_TICKETS:
        context.num_tickets = 1
    context.set_alpn_protocols(list(protocols))
    return context


def keep_secrets(context: ssl.SSLContext, keylog: str) -> None:
    """Have the secrets of all connections written to a file. Raises `OSError` if it cannot be written."""
    # Made here, it is readable by its owner alone.
    os.close(os.open(keylog, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
    context.keylog_filename = keylog


def make_wrapper(context: ssl.SSLContext, cfg: Any) -> TLSWrapper:
    """Return a function that wraps an accepted socket in TLS, before its handshake."""
    return partial(
        context.wrap_socket,
        server_side=True,
        do_handshake_on_connect=False,
        suppress_ragged_eofs=cfg.suppress_ragged_eofs,
    )
