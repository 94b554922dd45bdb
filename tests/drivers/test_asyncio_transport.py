"""The TLS transport for other protocols, on each event loop; time passes by itself in none of them."""

import asyncio
import socket
import ssl

import pytest

from gunicorn_h2.drivers.asyncio_transport import TlsTransport
from gunicorn_h2.drivers.transport import Transport
from tests.drivers.asyncio_wire import LOOPS, Loop, make_loop, reset, tcp_pair, turn

MIB = 1 << 20
PEER = ("192.0.2.1", 1234)


class Protocol(asyncio.Protocol):
    """Keeps what it is told. `on_made` and `on_data` are called besides."""

    def __init__(self, on_made=None, on_data=None, on_resume=None):
        self.on_made, self.on_data, self.on_resume = on_made, on_data, on_resume
        self.transport, self.octets, self.calls = None, b"", []

    def connection_made(self, transport):
        """Keep the transport."""
        self.transport = transport
        if self.on_made:
            self.on_made(transport)

    def data_received(self, data):
        """Keep octets."""
        self.octets += data
        if self.on_data:
            self.on_data(self.transport)

    def eof_received(self):
        """Keep that it was called; what it returns must not matter under TLS."""
        self.calls.append("eof")
        return True

    def pause_writing(self):
        """Keep that it was called."""
        self.calls.append("pause")

    def resume_writing(self):
        """Keep that it was called."""
        self.calls.append("resume")
        if self.on_resume:
            self.on_resume(self.transport)

    def connection_lost(self, exc):
        """Keep why."""
        self.calls.append(exc)


class Rig:
    """A transport with its protocol, and the client's end of the connection."""

    def __init__(self, loop, certs, protocol, client_cert=False, pair=socket.socketpair):
        self.loop, self.protocol = loop, protocol
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certs.server_cert, certs.server_key)
        self.context.load_verify_locations(certs.ca)
        if client_cert:
            self.context.verify_mode = ssl.CERT_REQUIRED
        ours, theirs = pair()
        self.below = Transport(
            ours, lambda sock: self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False))
        theirs.setblocking(False)
        self.client = certs.client_context(alpn=("http/1.1",), client_cert=client_cert).wrap_socket(
            theirs, server_hostname="localhost", do_handshake_on_connect=False)
        self._shake_hands()
        self.transport = TlsTransport(loop, self.below, protocol, PEER)

    def _shake_hands(self):
        server = client = False
        while not (server and client):
            server = server or self.below.handshake()
            try:
                self.client.do_handshake()
                client = True
            except ssl.SSLWantReadError:
                pass

    def turns(self, count=12):
        """Let the loop run what is ready."""
        turn(self.loop, count)

    def send(self, octets):
        """Send as the client, as the server reads."""
        while octets:
            try:
                octets = octets[self.client.send(octets):]
            except ssl.SSLWantWriteError:
                pass
            self.turns(1)
        self.turns()

    def read(self):
        """Read what has come, as the client; None at the end."""
        octets = b""
        while True:
            self.turns(2)
            try:
                piece = self.client.recv(MIB)
            except ssl.SSLWantReadError:
                return octets
            if not piece:
                return octets or None
            octets += piece

    @property
    def closed(self):
        """Whether the server has closed the socket."""
        return self.below.fileno() < 0


@pytest.fixture(params=LOOPS)
def loop(request):
    """Each event loop that is installed; nothing may have gone wrong in it unnoticed."""
    loop = make_loop(request.param)
    yield loop
    assert not loop.errors
    loop.close()


@pytest.fixture
def clock():
    """An event loop whose clock the test moves."""
    loop = Loop()
    yield loop
    assert not loop.errors
    loop.close()


@pytest.fixture
def connect(loop, certs):
    """A function that connects a protocol; keywords are the protocol's."""
    rigs = []

    def connect(client_cert=False, on=loop, pair=socket.socketpair, **options):
        rigs.append(Rig(on, certs, Protocol(**options), client_cert, pair))
        return rigs[-1]

    yield connect
    for rig in rigs:
        rig.transport.abort()
        rig.turns()
        rig.client.close()
        assert rig.closed
        assert len([call for call in rig.protocol.calls if call is None or isinstance(call, Exception)]) == 1


def test_what_is_to_be_known_of_it(connect):
    rig = connect(client_cert=True)
    extra = rig.transport.get_extra_info
    assert extra("peername") == PEER
    assert extra("sockname") == extra("socket").getsockname()
    assert extra("sslcontext") is rig.context
    assert extra("ssl_object").selected_alpn_protocol() is None
    assert extra("ssl_object").version() == rig.client.version()
    assert extra("cipher") == rig.client.cipher()
    assert extra("compression") is None
    assert ("email", "alice@example.org") in extra("peercert")["subjectAltName"]
    assert extra("something") is None


def test_octets_in_both_directions(connect):
    rig = connect()
    rig.send(b"question")
    assert rig.protocol.octets == b"question"
    rig.transport.write(b"answer")
    rig.transport.write(bytearray(b", "))
    rig.transport.write(memoryview(b"and more"))
    rig.transport.writelines([b", ", b"and more"])
    assert rig.read() == b"answer, and more, and more"


