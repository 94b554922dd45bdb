"""The upgrade from HTTP/1.1 (RFC 7540 section 3.2): which requests become stream 1, and how a connection goes on."""

import base64

import pytest
from hyperframe.frame import DataFrame, SettingsFrame

from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.events import RequestReceived
from gunicorn_h2.protocol.upgrade import SWITCHING_PROTOCOLS, validate_upgrade

from .peer import (
    ENABLE_PUSH,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    PREFACE,
    data,
    ping,
    rst_stream,
    settings,
    settings_ack,
    window_update,
)


def encode(*pairs):
    """The value of HTTP2-Settings for (identifier, value) pairs."""
    return base64.urlsafe_b64encode(settings(*pairs)[9:]).rstrip(b"=")


def fields(*extra, connection=b"Upgrade, HTTP2-Settings", upgrade=b"h2c", announced=b"", host=b"example.org"):
    """The fields of a request that asks for an upgrade; those that are None are left out."""
    asked = [(b"host", host), (b"connection", connection), (b"upgrade", upgrade), (b"http2-settings", announced)]
    return [(name, value) for name, value in asked if value is not None] + list(extra)


def validated(*extra, method=b"GET", path=b"/", body=b"", **changed):
    """Judge a request."""
    return validate_upgrade(method, path, fields(*extra, **changed), body)


@pytest.fixture
def upgrade(connect):
    """A function that makes a connection of an upgraded request, the client's preface not sent yet."""
    def upgrade(asked, **config):
        peer = connect(setup=False, **config)
        peer.core.receive_upgrade(asked)
        written = peer.core.data_to_send(peer.now)
        assert written.startswith(SWITCHING_PROTOCOLS)
        peer.octets = written.removeprefix(SWITCHING_PROTOCOLS)
        peer._parse()
        assert peer.next_id() == 1
        return peer
    return upgrade


# -- the request -------------------------------------------------------------------------------------------------------


def test_what_becomes_of_a_request():
    asked = validated((b"x-one", b"1"), (b"cookie", b"a=1"), (b"keep-alive", b"5"), (b"transfer-encoding", b"chunked"),
                  (b"te", b"gzip"), method=b"POST", path=b"/a?b", body=b"abc", announced=encode((4, 5)))
    assert asked.body == b"abc"
    assert asked.settings == settings((4, 5))[9:]
    head = asked.head
    assert (head.method, head.scheme, head.authority, head.path) == (b"POST", b"http", b"example.org", b"/a?b")
    assert head.fields == [(b"x-one", b"1"), (b"cookie", b"a=1")]


def test_the_section_begins_with_pseudo_header_fields():
    asked = validated((b"x-one", b"1"))
    assert asked.section == [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"),
                             (b":authority", b"example.org"), (b"x-one", b"1")]


@pytest.mark.parametrize("changed", [
    {"connection": b"upgrade,http2-settings"}, {"connection": b"HTTP2-SETTINGS , keep-alive,UPGRADE"},
    {"upgrade": b"websocket, h2c"}, {"upgrade": b"H2C"}, {"announced": encode((4, 2**31 - 1), (2, 0), (5, 16_384))},
    {"announced": base64.urlsafe_b64encode(settings((1, 0), (0xFFFF, 2**32 - 1))[9:])},
    {"method": b"OPTIONS", "path": b"*"}, {"host": None},
])
def test_requests_that_are_upgraded(changed):
    assert validated(**changed) is not None


def test_the_connection_field_may_be_in_pieces():
    assert validated((b"connection", b"HTTP2-Settings"), connection=b"Upgrade") is not None


