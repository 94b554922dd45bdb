"""The PROXY header before TLS and before cleartext HTTP/2, on each driver."""

import socket
import struct

import pytest

from gunicorn_h2.drivers.negotiation import ProxyProtocol
from gunicorn_h2.drivers.peers import ProxiedPeer
from gunicorn_h2.protocol.opening import Cleartext
from gunicorn_h2.protocol.proxy_header import ProxyVersions
from gunicorn_h2.protocol.upgrade_reader import RequestLimits
from tests.support.h2client import PREFACE, H2Client

from .every_driver import DRIVERS, AnyDriver
from .rig import TIMEOUT, wait_until

CLIENT = ("203.0.113.7", 51_234)
V1 = b"PROXY TCP4 203.0.113.7 192.0.2.1 51234 443\r\n"
V2 = (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f" + socket.inet_aton(CLIENT[0]) + socket.inet_aton("192.0.2.1")
      + struct.pack(">HH", CLIENT[1], 443) + b"\4\0\0")
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
BOTH = Cleartext(True, RequestLimits(100, 10, 100))
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Admitted:
    """Whether clients are admitted, and which have asked."""

    def __init__(self):
        self.answer, self.clients = True, []

    def __call__(self, client):
        """Answer for a client."""
        self.clients.append(client)
        return self.answer


@pytest.fixture(params=DRIVERS)
def driver(request, certs):
    """Each driver, whose peers may send a PROXY header unless `allowed` says otherwise."""
    driver = AnyDriver(request.param, certs, handshake_timeout=TIMEOUT)
    driver.allowed, driver.admitted = [True], Admitted()
    driver.rig.proxy = ProxyProtocol(ProxyVersions(True, True), lambda peer: driver.allowed[-1], driver.admitted)
    yield driver
    driver.close()


def peer_of(driver, client):
    """The peer of a client's connection."""
    return driver.call(lambda: client.holder.connection.peer)


def wait_counted(driver, reason):
    """Until a connection has been counted that the server has ended for a reason."""
    wait_until(lambda: driver.driver.closings.counts)
    assert driver.driver.closings.counts == {reason: 1}
    wait_until(lambda: not driver.holders())


def is_gone(sock):
    """Whether the server has closed the connection, without a word."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_the_client_that_a_header_tells_of(driver, tls, header):
    driver.rig.header = header
    client = driver.client(tls)
    peer = peer_of(driver, client)
    assert (peer, type(peer), peer.addresses.proxy) == (CLIENT, ProxiedPeer, ("192.0.2.1", 443))
    assert driver.admitted.clients == [CLIENT]
    assert client.get("/path").text == "/path"


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_a_header_octet_by_octet(driver, tls, header):
    """What has come of it is taken from the socket, which else would stay readable, and keep the owner busy."""
    sock = driver.open(tls)
    (holder,) = driver.holders()
    for number in range(len(header) - 1):
        sock.sendall(header[number:number + 1])
        wait_until(lambda: driver.call(holder.connection.transport.peek, 1) is None)
    sock.sendall(header[-1:])
    if tls:
        sock = driver.rig.certs.client_context().wrap_socket(sock, server_hostname="localhost")
    with H2Client(sock) as client:
        client.send_preface()
        assert client.get("/path").text == "/path"
        assert driver.call(lambda: holder.connection.peer) == CLIENT


@pytest.mark.parametrize("header", [b"", LOCAL, b"PROXY UNKNOWN\r\n"], ids=["none", "local", "unknown"])
def test_a_connection_of_the_proxys_own(driver, tls, header):
    driver.rig.header = header
    client = driver.client(tls)
    assert type(peer_of(driver, client)) is not ProxiedPeer
    assert driver.admitted.clients == []
    assert client.get("/path").text == "/path"


def test_http1_is_handed_over_with_the_header(driver):
    driver.rig.header, driver.rig.cleartext = V2, BOTH
    driver.rig.connect().sendall(REQUEST)
    assert driver.rig.handed_over.get(timeout=TIMEOUT)[1] == V2 + REQUEST


def test_http1_by_alpn_is_handed_over_with_the_header(driver):
    driver.rig.header = V1
    sock = driver.open(tls=True)
    sock.sendall(V1)
    with driver.rig.certs.client_context(["http/1.1"]).wrap_socket(sock, server_hostname="localhost") as theirs:
        ours, data = driver.rig.handed_over.get(timeout=TIMEOUT)
        assert data == V1
        ours.setblocking(True)
        theirs.sendall(REQUEST)
        assert ours.recv(100) == REQUEST


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_a_peer_that_must_not_send_one(driver, tls, header):
    driver.allowed.append(False)
    sock = driver.open(tls)
    sock.sendall(header)
    assert is_gone(sock)
    wait_counted(driver, "proxy_header")
    (line,) = driver.log.warnings
    assert line.startswith("Invalid PROXY header from ")
    assert line.endswith(": the peer is not in proxy_allow_ips")


def test_such_a_peer_without_a_header(driver, tls):
    driver.allowed.append(False)
    assert driver.client(tls).get("/path").text == "/path"


def test_such_a_peer_where_http1_may_answer_it(driver):
    """Gunicorn's parser refuses the header, with an answer."""
    driver.allowed.append(False)
    driver.rig.cleartext = BOTH
    driver.open().sendall(V1 + REQUEST)
    assert driver.rig.handed_over.get(timeout=TIMEOUT)[1] == V1 + REQUEST