def test_many_octets_in_both_directions(connect):
    rig, octets = connect(), bytes(range(256)) * 8192
    rig.send(octets)
    assert rig.protocol.octets == octets
    rig.transport.write(octets)
    assert rig.read() == octets
    assert rig.transport.get_write_buffer_size() == 0


def test_a_buffer_may_be_used_again(connect):
    rig, buffer = connect(), bytearray(b"a" * MIB)
    rig.transport.write(buffer)
    buffer[:] = b"b" * MIB
    buffer.clear()
    rig.transport.write(b"c")
    assert rig.read() == b"a" * MIB + b"c"


# -- the flow of writing -----------------------------------------------------------------------------------------------


def test_the_protocol_is_paused_while_the_client_does_not_read(connect):
    rig = connect()
    rig.transport.write(b"x" * 100)
    assert rig.protocol.calls == []
    rig.transport.write(b"x" * MIB)
    rig.transport.write(b"x" * MIB)
    assert rig.protocol.calls == ["pause"]
    assert rig.transport.get_write_buffer_size() > 65_536
    assert len(rig.read()) == 2 * MIB + 100
    assert rig.protocol.calls == ["pause", "resume"]


def test_a_protocol_that_goes_on_at_once_when_it_may(connect):
    rest = [b"b" * MIB, b"c" * MIB]
    rig = connect(on_resume=lambda transport: transport.write(rest.pop(0)) if rest else None)
    rig.transport.write(b"a" * MIB)
    assert rig.read() == b"a" * MIB + b"b" * MIB + b"c" * MIB


def test_a_protocol_that_closes_when_it_may_go_on(connect):
    rig = connect(on_resume=lambda transport: transport.close())
    rig.transport.write(b"a" * MIB)
    assert rig.read() == b"a" * MIB
    assert rig.read() is None


@pytest.mark.parametrize(("arguments", "limits"), [
    ({}, (16_384, 65_536)), ({"high": 100}, (25, 100)), ({"low": 50}, (50, 200)), ({"high": 0}, (0, 0)),
    ({"high": 10, "low": 10}, (10, 10)),
])
def test_limits(connect, arguments, limits):
    transport = connect().transport
    assert transport.get_write_buffer_limits() == (16_384, 65_536)
    transport.set_write_buffer_limits(**arguments)
    assert transport.get_write_buffer_limits() == limits


@pytest.mark.parametrize("arguments", [{"high": 5, "low": 6}, {"low": -1}, {"high": -4}])
def test_limits_that_are_none(connect, arguments):
    with pytest.raises(ValueError, match="must be"):
        connect().transport.set_write_buffer_limits(**arguments)


def test_new_limits_apply_to_what_is_there(connect):
    rig = connect()
    rig.transport.set_write_buffer_limits(high=10 * MIB)
    rig.transport.write(b"x" * MIB)
    assert rig.protocol.calls == []
    rig.transport.set_write_buffer_limits(high=0)
    assert rig.protocol.calls == ["pause"]
    rig.transport.set_write_buffer_limits(high=10 * MIB)
    assert rig.protocol.calls == ["pause", "resume"]


def test_nothing_is_nothing(connect):
    rig = connect()
    rig.transport.write(b"")
    assert rig.transport.get_write_buffer_size() == 0


# -- the flow of reading -----------------------------------------------------------------------------------------------


def test_reading_can_be_paused(connect):
    rig = connect()
    assert rig.transport.is_reading()
    rig.transport.pause_reading()
    rig.transport.pause_reading()
    assert not rig.transport.is_reading()
    rig.send(b"question")
    assert rig.protocol.octets == b""
    rig.transport.resume_reading()
    rig.transport.resume_reading()
    rig.turns()
    assert rig.protocol.octets == b"question"


def test_reading_can_be_paused_from_the_start(connect):
    rig = connect(on_made=lambda transport: transport.pause_reading())
    rig.send(b"question")
    assert rig.protocol.octets == b""


def test_reading_can_be_paused_by_what_was_read(connect):
    rig = connect(on_data=lambda transport: transport.pause_reading())
    rig.send(b"one")
    rig.send(b"two")
    assert rig.protocol.octets == b"one"
    rig.transport.resume_reading()
    rig.turns()
    assert rig.protocol.octets == b"onetwo"


def test_another_protocol_takes_over(connect):
    rig, other = connect(), Protocol()
    rig.transport.set_protocol(other)
    assert rig.transport.get_protocol() is other
    rig.send(b"question")
    assert (rig.protocol.octets, other.octets) == (b"", b"question")
    rig.transport.set_protocol(rig.protocol)


# -- the end -----------------------------------------------------------------------------------------------------------


def test_it_is_not_half_closed(connect):
    transport = connect().transport
    assert not transport.can_write_eof()
    with pytest.raises(NotImplementedError):
        transport.write_eof()


