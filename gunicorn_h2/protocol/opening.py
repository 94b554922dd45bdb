"""Which protocol a cleartext connection speaks, from its first octets.

The client's preface means HTTP/2 by prior knowledge (RFC 9113 section 3.3); an HTTP/1.1 request may ask for an
upgrade (RFC 7540 section 3.2). Other requests of HTTP/1 are left to its parser, and none of their octets is lost.
Where prior knowledge is allowed, anything else is a wrong preface: an error of HTTP/2 (RFC 9113 section 3.4).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .frames import PREFACE
from .headers import TOKEN_OCTETS
from .upgrade import Upgrade
from .upgrade_reader import NotAnUpgrade, RequestLimits, UpgradeReader

__all__ = ["Cleartext", "Opening"]

# RFC 9112 section 3: a request line, of any version that HTTP/1's parser may have an answer for.
_is_request_line = re.compile(rb"[%b]+ [^\x00-\x20\x7f]+ HTTP/[0-9]\.[0-9]\r?\n" % TOKEN_OCTETS).match
# What no request line begins with, or contains.
_is_no_line = re.compile(rb"\A[^%b]|[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f]" % TOKEN_OCTETS).search
# HTTP/1's parser may skip empty lines (RFC 9112 section 2.2), and take the line of a proxy.
_NOT_HTTP2 = (b"\r", b"\n", b"PROXY ")
_PREFACE_LINE = PREFACE[: PREFACE.index(b"\n") + 1]
_MAX_LINE_SIZE = 8192
"""Octets without an end of line that are left to HTTP/1, which answers a line that is too long."""


class Cleartext(NamedTuple):
    """How HTTP/2 may begin on a cleartext connection."""

    prior_knowledge: bool
    """Whether the client may begin with its preface."""
    upgrade: RequestLimits | None = None
    """Limits on an HTTP/1.1 request that asks for an upgrade; None: no upgrade."""


class Opening:
    """Collects the first octets of a connection until they tell its protocol."""

    def __init__(self, cleartext: Cleartext) -> None:
        self.http2 = False
        """Whether the client speaks HTTP/2, or nothing that is known; final once `feed` has returned True."""
        self.upgrade: Upgrade | None = None
        """The request that asked for an upgrade; None without one."""
        self._octets = bytearray()
        self._is_http1 = not cleartext.prior_knowledge
        self._reader = None if cleartext.upgrade is None else UpgradeReader(cleartext.upgrade)

    @property
    def data(self) -> bytes:
        """The octets read, except those of an upgrade request."""
        return bytes(self._octets)

    def feed(self, data: bytes) -> bool:
        """Take more octets, b"" at the end of the connection; return whether the protocol is decided."""
        octets = self._octets
        octets += data
        if not self._is_http1:
            if octets.startswith(PREFACE):
                self.http2 = True
                return True
            if PREFACE.startswith(octets) and data:
                return False
            if not self._first_line_decides(not data):
                return False
            if self.http2:
                return True
        return not data or self._reader is None or self._is_decided(self._reader)

    def _first_line_decides(self, ended: bool) -> bool:
        """Tell HTTP/1 from a wrong preface by the first line; return False if more octets are needed for that."""
        octets = self._octets
        if octets.startswith(_NOT_HTTP2) or not octets:
            self._is_http1 = True
        elif octets.startswith(_PREFACE_LINE):
            self.http2 = True
        elif b"\n" in octets or ended:
            self._is_http1 = _is_request_line(octets) is not None
            self.http2 = not self._is_http1
        elif _is_no_line(octets):
            self.http2 = True
        elif len(octets) > _MAX_LINE_SIZE:
            self._is_http1 = True
        else:
            return False
        return True

    def _is_decided(self, reader: UpgradeReader) -> bool:
        try:
            self.upgrade = reader.read(self._octets)
        except NotAnUpgrade:
            return True
        if self.upgrade is None:
            return False
        del self._octets[: reader.end]
        self.http2 = True
        return True
