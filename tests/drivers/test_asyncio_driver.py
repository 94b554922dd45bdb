"""The asyncio driver over a wire in memory, with a clock that only tests move."""

import asyncio
import contextlib
import socket
import ssl
import weakref

import pytest
from hpack import Encoder

from gunicorn_h2.drivers.asyncio_driver import AsyncioDriver
from gunicorn_h2.drivers.channel import StreamAborted
from gunicorn_h2.drivers.negotiation import Terms
from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.headers import ResponseHead
from gunicorn_h2.protocol.opening import Cleartext
from gunicorn_h2.protocol.outbox import OUTPUT_LIMIT
from tests.drivers.asyncio_wire import LOOPS, Log, Loop, WirePeer, make_loop, reset, tcp_pair, turn
from tests.protocol.peer import (
    END_HEADERS,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PREFACE,
    data,
    fields,
    goaway,
    ping,
    raw,
    rst_stream,
    settings,
    window_update,
)

HEAD = ResponseHead(200, [(b"content-type", b"text/plain")])


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
    channel.respond(HEAD, b"hello", True)
    channel.finish()


async def echo(connection, channel):
    """Send the body back as it comes."""
    channel.respond(HEAD, b"", False)
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


def test_windows_grow_from_the_workers_budget_until_the_calls_have_returned(loop):
    returned = loop.create_future()

    async def application(connection, channel):
        with contextlib.suppress(StreamAborted):
            while await channel.read():
                pass
        await returned
        channel.finish()

    first = WirePeer(loop, application)
    second = WirePeer(loop, application, driver=first.driver)
    budget = first.driver.window_budget
    for number, peer in enumerate((first, second)):
        peer.request(end=False)
        peer.send(*[data(1, bytes(16_000))] * 3)
        loop.now += 0.1
        peer.send(ping(peer.pings[0][1], ack=True))
        assert budget.taken == number * 65_535
        peer.send(*[data(1, bytes(16_000))] * 3)
        assert budget.taken == (number + 1) * 65_535
    for peer in (first, second):
        peer.gone()
    assert budget.taken == 2 * 65_535
    returned.set_result(None)
    loop.turns()
    assert budget.taken == 0


def test_an_unread_body_leaves_the_connections_window_to_others(loop):
    peer = WirePeer(loop, Waiting(loop), connection_window_size=65_535)
    peer.request(body=b"x" * 16_384, end=False)
    peer.send(data(1, b"x" * 16_384, True))
    assert peer.updates == [(0, 32_768)]


def test_a_reset_is_told_and_cancels_nothing(connect, loop):
    told = []

    async def application(connection, channel):
        channel.respond(HEAD, b"", False)
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
        channel.respond(HEAD, b"x" * 200_000, False)
        try:
            await getattr(channel, wait)()
        except StreamAborted:
            ended.append("aborted")
        ended.append("ended")
        channel.finish()

    peer = WirePeer(loop, application)
    peer.request(end=False)
    peer.gone()
    assert ended[-1] == "ended"
    assert ("aborted" in ended) == (wait != "wait_over")
    assert peer.closes == 1


def test_a_connection_counts_until_its_last_task_is_done(loop):
    application = Waiting(loop)
    peer = WirePeer(loop, application)
    peer.request()
    peer.gone()
    assert peer.wire.closed
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


def test_small_pieces_are_joined(loop):
    """An octet alone would take fifty times its room."""
    application = Waiting(loop, echo)
    peer = WirePeer(loop, application)
    peer.request(end=False)
    (channel,) = peer.connection.channels
    for _ in range(20):
        peer.send(data(1, b"ab") * 100)
    assert len(channel._body._pieces) < 10
    application.release()
    peer.send(data(1, b"", True))
    assert peer.answers[1].body == b"ab" * 2000


def test_continue_is_sent_when_the_body_is_asked_for(connect):
    async def application(connection, channel):
        channel.respond(HEAD, await channel.read(), True)
        channel.finish()

    peer = connect(application)
    answer = peer.request((b"expect", b"100-continue"), end=False)
    assert [dict(section)[b":status"] for section in answer.interim] == [b"100"]
    peer.send(data(1, b"abc", True))
    assert answer.body == b"abc"


