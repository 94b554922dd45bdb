"""TLS information for the WSGI environ, by the names of Apache's mod_ssl."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from gunicorn_h2.drivers.transport import TlsSession

__all__ = ["tls_environ"]

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
    if session.certificate and session.der:
        environ.update(_client_environ(session.certificate), SSL_CLIENT_CERT=ssl.DER_cert_to_PEM_cert(session.der))
    return environ


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
