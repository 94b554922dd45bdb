"""Which protocol a cleartext connection speaks, from its first octets.

The client's preface means HTTP/2 by prior knowledge (RFC 9113 section 3.3); an HTTP/1.1 request may ask for an
upgrade (RFC 7540 section 3.2). Everything else is HTTP/1, and none of its octets is lost.
"""

from __future__ import annotations

from typing import NamedTuple

from .frames import PREFACE
from .upgrade import Upgrade
from .upgrade_reader import NotAnUpgrade, RequestLimits, UpgradeReader

__all__ = ["Cleartext", "Opening"]


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
        """Whether the client speaks HTTP/2; final once `feed` has returned True."""
        self.upgrade: Upgrade | None = None
        """The request that asked for an upgrade; None without one."""
        self._octets = bytearray()
        self._prior_knowledge = cleartext.prior_knowledge
        self._reader = None if cleartext.upgrade is None else UpgradeReader(cleartext.upgrade)

    @property
    def data(self) -> bytes:
        """The octets read, except those of an upgrade request."""
        return bytes(self._octets)

    def feed(self, data: bytes) -> bool:
        """Take more octets, b"" at the end of the connection; return whether the protocol is decided."""
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