def test_an_early_hint_does_not_stand_for_the_continue(connect):
    async def application(connection, channel):
        channel.send_interim(ResponseHead(103, [(b"link", b"</style.css>")]))
        channel.respond(HEAD, await channel.read(), True)
        channel.finish()

    peer = connect(application)
    answer = peer.request((b"expect", b"100-continue"), end=False)
    assert [dict(section)[b":status"] for section in answer.interim] == [b"103", b"100"]
    peer.send(data(1, b"abc", True))
    assert answer.body == b"abc"


def test_a_continue_of_the_applications_own_is_the_only_one(connect):
    async def application(connection, channel):
        channel.send_interim(ResponseHead(100, []))
        channel.respond(HEAD, await channel.read(), True)
        channel.finish()

    peer = connect(application)
    answer = peer.request((b"expect", b"100-continue"), end=False)
    peer.send(data(1, b"abc", True))
    assert ([dict(section)[b":status"] for section in answer.interim], answer.body) == ([b"100"], b"abc")


def test_only_a_request_that_the_core_answers_is_noted(connect):
    peer = connect(hello)
    assert peer.request(path=None).reset == ErrorCode.PROTOCOL_ERROR
    assert peer.noted == []
    assert peer.request(method=b"CONNECT", path=None, scheme=None).status == 501
    assert [(refusal.stream_id, refusal.status) for refusal in peer.noted] == [(3, 501)]


# -- writing -----------------------------------------------------------------------------------------------------------


def test_output_waits_while_the_transport_is_full(loop):
    """What the core may turn into frames stays with it, and the application waits."""
    sent = []

    async def application(connection, channel):
        channel.respond(HEAD, b"", False)
        for _ in range(20):
            channel.send(b"x" * 50_000, False)
            await channel.drain()
            sent.append(50_000)
        channel.send(b"", True)
        channel.finish()

    peer = WirePeer(loop, application, settings=[(INITIAL_WINDOW_SIZE, 10_000_000)])
    peer.send(window_update(0, 10_000_000))
    peer.wire.room = 0
    answer = peer.request()
    assert answer.body == b""
    assert len(sent) < 10
    for _ in range(30):
        peer.wire.drain(50_000)
        peer.collect()
    assert (len(answer.body), answer.ended) == (1_000_000, True)


def read_slowly(loop, peer, seconds):
    """Take half a megabyte of what a peer's wire gets, a little at a time, with a pause before each."""
    for _ in range(50):
        loop.wait(seconds)
        peer.wire.drain(10_000)
        peer.collect()


def test_an_urgent_response_waits_for_little_where_the_peer_is_slow(loop):
    """Less is taken from the core at a time, for that is written whatever comes."""
    peer = WirePeer(loop, by_path, settings=[(INITIAL_WINDOW_SIZE, 10_000_000)])
    peer.send(window_update(0, 10_000_000))
    peer.wire.room = 0
    bulk = peer.request(path=b"/bulk")
    read_slowly(loop, peer, 0.05)
    received = len(bulk.body)
    urgent = peer.request(path=b"/urgent")
    while not urgent.ended:
        peer.wire.drain(1_000)
        peer.collect()
    assert len(bulk.body) - received < 4 * 16_384
    # As soon as all that is tried goes out, more is taken at a time.
    peer.wire.room = None
    peer.collect()
    assert bulk.ended
    assert max(peer.wire.sizes) > 65_536


def test_a_full_transport_alone_does_not_make_a_peer_slow(loop):
    """Each turn at the socket would cost more where less is taken at a time."""
    peer = WirePeer(loop, by_path, settings=[(INITIAL_WINDOW_SIZE, 10_000_000)])
    peer.send(window_update(0, 10_000_000))
    peer.wire.room = 0
    peer.request(path=b"/bulk")
    read_slowly(loop, peer, 0.0)
    assert peer.core.output_limit == OUTPUT_LIMIT


async def by_path(connection, channel):
    """Answer with megabytes, or with little."""
    channel.respond(HEAD, b"x" * 3_000_000 if channel.stream.head.path == b"/bulk" else b"urgent", True)
    channel.finish()


async def large(connection, channel):
    """Answer with a megabyte."""
    channel.respond(HEAD, b"x" * 1_000_000, True)
    channel.finish()


