"""The first octets of a connection in the clear: what the client wants to speak.

Prior knowledge shows in the client's preface (RFC 9113 section 3.3), an upgrade in an HTTP/1.1
request (RFC 7540 section 3.2); everything else is HTTP/1.
"""

from __future__ import annotations

from collections.abc import Callable

from gunicorn_h2.protocol.frames import PREFACE
from gunicorn_h2.protocol.upgrade import Upgrade

__all__ = ["Opening", "UpgradeParser"]

UpgradeParser = Callable[[bytes], tuple[Upgrade, bytes] | bool]
"""Judges what has been read: the upgrade and what follows its request; True to wait for more; False for HTTP/1."""


class Opening:
    """Collects octets until it is clear what they are."""

    def __init__(self, preface: bool, parse_upgrade: UpgradeParser | None = None) -> None:
        self.http2 = False
        self.upgrade: Upgrade | None = None
        self.data = b""
        """What was read, without a request that became an upgrade."""
        self._preface = preface
        self._parse_upgrade = parse_upgrade

    def feed(self, data: bytes) -> bool:
        """Take more octets, b"" at the end of the connection; True once it is decided."""
        self.data += data
        if self._preface and self.data.startswith(PREFACE):
            self.http2 = True
            return True
        if not data:
            return True
        if self._preface and PREFACE.startswith(self.data):
            return False
        return self._parse_upgrade is None or self._is_upgrade(self._parse_upgrade)

    def _is_upgrade(self, parse: UpgradeParser) -> bool:
        verdict = parse(self.data)
        if isinstance(verdict, bool):
            return not verdict
        self.upgrade, self.data = verdict
        self.http2 = True
        return True
