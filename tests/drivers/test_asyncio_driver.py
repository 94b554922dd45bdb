"""The asyncio driver over a wire in memory, with a clock that only tests move."""

import asyncio
import socket
import ssl
import tracemalloc

import pytest

from gunicorn_h2.drivers.asyncio_driver import unsent_octets
from gunicorn_h2.drivers.channel import StreamAborted
from gunicorn_h2.protocol.errors import ErrorCode
from tests.drivers.asyncio_wire import Loop, Wire, WirePeer
from tests.protocol.peer import GOAWAY, INITIAL_WINDOW_SIZE, data, goaway, ping, rst_stream, window_update

FIELDS = [(b"content-type", b"text/plain")]


@pytest.fixture
def loop():
    """An event loop; nothing may have gone wrong in it unnoticed."""
    loop = Loop()
    asyncio.set_event_loop(loop)
    yield loop
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.turns()
    assert not loop.errors
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture(params=[None, 1], ids=["whole", "bytes"])
def cut(request):
    """How many octets are delivered at a time."""
    return request.param


@pytest.fixture
def connect(loop, cut):
    """A function that makes a connection to an application."""
    def connect(application, **options):
        return WirePeer(loop, application, cut, **options)
    return connect


async def hello(connection, channel):
    """Answer at once."""
    channel.respond(200, FIELDS, b"hello", True)
    channel.finish()


async def echo(connection, channel):
    """Send the body back as it comes."""
    channel.respond(200, FIELDS, b"", False)
    while piece := await channel.read():
        channel.send(piece, False)
        await channel.drain()
    channel.send(b"", True)
    channel.finish()


class Waiting:
    """An application that waits until the test lets it go, and remembers what happened to it."""

    def __init__(self, loop, then=hello):
        self.released, self.then, self.ended = loop.create_future(), then, []

    async def __call__(self, connection, channel):
        """Serve a request."""
        try:
            await asyncio.shield(self.released)
            await self.then(connection, channel)
        except BaseException as error:
            self.ended.append(error)
            channel.finish()
            raise
        self.ended.append(None)

    def release(self):
        """Let every request go."""
        self.released.set_result(None)


def test_a_request_and_its_response(connect):
    peer = connect(hello)
    answer = peer.request()
    assert (answer.status, answer.body, answer.ended) == (200, b"hello", True)
    assert peer.requests == 1


def test_requests_that_come_together_are_answered_in_one_write(loop):
    peer = WirePeer(loop, hello)
    writes = peer.wire.writes
    peer.send(*[peer.headers(peer.next_id()) for _ in range(10)])
    assert peer.wire.writes == writes + 1
    assert [peer.answers[stream_id].body for stream_id in range(1, 20, 2)] == [b"hello"] * 10


def test_a_body_is_read_as_it_comes(connect):
    peer = connect(echo)
    answer = peer.request(body=b"one ", end=False)
    assert answer.body == b"one "
    peer.send(data(1, b"two"), data(1, b"", True))
    assert (answer.body, answer.ended) == (b"one two", True)


def test_credit_comes_back_with_reading(loop):
    peer = WirePeer(loop, echo, connection_window_size=65_535)
    peer.request(body=b"x" * 16_384, end=False)
    peer.send(data(1, b"x" * 16_384))
    assert peer.updates == [(0, 32_768), (1, 32_768)]


def test_an_unread_body_leaves_the_connections_window_to_others(loop):
    peer = WirePeer(loop, Waiting(loop), connection_window_size=65_535)
    peer.request(body=b"x" * 16_384, end=False)
    peer.send(data(1, b"x" * 16_384, True))
    assert peer.updates == [(0, 32_768)]