def test_a_peer_that_does_not_read_is_given_up(loop):
    peer = WirePeer(loop, large, stream_timeout=5.0, min_read_rate=0, settings=[(INITIAL_WINDOW_SIZE, 10_000_000)])
    peer.send(window_update(0, 10_000_000))
    peer.wire.room = 100_000
    peer.request()
    loop.wait(4)
    peer.wire.drain(1)
    loop.wait(4)
    assert not peer.wire.closed
    loop.wait(2)
    assert peer.wire.closed
    assert " by=server reason=write_timeout " in peer.log.text
    assert peer.closes == 1


def test_a_peer_that_reads_what_the_kernel_holds_is_not_given_up(loop):
    """Slowly: a full socket takes nothing more until much of it has been read."""
    peer = WirePeer(loop, large, stream_timeout=5.0, settings=[(INITIAL_WINDOW_SIZE, 10_000_000)])
    peer.wire.client.send(window_update(0, 10_000_000) + peer.headers(peer.next_id()))
    loop.turns()
    peer.wire.room = 0
    for _ in range(4):
        peer.wire.client.recv(40_000)
        loop.wait(4)
    assert not peer.wire.closed
    loop.wait(6)
    assert peer.wire.closed


class Held:
    """The end of a response, held back until the flush."""

    def __init__(self, held, flush):
        self.held, self.flush = held, flush


def test_what_is_held_goes_out_with_the_flush(loop):
    async def application(connection, channel):
        channel.respond(HEAD, b"a", False)
        connection.held.append(Held(b"b", lambda: channel.send(b"b", True)))
        connection.held.append(Held(None, lambda: channel.send(b"c", True)))
        await channel.wait_over()
        channel.finish()

    peer = WirePeer(loop, application)
    writes = peer.wire.writes
    answer = peer.request()
    assert (answer.body, answer.ended) == (b"ab", True)
    assert peer.wire.writes == writes + 1


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_garbage_collector")
def test_nothing_keeps_a_closed_connection(loop):
    """No cycle: a busy worker would hold thousands of them until the garbage collector finds them."""
    seen = []

    async def application(connection, channel):
        seen.append(weakref.ref(connection))
        await hello(connection, channel)

    peer = WirePeer(loop, application)
    assert peer.request().body == b"hello"
    peer.wire.client.close()
    loop.turns()
    assert peer.closes == 1
    assert [connection() for connection in seen] == [None]


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
    loop.wait(3)
    assert peer.wire.closed
    assert peer.closes == 1


def test_a_connection_that_comes_during_the_shutdown(loop):
    peer = WirePeer(loop, hello)
    peer.driver.shutdown()
    other = WirePeer(loop, hello, driver=peer.driver)
    assert other.request().body == b"hello"
    loop.wait(3)
    other.collect()
    assert [code for _, code in other.goaways] == [ErrorCode.NO_ERROR] * 2


def test_a_shutdown_in_the_middle_of_a_read(loop):
    """As when the last request of `max_requests` comes together with others: they are all answered."""
    peer = WirePeer(loop, hello, on_request=lambda peer: peer.driver.shutdown() if peer.requests == 2 else None)
    peer.send(*[peer.headers(peer.next_id()) for _ in range(3)])
    assert [peer.answers[stream_id].body for stream_id in (1, 3, 5)] == [b"hello"] * 3
    loop.wait(3)
    peer.collect()
    assert peer.goaways == [(2**31 - 1, 0), (5, 0)]


def test_a_shutdown_in_the_middle_of_an_upload(loop):
    peer = WirePeer(loop, echo)
    answer = peer.request(body=b"one ", end=False)
    peer.driver.shutdown()
    loop.wait(3)
    peer.send(data(1, b"two", True))
    assert (answer.body, answer.ended) == (b"one two", True)
    loop.wait(3)
    assert peer.wire.closed


def test_the_last_octets_are_waited_for(loop):
    """A peer that reads slowly gets everything; one that has it all is given a moment to answer."""
    peer = WirePeer(loop, hello, setup=False, stream_timeout=5.0)
    peer.wire.client.send(PREFACE + settings())
    loop.turns()
    for _ in range(3):
        peer.wire.client.send(ping())
        loop.turns()
    peer.wire.client.send(data(1, b"x"))
    loop.turns()
    assert peer.wire.eof
    # The kernel counts what was written at a time until all of it has been read.
    for size in peer.wire.sizes:
        loop.wait(4)
        assert not peer.wire.closed
        assert len(peer.wire.client.recv(size)) == size
    loop.wait(1.1)
    assert not peer.wire.closed
    loop.wait(2)
    assert peer.wire.closed
    assert "does not read" not in peer.log.text


