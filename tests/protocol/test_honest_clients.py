"""What busy clients do that are honest: with the default limits none of it ends a connection."""

import pytest
from hpack import Encoder

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.connection import ServerConnection
from gunicorn_h2.protocol.events import ConnectionTerminated, DataReceived, RequestReceived, StreamReset
from gunicorn_h2.protocol.headers import ResponseHead

from .peer import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PREFACE,
    data,
    fields,
    ping,
    priority,
    raw,
    rst_stream,
    settings,
    settings_ack,
    window_update,
)

# Thousands of messages, over lines that shorter tests cover.
pytestmark = pytest.mark.uncovered

OK = ResponseHead(200, [(b"content-type", b"text/plain")])
CANCEL = 8
BROWSER_FIELDS = [
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0"),
    (b"accept", b"image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"),
    (b"accept-language", b"en-GB,en;q=0.9"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"referer", b"https://localhost/gallery"),
]


class Client:
    """A client of one connection, and the clock that the core is shown. What comes back is not looked at.

    An application call returns `delay` seconds after its stream was reset, or when `answer` is called.
    """

    def __init__(self, engine, window=65_535, delay=0.0):
        self.now, self.delay = 1000.0, delay
        self.core = ServerConnection(ConnectionConfig(engine=engine), self.now)
        self.encoder, self.next_id = Encoder(), 1
        self.running, self.returning, self.received = {}, [], 0
        self.send(PREFACE + settings((INITIAL_WINDOW_SIZE, window)) + settings_ack())

    def send(self, octets):
        """Deliver octets, and take the events."""
        self.core.receive_data(octets, self.now)
        for event in self.core.events():
            assert not isinstance(event, ConnectionTerminated), event
            if isinstance(event, RequestReceived):
                self.running[event.stream.stream_id] = event.stream
            elif isinstance(event, DataReceived):
                self.received += len(event.data)
                self.core.acknowledge(event.stream, len(event.data), self.now)
            elif isinstance(event, StreamReset):
                self.returning.append((self.now + self.delay, event.stream))
        self.flush()

    def flush(self):
        """Read the output; return how much it was."""
        count = 0
        while octets := self.core.data_to_send(self.now):
            count += len(octets)
        return count

    def wait(self, seconds):
        """Let time pass; calls return, deadlines come."""
        self.now += seconds
        while self.returning and self.returning[0][0] <= self.now:
            self.core.finish(self.returning.pop(0)[1], self.now)
        deadline = self.core.next_deadline()
        if deadline is not None and deadline <= self.now:
            self.core.handle_timeout(self.now)
        self.send(b"")

    def request(self, *extra, end=True, **pseudo):
        """The octets of the next request, and the identifier of its stream."""
        stream_id, self.next_id = self.next_id, self.next_id + 2
        block = self.encoder.encode(fields(*extra, **pseudo))
        return raw(HEADERS, END_HEADERS | END_STREAM * end, stream_id, block), stream_id

    def answer(self, stream_id, body=b"answer"):
        """The application answers, and its call returns."""
        stream = self.running.pop(stream_id)
        self.core.send_response(stream, OK, body)
        self.core.finish(stream, self.now)
        self.flush()


def test_a_browser_that_scrolls_through_images(engine):
    """Each storm cancels 200 images within two seconds; then those in view are loaded."""
    client = Client(engine, window=6_291_456)
    for _ in range(5):
        for _ in range(20):
            begun = [client.request(*BROWSER_FIELDS, path=b"/image-%d" % client.next_id) for _ in range(10)]
            client.send(b"".join(octets + priority(stream_id) for octets, stream_id in begun))
            client.wait(0.1)
            client.send(b"".join(rst_stream(stream_id, CANCEL) for _, stream_id in begun))
        for _ in range(200):
            octets, stream_id = client.request(*BROWSER_FIELDS, path=b"/view-%d" % client.next_id)
            client.send(octets)
            client.answer(stream_id, bytes(10_000))
            client.send(window_update(0, 10_000))


@pytest.mark.parametrize("deadline", [1.1, 5.0])
def test_rpcs_whose_deadlines_pass(engine, deadline):
    """The service hangs: for a minute all calls are cancelled at their deadline, a hundred of them under way."""
    client = Client(engine, delay=0.01)
    for _ in range(int(60 / deadline)):
        timeout = (b"grpc-timeout", b"%dm" % (1000 * deadline))
        begun = [client.request(timeout, method=b"POST", end=False) for _ in range(90)]
        client.send(b"".join(octets + data(stream_id, b"\0\0\0\0\0", True) for octets, stream_id in begun))
        client.wait(deadline)
        client.send(b"".join(rst_stream(stream_id, CANCEL) for _, stream_id in begun))
        client.wait(0.02)


def test_rpcs_of_which_every_other_misses_a_short_deadline(engine):
    client = Client(engine)
    for _ in range(500):
        (late, late_id), (good, good_id) = client.request(end=True), client.request(end=True)
        client.send(late + good)
        client.answer(good_id)
        client.wait(0.01)
        client.send(rst_stream(late_id, CANCEL))