def test_a_reset_is_told_and_cancels_nothing(connect, loop):
    told = []

    async def application(connection, channel):
        channel.respond(200, FIELDS, b"", False)
        await channel.wait_over()
        told.append(channel.aborted)
        with pytest.raises(StreamAborted) as caught:
            channel.send(b"late", False)
        told.append((caught.value.stream_id, caught.value.code))
        channel.finish()

    peer = connect(application)
    peer.request()
    peer.send(rst_stream(1, 8))
    assert told == [True, (1, 8)]
    assert not asyncio.all_tasks(loop)
    peer.assert_alive()


@pytest.mark.parametrize("wait", ["read", "drain", "wait_over"])
def test_a_lost_connection_wakes_everyone(loop, wait):
    ended = []

    async def application(connection, channel):
        channel.respond(200, FIELDS, b"x" * 200_000, False)
        try:
            await getattr(channel, wait)()
        except StreamAborted:
            ended.append("aborted")
        ended.append("ended")
        channel.finish()

    peer = WirePeer(loop, application)
    peer.request(end=False)
    peer.wire.abort()
    assert peer.closes == 0
    loop.turns()
    assert ended[-1] == "ended"
    assert ("aborted" in ended) == (wait != "wait_over")
    assert peer.closes == 1


def test_a_connection_counts_until_its_last_task_is_done(loop):
    application = Waiting(loop)
    peer = WirePeer(loop, application)
    peer.request()
    peer.wire.abort()
    loop.turns()
    assert peer.closes == 0
    application.release()
    loop.turns()
    assert peer.closes == 1
    assert isinstance(application.ended[0], StreamAborted)


def test_a_cancelled_wait_leaves_the_others(loop):
    woken = []

    async def wait(channel, name):
        await channel.wait_over()
        woken.append(name)

    async def application(connection, channel):
        first, second = loop.create_task(wait(channel, "first")), loop.create_task(wait(channel, "second"))
        await asyncio.sleep(0)
        first.cancel()
        await second
        channel.finish()

    peer = WirePeer(loop, application)
    peer.request()
    peer.send(rst_stream(1))
    assert woken == ["second"]


def test_a_body_that_stops_is_not_waited_for(loop):
    peer = WirePeer(loop, echo, stream_timeout=5.0)
    answer = peer.request(body=b"abc", end=False)
    loop.wait(6)
    peer.collect()
    assert answer.reset == ErrorCode.CANCEL
    assert "StreamAborted" not in peer.log.text


def test_continue_is_sent_when_the_body_is_asked_for(connect):
    async def application(connection, channel):
        channel.respond(200, FIELDS, await channel.read(), True)
        channel.finish()

    peer = connect(application)
    answer = peer.request((b"expect", b"100-continue"), end=False)
    assert [dict(section)[b":status"] for section in answer.interim] == [b"100"]
    peer.send(data(1, b"abc", True))
    assert answer.body == b"abc"


def test_an_early_hint_does_not_stand_for_the_continue(connect):
    async def application(connection, channel):
        channel.send_interim(103, [(b"link", b"</style.css>")])
        channel.respond(200, FIELDS, await channel.read(), True)
        channel.finish()

    peer = connect(application)
    answer = peer.request((b"expect", b"100-continue"), end=False)
    assert [dict(section)[b":status"] for section in answer.interim] == [b"103", b"100"]
    peer.send(data(1, b"abc", True))
    assert answer.body == b"abc"


def test_a_continue_of_the_applications_own_is_the_only_one(connect):
    async def application(connection, channel):
        channel.send_interim(100, [])
        channel.respond(200, FIELDS, await channel.read(), True)
        channel.finish()

    peer = connect(application)
    answer = peer.request((b"expect", b"100-continue"), end=False)
    peer.send(data(1, b"abc", True))
    assert ([dict(section)[b":status"] for section in answer.interim], answer.body) == ([b"100"], b"abc")


