"""WebSocket over HTTP/2: extended CONNECT (RFC 8441), and its translation to HTTP/1.1's handshake (RFC 6455)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.protocol.errors import ErrorCode, InvalidResponse
from gunicorn_h2.protocol.events import DataReceived, RequestReceived, RequestRefused, TrailersReceived
from gunicorn_h2.protocol.headers import parse_request
from gunicorn_h2.protocol.websocket import LARGEST_REPLY, FrameTracker, close_frame, parse_reply, upgrade_request

from .peer import ENABLE_CONNECT_PROTOCOL, INITIAL_WINDOW_SIZE, data, fields, rst_stream, window_update

VERSION = (b"sec-websocket-version", b"13")


@pytest.fixture
def connect(connect):
    """As `connect`, with WebSocket offered unless told otherwise."""
    return lambda *arguments, **config: connect(*arguments, **{"websocket": True, **config})


def connect_fields(*extra, protocol=b"websocket", **pseudo):
    """The section of an extended CONNECT."""
    section = fields(*extra, **{"method": b"CONNECT", "path": b"/ws", **pseudo})
    return [section[0], (b":protocol", protocol), *section[1:]]


def open_tunnel(peer, *extra):
    """Have a WebSocket accepted; return its stream."""
    stream_id = peer.next_id()
    peer.send(peer.headers(stream_id, connect_fields(VERSION, *extra), end=False))
    stream = peer.of(RequestReceived)[-1].stream
    peer.respond(stream, end=False, finish=False)
    return stream


# -- the offer (RFC 8441 section 3) ----------------------------------------------------------------------------------


@pytest.mark.parametrize("offered", [True, False])
def test_the_first_settings_say_whether_it_is_offered(connect, offered):
    peer = connect(setup=False, websocket=offered)
    peer.setup()
    assert peer.server_settings.get(ENABLE_CONNECT_PROTOCOL) == (1 if offered else None)


def test_what_is_not_offered_is_malformed(connect):
    peer = connect(websocket=False)
    for stream_id in (1, 3):
        peer.send(peer.headers(stream_id, connect_fields(VERSION), end=False))
    assert (peer.resets, peer.refused) == ([(1, ErrorCode.PROTOCOL_ERROR), (3, ErrorCode.PROTOCOL_ERROR)], [1, 3])
    assert [peer.answers[stream_id].status for stream_id in (1, 3)] == [400, 400]
    peer.assert_alive()


# -- requests (RFC 8441 section 4) -----------------------------------------------------------------------------------

BAD = {
    "another method": connect_fields(VERSION, method=b"GET"),
    "no :scheme": connect_fields(VERSION, scheme=None),
    "no :path": connect_fields(VERSION, path=None),
    "an empty :path": connect_fields(VERSION, path=b""),
    ":path of *": connect_fields(VERSION, path=b"*"),
    "userinfo": connect_fields(VERSION, authority=b"a@example.org"),
    ":protocol twice": [*connect_fields()[:3], (b":protocol", b"websocket"), *connect_fields(VERSION)[3:]],
    ":protocol behind a field": [*fields(method=b"CONNECT"), VERSION, (b":protocol", b"websocket")],
    "an empty :protocol": connect_fields(VERSION, protocol=b""),
    ":protocol that is no token": connect_fields(VERSION, protocol=b"web socket"),
    "the field upgrade": connect_fields(VERSION, (b"upgrade", b"websocket")),
    "the field connection": connect_fields(VERSION, (b"connection", b"upgrade")),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_requests_are_reset(peer, name):
    peer.send(peer.headers(1, BAD[name], end=False))
    assert (peer.resets, peer.refused, peer.of(RequestReceived)) == ([(1, ErrorCode.PROTOCOL_ERROR)], [1], [])
    peer.assert_alive()


@pytest.mark.parametrize("protocol", [b"connect-udp", b"x", b"websocket2"])
def test_another_protocol_is_answered_501(peer, protocol):
    peer.send(peer.headers(1, connect_fields(VERSION, protocol=protocol), end=False))
    assert (peer.answers[1].status, peer.answers[1].ended, peer.refused) == (501, True, [1])
    peer.assert_alive()


def test_connect_without_a_protocol_is_answered_501_as_before(peer):
    peer.send(peer.headers(1, fields(method=b"CONNECT", scheme=None, path=None)))
    assert (peer.answers[1].status, peer.of(RequestRefused)[0].reason) == (501, "CONNECT is not supported")


@pytest.mark.parametrize("versions", [[], [b"8"], [b"13", b"13"], [b"13, 8"], [b""]])
def test_another_version_is_answered_with_ours(peer, versions):
    section = connect_fields(*[(b"sec-websocket-version", version) for version in versions])
    peer.send(peer.headers(1, section, end=False))
    assert peer.answers[1].status == 400
    assert VERSION in peer.answers[1].head
    assert peer.of(RequestReceived) == []
    peer.assert_alive()


def test_the_head_says_what_was_sent(peer):
    stream = open_tunnel(peer, (b"sec-websocket-protocol", b"chat"))
    head = stream.head
    assert (head.method, head.protocol, head.scheme, head.authority, head.path) == (
        b"CONNECT", b"websocket", b"https", b"example.org", b"/ws")
    assert head.fields == [VERSION, (b"sec-websocket-protocol", b"chat")]


def test_the_name_of_the_protocol_has_no_case():
    assert parse_request(connect_fields(VERSION, protocol=b"WebSocket")).protocol == b"websocket"


def test_heads_that_differ_in_their_path_are_both_of_the_protocol(peer):
    for number, path in enumerate((b"/a", b"/b", b"/c", b"/a")):
        peer.send(peer.headers(2 * number + 1, connect_fields(VERSION, path=path), end=False))
    heads = [request.stream.head for request in peer.of(RequestReceived)]
    assert [(head.path, head.protocol) for head in heads] == [
        (b"/a", b"websocket"), (b"/b", b"websocket"), (b"/c", b"websocket"), (b"/a", b"websocket")]


def test_a_section_that_is_too_large_is_answered_431(connect):
    peer = connect(max_header_list_size=1_000)
    peer.send(peer.headers(1, connect_fields(VERSION, (b"x-large", b"x" * 1_000)), end=False))
    assert peer.answers[1].status == 431


# -- the tunnel (RFC 9113 section 8.5) -------------------------------------------------------------------------------


def test_data_goes_both_ways_until_each_side_ends(peer):
    stream = open_tunnel(peer)
    peer.send(data(1, b"ping"), data(1, b""), data(1, b"pong"))
    peer.core.send_data(stream, b"from", False)
    peer.core.send_data(stream, b" us", True)
    peer.send(data(1, b"last", end=True))
    assert b"".join(event.data for event in peer.of(DataReceived)) == b"pingponglast"
    assert (peer.answers[1].status, peer.answers[1].body, peer.answers[1].ended) == (200, b"from us", True)
    assert (peer.resets, peer.core.streams) == ([], {})
    peer.assert_alive()


@pytest.mark.parametrize("length", [b"0", b"5", b"1000000"])
def test_a_content_length_means_nothing(peer, length):
    stream = open_tunnel(peer, (b"content-length", length))
    assert stream.head.fields == [VERSION]
    peer.send(data(1, b"any number of octets"), data(1, b"", end=True))
    assert peer.resets == []
    assert b"".join(event.data for event in peer.of(DataReceived)) == b"any number of octets"
    peer.assert_alive()


def test_an_expectation_means_nothing(peer):
    stream = open_tunnel(peer, (b"expect", b"100-continue"))
    assert (stream.head.expects_continue, stream.head.fields) == (False, [VERSION])


def test_a_client_that_has_ended_its_side_may_be_answered(peer):
    peer.send(peer.headers(1, connect_fields(VERSION)))
    (request,) = peer.of(RequestReceived)
    assert request.end_stream
    peer.respond(request.stream, b"over")
    assert (peer.answers[1].body, peer.resets) == (b"over", [])


@pytest.mark.parametrize("accepted", [True, False])
def test_a_tunnel_has_no_trailers(peer, accepted):
    if accepted:
        open_tunnel(peer)
    else:
        peer.send(peer.headers(peer.next_id(), connect_fields(VERSION), end=False))
    peer.send(peer.headers(1, [(b"x-sum", b"1")]))
    assert (peer.resets, peer.aborted) == ([(1, ErrorCode.PROTOCOL_ERROR)], [(1, ErrorCode.PROTOCOL_ERROR)])
    assert peer.of(TrailersReceived) == []
    peer.assert_alive()


def test_a_response_of_another_status_is_a_response_like_any_other(peer):
    peer.send(peer.headers(1, connect_fields(VERSION), end=False))
    (request,) = peer.of(RequestReceived)
    peer.respond(request.stream, b"no", status=403)
    peer.wait(1)
    assert (peer.answers[1].status, peer.answers[1].body, peer.answers[1].ended) == (403, b"no", True)
    assert peer.resets == [(1, ErrorCode.NO_ERROR)]


def test_an_idle_tunnel_has_no_deadline(connect):
    peer = connect(idle_timeout=2, stream_timeout=30, max_connection_age=0, keepalive_interval=0)
    open_tunnel(peer)
    peer.wait(86_400)
    assert (peer.resets, peer.goaways) == ([], [])
    assert peer.of(RequestReceived)[0].stream.stream_id in peer.core.streams


def test_a_slow_tunnel_has_no_minimum_rate(connect):
    peer = connect(min_body_rate=240, stream_timeout=30, max_connection_age=0)
    stream = open_tunnel(peer, (b"content-length", b"1000000"))
    for _ in range(20):
        peer.wait(100)
        peer.send(data(1, b"x" * 16))
        peer.core.acknowledge(stream, 16, peer.now)
    assert peer.resets == []


def test_output_that_is_not_read_has_a_deadline(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 10)], stream_timeout=30)
    stream = open_tunnel(peer)
    peer.core.send_data(stream, b"x" * 100, False)
    peer.collect().wait(31)
    assert (peer.resets, peer.aborted) == ([(1, ErrorCode.CANCEL)], [(1, ErrorCode.CANCEL)])


def test_credit_is_returned_for_what_is_read(peer):
    stream = open_tunnel(peer)
    peer.take()
    for _ in range(8):
        peer.send(data(1, b"x" * 16_000))
        peer.core.acknowledge(stream, 16_000, peer.now)
        peer.collect()
    assert sum(increment for stream_id, increment in peer.updates if stream_id == 1) >= 96_000
    peer.assert_alive()


def test_a_tunnel_that_the_client_resets(peer):
    open_tunnel(peer)
    peer.send(rst_stream(1), window_update(1, 5))
    assert peer.aborted == [(1, ErrorCode.CANCEL)]
    peer.assert_alive()


def test_a_shutdown_leaves_tunnels_open(connect):
    peer = connect(drain_timeout=1)
    stream = open_tunnel(peer)
    peer.core.shutdown(peer.now)
    peer.wait(60)
    assert [code for _, code in peer.goaways] == [ErrorCode.NO_ERROR] * 2
    peer.core.send_data(stream, b"bye", True)
    peer.send(data(1, b"", end=True))
    assert (peer.answers[1].body, peer.core.closed) == (b"bye", True)


# -- HTTP/1.1's handshake --------------------------------------------------------------------------------------------


def test_the_request_of_http_1():
    head = parse_request(connect_fields(VERSION, (b"sec-websocket-key", b"the client's"), (b"origin", b"null")))
    head.derived = object()
    request = upgrade_request(head, b"k" * 24)
    assert (request.method, request.path, request.authority, request.protocol) == (
        b"GET", b"/ws", b"example.org", b"")
    assert request.fields == [(b"connection", b"Upgrade"), (b"upgrade", b"websocket"),
                              (b"sec-websocket-key", b"k" * 24), VERSION, (b"origin", b"null")]
    assert (request.derived, head.method, len(head.fields)) == (None, b"CONNECT", 3)


REPLY = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
         b"Sec-WebSocket-Accept: abc=\r\nSec-WebSocket-Protocol:  chat \r\nContent-Length: 0\r\nX-A:\r\n\r\n")


@pytest.mark.parametrize("rest", [b"", b"\x81\x00", b"\r\n\r\n"])
def test_the_reply_of_http_1(rest):
    assert parse_reply(REPLY + rest) == (200, [(b"sec-websocket-protocol", b"chat"), (b"x-a", b"")], rest)


def test_a_reply_is_awaited():
    assert all(parse_reply(REPLY[:size]) is None for size in range(len(REPLY)))


def test_a_refusal_is_passed_on():
    reply = parse_reply(b"HTTP/1.0 403\r\nContent-Length: 2\r\n\r\nno")
    assert reply == (403, [(b"content-length", b"2")], b"no")


@pytest.mark.parametrize("text", [
    b"\x81\x05hello\r\n\r\n", b"HTTP/2 101 x\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n", b"HTTP/1.1 099 x\r\n\r\n",
    b"x" * (LARGEST_REPLY + 1),
])
def test_what_is_no_reply(text):
    with pytest.raises(InvalidResponse):
        parse_reply(text)


# -- frames ----------------------------------------------------------------------------------------------------------


def frame(payload, opcode=2, mask=b""):
    """A frame, as RFC 6455 section 5.2 draws it."""
    size, masked = len(payload), 0x80 if mask else 0
    if size < 126:
        header = bytes((0x80 | opcode, masked | size))
    elif size < 65_536:
        header = bytes((0x80 | opcode, masked | 126)) + size.to_bytes(2, "big")
    else:
        header = bytes((0x80 | opcode, masked | 127)) + size.to_bytes(8, "big")
    return header + mask + payload


payloads = st.integers(0, 70_000).map(bytes) | st.integers(0, 130).map(bytes)


@given(st.lists(st.tuples(payloads, st.sampled_from([0, 1, 2, 9, 10]), st.sampled_from([b"", b"mask"])), max_size=5),
       st.lists(st.integers(1, 5_000), max_size=20))
def test_boundaries_are_found(contents, cuts):
    octets, boundaries = b"", set()
    for payload, opcode, mask in contents:
        octets += frame(payload, opcode, mask)
        boundaries.add(len(octets))
    tracker, position = FrameTracker(), 0
    for cut in [*cuts, len(octets)]:
        taken = tracker.advance(octets[position:position + cut])
        position += taken
        assert tracker.is_between == (position in boundaries or not position)
    assert position == len(octets)
    assert not tracker.closed


def test_the_next_boundary_is_found():
    first, second = frame(b"x" * 300), frame(b"")
    tracker = FrameTracker()
    assert tracker.advance(first[:100]) == 100
    assert tracker.advance(first[100:] + second, to_boundary=True) == len(first) - 100
    assert tracker.is_between
    assert tracker.advance(second + first, to_boundary=True) == len(second)
    assert tracker.advance(b"", to_boundary=True) == 0


def test_a_close_frame_is_noticed():
    tracker = FrameTracker()
    tracker.advance(frame(b"x") + close_frame(1001)[:2])
    assert tracker.closed
    assert not tracker.is_between
    assert close_frame(1001) == frame(b"\x03\xe9", 8)
