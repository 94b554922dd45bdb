"""Who is at the other end: the address of a socket, or the client that a proxy has told of by the PROXY protocol."""

from __future__ import annotations

from gunicorn_h2.protocol.proxy_header import ProxyAddresses

__all__ = ["ProxiedPeer", "connected_peer"]


class ProxiedPeer(tuple[str, int]):
    """A client behind a proxy: its address and port, as of any other client.

    Limits, logs and applications see the client. What depends on trust depends on the proxy: `connected_peer`.
    """

    proxy: object
    """The address that the socket is connected to, in the form of its family."""
    addresses: ProxyAddresses
    """What the proxy has told."""

    @classmethod
    def of(cls, addresses: ProxyAddresses, proxy: object) -> ProxiedPeer:
        """Make the peer from what the `proxy` has told."""
        peer = cls(addresses.client)
        peer.addresses = addresses
        peer.proxy = proxy
        return peer


def connected_peer(peer: object) -> object:
    """Return the address that the socket is connected to: that of the proxy, if `peer` is a client behind one."""
    return peer.proxy if isinstance(peer, ProxiedPeer) else peer