def test_a_body_in_tiny_pieces_takes_little_more_than_its_room(loop):
    """Unread, 30 000 pieces of two octets are held as some sixty, not as 30 000 objects."""
    application = Waiting(loop, echo)
    peer = WirePeer(loop, application)
    answer = peer.request(end=False)
    tiny = [data(1, b"%02d" % (number % 100)) for number in range(30_000)]
    body = b"".join(frame[9:] for frame in tiny)
    octets = b"".join(tiny)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        peer.connection.data_received(octets)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 60_000 < held < 200_000
    peer.send(data(1, b"", True))
    application.release()
    peer.collect()
    assert (answer.body, answer.ended) == (body, True)


def test_only_a_request_that_the_core_answers_is_noted(connect):
    peer = connect(hello)
    assert peer.request(path=None).reset == ErrorCode.PROTOCOL_ERROR
    assert peer.noted == []
    assert peer.request(method=b"CONNECT", path=None, scheme=None).status == 501
    assert [(refusal.stream_id, refusal.status) for refusal in peer.noted] == [(3, 501)]


# -- writing -----------------------------------------------------------------------------------------------------------


def test_output_waits_while_the_transport_is_full(loop):
    """What the core may turn into frames stays with it, and the application waits."""
    async def application(connection, channel):
        channel.respond(200, FIELDS, b"", False)
        for _ in range(20):
            channel.send(b"x" * 50_000, False)
            await channel.drain()
        channel.send(b"", True)
        channel.finish()

    peer = WirePeer(loop, application, settings=[(INITIAL_WINDOW_SIZE, 10_000_000)])
    peer.send(window_update(0, 10_000_000))
    peer.wire.stuck = 0
    answer = peer.request()
    assert len(answer.body) < 400_000
    for _ in range(30):
        peer.wire.drain(peer.wire.stuck)
        peer.collect()
    assert (len(answer.body), answer.ended) == (1_000_000, True)


def test_a_peer_that_does_not_read_is_given_up(loop):
    peer = WirePeer(loop, hello, stream_timeout=5.0, settings=[(INITIAL_WINDOW_SIZE, 10_000_000)])
    peer.send(window_update(0, 10_000_000))
    peer.wire.stuck = 0

    async def application(connection, channel):
        channel.respond(200, FIELDS, b"x" * 1_000_000, True)
        channel.finish()

    peer.connection._application = application
    peer.request()
    assert peer.wire.paused
    loop.wait(4)
    peer.wire.stuck -= 1
    loop.wait(4)
    assert not peer.wire.aborted
    loop.wait(7)
    assert peer.wire.aborted
    assert "does not read" in peer.log.text
    assert peer.closes == 1


def test_what_is_called_before_the_flush_is_in_it(loop):
    async def application(connection, channel):
        channel.respond(200, FIELDS, b"a", False)
        channel.call_before_flush(lambda: channel.send(b"b", True))
        await channel.wait_over()
        channel.finish()

    peer = WirePeer(loop, application)
    writes = peer.wire.writes
    answer = peer.request()
    assert (answer.body, answer.ended) == (b"ab", True)
    assert peer.wire.writes == writes + 1


# -- the end -----------------------------------------------------------------------------------------------------------


def test_a_graceful_end(connect, loop):
    application = Waiting(loop)
    peer = connect(application)
    answer = peer.request()
    peer.driver.shutdown()
    peer.driver.shutdown()
    loop.wait(3)
    peer.collect()
    assert peer.goaways == [(2**31 - 1, 0), (1, 0)]
    application.release()
    peer.collect()
    assert (answer.status, answer.ended) == (200, True)
    assert peer.wire.eof
    loop.wait(2)
    assert peer.wire.aborted
    assert peer.closes == 1


def test_a_connection_that_comes_during_the_shutdown(loop):
    peer = WirePeer(loop, hello)
    peer.driver.shutdown()
    wire = Wire()
    peer.driver.adopt(wire, None)
    loop.turns()
    other = wire.protocol
    other.data_received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    loop.wait(3)
    assert bytes([GOAWAY]) in wire.written