def test_a_client_that_retries_while_its_cancelled_calls_still_run(engine):
    """It cannot know that they count: what it is refused costs little."""
    client = Client(engine, delay=1.5)
    begun = [client.request() for _ in range(100)]
    client.send(b"".join(octets for octets, _ in begun))
    client.wait(0.5)
    client.send(b"".join(rst_stream(stream_id, CANCEL) for _, stream_id in begun))
    for _ in range(260):
        client.send(client.request()[0])
        client.wait(0.005)
    client.wait(0.3)
    octets, stream_id = client.request()
    client.send(octets)
    client.answer(stream_id)


def test_a_reader_that_updates_its_windows_every_four_kib(engine):
    """Go's client, windows of 4 MiB: its updates may all come when everything has been sent."""
    client = Client(engine, window=4_194_304)
    client.send(window_update(0, 2**30))
    size = 4_194_304 if engine == "fast" else 1_048_576
    for _ in range(3):
        begun = [client.request() for _ in range(8)]
        client.send(b"".join(octets for octets, _ in begun))
        for _, stream_id in begun:
            client.answer(stream_id, bytes(size))
        for _ in range(8 * size // 4_096):
            client.send(window_update(0, 4_096))


def test_five_thousand_tiny_messages_a_second_each_way(engine):
    """A bidirectional stream with a PING for each ten milliseconds of it, and updates of both windows (grpc-go)."""
    client = Client(engine)
    octets, stream_id = client.request(end=False)
    client.send(octets)
    stream = client.running[stream_id]
    client.core.send_headers(stream, OK, False)
    message = b"\0\0\0\0\x02hi"
    seconds = 60 if engine == "fast" else 1
    for _ in range(100 * seconds):
        client.now += 0.01
        client.send(data(stream_id, message) * 50)
        for _ in range(50):
            client.core.send_data(stream, message, False)
            client.flush()
        size = 50 * len(message)
        client.send(ping(b"estimate") + window_update(stream_id, size) + window_update(0, size))
    assert client.received == seconds * 5_000 * len(message)


def test_a_ping_and_two_updates_for_each_message(engine):
    """On a fast network every message of a stream may be answered so."""
    client = Client(engine)
    octets, stream_id = client.request()
    client.send(octets)
    stream = client.running[stream_id]
    client.core.send_headers(stream, OK, False)
    for _ in range(5_000):
        client.core.send_data(stream, b"tick", False)
        assert client.flush()
        client.send(ping(b"estimate") + window_update(stream_id, 4) + window_update(0, 4))


def test_a_burst_of_messages_that_fills_the_window(engine):
    """All at once, at the very beginning: a client that has waited for its channel."""
    client = Client(engine)
    octets, stream_id = client.request(end=False)
    message = b"\0\0\0\0\x06abcdef"
    client.send(octets + data(stream_id, message) * (65_535 // len(message)))
    assert client.received == 65_535 // len(message) * len(message)


def test_an_interactive_upload(engine):
    """A key stroke at a time: an octet each, for an hour."""
    client = Client(engine)
    octets, stream_id = client.request(end=False)
    client.send(octets)
    for _ in range(5_000):
        client.send(data(stream_id, b"k"))
        client.now += 0.7
    assert client.received == 5_000


def test_a_site_with_as_many_cookies_as_a_browser_keeps(engine):
    """Each is a field of its own (RFC 9113 section 8.2.3)."""
    client = Client(engine)
    cookies = [(b"cookie", b"name-%d=%s" % (number, b"v" * 20)) for number in range(180)]
    for _ in range(100):
        octets, stream_id = client.request(*BROWSER_FIELDS, *cookies, path=b"/%d" % client.next_id)
        client.send(octets)
        assert len(client.running[stream_id].head.fields) == len(BROWSER_FIELDS) + 180
        client.answer(stream_id)


def test_a_cookie_that_fills_the_table(engine):
    """Four kilobytes by an index, in each request."""
    client = Client(engine)
    for _ in range(1_000):
        octets, stream_id = client.request(*BROWSER_FIELDS, (b"cookie", b"c" * 3_000), path=b"/%d" % client.next_id)
        client.send(octets)
        client.answer(stream_id)


def test_fields_that_evict_one_another_in_each_request(engine):
    """More cookies than the table holds: what begins a request is gone at its end, and comes anew in the next."""
    client = Client(engine)
    cookies = [(b"cookie", b"name-%d=%s" % (number, b"v" * 100)) for number in range(40)]
    for _ in range(1_000):
        octets, stream_id = client.request(*BROWSER_FIELDS, *cookies, path=b"/%d" % client.next_id)
        assert len(octets) > 2_000
        client.send(octets)
        client.answer(stream_id)


def test_windows_that_grow_with_the_bandwidth(engine):
    """grpc-go announces a larger initial window each time that its estimate doubles, with all its streams open."""
    client = Client(engine)
    begun = [client.request(end=False) for _ in range(99)]
    client.send(b"".join(octets for octets, _ in begun))
    for power in range(17, 25):
        client.send(settings((INITIAL_WINDOW_SIZE, 2**power)) + window_update(0, 2**power))
        client.wait(0.05)
