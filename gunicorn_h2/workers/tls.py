"""TLS for a worker: contexts made from Gunicorn's settings, one for each certificate, chosen by the client's SNI."""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from gunicorn import sock as gunicorn_sock

from gunicorn_h2.drivers.log import Log
from gunicorn_h2.drivers.private_file import open_private
from gunicorn_h2.protocol.authority import CertificateNames

from .kinds import CertificatePair

__all__ = ["Keylog", "TLSWrapper", "certificate_files", "make_context", "make_wrapper"]

_OPENSSL_TICKETS = 2
_find_certificate = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL).search

TLSWrapper = Callable[[socket.socket], ssl.SSLSocket]
"""Wraps an accepted socket in TLS."""
_SNICallback = Callable[[Any, Any, ssl.SSLContext], "int | None"]


class _OtherCertificate:
    """Gunicorn's configuration, with another certificate."""

    def __init__(self, cfg: Any, pair: CertificatePair) -> None:
        self.certfile = pair.certificate
        self.keyfile = pair.key
        self._cfg = cfg

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cfg, name)


class _ContextsByName:
    """The contexts of further certificates, by the names that these are for."""

    def __init__(self, otherwise: _SNICallback | None) -> None:
        """`otherwise` is called for names that no certificate is for."""
        self._otherwise = otherwise
        # None stands for the context that the connection has: a reference to it would be a cycle.
        self._hosts: dict[bytes, ssl.SSLContext | None] = {}
        self._parents: dict[bytes, ssl.SSLContext | None] = {}

    def add(self, names: CertificateNames, context: ssl.SSLContext | None) -> None:
        """Add a context for the names of its certificate, except those that have one."""
        for host in names.hosts:
            self._hosts.setdefault(host, context)
        for parent in names.parents:
            self._parents.setdefault(parent, context)

    def choose(self, sock: Any, name: str | None, initial: ssl.SSLContext) -> int | None:
        """Have a connection continue with the context for a name; see `ssl.SSLContext.sni_callback`."""
        host = (name or "").lower().encode("latin-1", "replace")
        for known, key in ((self._hosts, host), (self._parents, host.partition(b".")[2])):
            if key in known:
                context = known[key]
                if context is not None:
                    sock.context = context
                return None
        return None if self._otherwise is None else self._otherwise(sock, name, initial)


class Keylog:
    """The file of `http2_keylog`, for all contexts of a worker."""

    def __init__(self, path: str, log: Log) -> None:
        """The file is opened by `open_private`, which makes it if there is none. Raises `OSError`."""
        self._path = path
        self._log = log
        self._failed = False
        self._open()

    def keep(self, context: ssl.SSLContext) -> None:
        """Have the secrets of a context's connections written to the file.

        If the file cannot be opened any more, go on without it, and warn of that once: a worker that has dropped its
        privileges may not open a file of root's again, and that is no reason to keep a certificate until it expires.
        """
        try:
            self._open()
            context.keylog_filename = self._path
        except OSError as error:
            if not self._failed:
                self._failed = True
                self._log.warning("Secrets of new connections are not written any more: %s", error)

    def _open(self) -> None:
        # OpenSSL opens it once more, by its name: nobody else can exchange what is the user's own in a directory that
        # is sticky, or the user's own.
        os.close(open_private("http2_keylog", self._path))


def make_context(
    cfg: Any, protocols: tuple[str, ...], others: Sequence[CertificatePair] = (), keylog: Keylog | None = None
) -> ssl.SSLContext:
    """Make Gunicorn's context, with its `ssl_context` hook, and adapt it to HTTP/2 (RFC 9113 section 9.2).

    TLS 1.2 or newer, without compression and renegotiation; ALPN offers `protocols` in their order. A
    client gets one session ticket, unless the hook sets another number: OpenSSL's default of two is for clients
    that open several connections, and each ticket costs a tenth of a handshake.

    With `others`, a client is shown the certificate that its SNI names: one with the very name, else one with a
    wildcard for it, the first of several, else `certfile`. The hook is called for each, with a configuration
    that has its files. Raises OSError, of which ssl.SSLError is a subclass, ValueError, or what the hook raises.

    With `keylog`, the secrets of all connections go to its file.
    """
    context = _make_one(cfg, protocols, keylog)
    if others:
        contexts = _ContextsByName(context.sni_callback)
        if cfg.certfile:
            contexts.add(_names_in(cfg.certfile), None)
        for pair in others:
            contexts.add(_names_of(pair), _make_one(_OtherCertificate(cfg, pair), protocols, keylog))
        context.sni_callback = contexts.choose
    return context


def _make_one(cfg: Any, protocols: tuple[str, ...], keylog: Keylog | None) -> ssl.SSLContext:
    context: ssl.SSLContext = gunicorn_sock.ssl_context(cfg)
    if context.minimum_version not in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if context.num_tickets == _OPENSSL_TICKETS:
        context.num_tickets = 1
    context.set_alpn_protocols(list(protocols))
    if keylog is not None:
        keylog.keep(context)
    return context


def _names_of(pair: CertificatePair) -> CertificateNames:
    names = _names_in(pair.certificate)
    if not names.hosts and not names.parents:
        raise ValueError(f"{pair.certificate} has no DNS name in its subjectAltName, by which clients could ask for it")
    return names


def _names_in(certfile: str) -> CertificateNames:
    """The names of the first certificate in a file."""
    with open(certfile, encoding="latin-1") as file:
        certificate = _find_certificate(file.read())
    if certificate is None:
        raise ValueError(f"{certfile} has no certificate in PEM")
    return CertificateNames(ssl.PEM_cert_to_DER_cert(certificate[0]))


def certificate_files(cfg: Any, others: Sequence[CertificatePair]) -> list[str]:
    """The files that `make_context` reads, each once."""
    files = [cfg.certfile, cfg.keyfile, cfg.ca_certs, *(file for pair in others for file in pair)]
    return list(dict.fromkeys(filter(None, files)))


def make_wrapper(context: ssl.SSLContext, cfg: Any) -> TLSWrapper:
    """Return a function that wraps an accepted socket in TLS, before its handshake."""
    return partial(
        context.wrap_socket,
        server_side=True,
        do_handshake_on_connect=False,
        suppress_ragged_eofs=cfg.suppress_ragged_eofs,
    )
