"""Connections that break at any octet, in any state, in any way: others are served, and nothing is left behind."""

import pytest

from tests.support.gate import Gate
from tests.support.h2client import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    H2Client,
    open_tcp,
    raw_frame,
)

from .site import STATES, THREADS, WAYS, TlsWire

GET, POST = b"\x82\x86\x04\x06/hello\x01\x09localhost", b"\x83\x86\x04\x06/count\x01\x09localhost"
SESSION = b"".join((
    PREFACE, raw_frame(SETTINGS), raw_frame(SETTINGS, ACK), raw_frame(HEADERS, END_HEADERS, 1, POST),
    raw_frame(DATA, 0, 1, b"some"), raw_frame(HEADERS, END_HEADERS | END_STREAM, 3, GET),
    raw_frame(WINDOW_UPDATE, 0, 0, b"\0\0\1\0"), raw_frame(DATA, END_STREAM, 1, b"more"),
    raw_frame(PING, 0, 0, bytes(8))))
"""An upload and a request within it: what a client sends that does not wait for anything."""


@pytest.mark.parametrize("way", WAYS)
def test_a_session_cut_at_every_octet(site, way):
    for size in range(len(SESSION) + 1):
        sock = open_tcp(site.server)
        sock.sendall(SESSION[:size])
        WAYS[way](sock)
    site.serve_newcomer()
    site.check()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("state", STATES)
def test_a_client_that_goes_in_each_state_of_a_stream(site, state, way):
    with Gate() as gate:
        client = H2Client.connect(site.server)
        STATES[state](client, gate)
        client.sock.setblocking(True)
        WAYS[way](client.sock)
        site.serve_newcomer()
    site.check()


@pytest.mark.parametrize("way", ["close", "reset"])
def test_many_clients_that_go_at_once(site, way):
    with Gate() as gate:
        clients = [H2Client.connect(site.server) for _ in range(THREADS)]
        for number, client in enumerate(clients):
            state = ("open", "blocked-by-window", "blocked-by-socket", "half-closed-local")[number % 4]
            STATES[state](client, gate)
        for client in clients:
            WAYS[way](client.sock)
        site.serve_newcomer()
    site.check()


# -- TLS ---------------------------------------------------------------------------------------------------------------


ALERT = b"\x15\x03\x03\x00\x02\x02\x28"
"""handshake_failure, not encrypted."""
REQUEST = PREFACE + raw_frame(SETTINGS) + raw_frame(HEADERS, END_HEADERS | END_STREAM, 1, GET.replace(b"\x86", b"\x87"))


def test_a_handshake_cut_at_every_seventh_octet(tls_site):
    """Neither the ClientHello nor what follows it is complete."""
    with TlsWire(tls_site.server) as wire:
        size = len(wire.hello())
    for cut in range(0, size + 7, 7):
        with TlsWire(tls_site.server) as wire:
            wire.sock.sendall(wire.hello()[:cut])
    tls_site.serve_newcomer()
    tls_site.check()


@pytest.mark.parametrize("octets", [ALERT, b"\x16\x03\x01\xff\xff" + bytes(100), b"\x80" * 50, b"\x17\x03\x03\x00\x00"],
                         ids=["alert", "record-too-large", "garbage", "early-data"])
def test_what_is_no_handshake(tls_site, octets):
    """Before and after the ClientHello."""
    for before in (False, True):
        with TlsWire(tls_site.server) as wire:
            wire.sock.sendall(octets if before else wire.hello() + octets)
            wire.wait_closed()
    tls_site.serve_newcomer()
    tls_site.check()


def test_records_that_are_cut_short(tls_site):
    """The last record of a request, at every fifth octet."""
    size = 200
    for cut in range(0, size, 5):
        with TlsWire(tls_site.server).shake_hands() as wire:
            records = wire.records(REQUEST)
            size = len(records)
            wire.sock.sendall(records[:cut])
    tls_site.serve_newcomer()
    tls_site.check()


@pytest.mark.parametrize("fault", ["changed", "alert", "garbage", "twice"])
def test_records_that_are_wrong(tls_site, fault):
    """The server closes the connection, and the request with it."""
    with TlsWire(tls_site.server).shake_hands() as wire:
        records = wire.records(REQUEST)
        wrong = {"changed": records[:-1] + bytes((records[-1] ^ 1,)), "alert": records + ALERT,
                 "garbage": records + b"\x80" * 100, "twice": records * 2}
        wire.sock.sendall(wrong[fault])
        wire.wait_closed()
    tls_site.serve_newcomer()
    tls_site.check()


@pytest.mark.parametrize("answered", [False, True])
def test_a_client_that_says_goodbye_within_a_request(tls_site, gate, answered):
    """close_notify while the application is at work: the server answers it, and ends the connection."""
    with TlsWire(tls_site.server).shake_hands() as wire:
        block = b"\x82\x87\x01\x09localhost\x04" + bytes((len(gate.path("/gate")),)) + gate.path("/gate").encode()
        wire.sock.sendall(wire.records(PREFACE + raw_frame(SETTINGS) + raw_frame(HEADERS, 5, 1, block)))
        gate.wait_inside()
        wire.sock.sendall(wire.close_notify())
        if answered:
            wire.wait_closed()
    gate.release()
    tls_site.serve_newcomer()
    tls_site.check()