NOT_UPGRADED = {
    "nothing": {"connection": None, "upgrade": None, "announced": None},
    "no settings": {"announced": None},
    "no upgrade": {"upgrade": None},
    "h2 is for TLS": {"upgrade": b"h2"},
    "another protocol": {"upgrade": b"websocket"},
    "no connection": {"connection": None},
    "the settings are not named": {"connection": b"Upgrade"},
    "the upgrade is not named": {"connection": b"HTTP2-Settings"},
    "no base64": {"announced": b"!!!"},
    "white space": {"announced": b"AAMA AABk"},
    "a length that base64 has not": {"announced": b"AAMAA"},
    "the other alphabet": {"announced": b"AAMAAAB+"},
    "the other alphabet's slash": {"announced": b"AAMAAAB/"},
    "half a setting": {"announced": b"AAMAAA"},
    "push": {"announced": encode((ENABLE_PUSH, 2))},
    "window": {"announced": encode((INITIAL_WINDOW_SIZE, 2**31))},
    "small frames": {"announced": encode((MAX_FRAME_SIZE, 16_383))},
    "large frames": {"announced": encode((MAX_FRAME_SIZE, 2**24))},
    "connect protocol": {"announced": encode((8, 2))},
    "too many": {"announced": encode(*[(0xFFFF, 0)] * 3000)},
    "connect": {"method": b"CONNECT", "path": b"example.org:443"},
    "absolute form": {"path": b"http://example.org/"},
    "asterisk with GET": {"path": b"*"},
    "userinfo": {"host": b"user@example.org"},
}


@pytest.mark.parametrize("changed", NOT_UPGRADED.values(), ids=NOT_UPGRADED.keys())
def test_requests_that_stay_http1(changed):
    assert validated(**changed) is None


@pytest.mark.parametrize("extra", [
    (b"http2-settings", b""), (b"host", b"example.com"), (b"expect", b"100-continue"), (b"x bad", b"1"),
    (b"x-bad", b"a\0b"), (b"content-length", b"x"),
])
def test_fields_that_keep_a_request_http1(extra):
    assert validated(extra) is None


# -- the connection ----------------------------------------------------------------------------------------------------


def test_the_request_is_stream_1(upgrade):
    peer = upgrade(validated(path=b"/a")).collect()
    (event,) = peer.of(RequestReceived)
    assert (event.stream.stream_id, event.end_stream, event.stream.head.path) == (1, True, b"/a")
    peer.respond(event.stream, b"hello")
    assert (peer.answers[1].status, peer.answers[1].body, peer.answers[1].ended) == (200, b"hello", True)


def test_the_servers_settings_come_first_and_the_clients_are_not_acknowledged(upgrade):
    peer = upgrade(validated(announced=encode((INITIAL_WINDOW_SIZE, 5))), max_concurrent_streams=7)
    peer.send(PREFACE)
    assert (type(peer.frames[0]), peer.frames[0].flags) == (SettingsFrame, set())
    assert len(peer.take(SettingsFrame)) == 1
    peer.send(settings())
    assert [frame.flags for frame in peer.take(SettingsFrame)] == [{"ACK"}]


def test_the_connection_goes_on_after_the_preface(upgrade):
    peer = upgrade(validated())
    peer.send(PREFACE, settings(), settings_ack())
    peer.respond(peer.of(RequestReceived)[0].stream, b"one")
    stream = peer.open(path=b"/two")
    assert stream.stream_id == 3
    peer.respond(stream, b"two")
    assert [peer.answers[stream_id].body for stream_id in (1, 3)] == [b"one", b"two"]
    peer.assert_alive()


def test_the_preface_is_still_to_come(upgrade):
    peer = upgrade(validated())
    peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    peer.assert_goaway(ErrorCode.PROTOCOL_ERROR, 1)
    assert peer.aborted == [(1, ErrorCode.PROTOCOL_ERROR)]


def test_the_preface_is_not_waited_for_for_ever(upgrade):
    peer = upgrade(validated(), setup_timeout=3)
    peer.wait(3)
    peer.assert_goaway(ErrorCode.SETTINGS_TIMEOUT, 1)


def test_stream_1_cannot_be_opened_again(upgrade):
    peer = upgrade(validated())
    peer.send(PREFACE, settings(), peer.headers(1))
    assert [event.stream.stream_id for event in peer.of(RequestReceived)] == [1]


def test_data_on_stream_1_is_an_error(upgrade):
    """The request is complete: the client's half is closed (section 5.1)."""
    peer = upgrade(validated())
    peer.send(PREFACE, settings(), data(1, b"more"))
    assert (1, ErrorCode.STREAM_CLOSED) in peer.resets or peer.goaways == [(1, ErrorCode.STREAM_CLOSED)]


def test_stream_1_can_be_reset(upgrade):
    peer = upgrade(validated())
    peer.send(PREFACE, settings(), rst_stream(1))
    assert peer.aborted == [(1, ErrorCode.CANCEL)]
    peer.assert_alive()


