"""Which new connections are taken: limits by address, and refusals of those that have cost too much."""

import socket

import pytest

from gunicorn_h2.drivers.admission import CALM_COST, HANDSHAKE_COST, Admission, network_of

from .rig import Log
from .test_closings import Clock

STRANGER, NEIGHBOUR, PROXY = ("203.0.113.7", 1), ("203.0.113.8", 1), ("10.0.0.1", 1)


class Rig:
    """An admission, and connections for it."""

    def __init__(self, **options):
        self.log, self.clock = Log(), Clock()
        self.admission = Admission(self.log, is_exempt=lambda peer: peer == PROXY, clock=self.clock, **options)

    def admit(self, peer):
        """Whether a connection is taken; if not, it must be closed."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            admitted = self.admission.admit(ours, peer)
            assert admitted == (ours.fileno() >= 0)
            if not admitted:
                assert theirs.recv(1) == b""
        return admitted

    def charge_until_refused(self, peer, cost=CALM_COST):
        """Charge an address; return how often that went well."""
        for number in range(1000):
            self.admission.charge(peer, cost)
            if not self.admit(peer):
                return number
        raise AssertionError("never refused")

    def seconds_refused(self, peer):
        """How long connections are refused, to a tenth of a second."""
        began = self.clock.now
        while not self.admit(peer):
            self.clock.now += 0.1
        return round(self.clock.now - began)


@pytest.mark.parametrize(("peer", "expected"), [
    (("203.0.113.7", 1), "cb007107"), (("::ffff:203.0.113.7", 1, 0, 0), "cb007107"),
    (("2001:db8:1:2:3:4:5:6", 1, 0, 0), "20010db800010002"), (("2001:db8:1:2::", 1, 0, 0), "20010db800010002"),
    (("fe80::1%eth0", 1, 0, 2), "fe80000000000000"),
])
def test_the_network_of_a_peer(peer, expected):
    assert network_of(peer).hex() == expected


@pytest.mark.parametrize("peer", ["", b"", "a socket", None, ("a name", 1)])
def test_peers_without_an_address(peer):
    assert network_of(peer) is None


def test_an_address_may_have_so_many_connections():
    rig = Rig(max_per_address=2)
    assert rig.admit(STRANGER)
    assert rig.admit(STRANGER)
    assert not rig.admit(STRANGER)
    assert rig.admit(NEIGHBOUR)
    assert rig.log.warnings == ["Connection from 203.0.113.7 closed: http2_max_connections_per_ip is reached"]
    rig.admission.release(STRANGER)
    assert rig.admit(STRANGER)
    assert not rig.admit(STRANGER)
    assert rig.admission.closings.counts == {"address_limit": 2}


def test_all_addresses_of_a_network_count_as_one():
    rig = Rig(max_per_address=2)
    assert rig.admit(("2001:db8::1", 1, 0, 0))
    assert rig.admit(("2001:db8::2", 1, 0, 0))
    assert not rig.admit(("2001:db8::3", 1, 0, 0))
    assert rig.admit(("2001:db8:0:1::3", 1, 0, 0))


@pytest.mark.parametrize("peer", [PROXY, "", None])
def test_proxies_and_unix_sockets_are_exempt(peer):
    rig = Rig(max_per_address=1)
    for _ in range(5):
        assert rig.admit(peer)
    for _ in range(100):
        rig.admission.charge(peer, CALM_COST)
        assert rig.admit(peer)
    rig.admission.release(peer)
    assert rig.log.warnings == []


def test_what_is_closed_leaves_nothing_in_the_table():
    rig = Rig(max_per_address=1)
    for number in range(300):
        peer = (f"198.51.{number // 200}.{number % 200}", 1)
        assert rig.admit(peer)
        rig.admission.release(peer)
    assert not rig.admission._open


def test_an_address_that_has_cost_too_much_is_refused_for_a_second():
    rig = Rig()
    assert rig.charge_until_refused(STRANGER) == 5
    assert rig.admit(NEIGHBOUR)
    assert rig.log.warnings == ["New connections from 203.0.113.7 are refused for 1 s: "
                                "limits have ended too many, or handshakes failed"]
    assert rig.seconds_refused(STRANGER) == 1
    assert rig.admission.closings.counts["address_refused"] > 1


def test_refusals_get_longer_up_to_seconds():
    rig = Rig()
    lasted = []
    for _ in range(6):
        rig.charge_until_refused(STRANGER)
        lasted.append(rig.seconds_refused(STRANGER))
    assert lasted == [1, 2, 4, 8, 8, 8]


def test_a_refusal_is_forgotten_after_a_minute():
    rig = Rig()
    for _ in range(3):
        rig.charge_until_refused(STRANGER)
        rig.seconds_refused(STRANGER)
    rig.clock.now += 61
    rig.charge_until_refused(STRANGER)
    assert rig.seconds_refused(STRANGER) == 1


def test_what_happens_now_and_then_is_never_refused():
    rig = Rig()
    for _ in range(200):
        rig.admission.charge(STRANGER, CALM_COST)
        rig.clock.now += 2
        assert rig.admit(STRANGER)


def test_successful_handshakes_make_up_for_failed_ones():
    """Of a thousand clients behind one address some fail."""
    rig = Rig()
    for _ in range(1000):
        rig.admission.charge(STRANGER, HANDSHAKE_COST)
        rig.admission.charge(STRANGER, -HANDSHAKE_COST)
    assert rig.admit(STRANGER)
    # That cannot be saved up for later.
    for _ in range(1000):
        rig.admission.charge(STRANGER, -HANDSHAKE_COST)
    assert rig.charge_until_refused(STRANGER, HANDSHAKE_COST) <= 41


def test_success_alone_is_not_remembered():
    rig = Rig()
    rig.admission.charge(STRANGER, -HANDSHAKE_COST)
    assert not rig.admission._records


def test_the_table_is_bounded_and_forgets_who_was_charged_longest_ago():
    rig = Rig()
    rig.charge_until_refused(STRANGER)
    for number in range(4095):
        rig.admission.charge((f"10.1.{number // 256}.{number % 256}", 1), CALM_COST)
    assert not rig.admit(STRANGER)
    rig.admission.charge(NEIGHBOUR, CALM_COST)
    assert len(rig.admission._records) == 4096
    assert rig.admit(STRANGER)


def test_many_addresses_do_not_fill_the_log():
    rig = Rig()
    for number in range(50):
        rig.charge_until_refused((f"10.1.0.{number}", 1))
    assert len(rig.log.warnings) == 1
    rig.clock.now += 1
    rig.charge_until_refused(STRANGER)
    assert rig.log.warnings[1].endswith("(49 more addresses since the last such line)")


def test_a_refused_client_that_is_gone_already():
    rig = Rig(max_per_address=1)
    assert rig.admit(STRANGER)
    with socket.socket() as closed:
        closed.close()
        assert not rig.admission.admit(closed, STRANGER)


@pytest.mark.parametrize(("limit", "connections", "expected"), [
    (1000, 938, 0), (1000, 939, 1), (1000, 1000, 62), (50, 47, 0), (50, 48, 1), (4, 4, 0), (16, 16, 1),
])
def test_some_places_are_kept_free(limit, connections, expected):
    assert Rig(max_connections=limit).admission.excess(connections) == expected
