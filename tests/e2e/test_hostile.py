"""Bad and hostile clients: each gets the error code the RFC names, others are served on, no thread is lost."""

import itertools
import random
import ssl
import time

import pytest
from hyperframe.frame import PingFrame, PriorityFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from tests.support.checks import prove_all_free, wait_idle
from tests.support.h2client import (
    CANCEL,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_FLAG,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    H2Client,
    raw_frame,
)

compat = pytest.mark.compat
FLOOD = 20_000
INITIAL_WINDOW_SIZE = 0x4
"""RFC 9113 section 6.5.2."""


@pytest.fixture(autouse=True)
def service_goes_on(wsgi):
    """After each test the server still serves, with every thread free."""
    yield
    wait_idle(wsgi)
    prove_all_free(wsgi, 4)


# -- floods ------------------------------------------------------------------------------------------------------------

def request_ids(client):
    """Yield fresh stream identifiers."""
    return itertools.count(client.next_stream_id, 2)


def resets(client):
    """Requests that are reset at once (CVE-2023-44487)."""
    client.get("/hello")
    block = client.encoder.encode(client.fields(path="/hello"))
    for stream_id in request_ids(client):
        yield raw_frame(HEADERS, END_STREAM | END_HEADERS, stream_id, block) + \
            RstStreamFrame(stream_id, error_code=8).serialize()


def provoked_resets(client):
    """Requests that make the server reset them: malformed, each on a stream of its own."""
    for stream_id in request_ids(client):
        yield client.header_frames(stream_id, [(":method", "GET")], end_stream=True)


def window_overflows(client):
    """Requests whose window is made too large, which makes the server reset them."""
    for stream_id in request_ids(client):
        yield client.header_frames(stream_id, client.fields(path="/hello")) + \
            WindowUpdateFrame(stream_id, window_increment=2**31 - 1).serialize()


def pings(client):
    """PING after PING."""
    return itertools.repeat(PingFrame(0, opaque_data=b"12345678").serialize())


def ping_acks(client):
    """Answers that no one asked for."""
    return itertools.repeat(PingFrame(0, opaque_data=b"12345678", flags=["ACK"]).serialize())


def settings(client):
    """SETTINGS after SETTINGS."""
    return itertools.repeat(SettingsFrame(0, settings={4: 65_535}).serialize())


def settings_acks(client):
    """Acknowledgements of nothing."""
    return itertools.repeat(SettingsFrame(0, flags=["ACK"]).serialize())


def priorities(client):
    """PRIORITY for streams that never come."""
    return (PriorityFrame(1 + 2 * (n % 50), depends_on=0, stream_weight=n % 256).serialize()
            for n in itertools.count(1))


def connection_windows(client):
    """WINDOW_UPDATE of one byte for the connection."""
    return itertools.repeat(WindowUpdateFrame(0, window_increment=1).serialize())


def stream_windows(client):
    """WINDOW_UPDATE of one byte for a stream that waits."""
    stream_id = client.request("POST", "/count", end=False).stream_id
    return itertools.repeat(WindowUpdateFrame(stream_id, window_increment=1).serialize())


def unknown_frames(client):
    """Frames of a type that does not exist."""
    return itertools.repeat(raw_frame(0xEE, 0xFF, 0, b"what?"))


def empty_data(client):
    """DATA without any content."""
    stream_id = client.request("POST", "/count", end=False).stream_id
    return itertools.repeat(raw_frame(DATA, 0, stream_id))


def padding_only(client):
    """DATA that holds nothing but padding."""
    stream_id = client.request("POST", "/count", end=False).stream_id
    return itertools.repeat(raw_frame(DATA, PADDED, stream_id, b"\x00"))


def origin_frames(client):
    """ALTSVC and ORIGIN, which only servers send."""
    return itertools.repeat(raw_frame(0xA, 0, 0, b"\x00\x00x"))


