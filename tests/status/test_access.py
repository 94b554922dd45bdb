"""Who may see the status: by the socket's peer, and behind proxies by the address that they forward."""

import pytest

from gunicorn_h2.status.access import LOOPBACK, AllowList, Client

PROXY, CLIENT, OTHER = "10.0.0.1", "203.0.113.7", "198.51.100.2"


def admits(peer, forwarded_for=None, is_forwarded=False, allow=LOOPBACK, proxies=("127.0.0.1", "::1")):
    """Ask an allow-list, by default with Gunicorn's default for `forwarded_allow_ips`."""
    return AllowList(allow).admits(Client(peer, forwarded_for, is_forwarded), proxies)


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", ""])
def test_by_default_the_machine_itself_is_admitted(peer):
    assert admits(peer)


@pytest.mark.parametrize("peer", [CLIENT, "10.0.0.1", "192.168.0.1", "::2", "fe80::1%eth0", "::ffff:203.0.113.7",
                                  "0.0.0.0", "localhost", "127.0.0.1.evil", "unix:"])
def test_others_are_not(peer):
    assert not admits(peer)


@pytest.mark.parametrize(("allow", "admitted", "refused"), [
    (("203.0.113.7",), "203.0.113.7", "203.0.113.8"),
    (("203.0.113.0/24", "2001:db8::/32"), "203.0.113.99", "203.0.114.1"),
    (("203.0.113.0/24", "2001:db8::/32"), "2001:db8:1::1", "2001:db9::1"),
    ("203.0.113.7, 2001:db8::1", "2001:db8::1", "2001:db8::2"),
    ("fe80::/10", "fe80::1%eth0", "127.0.0.1"),
    ((), None, "127.0.0.1"),
])
def test_addresses_and_networks(allow, admitted, refused):
    assert admitted is None or admits(admitted, allow=allow)
    assert not admits(refused, allow=allow)


@pytest.mark.parametrize("allow", ["*", ("127.0.0.1/8",), ("localhost",), ("",), "10.0.0.0/33"])
def test_what_is_no_address(allow):
    with pytest.raises(ValueError):  # noqa: PT011 - the message is that of ipaddress
        AllowList(allow)


@pytest.mark.parametrize(("forwarded_for", "is_admitted"), [
    (CLIENT, False),
    ("127.0.0.1", True),
    # What the client itself has sent stands at the left, and counts for nothing.
    (f"127.0.0.1, {CLIENT}", False),
    (f"{CLIENT}, 127.0.0.1", False),
    ("127.0.0.1, ::1", True),
    ("", False),
    ("unknown", False),
    ("127.0.0.1:4711", False),
])
def test_behind_a_proxy_on_this_machine(forwarded_for, is_admitted):
    """All its clients have its address: one of the whole world must not be taken for the machine itself."""
    assert admits("127.0.0.1", forwarded_for) is is_admitted
    assert admits("", forwarded_for) is is_admitted


def test_a_proxy_that_hides_its_client():
    """A field of another proxy without X-Forwarded-For: nobody knows who asks."""
    assert not admits("127.0.0.1", None, is_forwarded=True)
    assert admits("127.0.0.1", "127.0.0.1", is_forwarded=True)


def test_behind_a_trusted_proxy_elsewhere():
    there = {"proxies": [PROXY], "allow": [CLIENT]}
    assert admits(PROXY, CLIENT, **there)
    assert admits(PROXY, f"{OTHER}, {CLIENT}, {PROXY}", **there)
    assert not admits(PROXY, f"{CLIENT}, {OTHER}", **there)
    assert not admits(PROXY, None, **there)
    assert not admits(OTHER, CLIENT, **there)


def test_a_client_that_forges_the_field():
    """Without a proxy, it makes nothing better."""
    assert not admits(CLIENT, "127.0.0.1")
    assert not admits(CLIENT, "127.0.0.1", proxies=["*"])


def test_who_trusts_every_peer_has_not_allowed_every_peer():
    """With `forwarded_allow_ips = "*"` the peer must be on the list, and the last address that was forwarded, too."""
    assert admits("127.0.0.1", proxies=["*"])
    assert not admits("127.0.0.1", CLIENT, proxies=["*"])
    assert not admits("127.0.0.1", f"127.0.0.1, {CLIENT}", proxies=["*"])
    assert admits("127.0.0.1", f"{CLIENT}, 127.0.0.1", proxies=["*"])