def test_the_last_octets_are_not_waited_for_without_end(loop):
    peer = WirePeer(loop, hello, stream_timeout=5.0)
    peer.wire.client.send(data(1, b"x"))
    loop.turns()
    loop.wait(4)
    assert not peer.wire.closed
    loop.wait(3)
    assert peer.wire.closed
    assert " by=server reason=error code=PROTOCOL_ERROR " in peer.log.text


def test_what_comes_after_the_end_is_ignored(connect):
    peer = connect(hello)
    peer.send(data(1, b"x"))
    assert peer.goaways == [(0, ErrorCode.PROTOCOL_ERROR)]
    peer.take()
    peer.send(ping())
    assert peer.take() == []
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
    peer.request()
    peer.wire.client.shutdown(socket.SHUT_WR)
    loop.turns()
    assert peer.wire.closed
    assert peer.closes == 1


def test_a_connection_that_is_reset(loop):
    peer = WirePeer(loop, hello)
    peer.wire.client.send(peer.headers(1))
    loop.turns()
    # A socket closed with octets unread.
    peer.gone()
    assert ' by=client reason=reset code=- detail="[Errno 104] Connection reset by peer"' in peer.log.text
    assert peer.closes == 1


@pytest.mark.parametrize("name", LOOPS)
def test_a_reset_behind_what_was_sent(name):
    """uvloop tells of both at once, and then no more."""
    told, closes = [], []

    async def application(connection, channel):
        try:
            while await channel.read():
                told.append("data")
        except StreamAborted as error:
            told.append(error.code)
        channel.finish()

    loop, log = make_loop(name), Log()
    ours, client = tcp_pair()
    driver = AsyncioDriver(loop, ConnectionConfig(), application, log, lambda: None, None, closes.append)
    driver.negotiate(ours, "a peer", Terms(None, Cleartext(prior_knowledge=True), 10.0), None)
    client.send(PREFACE + settings())
    turn(loop)
    block = Encoder().encode(fields(method=b"POST"))
    client.send(raw(HEADERS, END_HEADERS, 1, block) + data(1, b"abc"))
    reset(client)
    turn(loop)
    assert told == ["data", ErrorCode.CANCEL]
    assert closes == ["a peer"]
    assert " by=client reason=reset " in log.text
    assert not loop.errors
    loop.close()


def test_a_connection_that_breaks_while_it_is_written_to(loop):
    async def application(connection, channel):
        peer.wire.client.close()
        await hello(connection, channel)

    peer = WirePeer(loop, application)
    peer.wire.client.send(peer.headers(1))
    loop.turns()
    assert ' by=client reason=reset code=- detail="[Errno 32] Broken pipe"' in peer.log.text
    assert peer.closes == 1


def test_cancel(loop):
    application = Waiting(loop)
    peer = WirePeer(loop, application)
    peer.request()
    peer.driver.cancel()
    loop.turns()
    assert isinstance(application.ended[0], asyncio.CancelledError)
    assert peer.wire.closed
    assert peer.closes == 1


def test_cancel_before_the_task_has_begun(loop):
    peer = WirePeer(loop, hello)
    peer.wire.client.send(peer.headers(1))
    loop.turns(1)
    assert peer.requests == 1
    peer.driver.cancel()
    loop.turns()
    assert peer.closes == 1


def test_cancel_while_requests_are_held_back(loop):
    begun = []

    async def wait(connection, channel):
        if not begun:
            loop.call_soon(peer.driver.cancel)
        begun.append(channel)
        try:
            await asyncio.Event().wait()
        finally:
            channel.finish()

    peer = WirePeer(loop, wait, max_concurrent_streams=200)
    peer.send(*[peer.headers(peer.next_id()) for _ in range(200)])
    assert peer.requests == 200
    assert len(begun) < 200
    assert peer.closes == 1
    assert peer.driver.gate.waiting == 0


def test_a_defect_costs_one_connection(loop):
    async def application(connection, channel):
        def broken():
            raise ZeroDivisionError("a defect")
        connection.held.append(Held(b"", broken))
        connection.schedule_flush()
        await channel.wait_over()
        channel.finish()

    peer = WirePeer(loop, application)
    peer.request()
    assert peer.wire.closed
    assert "a defect" in peer.log.text
    assert peer.closes == 1


# -- the negotiation ---------------------------------------------------------------------------------------------------