FLOODS = [resets, provoked_resets, window_overflows, pings, ping_acks, settings, settings_acks, priorities,
          connection_windows, stream_windows, unknown_frames, empty_data, padding_only, origin_frames]


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
def test_floods_are_ended(wsgi, flood):
    """GOAWAY(ENHANCE_YOUR_CALM) long before all of it has been served, then the connection is closed."""
    with H2Client.connect(wsgi) as client:
        client.wait_settings()
        client.keep_frames = False
        source = iter(flood(client))
        client.flood(b"".join(itertools.islice(source, 50)) for _ in range(FLOOD // 50))
        allowed = (ENHANCE_YOUR_CALM, PROTOCOL_ERROR) if flood is settings_acks else (ENHANCE_YOUR_CALM,)
        assert client.wait_goaway()[1] in allowed
        client.wait_closed()
        assert len(client.ping_acks) + client.settings_acks + len(client.streams) < FLOOD / 8


def send_for_ever(client, piece, limit=10):
    """Send until the connection breaks; fail if it has not within ``limit`` seconds.

    The pieces are 5 ms apart: far more than any server answers, and other tests have the processor meanwhile.
    """
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        client.send_raw(piece)
        client.wait_broken(0.005)
    pytest.fail(f"still open after {limit} seconds")


@pytest.mark.parametrize("flood", [pings, settings, connection_windows], ids=lambda flood: flood.__name__)
def test_floods_whose_answers_are_not_read(wsgi, flood):
    """The client never reads and never stops: the connection ends all the same."""
    with H2Client.connect(wsgi, deaf=True) as client:
        piece = b"".join(itertools.islice(iter(flood(client)), 1000))
        with pytest.raises((ConnectionError, ssl.SSLError)):
            send_for_ever(client, piece)


def test_a_reset_flood_does_not_disturb_others(wsgi):
    with H2Client.connect(wsgi) as victim, H2Client.connect(wsgi) as attacker:
        victim.wait_settings()
        attacker.flood(itertools.islice(resets(attacker), 2000))
        assert victim.get("/hello").status == 200
        assert attacker.wait_goaway()[1] == ENHANCE_YOUR_CALM


def test_a_client_that_scrolls_through_images_is_served(wsgi):
    """A browser cancels 190 in less than a second, all on their way; then it loads those in view, and scrolls on."""
    window, batch = 10_000, 10
    with H2Client.connect(wsgi, settings={INITIAL_WINDOW_SIZE: window}, auto_window=False) as client:
        client.wait_settings()
        client.grant(batch * window)
        for _ in range(2):
            due = time.monotonic()
            for _ in range(19):
                images = [client.request(path="/bytes?n=100000") for _ in range(batch)]
                client.wait_for(lambda images=images: all(image.received == window for image in images), "the images")
                due += 0.02
                time.sleep(max(0.0, due - time.monotonic()))
                for image in images:
                    client.reset(image, CANCEL)
                client.grant(batch * window)
            for _ in range(200):
                assert client.get("/hello").status == 200
                client.grant(100)
        assert client.goaways == []


def test_streams_that_were_reset_still_count_while_they_run(boot, gate):
    """The application of a reset stream holds its place until it has returned."""
    server = boot("wsgi", threads=4, http2_max_concurrent_streams=4)
    with H2Client.connect(server) as client:
        client.wait_settings()
        for _ in range(4):
            stream = client.request("GET", gate.path("/gate"))
            gate.wait_inside()
            client.reset(stream)
        beyond = client.response(client.request("GET", "/hello"))
        assert beyond.reset == 7
        gate.release()
        client.ping()
    prove_all_free(server, 4)


@pytest.mark.parametrize("size", [0, 1, 16_000], ids=["empty", "one-byte", "large"])
def test_continuation_flood(wsgi, size):
    """CVE-2024-27316: a header block that never ends."""
    with H2Client.connect(wsgi) as client:
        client.wait_settings()
        client.send_raw(raw_frame(HEADERS, 0, 1, client.encoder.encode(client.fields(path="/hello"))))
        piece = raw_frame(CONTINUATION, 0, 1, b"\x82" * size)
        client.flood(itertools.repeat(piece, FLOOD))
        assert client.wait_goaway()[1] in (ENHANCE_YOUR_CALM, PROTOCOL_ERROR, COMPRESSION_ERROR)
        client.wait_closed()


def test_header_bomb(wsgi):
    """A small block that a dynamic table makes large: each octet stands for 4 KiB."""
    with H2Client.connect(wsgi) as client:
        client.wait_settings()
        block = client.encoder.encode([*client.fields(path="/hello"), ("x-bomb", "b" * 3900)])
        stream = client.open()
        client.send_raw(raw_frame(HEADERS, END_STREAM | END_HEADERS, stream.stream_id, block + b"\xbe" * 10_000))
        client.wait_for(lambda: stream.done or client.goaways, "an end of it")
        assert stream.status in (None, 431)
        assert stream.reset or client.goaways or stream.status == 431


def test_a_header_section_beyond_the_limit(wsgi):
    """70 000 octets of fields: refused, with the connection still usable or ended by a named error."""
    with H2Client.connect(wsgi) as client:
        client.wait_settings()
        stream = client.open()
        fields = client.fields(path="/hello", headers=[(f"x-{n}", "v" * 1000) for n in range(70)])
        block = client.encoder.encode(fields)
        pieces = [block[i:i + 16_384] for i in range(0, len(block), 16_384)]
        for number, piece in enumerate(pieces):
            flags = END_HEADERS if number == len(pieces) - 1 else 0
            kind = CONTINUATION if number else HEADERS
            client.send_raw(raw_frame(kind, flags | (0 if number else END_STREAM), stream.stream_id, piece))
        client.wait_for(lambda: stream.done or client.goaways, "an end of it")
        assert stream.status in (None, 431)


# -- protocol errors ---------------------------------------------------------------------------------------------------

CONNECTION_ERRORS = {
    "hpack-bad-index": (COMPRESSION_ERROR, lambda c: raw_frame(HEADERS, 5, 1, b"\xff\xff\xff\x7f")),
    "hpack-index-zero": (COMPRESSION_ERROR, lambda c: raw_frame(HEADERS, 5, 1, b"\x80")),
    "hpack-truncated": (COMPRESSION_ERROR, lambda c: raw_frame(HEADERS, 5, 1, b"\x82\x84\x40\x0aab")),
    "hpack-bad-huffman": (COMPRESSION_ERROR, lambda c: raw_frame(HEADERS, 5, 1, b"\x00\x84\xff\xff\xff\xff\x00")),
    "hpack-table-too-large": (COMPRESSION_ERROR, lambda c: raw_frame(HEADERS, 5, 1, b"\x3f\xe1\xff\x7f\x82")),
    "hpack-endless-integer": (COMPRESSION_ERROR, lambda c: raw_frame(HEADERS, 5, 1, b"\xff" + b"\x80" * 100)),
    "data-on-stream-0": (PROTOCOL_ERROR, lambda c: raw_frame(DATA, 0, 0, b"x")),
    "headers-on-stream-0": (PROTOCOL_ERROR, lambda c: raw_frame(HEADERS, 5, 0, b"\x82\x84\x87")),
    "headers-on-even-stream": (PROTOCOL_ERROR, lambda c: c.header_frames(2, c.fields(), end_stream=True)),
    "data-on-idle-stream": (PROTOCOL_ERROR, lambda c: raw_frame(DATA, 0, 1, b"x")),
    "reset-of-idle-stream": (PROTOCOL_ERROR, lambda c: raw_frame(RST_STREAM, 0, 1, bytes(4))),
    "reset-on-stream-0": (PROTOCOL_ERROR, lambda c: raw_frame(RST_STREAM, 0, 0, bytes(4))),
    "window-of-idle-stream": (PROTOCOL_ERROR, lambda c: raw_frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1")),
    "continuation-alone": (PROTOCOL_ERROR, lambda c: raw_frame(CONTINUATION, 4, 1, b"\x82")),
    "push-promise": (PROTOCOL_ERROR, lambda c: raw_frame(PUSH_PROMISE, 4, 1, b"\0\0\0\2\x82")),
    "settings-on-a-stream": (PROTOCOL_ERROR, lambda c: raw_frame(SETTINGS, 0, 1)),
    "settings-push-2": (PROTOCOL_ERROR, lambda c: raw_frame(SETTINGS, 0, 0, b"\0\2\0\0\0\2")),
    "settings-frame-size-low": (PROTOCOL_ERROR, lambda c: raw_frame(SETTINGS, 0, 0, b"\0\5\0\0\0\1")),
    "settings-window-too-large": (FLOW_CONTROL_ERROR, lambda c: raw_frame(SETTINGS, 0, 0, b"\0\4\x80\0\0\0")),
    "settings-length-5": (FRAME_SIZE_ERROR, lambda c: raw_frame(SETTINGS, 0, 0, bytes(5))),
    "settings-ack-with-payload": (FRAME_SIZE_ERROR, lambda c: raw_frame(SETTINGS, 1, 0, bytes(6))),
    "ping-length-7": (FRAME_SIZE_ERROR, lambda c: raw_frame(PING, 0, 0, bytes(7))),
    "ping-on-a-stream": (PROTOCOL_ERROR, lambda c: raw_frame(PING, 0, 1, bytes(8))),
    "window-length-3": (FRAME_SIZE_ERROR, lambda c: raw_frame(WINDOW_UPDATE, 0, 0, bytes(3))),
    "window-increment-0": (PROTOCOL_ERROR, lambda c: raw_frame(WINDOW_UPDATE, 0, 0, bytes(4))),
    "window-overflow": (FLOW_CONTROL_ERROR, lambda c: raw_frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 2),
    "goaway-on-a-stream": (PROTOCOL_ERROR, lambda c: raw_frame(GOAWAY, 0, 1, bytes(8))),
    "priority-on-stream-0": (PROTOCOL_ERROR, lambda c: raw_frame(PRIORITY, 0, 0, bytes(5))),
    "headers-padding-too-long": (PROTOCOL_ERROR, lambda c: raw_frame(HEADERS, 13, 1, b"\xff\x82\x84\x87")),
    "frame-too-large": (FRAME_SIZE_ERROR, lambda c: raw_frame(HEADERS, 5, 1, bytes(16_385))),
    "frame-length-too-large": (FRAME_SIZE_ERROR, lambda c: raw_frame(DATA, 0, 1, b"", length=2**24 - 1)),
    "interleaved-header-block": (PROTOCOL_ERROR, lambda c: c.header_frames(1, c.fields(), end_headers=False)
                                 + raw_frame(PING, 0, 0, bytes(8))),
    "header-block-of-another-stream": (PROTOCOL_ERROR, lambda c: c.header_frames(1, c.fields(), end_headers=False)
                                       + raw_frame(CONTINUATION, 4, 3)),
}


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
def test_connection_errors(wsgi, name):
    """GOAWAY with the right code, then the end."""
    code, make = CONNECTION_ERRORS[name]
    with H2Client.connect(wsgi) as client:
        client.wait_settings()
        client.send_raw(make(client))
        assert client.wait_goaway()[1] == code
        client.wait_closed()


def test_an_old_stream_id_again(wsgi):
    with H2Client.connect(wsgi) as client:
        client.next_stream_id = 5
        client.get("/hello")
        client.send_raw(client.header_frames(3, client.fields(path="/hello"), end_stream=True))
        assert client.wait_goaway()[1] in (PROTOCOL_ERROR, STREAM_CLOSED)


def test_data_after_the_end_of_the_request(wsgi, gate):
    """RFC 9113 section 5.1: half-closed (remote) accepts no more DATA."""
    with H2Client.connect(wsgi) as client:
        stream = client.request("GET", gate.path("/gate"))
        gate.wait_inside()
        client.send_raw(client.data_frame(stream.stream_id, b"x"))
        client.wait_for(lambda: stream.done or client.goaways, "an error")
        code = client.goaways[0][1] if client.goaways else stream.reset
        assert code == STREAM_CLOSED
        gate.release()


@pytest.mark.parametrize("opening", [
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", PREFACE[:-1] + b"x", PREFACE + raw_frame(PING, 0, 0, bytes(8)),
    b"\x00" * 100,
], ids=["http1", "wrong-byte", "no-settings-first", "zeros"])
def test_bad_prefaces(wsgi_tls, opening):
    """After ALPN chose h2, anything but the preface ends the connection."""
    with H2Client.connect(wsgi_tls, preface=False) as client:
        client.send_raw(opening)
        client.wait_closed()
        assert all(code == PROTOCOL_ERROR for _, code in client.goaways)


# -- malformed requests ------------------------------------------------------------------------------------------------

GOOD = {":method": "GET", ":scheme": "https", ":path": "/hello", ":authority": "localhost"}


def without(*names):
    """A request without some of its pseudo-header fields."""
    return [(name, value) for name, value in GOOD.items() if name not in names]


def with_(*fields, **pseudo):
    """A request with other pseudo-header values and more fields."""
    changed = {f":{name}": value for name, value in pseudo.items()}
    return [*{**GOOD, **changed}.items(), *fields]


MALFORMED = {
    "no-method": without(":method"),
    "no-scheme": without(":scheme"),
    "no-path": without(":path"),
    "no-pseudo-at-all": [("host", "localhost")],
    "empty-path": with_(path=""),
    "empty-method": with_(method=""),
    "path-without-slash": with_(path="hello"),
    "path-with-space": with_(path="/hello world"),
    "path-with-control": with_(path="/hello\x01"),
    "path-with-fragment": with_(path="/hello#fragment"),
    "asterisk-with-get": with_(path="*"),
    "absolute-path": with_(path="https://localhost/hello"),
    "method-with-space": with_(method="GE T"),
    "userinfo-in-authority": with_(authority="user:password@localhost"),
    "authority-with-space": with_(authority="local host"),
    "two-paths": [*with_(), (":path", "/other")],
    "two-methods": [*with_(), (":method", "POST")],
    "unknown-pseudo": [*with_(), (":unknown", "1")],
    "response-pseudo": [*with_(), (":status", "200")],
    "protocol-with-get": [*with_(), (":protocol", "websocket")],
    "pseudo-after-field": [("x-a", "1"), *with_()],
    "pseudo-last": [*without(":path"), ("x-a", "1"), (":path", "/hello")],
    "upper-case-name": with_(("X-Upper", "1")),
    "empty-name": with_(("", "1")),
    "name-with-space": with_(("x a", "1")),
    "name-with-colon": with_(("x:a", "1")),
    "name-latin-1": with_(("x-\xe9", "1")),
    "value-with-lf": with_(("x-a", "1\n2")),
    "value-with-cr": with_(("x-a", "1\r2")),
    "value-with-nul": with_(("x-a", "1\x002")),
    "value-with-leading-space": with_(("x-a", " 1")),
    "value-with-trailing-tab": with_(("x-a", "1\t")),
    "connection": with_(("connection", "keep-alive")),
    "keep-alive": with_(("keep-alive", "1")),
    "proxy-connection": with_(("proxy-connection", "close")),
    "transfer-encoding": with_(("transfer-encoding", "chunked")),
    "upgrade": with_(("upgrade", "websocket")),
    "te-gzip": with_(("te", "gzip")),
    "two-hosts": with_(("host", "localhost"), ("host", "other")),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests(wsgi, name):
    """RST_STREAM(PROTOCOL_ERROR) (RFC 9113 section 8.1.1); the application sees nothing; the connection goes on."""
    with H2Client.connect(wsgi) as client:
        client.wait_settings()
        fields = [(field.encode("latin-1"), value.encode("latin-1")) for field, value in MALFORMED[name]]
        stream = client.open()
        client.send_raw(raw_frame(HEADERS, END_STREAM | END_HEADERS, stream.stream_id, literal_block(fields)))
        client.wait_for(lambda: stream.done or client.goaways, "an answer")
        assert client.goaways == []
        assert stream.reset == PROTOCOL_ERROR or stream.status == 400
        assert client.get("/hello").status == 200


def literal_block(fields):
    """Encode fields as literals, exactly as they are."""
    def string(octets):
        assert len(octets) < 127
        return bytes([len(octets)]) + octets
    return b"".join(b"\x00" + string(name) + string(value) for name, value in fields)


def test_te_trailers_is_fine(wsgi):
    with H2Client.connect(wsgi) as client:
        assert client.get("/hello", [("te", "trailers")]).status == 200


def test_request_trailers(wsgi):
    """Trailers end the body; pseudo-header fields in them are malformed."""
    with H2Client.connect(wsgi) as client:
        stream = client.request("POST", "/count", body=b"12345", end=False)
        client.send_raw(client.header_frames(stream.stream_id, [("x-checksum", "1")], end_stream=True))
        assert client.response(stream).text == '{"length": 5}'
        bad = client.request("POST", "/count", body=b"12345", end=False)
        client.send_raw(client.header_frames(bad.stream_id, [(":path", "/x")], end_stream=True))
        assert client.response(bad).reset == PROTOCOL_ERROR


def test_connect_is_not_a_proxy(wsgi):
    """CONNECT has neither scheme nor path. It is answered 501, and what would be tunnelled is declined."""
    with H2Client.connect(wsgi) as client:
        stream = client.send_fields([(":method", "CONNECT"), (":authority", "example.org:443")], end_stream=False)
        client.wait_for(lambda: stream.reset is not None, "the end of what would be tunnelled")
        assert (stream.status, stream.body, stream.ended, stream.reset) == (501, b"", True, NO_ERROR)
        assert client.get("/hello").status == 200


def test_the_stream_window_is_enforced(wsgi, gate):
    """More DATA than the stream's window allows."""
    with H2Client.connect(wsgi) as client:
        client.wait_settings()
        stream = client.request("POST", gate.path("/gate-read"), end=False)
        gate.wait_inside()
        client.send_raw(b"".join(client.data_frame(stream.stream_id, b"x" * 16_384) for _ in range(5)))
        client.wait_for(lambda: stream.reset is not None or client.goaways, "an error")
        assert FLOW_CONTROL_ERROR in (stream.reset, *(code for _, code in client.goaways))
        gate.release()


def test_a_stream_that_depends_on_itself_is_reset(wsgi, gate):
    """RFC 7540 section 5.3.1: PROTOCOL_ERROR, of the stream; the connection goes on."""
    with H2Client.connect(wsgi) as client:
        client.wait_settings()
        first = client.request("GET", gate.path("/gate"))
        gate.wait_inside()
        client.send_raw(raw_frame(PRIORITY, 0, first.stream_id, first.stream_id.to_bytes(4, "big") + b"\xff"))
        assert client.response(first).reset == PROTOCOL_ERROR
        second = client.open()
        block = client.encoder.encode(client.fields(path="/hello"))
        priority = second.stream_id.to_bytes(4, "big") + b"\xff"
        flags = END_STREAM | END_HEADERS | PRIORITY_FLAG
        client.send_raw(raw_frame(HEADERS, flags, second.stream_id, priority + block))
        assert (client.response(second).status, second.reset) == (None, PROTOCOL_ERROR)
        assert client.get("/hello").status == 200
        gate.release()


def test_an_idle_stream_that_depends_on_itself_ends_the_connection(wsgi):
    """There is no stream to reset yet, and an error of the stream is therefore one of the connection."""
    with H2Client.connect(wsgi) as client:
        client.wait_settings()
        client.send_raw(raw_frame(PRIORITY, 0, 1, b"\0\0\0\1\xff"))
        assert client.wait_goaway() == (0, PROTOCOL_ERROR)
        client.wait_closed()


def test_unknown_settings_and_frames_are_ignored(wsgi):
    with H2Client.connect(wsgi, settings={0xABCD: 7, 8: 1, 9: 1}) as client:
        client.send_raw(raw_frame(0xFA, 0xFF, 0, b"x" * 100) + raw_frame(0xFB, 0, 1, b""))
        assert client.get("/hello").status == 200


def test_garbage_bytes(wsgi):
    """Bytes that are no frames at all, from fixed seeds."""
    for seed in range(30):
        with H2Client.connect(wsgi) as client:
            client.wait_settings()
            try:
                client.send_raw(random.Random(seed).randbytes(5000))
                client.sock.shutdown(1)
            except OSError:
                continue
            client.wait_closed()
