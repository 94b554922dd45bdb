"""Who may see the status: addresses and networks on an allow-list, also behind a proxy."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["LOOPBACK", "AllowList", "Client"]

LOOPBACK = ("127.0.0.0/8", "::1")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# Anyone who can open the socket's file has an account on this machine.
_ON_UNIX_SOCKET = ipaddress.IPv4Address("127.0.0.1")


class Client(NamedTuple):
    """Where a request says that it comes from."""

    peer: str
    """The address of the socket's peer; empty for a Unix socket."""
    forwarded_for: str | None
    """X-Forwarded-For; None without one."""
    is_forwarded: bool = False
    """Whether another field tells of a proxy: Forwarded, Via or X-Real-IP."""


class AllowList:
    """Addresses and networks of clients."""

    def __init__(self, allowed: str | Iterable[str]) -> None:
        """`allowed` names IPv4 and IPv6 addresses and networks; a string of them is separated by commas.

        Raises ValueError for anything else.
        """
        names = allowed.split(",") if isinstance(allowed, str) else allowed
        self._allowed = [ipaddress.ip_network(name.strip()) for name in names]

    def admits(self, client: Client, trusted_proxies: Iterable[str]) -> bool:
        """Whether a client may see the status.

        The peer must be allowed, or be one of the trusted proxies: addresses and networks as in Gunicorn's
        `forwarded_allow_ips`, of which "*" does not count here. Of X-Forwarded-For, the last address that is no
        proxy's must be allowed as well. One that hides its client, though another field tells of it, is not admitted.
        """
        proxies = [ipaddress.ip_network(name, strict=False) for name in trusted_proxies if name != "*"]
        try:
            peer = _address(client.peer) if client.peer else _ON_UNIX_SOCKET
            hops = [_address(hop) for hop in (client.forwarded_for or "").split(",") if hop.strip()]
        except ValueError:
            return False
        if not (_is_in(peer, self._allowed) or _is_in(peer, proxies)):
            return False
        if not hops and (client.is_forwarded or client.forwarded_for is not None):
            return False
        for hop in reversed(hops):
            if not _is_in(hop, proxies):
                return _is_in(hop, self._allowed)
        # The whole way leads over proxies: to one of them, which asks for itself.
        return _is_in(hops[0] if hops else peer, self._allowed)


def _address(text: str) -> _Address:
    """Parse an address; one of IPv4 in the form of IPv6 is one of IPv4. Raises ValueError."""
    address = ipaddress.ip_address(text.strip().partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_in(address: _Address, networks: Iterable[_Network]) -> bool:
    return any(address in network for network in networks)
