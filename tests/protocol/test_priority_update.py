"""PRIORITY_UPDATE, and clients that send no priorities of RFC 7540: RFC 9218 sections 2.1 and 7.1."""

import pytest

from gunicorn_h2.protocol.errors import ErrorCode

from .peer import END_HEADERS, HAS_PRIORITY, PREFACE, priority, raw, rst_stream, settings

PRIORITY_UPDATE, NO_RFC7540_PRIORITIES = 0x10, 0x9
PROTOCOL = ErrorCode.PROTOCOL_ERROR


def update(target, value=b"u=0", stream_id=0):
    """A PRIORITY_UPDATE frame."""
    return raw(PRIORITY_UPDATE, 0, stream_id, target.to_bytes(4, "big") + value)


def open_streams(peer):
    """The priorities of the streams that are open, by number."""
    return {stream_id: tuple(stream.head.priority) for stream_id, stream in peer.core.streams.items()}


def test_a_priority_that_comes_before_its_stream(connect):
    """It counts instead of the field, and for that request only; the last one counts."""
    peer = connect()
    peer.send(update(3, b"u=7"), update(3, b"u=1, i"), update(5, b"i"))
    peer.open((b"priority", b"u=5"), end=False)
    peer.open((b"priority", b"u=5"), end=False)
    peer.open(end=False)
    peer.open((b"priority", b"u=5"), end=False)
    assert open_streams(peer) == {1: (5, False), 3: (1, True), 5: (3, True), 7: (5, False)}
    peer.assert_alive()


def test_a_value_that_is_malformed_is_that_of_no_field(connect):
    peer = connect()
    peer.send(update(1, b"u=9, ="), update(3, b""))
    peer.open((b"priority", b"u=5"), end=False)
    peer.open((b"priority", b"u=5"), end=False)
    assert open_streams(peer) == {1: (3, False), 3: (3, False)}


def test_the_head_is_the_same_but_for_the_priority(connect):
    peer = connect()
    peer.send(update(3, b"u=1"))
    peer.open((b"expect", b"100-continue"), (b"content-length", b"5"), end=False)
    peer.open((b"expect", b"100-continue"), (b"content-length", b"5"), end=False)
    plain, changed = (stream.head for stream in peer.core.streams.values())
    for name in ("method", "scheme", "authority", "path", "fields", "content_length", "declares_body",
                 "expects_continue", "list_size", "is_acceptable"):
        assert getattr(plain, name) == getattr(changed, name), name
    assert changed.sibling is None


def test_a_request_that_is_refused_stays_refused(connect):
    peer = connect(max_header_list_size=200)
    peer.send(update(1, b"u=1"))
    peer.open((b"x", b"y" * 300))
    assert peer.answers[1].status == 431


def test_later_ones_change_nothing(connect):
    peer = connect()
    peer.open((b"priority", b"u=5"), end=False)
    peer.send(update(1), raw(PRIORITY_UPDATE, 0xFF, 0, b"\x80\0\0\x01u=0"), rst_stream(1), update(1))
    peer.open(end=False)
    assert open_streams(peer) == {3: (3, False)}
    peer.assert_alive()


@pytest.mark.parametrize(("frame", "code"), [
    (update(3, stream_id=1), PROTOCOL), (update(3, stream_id=3), PROTOCOL), (update(0), PROTOCOL),
    (update(2), PROTOCOL), (raw(PRIORITY_UPDATE, 0, 0, b"\x80\0\0\0u=1"), PROTOCOL),
    (raw(PRIORITY_UPDATE, 0, 0, b"\0\0\0"), ErrorCode.FRAME_SIZE_ERROR),
])
def test_frames_that_are_wrong(connect, frame, code):
    peer = connect()
    peer.open(end=False)
    peer.send(frame)
    peer.assert_goaway(code, 1)


def test_no_more_streams_than_may_be_open(connect):
    peer = connect(max_concurrent_streams=3)
    peer.open(end=False)
    peer.send(update(3), update(5), update(3), update(5))
    peer.assert_alive()
    peer.send(update(7))
    peer.assert_goaway(PROTOCOL, peer.core._table.last_stream_id)


def test_streams_that_were_opened_or_skipped_make_room(connect):
    peer = connect(max_concurrent_streams=3)
    peer.send(update(1), update(3), update(5))
    peer.send(peer.headers(5, end=False))
    peer.send(update(7), update(9))
    peer.assert_alive()
    peer.send(update(11))
    peer.assert_goaway(PROTOCOL)


def test_a_client_that_does_not_know_the_limit_yet(connect):
    """Nothing is kept of what is beyond, and it costs more."""
    peer = connect(max_concurrent_streams=3, setup=False)
    peer.send(PREFACE, settings())
    assert not peer.core._inflow.settings_acknowledged
    peer.send(*(update(number) for number in range(1, 99, 2)))
    peer.assert_alive()
    peer.respond(peer.open())
    for _ in range(3):
        peer.open(end=False)
    assert open_streams(peer) == {3: (0, False), 5: (0, False), 7: (3, False)}


@pytest.mark.parametrize("pairs", [(2,), (2**32 - 1,), (1, 2)])
def test_the_setting_is_0_or_1(connect, pairs):
    peer = connect()
    peer.send(settings(*((NO_RFC7540_PRIORITIES, value) for value in pairs)))
    peer.assert_goaway(PROTOCOL)


def depend(peer):
    """Open a stream that depends on another, in HEADERS and in a frame of its own; return what it is thought to."""
    stream_id = peer.next_id()
    peer.send(peer.headers(stream_id, end=False, flags=END_HEADERS | HAS_PRIORITY, before=b"\0\0\0\x09\x63"))
    stream = peer.core.streams[stream_id]
    first = stream.depends_on, stream.weight
    peer.send(priority(stream_id, 11, 199))
    return first, (stream.depends_on, stream.weight)


def test_clients_that_send_no_priorities_of_rfc_7540(connect):
    """What they send nevertheless is ignored."""
    peer = connect(settings=[(NO_RFC7540_PRIORITIES, 1)])
    assert depend(peer) == ((0, 16), (0, 16))
    peer.assert_alive()


def test_clients_that_send_priorities_of_rfc_7540(connect):
    peer = connect(settings=[(NO_RFC7540_PRIORITIES, 0)])
    assert depend(peer) == ((9, 100), (11, 200))
    peer.assert_alive()