def test_the_clients_window_counts(upgrade):
    peer = upgrade(validated(announced=encode((INITIAL_WINDOW_SIZE, 5))))
    peer.send(PREFACE, settings((INITIAL_WINDOW_SIZE, 5)), settings_ack())
    peer.respond(peer.of(RequestReceived)[0].stream, b"hello world")
    assert (peer.answers[1].body, peer.answers[1].ended) == (b"hello", False)
    peer.send(window_update(1, 100))
    assert (peer.answers[1].body, peer.answers[1].ended) == (b"hello world", True)


def test_the_clients_frame_size_counts(upgrade):
    peer = upgrade(validated(announced=encode((MAX_FRAME_SIZE, 20_000))))
    peer.send(PREFACE, settings((MAX_FRAME_SIZE, 20_000)), settings_ack())
    peer.respond(peer.of(RequestReceived)[0].stream, b"x" * 20_000)
    assert [len(frame.data) for frame in peer.take(DataFrame)] == [20_000]


def test_the_clients_table_size_counts(upgrade):
    """The response's head fits a decoder without a table even before the client's preface."""
    peer = upgrade(validated(announced=encode((HEADER_TABLE_SIZE, 0))))
    peer.decoder.header_table_size = peer.decoder.max_allowed_table_size = 0
    (event,) = peer.collect().of(RequestReceived)
    peer.respond(event.stream, b"x", [(b"x-answer", b"1")])
    assert peer.answers[1].status == 200


def test_a_body_comes_whole(upgrade):
    peer = upgrade(validated((b"content-length", b"3"), method=b"POST", body=b"abc"))
    (request,) = peer.collect().events
    assert (request.end_stream, request.body) == (True, b"abc")
    assert request.stream.head.content_length == 3


def test_a_body_takes_nothing_from_the_windows(upgrade):
    """It came by HTTP/1.1: the credit for it is not given, at no moment and by no rule."""
    peer = upgrade(validated(method=b"POST", body=b"x" * 60_000), connection_window_size=65_535)
    peer.send(PREFACE, settings(), settings_ack())
    (request,) = peer.of(RequestReceived)
    peer.take()
    peer.core.acknowledge(request.stream, 60_000, peer.now)
    peer.respond(request.stream, b"thanks")
    assert peer.updates == []
    stream = peer.open(end=False, method=b"POST")
    peer.send(*[data(stream.stream_id, b"x" * 16_000)] * 4, data(stream.stream_id, b"x" * 1535, end=True))
    peer.assert_alive()


def test_it_counts_as_one_of_the_concurrent_streams(upgrade):
    peer = upgrade(validated(), max_concurrent_streams=1)
    peer.send(PREFACE, settings(), settings_ack())
    assert peer.open() is None
    assert peer.refused == [3]
    peer.respond(peer.of(RequestReceived)[0].stream, b"x")
    assert peer.open() is not None


def test_a_connection_is_not_idle_while_stream_1_is_open(upgrade):
    peer = upgrade(validated(), idle_timeout=2)
    peer.send(PREFACE, settings(), settings_ack())
    peer.wait(10)
    assert not peer.core.closed
    peer.respond(peer.of(RequestReceived)[0].stream, b"at last")
    assert peer.answers[1].body == b"at last"
    peer.wait(2)
    peer.assert_goaway(ErrorCode.NO_ERROR, 1)


def test_the_shutdown_names_it(upgrade):
    peer = upgrade(validated(), drain_timeout=1)
    peer.core.shutdown(peer.now)
    peer.send(PREFACE, settings(), settings_ack())
    peer.respond(peer.of(RequestReceived)[0].stream, b"x")
    peer.send(ping(b"shutdown", ack=True))
    assert peer.goaways == [(2**31 - 1, ErrorCode.NO_ERROR), (1, ErrorCode.NO_ERROR)]
    assert (peer.answers[1].body, peer.core.closed) == (b"x", True)


def test_a_client_that_goes_away_at_once(upgrade):
    peer = upgrade(validated())
    peer.core.receive_eof()
    peer.collect()
    assert peer.aborted == [(1, ErrorCode.CANCEL)]