def test_http1_is_handed_over_with_what_was_read(connect, loop):
    peer = connect(hello, setup=False)
    peer.send(b"GET / HTTP/1.1\r\n")
    (transport, address, octets), = peer.handed_over
    assert (transport.sock, address) == (peer.wire, peer.wire.peer)
    peer.wire.client.send(b"more")
    loop.turns()
    assert b"GET / HTTP/1.1\r\n".startswith(octets)
    assert transport.receive() == b"GET / HTTP/1.1\r\n"[len(octets):] + b"more"
    assert peer.closes == 0
    peer.driver.cancel()
    assert not peer.wire.closed
    peer.wire.close()


@pytest.mark.parametrize("sent", [b"", b"PRI * HTTP/2.0\r\n"])
def test_a_client_that_does_not_say_what_it_speaks(loop, sent):
    peer = WirePeer(loop, hello, setup=False)
    peer.send(sent)
    loop.wait(9)
    assert not peer.wire.closed
    loop.wait(2)
    assert peer.wire.closed
    assert peer.closes == 1
    assert " by=server reason=handshake_timeout " in peer.log.text


def test_a_client_that_leaves_before_it_says_what_it_speaks(loop):
    peer = WirePeer(loop, hello, setup=False)
    peer.wire.client.send(b"PRI")
    loop.turns()
    peer.wire.client.close()
    loop.turns()
    assert (peer.handed_over, peer.closes) == ([], 1)


@pytest.mark.parametrize(("end", "seconds"), [("shutdown", 1.1), ("cancel", 0)])
def test_the_end_in_the_middle_of_a_negotiation(loop, end, seconds):
    peer = WirePeer(loop, hello, setup=False)
    getattr(peer.driver, end)()
    loop.turns()
    assert peer.wire.closed == (not seconds)
    loop.wait(seconds)
    assert peer.wire.closed
    assert peer.closes == 1


def test_a_socket_that_is_gone_before_the_negotiation(loop):
    def wrap(sock):
        raise ConnectionResetError("gone")

    peer = WirePeer(loop, hello, setup=False, wrap=wrap)
    assert peer.closes == 0
    peer.wire.client.send(b"\x16")
    loop.turns()
    assert peer.closes == 1
    assert peer.wire.closed
    assert "gone" in peer.log.text


@pytest.fixture
def tls(certs):
    """A function that returns the contexts of server and client."""
    def tls(ciphers=None):
        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certs.client_context()
        server.load_cert_chain(certs.server_cert, certs.server_key)
        server.set_alpn_protocols(["h2"])
        if ciphers:
            for context in (server, client):
                context.maximum_version = ssl.TLSVersion.TLSv1_2
                context.set_ciphers(ciphers)
        return server, client
    return tls


def wrapper(context):
    """What puts TLS around a server's socket."""
    return lambda sock: context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)


@pytest.mark.parametrize(("ciphers", "good"), [
    ("ECDHE+AESGCM", True), ("ECDHE+CHACHA20", True), ("ECDHE-ECDSA-AES128-SHA256", False),
    ("ECDHE-ECDSA-AES256-SHA", False),
])
def test_the_cipher_suite(loop, tls, ciphers, good):
    """RFC 9113 section 9.2.2."""
    server, client = tls(ciphers)
    peer = WirePeer(loop, hello, wrap=wrapper(server), setup=False)
    peer.start_tls(client)
    peer.collect()
    assert peer.goaways == ([] if good else [(0, ErrorCode.INADEQUATE_SECURITY)])
    peer.driver.cancel()
    peer.wire.client.close()


def test_a_request_over_tls(loop, tls):
    server, client = tls()
    peer = WirePeer(loop, echo, wrap=wrapper(server), setup=False)
    peer.start_tls(client)
    peer.setup()
    assert peer.request(body=b"x" * 10_000).body == b"x" * 10_000
    peer.gone()
    assert peer.closes == 1


def test_a_handshake_that_fails(loop, tls):
    server, _ = tls()
    peer = WirePeer(loop, hello, wrap=wrapper(server), setup=False)
    peer.wire.client.send(b"GET / HTTP/1.1\r\n\r\n")
    loop.turns()
    assert peer.closes == 1
    assert "plain HTTP" in peer.log.text


# -- clients that do not read ------------------------------------------------------------------------------------------

