"""The header of the PROXY protocol: with it, a proxy begins a connection by telling its client's address.

Version 1 is a line of text, version 2 is binary; both are described in HAProxy's doc/proxy-protocol.txt. The octets
behind the header, TLS or HTTP, are for others: `ProxyHeaderReader` says how many of those that have arrived it takes.

A header without addresses (LOCAL, UNKNOWN, AF_UNSPEC) leaves the connection the addresses that it has.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

__all__ = ["MAX_PROXY_HEADER_SIZE", "ProxyAddresses", "ProxyHeaderError", "ProxyHeaderReader", "ProxyVersions"]

MAX_PROXY_HEADER_SIZE = 4096
"""Octets of a header of version 2, its TLVs included; nginx has the same limit."""

_V1_SIGNATURE = b"PROXY "
_V1_MAX_SIZE = 107
_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEAD_SIZE = 16
_V2_VERSION, _V2_COMMANDS, _V2_LOCAL = 2, (0, 1), 0
_V2_UNSPEC, _V2_STREAM = 0, 1
# By the address family of version 2: the name in version 1, and the octets of an address.
_V2_FAMILIES = {1: ("TCP4", 4), 2: ("TCP6", 16)}

# RFC 4291 sections 2.5.5.2 and 2.5.5.1: what stands before an address of IPv4.
_MAPPED, _COMPATIBLE = bytes(10) + b"\xff\xff", bytes(12)

# Section 2.1: exactly one space between the parts, and no leading zeros.
_v1_line = re.compile(rb"PROXY (TCP[46]) ([^ %]+) ([^ %]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})").fullmatch
_is_v1_unknown = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?").fullmatch

_Address = tuple[str, int]


class ProxyHeaderError(ValueError):
    """The header is malformed, or must not come from this peer."""


class ProxyVersions(NamedTuple):
    """The versions of the header that are read; of the others, the first octets are no header."""

    v1: bool
    v2: bool


class ProxyAddresses(NamedTuple):
    """What a header tells of the connection between the client and the proxy."""

    family: str
    """TCP4 or TCP6."""
    client: _Address
    """The client's address and port."""
    proxy: _Address
    """The address and port that the client has connected to."""


class ProxyHeaderReader:
    """Reads the header of one connection, in whatever pieces it arrives."""

    def __init__(self, versions: ProxyVersions) -> None:
        self._versions = versions
        self.octets = b""
        """The octets taken so far: of the header, or of what may become one."""
        self.ended = False
        """Whether the header is complete, or there is none."""
        self.found = False
        """Whether the connection begins with the signature of a header."""
        self.addresses: ProxyAddresses | None = None
        """What the header has told; None if it has told nothing."""

    def feed(self, arrived: bytes) -> int:
        """Look at octets that have arrived; return how many of them it takes, which are not to be fed again.

        Raises `ProxyHeaderError`, without taking any of them.
        """
        octets = self.octets + arrived
        if not self.found:
            self.found = (self._versions.v1 and octets.startswith(_V1_SIGNATURE)) or (
                self._versions.v2 and octets.startswith(_V2_SIGNATURE)
            )
        if not self.found:
            self.ended = not self._may_begin(octets)
            size = len(self.octets) if self.ended else len(octets)
        elif octets.startswith(_V1_SIGNATURE):
            size = self._read_v1(octets)
        else:
            size = self._read_v2(octets)
        taken = size - len(self.octets)
        self.octets = octets[:size]
        return taken

    def _may_begin(self, octets: bytes) -> bool:
        """Whether octets may become the signature of a header."""
        return (self._versions.v1 and _V1_SIGNATURE.startswith(octets)) or (
            self._versions.v2 and _V2_SIGNATURE.startswith(octets)
        )

    def _read_v1(self, octets: bytes) -> int:
        """Return the size of the header, as far as it has arrived."""
        end = octets.find(b"\r\n", 0, _V1_MAX_SIZE)
        if end < 0:
            if len(octets) >= _V1_MAX_SIZE:
                raise ProxyHeaderError("the line is too long")
            return len(octets)
        self.addresses = _v1_addresses(octets[:end])
        self.ended = True
        return end + 2

    def _read_v2(self, octets: bytes) -> int:
        """Return the size of the header, as far as it has arrived."""
        if len(octets) < _V2_HEAD_SIZE:
            return len(octets)
        version, command = divmod(octets[12], 16)
        if version != _V2_VERSION or command not in _V2_COMMANDS:
            raise ProxyHeaderError(f"version and command are {octets[12]:#04x}")
        size = _V2_HEAD_SIZE + int.from_bytes(octets[14:_V2_HEAD_SIZE], "big")
        if size > MAX_PROXY_HEADER_SIZE:
            raise ProxyHeaderError(f"it has {size} octets")
        if len(octets) < size:
            return len(octets)
        if command != _V2_LOCAL:
            self.addresses = _v2_addresses(octets[13], octets[_V2_HEAD_SIZE:size])
        self.ended = True
        return size


def _v1_addresses(line: bytes) -> ProxyAddresses | None:
    if _is_v1_unknown(line):
        return None
    match = _v1_line(line)
    if match is None:
        raise ProxyHeaderError("the line is malformed")
    family, client, proxy, client_port, proxy_port = match[0].decode("latin-1").split(" ")[1:]
    kind = ipaddress.IPv4Address if family == "TCP4" else ipaddress.IPv6Address
    try:
        kind(client), kind(proxy)
    except ValueError:
        raise ProxyHeaderError(f"not addresses of {family}") from None
    if max(int(client_port), int(proxy_port)) > 65_535:
        raise ProxyHeaderError("the port is too large")
    return ProxyAddresses(family, (client, int(client_port)), (proxy, int(proxy_port)))


def _v2_addresses(kind: int, block: bytes) -> ProxyAddresses | None:
    """Read the addresses; TLVs follow them in the block."""
    family, protocol = divmod(kind, 16)
    if family == _V2_UNSPEC:
        return None
    if family not in _V2_FAMILIES or protocol != _V2_STREAM:
        raise ProxyHeaderError(f"family and protocol are {kind:#04x}")
    name, size = _V2_FAMILIES[family]
    if len(block) < 2 * size + 4:
        raise ProxyHeaderError("the addresses are cut off")
    client, proxy, ports = block[:size], block[size : 2 * size], block[2 * size :]
    return ProxyAddresses(
        name,
        (_as_text(client), int.from_bytes(ports[:2], "big")),
        (_as_text(proxy), int.from_bytes(ports[2:4], "big")),
    )


def _as_text(packed: bytes) -> str:
    """Return an address as the C library writes it, and so Gunicorn: one of IPv4 within IPv6 with its dots."""
    before, last = packed[:-4], packed[-4:]
    if before == _MAPPED:
        return f"::ffff:{ipaddress.IPv4Address(last)}"
    if before == _COMPATIBLE and last[:2] != b"\0\0":
        return f"::{ipaddress.IPv4Address(last)}"
    return str(ipaddress.ip_address(packed))
