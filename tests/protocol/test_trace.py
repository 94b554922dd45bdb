"""The trace of a connection: its frames in words, its secrets not, and the connection as it would be without."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.protocol.trace import MAX_FIELDS, MAX_SETTINGS, FrameReport, TracedConnection
from gunicorn_h2.protocol.upgrade import validate_upgrade

from .peer import (
    CONTINUATION,
    END_HEADERS,
    GOAWAY,
    HAS_PRIORITY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    PADDED,
    PREFACE,
    PUSH_PROMISE,
    SETTINGS,
    Peer,
    data,
    fields,
    goaway,
    ping,
    priority,
    raw,
    rst_stream,
    settings,
    settings_ack,
    window_update,
)

SECRETS = [(b"authorization", b"Bearer hunter2"), (b"cookie", b"session=hunter2"), (b"x-api-key", b"hunter2"),
           (b"proxy-authorization", b"Basic hunter2")]


class TracedPeer(Peer):
    """A client of a connection that is traced; what has been written is in `lines`."""

    def __init__(self, *arguments, **options):
        self.lines = []
        self.make_core = partial(TracedConnection, self.lines.extend)
        super().__init__(*arguments, **options)

    def told(self):
        """Return the lines since the last call, without their times."""
        lines = [line.partition(" ")[2] for line in self.lines]
        self.lines.clear()
        return lines


@pytest.fixture
def traced(engine, cut):
    """A function that makes a connection that is traced."""
    return partial(TracedPeer, engine, cut)


@pytest.fixture
def peer(traced):
    """A connection whose setup is done and forgotten."""
    peer = traced()
    peer.told()
    return peer


def test_the_setup(traced):
    peer = traced(setup=False)
    peer.send(PREFACE, settings((MAX_CONCURRENT_STREAMS, 7), (INITIAL_WINDOW_SIZE, 100_000), (0xabc, 1)),
              settings_ack())
    lines = peer.told()
    assert [line for line in lines if line.startswith("recv")] == [
        "recv (the preface)",
        "recv SETTINGS stream=0 length=18 flags=- MAX_CONCURRENT_STREAMS=7 INITIAL_WINDOW_SIZE=100000 0xabc=1",
        "recv SETTINGS stream=0 length=0 flags=ACK",
    ]
    assert [line for line in lines if line.startswith("send")] == [
        "send SETTINGS stream=0 length=30 flags=- MAX_CONCURRENT_STREAMS=100 INITIAL_WINDOW_SIZE=65535 "
        "MAX_FRAME_SIZE=16384 MAX_HEADER_LIST_SIZE=65536 ENABLE_CONNECT_PROTOCOL=1",
        "send WINDOW_UPDATE stream=0 length=4 flags=- increment=983041",
        "send SETTINGS stream=0 length=0 flags=ACK",
    ]


def test_a_request_and_its_response(traced):
    peer = traced(request_buffer_size=0)
    peer.told()
    stream = peer.open((b"content-length", b"3"), end=False, method=b"POST", path=b"/form?a=1")
    peer.send(data(1, b"abc", end=True, padding=5))
    peer.respond(stream, b"hello", [(b"content-type", b"text/plain")])
    lines = peer.told()
    length = int(lines[0].split("length=")[1].split()[0])
    assert lines == [
        f"recv HEADERS stream=1 length={length} flags=END_HEADERS",
        "     :method: POST",
        "     :scheme: https",
        "     :authority: example.org",
        "     :path: /form?(3 octets)",
        "     content-length: 3",
        "recv DATA stream=1 length=9 flags=END_STREAM,PADDED",
        lines[7],
        "     :status: 200",
        "     content-type: text/plain",
        "send DATA stream=1 length=5 flags=END_STREAM",
    ]
    assert lines[7].startswith("send HEADERS stream=1 length=")
    assert lines[7].endswith(" flags=END_HEADERS")


def test_times_are_since_the_connection_began(peer):
    peer.now += 2.5
    peer.send(ping())
    assert peer.lines == ["2.500 recv PING stream=0 length=8 flags=- payload=3132333435363738",
                          "2.500 send PING stream=0 length=8 flags=ACK payload=3132333435363738"]


def test_secrets_are_not_told(peer):
    stream = peer.open(*SECRETS, (b"x-other", b"seen"))
    peer.respond(stream, b"", [(b"set-cookie", b"session=hunter2")])
    lines = peer.told()
    assert [line for line in lines if "octets" in line] == [
        "     authorization: (14 octets)", "     cookie: (15 octets)", "     x-api-key: (7 octets)",
        "     proxy-authorization: (13 octets)", "     set-cookie: (15 octets)"]
    assert "     x-other: seen" in lines
    assert "hunter2" not in "".join(lines)


def shown(name, value):
    """How the trace shows a field."""
    literal = b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value
    _, line = FrameReport(b"").feed(raw(HEADERS, END_HEADERS, 1, literal))
    return line.strip()


@pytest.mark.parametrize("name", [
    "api-key", "authentication-info", "authorization", "cf-access-jwt-assertion", "client-cert", "cookie",
    "cookie2", "dpop", "grpc-metadata-authorization", "private-token", "proxy-authorization", "sec-websocket-protocol",
    "set-cookie", "ssl-client-cert", "x-access-token", "x-amz-oidc-data", "x-amz-security-token", "x-api-key",
    "x-csrf", "x-csrftoken", "x-forwarded-access-token", "x-forwarded-client-cert", "x-goog-iap-jwt-assertion",
    "x-hub-signature-256", "x-ms-client-principal", "x-password", "x-session-id", "X-Vault-Token",
])
def test_names_that_sound_like_credentials(name):
    assert shown(name.encode(), b"hunter2") == f"{name}: (7 octets)"


@pytest.mark.parametrize("name", [
    ":authority", "accept", "content-type", "host", "origin", "sec-websocket-version", "user-agent", "x-forwarded-for",
    "x-request-id",
])
def test_names_that_do_not(name):
    assert shown(name.encode(), b"example.org") == f"{name}: example.org"


@pytest.mark.parametrize(("name", "value", "expected"), [
    (":path", "/reset?code=hunter2", "/reset?(12 octets)"),
    (":path", "/?", "/?(0 octets)"),
    (":path", "/a?b?c#d", "/a?(5 octets)"),
    (":path", "/plain", "/plain"),
    (":path", "*", "*"),
    ("location", "https://example.org/back#access_token=hunter2", "https://example.org/back#(20 octets)"),
    ("content-location", "/a?b", "/a?(1 octets)"),
    ("Referer", "https://example.org/?code=hunter2", "https://example.org/?(12 octets)"),
    ("x-original-url", "/a?b", "/a?(1 octets)"),
    ("x-question", "why?", "why?"),
])
def test_the_query_of_a_uri_is_not_told(name, value, expected):
    assert shown(name.encode(), value.encode()) == f"{name}: {expected}"


@pytest.mark.parametrize(("frame", "line"), [
    (priority(1, 3, 200), "PRIORITY stream=1 length=5 flags=- depends_on=3 weight=201"),
    (window_update(0, 1_000), "WINDOW_UPDATE stream=0 length=4 flags=- increment=1000"),
    (raw(0x10, 0, 0, b"\0\0\0\x05u=1, i"),
     "PRIORITY_UPDATE stream=0 length=10 flags=- prioritized_stream=5 value=u=1, i"),
    (raw(0xbe, 0x81, 9, b"\x1b[2J"), "0xbe stream=9 length=4 flags=0x81"),
    (raw(SETTINGS, 0x40), "SETTINGS stream=0 length=0 flags=0x40"),
    (goaway(0, 0x0b), "GOAWAY stream=0 length=8 flags=- last_stream=0 code=ENHANCE_YOUR_CALM"),
    (raw(GOAWAY, 0, 0, bytes(7) + b"\xf0bye\r\n\x1b[2J"),
     r"GOAWAY stream=0 length=17 flags=- last_stream=0 code=0xf0 text=bye\r\n\x1b[2J"),
])
def test_frames_without_a_stream(peer, frame, line):
    peer.send(frame)
    assert peer.told()[0] == "recv " + line


def test_a_reset(peer):
    peer.open()
    peer.told()
    peer.send(rst_stream(1, 8))
    assert peer.told() == ["recv RST_STREAM stream=1 length=4 flags=- code=CANCEL"]


def test_a_block_in_several_frames(peer):
    block = peer.encoder.encode(fields((b"x-long", b"y" * 100)))
    peer.send(raw(HEADERS, 0x1 | PADDED | HAS_PRIORITY, 1, b"\2\0\0\0\0\x0f" + block[:20] + b"\0\0"),
              raw(CONTINUATION, 0, 1, block[20:30]), raw(CONTINUATION, END_HEADERS, 1, block[30:]))
    lines = peer.told()
    assert [line for line in lines if line.startswith("recv")] == [
        "recv HEADERS stream=1 length=28 flags=END_STREAM,PADDED,PRIORITY depends_on=0 weight=16",
        "recv CONTINUATION stream=1 length=10 flags=-",
        f"recv CONTINUATION stream=1 length={len(block) - 30} flags=END_HEADERS",
    ]
    assert lines[-1] == "     x-long: " + "y" * 100


def test_what_ends_the_connection_is_told(peer):
    peer.send(raw(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2"))
    assert peer.told() == [
        "recv PUSH_PROMISE stream=1 length=4 flags=END_HEADERS",
        "end  PROTOCOL_ERROR a client cannot push",
        "send GOAWAY stream=0 length=8 flags=- last_stream=0 code=PROTOCOL_ERROR",
    ]
    peer.send(ping())
    assert peer.told() == []


def test_a_wrong_preface(engine):
    peer = TracedPeer(engine, setup=False)
    peer.told()
    peer.send(b"\x16\x03\x01\x02\x00\x01 no HTTP/2 at all")
    assert peer.told()[0] == r"recv (not the preface of HTTP/2) \x16\x03\x01\x02\x00\x01 no HTTP/2 at all"


@pytest.mark.parametrize(("frame", "reason"), [
    (raw(SETTINGS, 0, 0, b"\0" * 5), "SETTINGS of a broken length"),
    (raw(GOAWAY, 0, 0, b"\0" * 5), "GOAWAY of a broken length"),
    (raw(HEADERS, END_HEADERS | PADDED, 1, b"\x09\0"), "padding longer than its frame"),
    (raw(HEADERS, END_HEADERS | HAS_PRIORITY, 1, b"\0"), "too short for its priority"),
])
def test_malformed_frames(peer, frame, reason):
    peer.send(frame)
    assert peer.told()[0].endswith(f" (malformed: {reason})")


def test_a_broken_field_block_is_the_last_one():
    report = FrameReport(b"")
    first, second = report.feed(raw(HEADERS, END_HEADERS, 1, b"\x80") + raw(HEADERS, END_HEADERS, 3, b"\x82"))
    assert "(malformed: hpack: " in first
    assert second == "HEADERS stream=3 length=1 flags=END_HEADERS (not decoded)"


def test_a_field_block_without_a_beginning():
    assert list(FrameReport(b"").feed(raw(CONTINUATION, END_HEADERS, 1, b"\x82"))) == [
        "CONTINUATION stream=1 length=1 flags=END_HEADERS (not decoded)"]


def test_a_field_block_without_an_end():
    """It is given up at a megabyte; the core has done so long before."""
    report = FrameReport(b"")
    list(report.feed(raw(HEADERS, 0, 1)))
    for _ in range(65):
        list(report.feed(raw(CONTINUATION, 0, 1, bytes(16_384))))
    assert list(report.feed(raw(CONTINUATION, END_HEADERS, 1))) == [
        "CONTINUATION stream=1 length=0 flags=END_HEADERS (not decoded)"]


def test_there_are_limits_to_what_is_shown(peer):
    stream = peer.open((b"x-long", b"y" * 300), *[(b"x-%d" % number, b"z") for number in range(80)])
    assert stream is not None
    assert f"     x-long: {'y' * 256}..." in peer.told()
    (line,) = FrameReport(b"").feed(settings(*[(1, 1)] * (MAX_SETTINGS + 3)))
    assert line.endswith(" HEADER_TABLE_SIZE=1 (and 3 more)")
    literal = b"\0\1x\1y"
    *_, last = FrameReport(b"").feed(raw(HEADERS, END_HEADERS, 1, literal * (MAX_FIELDS + 2)))
    assert last == "    (and 2 more fields)"


def test_the_responses_of_an_encoder_with_a_large_table(engine):
    """The h2 engine's encoder uses as much of the client's table as it has."""
    peer = TracedPeer(engine, settings=[(HEADER_TABLE_SIZE, 65_536)])
    for number in range(60):
        peer.told()
        peer.respond(peer.open(), b"", [(b"x-number", b"%0100d" % number), (b"x-same", b"v" * 100)])
        lines = peer.told()
        assert f"     x-number: {number:0100d}" in lines
        assert "     x-same: " + "v" * 100 in lines


def test_an_upgrade(engine):
    peer = TracedPeer(engine, setup=False)
    upgrade = validate_upgrade(b"GET", b"/", [
        (b"host", b"example.org"), (b"connection", b"upgrade, http2-settings"), (b"upgrade", b"h2c"),
        (b"http2-settings", b"AAMAAABk")], b"")
    peer.core.receive_upgrade(upgrade)
    octets = peer.core.data_to_send(peer.now)
    assert octets.startswith(b"HTTP/1.1 101 ")
    lines = peer.told()
    assert lines[0] == "recv (an upgrade from HTTP/1.1, with the request of stream 1) MAX_CONCURRENT_STREAMS=100"
    assert lines[1] == "send (101 Switching Protocols)"
    assert lines[2].startswith("send SETTINGS ")


def test_octets_may_come_one_at_a_time(engine):
    whole, cut = TracedPeer(engine), TracedPeer(engine, 1)
    for peer in (whole, cut):
        peer.send(peer.headers(1, fields(method=b"POST"), end=False), data(1, b"abc"), rst_stream(1))
    assert [line for line in cut.told() if not line.startswith("send")] == [
        line for line in whole.told() if not line.startswith("send")]


def play(peer):
    """A conversation with something of everything; return what the server wrote, and what the driver heard."""
    stream = peer.open(*SECRETS, end=False, method=b"POST")
    peer.send(data(1, b"abc"), ping(), priority(5), window_update(0, 10), data(1, b"", end=True))
    peer.respond(stream, b"x" * 100_000, [(b"set-cookie", b"a")])
    peer.send(window_update(1, 100_000), window_update(0, 100_000), settings((INITIAL_WINDOW_SIZE, 10)))
    peer.open(method=None)
    peer.open()
    peer.send(rst_stream(peer.next_id() - 2), goaway())
    peer.wait(100)
    return peer.written, [type(event) for event in peer.events], peer.core.closed


def test_nothing_else_is_different(engine, cut):
    assert play(TracedPeer(engine, cut)) == play(Peer(engine, cut))


@given(st.lists(st.tuples(st.integers(0, 17), st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=64)),
                max_size=20), st.integers(1, 100))
def test_whatever_comes_is_put_into_visible_ascii(sent, step):
    report, whole = FrameReport(b""), FrameReport(b"")
    octets = b"".join(raw(*frame) for frame in sent)
    lines = [line for start in range(0, len(octets), step) for line in report.feed(octets[start:start + step])]
    assert lines == list(whole.feed(octets))
    assert all(" " <= char <= "~" for line in lines for char in line)
    assert all(len(line) < 3_000 for line in lines)
    assert sum(not line.startswith("    ") for line in lines) == len(sent)