@pytest.mark.parametrize("header", [V1.replace(b"443", b"70000"), V2.replace(b"\x21\x11", b"\x22\x11"),
                                    b"PROXY " + b"x" * 120], ids=["v1", "v2", "endless"])
@pytest.mark.parametrize("cleartext", [Cleartext(True), BOTH], ids=["prior-knowledge", "both"])
def test_a_malformed_header(driver, tls, header, cleartext):
    driver.rig.cleartext = cleartext
    sock = driver.open(tls)
    sock.sendall(header + PREFACE)
    assert is_gone(sock)
    wait_counted(driver, "proxy_header")
    assert driver.log.warnings[0].startswith("Invalid PROXY header from ")
    assert " by=server reason=proxy_header code=- detail=" in driver.log.debugs[-1]


def test_a_client_that_is_not_admitted(driver, tls):
    """It is refused before any TLS; and no one counts it."""
    driver.admitted.answer = False
    sock = driver.open(tls)
    sock.sendall(V2)
    assert is_gone(sock)
    wait_until(lambda: not driver.holders())
    assert (driver.admitted.clients, driver.log.warnings) == ([CLIENT], [])
    assert not driver.driver.closings.counts


def test_a_header_that_ends_too_soon(driver, tls):
    sock = driver.open(tls)
    sock.sendall(V2[:-1])
    sock.shutdown(socket.SHUT_WR)
    assert is_gone(sock)
    wait_until(lambda: not driver.holders())
    assert not driver.driver.closings.counts
    assert driver.log.debugs[-1].endswith('by=client reason=eof code=- detail="closed within the PROXY header"')


def test_a_header_that_does_not_go_on(certs, driver, tls):
    driver.rig.handshake_timeout = 0.2
    sock = driver.open(tls)
    sock.sendall(V1[:-1])
    assert is_gone(sock)
    wait_counted(driver, "handshake_timeout")


def test_a_connection_that_ends_at_once(driver, tls):
    with driver.open(tls):
        pass
    wait_until(lambda: not driver.holders())
    assert driver.log.warnings == []


def test_what_begins_like_a_header_is_http2(driver):
    """The octets that may have been a header's are not lost."""
    sock = driver.open()
    (holder,) = driver.holders()
    for octet in (b"P", b"R"):
        sock.sendall(octet)
        wait_until(lambda: driver.call(holder.connection.transport.peek, 1) is None)
    with H2Client(sock) as client:
        client.send_raw(PREFACE[2:])
        client.send_settings({})
        assert client.get("/path").text == "/path"


def test_what_begins_like_a_header_is_http1(driver):
    driver.rig.cleartext = BOTH
    sock = driver.open()
    (holder,) = driver.holders()
    sock.sendall(b"\r\n")
    wait_until(lambda: driver.call(holder.connection.transport.peek, 1) is None)
    sock.sendall(REQUEST)
    assert driver.rig.handed_over.get(timeout=TIMEOUT)[1] in (b"\r\n", b"\r\n" + REQUEST)


def test_what_begins_like_a_header_is_not_tls(driver):
    sock = driver.open(tls=True)
    (holder,) = driver.holders()
    sock.sendall(b"P")
    wait_until(lambda: driver.call(holder.connection.transport.peek, 1) is None)
    sock.sendall(b"OST / HTTP/1.1\r\n")
    assert is_gone(sock)
    wait_counted(driver, "proxy_header")


def test_plain_http_to_a_tls_port_is_still_explained(driver):
    sock = driver.open(tls=True)
    sock.sendall(b"POST / HTTP/1.1\r\n\r\n")
    wait_until(lambda: driver.log.infos)
    assert "plain HTTP to a TLS port" in driver.log.infos[0]
