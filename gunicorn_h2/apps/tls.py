"""TLS for applications: in the environ by the names of Apache's mod_ssl, in the scope as ASGI's `tls` extension."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from gunicorn_h2.drivers.certificates import Certificates
from gunicorn_h2.drivers.transport import TlsSession, Transport

__all__ = ["TlsExtension", "tls_environ"]

# The short names of attribute types in RFC 4514 section 3, and the usual one of e-mail addresses.
_SHORT_NAMES = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
    "emailAddress": "emailAddress",
}
# Those that HTTP/2 allows (RFC 9113 section 9.2).
_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2.value, "TLSv1.3": ssl.TLSVersion.TLSv1_3.value}
_ESCAPES = str.maketrans({character: f"\\{character}" for character in ',+"\\<>;'} | {"\0": "\\00"})


def tls_environ(session: TlsSession) -> dict[str, str]:
    """The TLS part of an environ: HTTPS, SSL_PROTOCOL, SSL_CIPHER, and the client's certificate.

    `SSL_CLIENT_VERIFY` is SUCCESS if the client presented a certificate and it was verified, else NONE.
    Distinguished names are in the form of RFC 4514; times are as `ssl.SSLSocket.getpeercert` gives them.
    """
    environ = {
        "HTTPS": "on",
        "SSL_PROTOCOL": session.version,
        "SSL_CIPHER": session.cipher,
        "SSL_CLIENT_VERIFY": "NONE",
    }
    if session.certificate:
        pem = ssl.DER_cert_to_PEM_cert(session.chain[0])
        environ.update(_client_environ(session.certificate), SSL_CLIENT_CERT=pem)
    return environ


class TlsExtension:
    """Makes the `tls` extension of ASGI's TLS specification (version 0.2); one for each worker."""

    def __init__(self, certificates: Certificates) -> None:
        """`certificates` tells what the server presents."""
        self._certificates = certificates
        self._suites: dict[str, int] = {}
        """The numbers of cipher suites by the names that OpenSSL has for them."""

    def make(self, transport: Transport) -> dict[str, Any] | None:
        """Make the extension for the requests of a connection; None without TLS.

        A certificate that is not verified ends the handshake, so that `client_cert_error` is always None.
        """
        session, sock = transport.session, transport.sock
        if session is None or not isinstance(sock, ssl.SSLSocket):
            return None
        server = self._certificates.presented(sock.context)
        client = session.certificate
        return {
            "server_cert": None if server is None else ssl.DER_cert_to_PEM_cert(server),
            "client_cert_chain": tuple(map(ssl.DER_cert_to_PEM_cert, session.chain)),
            "client_cert_name": None if client is None else _distinguished_name(client.get("subject", ())),
            "client_cert_error": None,
            "tls_version": _VERSIONS.get(session.version),
            "cipher_suite": self._suite(session.cipher, sock.context),
        }

    def _suite(self, name: str, context: ssl.SSLContext) -> int | None:
        if name not in self._suites:
            # OpenSSL keeps the number of the specifications in the lower half of its own.
            self._suites.update({suite["name"]: suite["id"] & 0xFFFF for suite in context.get_ciphers()})
        return self._suites.get(name)


def _client_environ(certificate: Mapping[str, object]) -> dict[str, str]:
    return {
        "SSL_CLIENT_VERIFY": "SUCCESS",
        "SSL_CLIENT_M_VERSION": str(certificate.get("version", "")),
        "SSL_CLIENT_M_SERIAL": str(certificate.get("serialNumber", "")),
        "SSL_CLIENT_S_DN": _distinguished_name(certificate.get("subject", ())),
        "SSL_CLIENT_I_DN": _distinguished_name(certificate.get("issuer", ())),
        "SSL_CLIENT_V_START": str(certificate.get("notBefore", "")),
        "SSL_CLIENT_V_END": str(certificate.get("notAfter", "")),
    }


def _distinguished_name(name: object) -> str:
    """A name in the form of RFC 4514, the most specific part first."""
    assert isinstance(name, tuple)
    parts = []
    for relative in reversed(name):
        parts.append("+".join(f"{_SHORT_NAMES.get(kind, kind)}={_escaped(value)}" for kind, value in relative))
    return ",".join(parts)


def _escaped(value: str) -> str:
    """Escape a value (RFC 4514 section 2.4): some characters anywhere, a leading "#", a space at either end."""
    escaped = value.translate(_ESCAPES)
    if escaped.startswith((" ", "#")):
        escaped = "\\" + escaped
    if escaped.endswith(" ") and len(value) > 1:
        escaped = escaped[:-1] + "\\ "
    return escaped
