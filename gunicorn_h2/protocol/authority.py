"""The names that a certificate covers, and the authorities of requests that it does not (RFC 9110 section 7.4).

A client may send requests for several hosts over one connection, if the certificate is valid for each of them (RFC 9113
section 9.1.1). Others have been misdirected, by a mistake of theirs or by someone between.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

__all__ = ["CertificateNames"]

# ASN.1 tags in DER: the extensions of a TBSCertificate (RFC 5280 section 4.1), and names (section 4.2.1.6).
_EXTENSIONS, _DNS_NAME, _IP_ADDRESS = 0xA3, 0x82, 0x87
_SUBJECT_ALT_NAME = b"\x55\x1d\x11"


class CertificateNames:
    """The DNS names and IP addresses of a certificate's subjectAltName; of its other names none counts (RFC 9525)."""

    __slots__ = ("_addresses", "hosts", "parents")

    def __init__(self, der: bytes) -> None:
        """`der` is the certificate, which is our own: what is malformed raises anything."""
        names = list(_alternative_names(der))
        hosts = {name.lower() for tag, name in names if tag == _DNS_NAME}
        self.hosts = {host for host in hosts if not host.startswith(b"*")}
        """The DNS names, in lower case."""
        self.parents = {host[2:] for host in hosts if host.startswith(b"*.")}
        """What is behind a wildcard, which stands for the whole of the first label (RFC 9525 section 6.3)."""
        self._addresses = {name for tag, name in names if tag == _IP_ADDRESS}

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.hosts or self.parents or self._addresses)

    def covers(self, authority: bytes) -> bool:
        """Whether the certificate is valid for the host of an authority; the port does not matter, nor does no host."""
        if authority.startswith(b"["):
            host, _, port = authority[1:].partition(b"]")
            return port[:1] in (b"", b":") and self._has_address(ipaddress.IPv6Address, host)
        host = authority.partition(b":")[0].lower()
        if not host or host in self.hosts:
            return True
        if host.replace(b".", b"").isdigit():
            return self._has_address(ipaddress.IPv4Address, host)
        host = host.removesuffix(b".")
        label, _, parent = host.partition(b".")
        return host in self.hosts or (label != b"" and parent in self.parents)

    def _has_address(self, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address], host: bytes) -> bool:
        try:
            return kind(host.decode("ascii")).packed in self._addresses
        except ValueError:
            return False


def _alternative_names(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The names of the subjectAltName, with their tags."""
    (_, certificate), *_ = _elements(der)
    (_, signed), *_ = _elements(certificate)
    for tag, content in _elements(signed):
        if tag != _EXTENSIONS:
            continue
        ((_, extensions),) = _elements(content)
        for _, extension in _elements(extensions):
            (_, identifier), *_, (_, value) = _elements(extension)
            if identifier == _SUBJECT_ALT_NAME:
                ((_, names),) = _elements(value)
                yield from _elements(names)


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The tag, which is one octet in all certificates, and the content of each element of a sequence in DER."""
    position = 0
    while position < len(der):
        tag, length = der[position], der[position + 1]
        position += 2
        if length & 0x80:
            octets = length & 0x7F
            length = int.from_bytes(der[position : position + octets], "big")
            position += octets
        yield tag, der[position : position + length]
        position += length
