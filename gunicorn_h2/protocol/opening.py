"""The first octets of a connection in the clear: what the client wants to speak.

Prior knowledge shows in the client's preface (RFC 9113 section 3.3), an upgrade in an HTTP/1.1
request (RFC 7540 section 3.2); everything else is HTTP/1, and none of its octets is lost.
"""

from __future__ import annotations

from typing import NamedTuple

from .frames import PREFACE
from .upgrade import Upgrade
from .upgrade_reader import NotAnUpgrade, RequestLimits, UpgradeReader

__all__ = ["Cleartext", "Opening"]


class Cleartext(NamedTuple):
    """How HTTP/2 may begin in the clear."""

    prior_knowledge: bool
    """With the client's preface."""
    upgrade: RequestLimits | None = None
    """With an HTTP/1.1 request within these limits; None: not that way."""


class Opening:
    """Collects octets until it is clear what they are."""

    def __init__(self, cleartext: Cleartext) -> None:
        self.http2 = False
        self.upgrade: Upgrade | None = None
        """The request that asked for HTTP/2, if one did."""
        self._octets = bytearray()
        self._prior_knowledge = cleartext.prior_knowledge
        self._reader = None if cleartext.upgrade is None else UpgradeReader(cleartext.upgrade)

    @property
    def data(self) -> bytes:
        """What was read, without a request that became an upgrade."""
        return bytes(self._octets)

    def feed(self, data: bytes) -> bool:
        """Take more octets, b"" at the end of the connection; True once it is decided."""
        octets = self._octets
        octets += data
        if self._prior_knowledge and octets.startswith(PREFACE):
            self.http2 = True
            return True
        if not data:
            return True
        if self._prior_knowledge and PREFACE.startswith(octets):
            return False
        return self._reader is None or self._is_decided(self._reader)

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