BODY = bytes(range(256)) * 4_000
SHUT = {"settings": [(INITIAL_WINDOW_SIZE, 0)], "stream_buffer_size": 10_000, "worker_buffer_size": 1 << 26}


def sending(*messages):
    """An application that sends messages, waiting after each; it keeps how many it has sent."""
    async def application(connection, channel):
        application.sent = 0
        channel.respond(HEAD, b"", False)
        try:
            for number, message in enumerate(messages, 1):
                ends = number == len(messages)
                channel.send(message, False)
                await channel.drain(ends)
                application.sent += 1
            channel.send(b"", True)
        finally:
            channel.finish()
    return application


def read_all(peer, answer):
    """Open all windows; return what comes then."""
    peer.send(window_update(0, 100_000_000), window_update(1, 100_000_000))
    while not answer.ended:
        peer.collect()
    return answer.body


@pytest.mark.parametrize("messages", [[BODY], [BODY * 12], [BODY, b""], [b"first", BODY]],
                         ids=["one", "larger than a step", "more to come", "behind another"])
def test_a_large_message_is_stored_for_a_stalled_client(loop, messages):
    application = sending(*messages)
    peer = WirePeer(loop, application, **SHUT)
    answer = peer.request()
    assert peer.driver.spool.octets == 0
    loop.wait(1)
    assert application.sent == len(messages)
    stream = peer.core.streams[1]
    assert (stream.queued, stream.queued - stream.stored) == (len(b"".join(messages)), 10_000)
    assert read_all(peer, answer) == b"".join(messages)
    assert peer.driver.spool.octets == 0


def test_an_application_that_goes_on_waits_for_its_client(loop):
    """One message may be stored, so that no more than one waits in memory."""
    application = sending(BODY, BODY, BODY)
    peer = WirePeer(loop, application, **SHUT)
    answer = peer.request()
    loop.wait(5)
    assert application.sent == 1
    assert read_all(peer, answer) == BODY * 3


def test_small_messages_wait_in_memory(loop):
    application = sending(*[bytes(1_000)] * 100)
    peer = WirePeer(loop, application, **SHUT)
    answer = peer.request()
    loop.wait(5)
    assert (application.sent, peer.driver.spool.octets) == (10, 0)
    assert read_all(peer, answer) == bytes(100_000)


@pytest.mark.parametrize("limits", [{"worker_spool_size": 0}, {"worker_spool_size": 1_000_000},
                                    {"response_spool_size": 500_000}], ids=["off", "worker", "response"])
def test_a_message_that_the_file_has_no_room_for_waits(loop, limits):
    application = sending(BODY)
    peer = WirePeer(loop, application, **SHUT, **limits)
    answer = peer.request()
    loop.wait(5)
    assert application.sent == 0
    assert read_all(peer, answer) == BODY


@pytest.mark.parametrize("way", ["reset", "leave"])
def test_the_file_is_empty_when_the_client_is_gone(loop, way):
    peer = WirePeer(loop, sending(BODY), **SHUT)
    peer.request()
    loop.wait(1)
    assert peer.driver.spool.octets > 0
    if way == "reset":
        peer.send(rst_stream(1))
    else:
        peer.wire.client.close()
        loop.turns()
    assert peer.driver.spool.octets == 0


def test_a_short_memory_does_not_wait_for_clients(loop):
    """Messages of one turn are stored at once, before the next of them is made."""
    applications = []

    async def application(connection, channel):
        applications.append(connection.spool.octets)
        await sending(BODY)(connection, channel)

    peer = WirePeer(loop, application, **{**SHUT, "worker_buffer_size": 1_000_000})
    peer.send(*[peer.headers(peer.next_id()) for _ in range(5)])
    stored = peer.driver.spool.octets
    assert stored > 4 * len(BODY)
    assert peer.driver.output_budget.used <= 1_000_000 + 10_000


def test_a_full_socket_is_a_stalled_client(loop):
    peer = WirePeer(loop, sending(BODY), settings=[(INITIAL_WINDOW_SIZE, 100_000_000)], stream_buffer_size=10_000)
    peer.send(window_update(0, 100_000_000))
    peer.wire.room = 10_000
    answer = peer.request()
    loop.wait(1)
    assert peer.driver.spool.octets > 500_000
    while not answer.ended:
        peer.wire.drain(1_000_000)
        peer.collect()
    assert (answer.body, peer.driver.spool.octets) == (BODY, 0)
