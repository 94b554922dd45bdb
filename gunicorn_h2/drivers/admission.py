"""Which new connections a worker takes: by how many their address has open, and by what the address has cost lately.

An attacker whose connection was ended opens another one. So an address is charged for each connection that a limit
has ended and for each failed handshake, and one that was charged too much is refused: its connections are closed
right after they were accepted, before any TLS. A first refusal lasts a second, the longest eight: others behind the
same address are not shut out for long, and what they have open already goes on.

Behind a trusted proxy all clients have one address, which is never refused, unless the proxy tells theirs by the PROXY
protocol.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable

from .closings import REPORT_SECONDS, Closings
from .log import Log, Throttle, host_text

__all__ = [
    "ACCEPT_RETRY_SECONDS",
    "CALM_COST",
    "HANDSHAKE_COST",
    "HARMLESS_ACCEPT_ERRORS",
    "Admission",
    "network_of",
    "reset",
]

HARMLESS_ACCEPT_ERRORS = (
    errno.EAGAIN,
    errno.EWOULDBLOCK,
    errno.EINTR,
    errno.ECONNABORTED,
    errno.EPROTO,
    errno.EPERM,
)
"""Another worker was faster, the client is gone, or a firewall has refused it: nothing that waiting would mend."""
ACCEPT_RETRY_SECONDS = 1.0
"""From an `accept` that failed otherwise, for want of file descriptors for instance, to the next one."""

CALM_COST = 8.0
"""What a connection costs that ended with ENHANCE_YOUR_CALM; one that used half of its budgets, half of that."""
HANDSHAKE_COST = 1.0
"""What a failed handshake costs. A successful one gives as much back."""
_MAX_COST = 40.0
_COST_DECAY = 4.0
"""Cost that is forgotten in a second."""
_FIRST_REFUSAL, _LONGEST_REFUSAL = 1.0, 8.0
"""Seconds; each refusal lasts twice as long as the one before."""
_MEMORY = 60.0
"""Seconds without a refusal after which the next one is a first one."""
_MAX_ADDRESSES = 4096
_RESERVE = 16
"""Of `max_connections`, one in so many places is kept free for newcomers, as by nginx."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def network_of(peer: object) -> bytes | None:
    """The address of a peer in network order, of IPv6 its /64 network; None for one without an IP address.

    A /64 is what a single customer gets, who can use any address of it (RFC 6177).
    """
    if not isinstance(peer, tuple):
        return None
    try:
        address = ipaddress.ip_address(peer[0].partition("%")[0])
    except ValueError:
        return None
    if address.version == 6:
        return address.ipv4_mapped.packed if address.ipv4_mapped else address.packed[:8]
    return address.packed


class _Record:
    """What an address has cost."""

    __slots__ = ("cost", "refusals", "refused_until", "updated")

    def __init__(self, now: float) -> None:
        self.cost = 0.0
        self.updated = now
        self.refused_until = 0.0
        self.refusals = 0


class Admission:
    """Decides about the new connections of one worker; used by the thread that owns its connections."""

    def __init__(
        self,
        log: Log,
        max_connections: int = 1000,
        max_per_address: int = 0,
        is_exempt: Callable[[object], bool] = lambda peer: False,
        increment: Callable[[str, int], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`max_per_address` is a limit on open connections; 0: none. `is_exempt(peer)` says that a peer is a proxy.

        `increment` and `clock` are those of `Closings`.
        """
        self.closings = Closings(log, increment, clock)
        self.max_connections = max_connections
        self._max_per_address = max_per_address
        self._is_exempt = is_exempt
        self._log = log
        self._clock = clock
        self._open: Counter[bytes] = Counter()
        """Open connections by address, if there is a limit."""
        self._records: dict[bytes, _Record] = {}
        """By address, the one charged last at the end."""
        self._throttle = Throttle(REPORT_SECONDS)

    def excess(self, connections: int) -> int:
        """How many of so many open connections should make room, so that there are places for newcomers."""
        return max(0, connections - self.max_connections + self.max_connections // _RESERVE)

    def admit(self, sock: socket.socket, peer: object) -> bool:
        """Whether to serve a connection that was just accepted; if not, it is closed.

        For one that is served, call `release` when it is closed.
        """
        if self.admits(peer):
            return True
        reset(sock)
        return False

    def admits(self, peer: object) -> bool:
        """Whether to serve the connection of a peer; if so, call `release` when it is closed."""
        if not self._max_per_address and not self._records:
            return True
        address = self._address(peer)
        if address is None:
            return True
        record = self._records.get(address)
        if record is not None and self._clock() < record.refused_until:
            self.closings.count("address_refused")
        elif self._max_per_address and self._open[address] >= self._max_per_address:
            self.closings.warn(
                "address_limit", "Connection from %s closed: http2_max_connections_per_ip is reached", host_text(peer)
            )
        else:
            if self._max_per_address:
                self._open[address] += 1
            return True
        return False

    def release(self, peer: object) -> None:
        """Note that a connection that was admitted is closed."""
        if self._max_per_address:
            address = self._address(peer)
            if address is not None:
                self._open[address] -= 1
                if not self._open[address]:
                    del self._open[address]

    def charge(self, peer: object, cost: float) -> None:
        """Charge an address for what a connection has cost, or give it back if `cost` is negative."""
        address = self._address(peer)
        if address is None or (cost < 0 and address not in self._records):
            return
        now = self._clock()
        record = self._records.pop(address, None) or _Record(now)
        record.cost = max(0.0, record.cost - (now - record.updated) * _COST_DECAY) + cost
        record.updated = now
        self._records[address] = record
        if record.cost > _MAX_COST and now >= record.refused_until:
            self._refuse(peer, record, now)
        if len(self._records) > _MAX_ADDRESSES:
            del self._records[next(iter(self._records))]

    def _refuse(self, peer: object, record: _Record, now: float) -> None:
        if now - record.refused_until > _MEMORY:
            record.refusals = 0
        seconds = min(_FIRST_REFUSAL * 2**record.refusals, _LONGEST_REFUSAL)
        record.refusals += 1
        record.refused_until = now + seconds
        record.cost = 0.0
        self._log_refusal(peer, seconds, now)

    def _log_refusal(self, peer: object, seconds: float, now: float) -> None:
        held_back = self._throttle.admit(now)
        if held_back is None:
            return
        more = f" ({held_back} more addresses since the last such line)" if held_back else ""
        self._log.warning(
            "New connections from %s are refused for %g s: limits have ended too many, or handshakes failed%s",
            host_text(peer),
            seconds,
            more,
        )

    def _address(self, peer: object) -> bytes | None:
        """The address that counts; None for a peer that no limit applies to."""
        return None if self._is_exempt(peer) else network_of(peer)


def reset(sock: socket.socket) -> None:
    """Close a socket with a TCP reset, which leaves nothing behind in the kernel."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    except OSError:
        # The peer is gone.
        pass
    sock.close()