def test_what_was_written_still_goes_out(connect):
    rig = connect()
    rig.transport.write(b"x" * MIB)
    rig.transport.close()
    rig.transport.close()
    assert rig.transport.is_closing()
    rig.transport.write(b"late")
    assert rig.read() == b"x" * MIB
    assert rig.read() is None
    assert rig.protocol.calls[-1] is not None
    rig.client.close()
    rig.turns()
    assert rig.closed
    assert rig.protocol.calls == ["pause", "resume", None]


def test_octets_that_come_after_the_end_do_not_spoil_the_answer(connect):
    """A socket that is closed with octets unread makes the kernel reset the connection."""
    rig = connect(on_data=lambda transport: (transport.write(b"answer"), transport.close()))
    rig.send(b"x" * MIB)
    assert rig.read() == b"answer"
    assert len(rig.protocol.octets) < MIB
    rig.transport.pause_reading()
    rig.transport.resume_reading()
    assert not rig.transport.is_reading()


def test_a_moment_after_the_end_the_socket_is_closed(clock, connect):
    rig = connect(on=clock)
    rig.transport.close()
    assert rig.read() is None
    clock.wait(0.9)
    assert not rig.closed
    clock.wait(2)
    assert rig.closed
    assert rig.protocol.calls == [None]


@pytest.mark.parametrize("size", [MIB, 50_000], ids=["in our buffer", "in the kernel"])
def test_a_client_that_reads_slowly_gets_everything(clock, connect, size):
    rig = connect(on=clock)
    rig.transport.write(b"x" * size)
    rig.transport.close()
    received = 0
    while received < size:
        clock.wait(20)
        assert not rig.closed
        try:
            received += len(rig.client.recv(16_384))
        except ssl.SSLWantReadError:
            pass
    assert rig.read() is None


@pytest.mark.parametrize("size", [MIB, 50_000], ids=["in our buffer", "in the kernel"])
def test_a_client_that_does_not_read_is_given_up(clock, connect, size):
    rig = connect(on=clock)
    rig.transport.write(b"x" * size)
    rig.transport.close()
    clock.wait(25)
    assert not rig.closed
    clock.wait(10)
    assert rig.closed


def test_abort(connect):
    rig = connect()
    rig.transport.write(b"x" * MIB)
    rig.transport.abort()
    rig.transport.abort()
    assert rig.protocol.calls == ["pause"]
    rig.turns()
    assert rig.closed
    assert rig.protocol.calls == ["pause", None]
    rig.transport.write(b"late")
    rig.transport.close()
    rig.turns()
    assert rig.transport.is_closing()


def test_the_client_leaves(connect):
    rig = connect()
    with pytest.raises(ssl.SSLWantReadError):
        rig.client.unwrap()
    rig.turns()
    assert rig.protocol.calls == ["eof"]
    # What comes back is the answer to the client's close_notify.
    rig.client.unwrap()
    rig.client.close()
    rig.turns()
    assert rig.protocol.calls == ["eof", None]
    assert rig.closed


def test_the_client_leaves_without_a_word(connect):
    rig = connect()
    rig.client.close()
    rig.turns()
    # Whether that is an error or an end, OpenSSL decides.
    assert rig.closed


def test_the_client_resets_the_connection(connect):
    rig = connect(pair=tcp_pair)
    reset(rig.client)
    rig.turns()
    # Whether that is an error or an end, OpenSSL decides.
    assert rig.closed


def test_the_client_resets_the_connection_behind_what_it_has_sent(connect):
    """uvloop tells of both at once, and then no more."""
    rig = connect(pair=tcp_pair)
    rig.client.send(b"question")
    reset(rig.client)
    rig.turns()
    assert rig.protocol.octets == b"question"
    assert rig.closed


@pytest.mark.parametrize("size", [10, MIB])
def test_writing_to_a_client_that_is_gone(connect, size):
    rig = connect()
    rig.client.close()
    rig.transport.write(b"x" * size)
    rig.transport.write(b"x" * size)
    rig.turns()
    (error,) = rig.protocol.calls
    assert isinstance(error, OSError)


def test_a_client_that_leaves_while_it_is_written_to(connect):
    rig = connect()
    rig.transport.pause_reading()
    rig.transport.write(b"x" * MIB)
    rig.client.close()
    rig.turns()
    assert rig.protocol.calls[0] == "pause"
    assert isinstance(rig.protocol.calls[1], OSError)


def test_octets_that_are_not_tls(connect):
    rig = connect()
    socket.socket.send(rig.client, b"\x17\x03\x03\x00\x05hello")
    rig.turns()
    (error,) = rig.protocol.calls
    assert isinstance(error, ssl.SSLError)


@pytest.mark.parametrize("when", ["on_made", "on_data"])
def test_a_protocol_that_fails(loop, connect, when):
    def fail(transport):
        raise ZeroDivisionError("a defect")

    rig = connect(**{when: fail})
    rig.send(b"question")
    (context,) = loop.errors
    assert (repr(context["exception"]), context["protocol"]) == ("ZeroDivisionError('a defect')", rig.protocol)
    loop.errors.clear()
    assert rig.closed
