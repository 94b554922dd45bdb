"""A transport over a pair of sockets, in the clear and under real TLS."""

import select
import socket
import ssl
import sys
import threading

import pytest

from gunicorn_h2.drivers import transport as transport_module
from gunicorn_h2.drivers.negotiation import adequate_cipher
from gunicorn_h2.drivers.transport import WOULD_BLOCK, Transport

from .asyncio_wire import tcp_pair

TIMEOUT = 10


@pytest.fixture
def wrap(certs):
    """A function that puts a server's TLS around a socket."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs.server_cert, certs.server_key)
    context.set_alpn_protocols(["h2"])
    return lambda sock: context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)


@pytest.fixture(params=[False, True], ids=["clear", "tls"])
def pair(request, certs, wrap):
    """A transport and the client's blocking socket."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(TIMEOUT)
    transport = Transport(ours, wrap if request.param else None)
    if request.param:
        theirs = shake_hands(transport, theirs, certs.client_context())
    yield transport, theirs
    transport.close()
    theirs.close()


def shake_hands(transport, theirs, context):
    """Run a handshake to its end; return the client's TLS socket."""
    wrapped = []
    thread = threading.Thread(target=lambda: wrapped.append(context.wrap_socket(theirs, server_hostname="localhost")))
    thread.start()
    while not transport.handshake():
        select.select([transport], [], [], TIMEOUT)
    thread.join(TIMEOUT)
    return wrapped[0]


def receive(transport, size):
    """Receive so many octets, or up to the end."""
    octets = b""
    while len(octets) < size:
        data = transport.receive()
        if data == b"":
            break
        octets += data or b""
    return octets


def test_nothing_has_come(pair):
    transport, _ = pair
    assert transport.receive() is WOULD_BLOCK


def test_what_comes_is_received(pair):
    transport, theirs = pair
    theirs.sendall(b"hello")
    assert receive(transport, 5) == b"hello"
    assert transport.receive() is WOULD_BLOCK


@pytest.mark.parametrize("size", [16_384, 16_385, 65_536, 200_000])
def test_much_that_comes_is_received(pair, size):
    transport, theirs = pair
    thread = threading.Thread(target=theirs.sendall, args=(bytes(size),))
    thread.start()
    assert receive(transport, size) == bytes(size)
    thread.join(TIMEOUT)


def test_the_end_is_seen(pair):
    transport, theirs = pair
    theirs.sendall(b"bye")
    theirs.close()
    assert receive(transport, 100) == b"bye"
    assert transport.receive() == b""


def test_an_end_within_full_records_is_not_lost(pair):
    transport, theirs = pair
    theirs.sendall(bytes(16_384) * 2)
    theirs.close()
    assert receive(transport, 100_000) == bytes(16_384) * 2
    assert transport.receive() == b""


@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_what_is_sent_arrives(pair, kind):
    transport, theirs = pair
    assert transport.send(kind(b"hello")) == 5
    assert theirs.recv(100) == b"hello"


def test_only_what_the_socket_takes_is_sent(pair):
    transport, theirs = pair
    octets = bytes(range(256)) * 20_000
    received = bytearray()

    def read():
        while len(received) < len(octets):
            received.extend(theirs.recv(65_536))

    sent = transport.send(octets)
    assert 0 < sent < len(octets)
    assert transport.send(octets[sent:]) == 0
    thread = threading.Thread(target=read)
    thread.start()
    while sent < len(octets):
        sent += transport.send(memoryview(octets)[sent:])
    thread.join(TIMEOUT)
    assert bytes(received) == octets


def unsent(sock):
    """How many octets the kernel holds that TCP could not send yet, on Linux."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    # `tcpi_notsent_bytes` of linux/tcp.h.
    return int.from_bytes(info[140:144], sys.byteorder)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is unsent")
def test_the_kernel_takes_little_more_than_can_be_sent():
    ours, theirs = tcp_pair()
    transport = Transport(ours)
    transport.limit_unsent()
    while transport.send(bytes(16_384)):
        pass
    assert 0 < unsent(ours) < 100_000
    transport.close()
    theirs.close()


def test_no_limit_to_what_is_unsent_is_harmless(pair, monkeypatch):
    """Unix sockets have none, sockets that are closed neither, nor have some systems."""
    transport, theirs = pair
    transport.limit_unsent()
    with monkeypatch.context() as system:
        system.setattr(transport_module, "_NOTSENT_LOWAT", None)
        transport.limit_unsent()
    assert transport.send(b"hello") == 5
    assert theirs.recv(100) == b"hello"
    transport.close()
    transport.limit_unsent()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system cannot tell")
def test_octets_that_were_taken():
    ours, theirs = tcp_pair()
    transport = Transport(ours)
    with ours, theirs:
        before, sent = transport.taken_octets(), 0
        while octets := transport.send(bytes(1_000_000)):
            sent += octets
        # The peer's kernel takes some, before anybody reads them.
        taken = transport.taken_octets()
        assert 0 < taken - before < sent
        while transport.untaken_octets():
            theirs.recv(1_000_000)
        assert transport.taken_octets() - before == sent
    assert transport.taken_octets() == 0


def test_where_it_cannot_be_told_nothing_was_taken(pair, monkeypatch):
    """A pair of sockets is not TCP; other systems have no such option."""
    transport, theirs = pair
    transport.send(b"hello")
    assert theirs.recv(100) == b"hello"
    assert transport.taken_octets() == 0
    monkeypatch.setattr(transport_module, "_TCP_INFO", None)
    assert transport.taken_octets() == 0


def test_a_half_close_lets_the_peer_read_everything(pair):
    transport, theirs = pair
    transport.send(b"the end")
    transport.half_close()
    assert theirs.recv(100) == b"the end"
    assert theirs.recv(100) == b""


def test_closing_twice_or_in_any_order_is_harmless(pair):
    transport, theirs = pair
    theirs.close()
    transport.half_close()
    transport.half_close()
    transport.close()
    transport.close()
    transport.half_close()
    assert transport.fileno() == -1


def test_what_the_handshake_agreed_on_outlives_the_connection(pair):
    """A request may run only after its client has closed the connection."""
    transport, theirs = pair
    theirs.close()
    transport.half_close()
    transport.close()
    if transport.tls:
        assert transport.session.version == "TLSv1.3"
        assert transport.session.cipher.startswith("TLS_")
    else:
        assert transport.session is None


def test_alpn(certs, wrap):
    ours, theirs = socket.socketpair()
    transport = Transport(ours, wrap)
    client = shake_hands(transport, theirs, certs.client_context())
    assert transport.selected_protocol() == "h2"
    assert transport.tls
    assert adequate_cipher(transport.session)
    client.close()
    transport.close()


def test_in_the_clear_there_is_no_alpn():
    ours, theirs = socket.socketpair()
    transport = Transport(ours)
    assert transport.selected_protocol() is None
    assert not transport.tls
    assert adequate_cipher(transport.session)
    theirs.close()
    transport.close()


def test_a_broken_record_is_an_os_error(certs, wrap):
    ours, theirs = socket.socketpair()
    transport = Transport(ours, wrap)
    theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(OSError, match=r"(?i)http|record|version"):
        transport.handshake()
    theirs.close()
    transport.close()
