"""The server's keep-alive PINGs (RFC 9113 section 6.7): a peer that has vanished without closing is noticed.

A peer from which nothing has come for `keepalive_interval` seconds is sent a PING. Whatever comes then is an answer. If
nothing does within `keepalive_timeout` seconds, the peer is gone: its host, its network, or a middlebox's memory of
the connection.

Nothing is done as frames arrive: the receiver notes the time of each read anyway. A peer in the middle of a large
response on a slow path may have nothing to say for long, and the PING stands behind what is on the way to it. So the
time for the answer begins anew as long as that has not been taken, and the peer's TCP acknowledges some of it.
"""

from __future__ import annotations

import math

from .config import ConnectionConfig
from .probe import Probe

__all__ = ["KeepAlive"]

# An answer may have arrived while the server was busy, or stopped: a driver reads before the next deadline.
_GRACE = 0.1


class KeepAlive:
    """Watches the silence of one peer."""

    __slots__ = ("deadline", "_asked_at", "_behind", "_interval", "_is_overdue", "_probe", "_taken", "_timeout")

    def __init__(self, config: ConnectionConfig, probe: Probe, now: float) -> None:
        self._interval = config.keepalive_interval or math.inf
        self._timeout = config.keepalive_timeout
        self._probe = probe
        self._asked_at = math.inf
        """When the PING was sent that is to be answered; infinite: none was."""
        self._behind = 0
        """The octets of this connection that were sent before it."""
        self._taken = 0
        """How many of them had been taken when the time for the answer began."""
        self._is_overdue = False
        """Whether that time has passed."""
        self.deadline = now + self._interval
        """When to call `check`; infinite: never."""

    def check(self, now: float, heard_at: float, taken: int, sent: int) -> bool:
        """Send a PING if it is time to; return whether the peer is gone.

        `heard_at` is when octets last came from the peer; its TCP has acknowledged `taken` of `sent` octets.
        """
        if heard_at >= self._asked_at:
            self._asked_at = math.inf
        if self._asked_at == math.inf:
            self.deadline = heard_at + self._interval
            if self.deadline > now:
                return False
            self._asked_at, self._behind = now, sent
            self._probe.ask()
        elif taken <= self._taken or self._taken >= self._behind:
            is_gone, self._is_overdue = self._is_overdue, True
            self.deadline = now + _GRACE
            return is_gone
        self._taken, self._is_overdue = taken, False
        self.deadline = now + self._timeout
        return False