@pytest.mark.parametrize("half_closes", [True, False], ids=["clear", "tls"])
def test_the_last_octets_are_waited_for(loop, half_closes):
    """A peer that reads slowly gets everything; one that has it all is given a moment to read it."""
    peer = WirePeer(loop, hello, wire=Wire(half_closes))
    peer.wire.stuck = 30
    peer.send(data(1, b"x"))
    assert (peer.wire.eof, peer.wire.closing) == (half_closes, not half_closes)
    for _ in range(3):
        loop.wait(1)
        peer.wire.stuck -= 10
        assert not peer.wire.aborted
    peer.wire.stuck = 0
    loop.wait(1.1)
    assert not peer.wire.aborted
    loop.wait(2)
    assert peer.wire.aborted


def test_what_comes_after_the_end_is_ignored(connect):
    peer = connect(hello)
    peer.send(data(1, b"x"))
    assert peer.goaways == [(0, ErrorCode.PROTOCOL_ERROR)]
    written = peer.wire.written
    peer.send(ping())
    assert peer.wire.written == written
    assert "PROTOCOL_ERROR" in peer.log.text


def test_an_idle_connection(connect, loop):
    peer = connect(hello, idle_timeout=5.0)
    peer.request()
    loop.wait(4)
    assert not peer.wire.eof
    loop.wait(2)
    assert peer.wire.eof


def test_a_client_that_goes_away(connect):
    peer = connect(hello)
    peer.request()
    peer.send(goaway())
    assert peer.wire.eof


def test_the_end_of_what_the_client_sends(loop):
    peer = WirePeer(loop, hello)
    assert not peer.connection.eof_received()
    peer.connection.connection_lost(ConnectionResetError("reset"))
    assert "reset" in peer.log.text
    assert peer.closes == 1
    peer.connection.schedule_flush()
    loop.turns()


def test_cancel(loop):
    application = Waiting(loop)
    peer = WirePeer(loop, application)
    peer.request()
    peer.driver.cancel()
    loop.turns()
    assert isinstance(application.ended[0], asyncio.CancelledError)
    assert peer.wire.aborted
    assert peer.closes == 1


def test_a_defect_costs_one_connection(loop):
    async def application(connection, channel):
        def broken():
            raise ZeroDivisionError("a defect")
        channel.call_before_flush(broken)
        await channel.wait_over()
        channel.finish()

    peer = WirePeer(loop, application)
    peer.request()
    assert peer.wire.aborted
    assert "a defect" in peer.log.text
    assert peer.closes == 1


def tls_pair(certs, ciphers):
    """The server's end of a TLS 1.2 connection with one of the ciphers."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certs.client_context()
    server.load_cert_chain(certs.server_cert, certs.server_key)
    for context in (server, client):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [server.wrap_bio(there, back, server_side=True), client.wrap_bio(back, there, server_hostname="localhost")]
    for _ in range(3):
        for end in reversed(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return ends[0]


@pytest.mark.parametrize(("ciphers", "good"), [
    ("ECDHE+AESGCM", True), ("ECDHE+CHACHA20", True), ("ECDHE-ECDSA-AES128-SHA256", False),
    ("ECDHE-ECDSA-AES256-SHA", False),
])
def test_the_cipher_suite(loop, certs, ciphers, good):
    """RFC 9113 section 9.2.2."""
    peer = WirePeer(loop, hello, wire=Wire(False, ssl_object=tls_pair(certs, ciphers)), setup=False)
    peer.collect()
    assert peer.goaways == ([] if good else [(0, ErrorCode.INADEQUATE_SECURITY)])


def test_octets_that_the_kernel_holds_count(loop):
    first, second = socket.socketpair()
    wire = Wire(socket=first)
    assert unsent_octets(wire) == 0
    first.setblocking(False)
    first.send(b"x" * 1000)
    assert unsent_octets(wire) >= 1000
    second.recv(10_000)
    first.close()
    wire.stuck = 5
    assert unsent_octets(wire) == 5
    second.close()
