"""What goes out: heads, interim responses, data, trailers; and what never does (RFC 9113 sections 8.1 and 8.2)."""

import pytest
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.protocol.errors import ErrorCode, InvalidResponse
from gunicorn_h2.protocol.events import StreamReset
from gunicorn_h2.protocol.headers import FORBIDDEN_IN_RESPONSES, ResponseHead

from .peer import INITIAL_WINDOW_SIZE, Peer, data, rst_stream, window_update


def test_a_head_carries_status_and_fields(peer):
    sent = [(b"content-type", b"text/plain"), (b"set-cookie", b"a=b"), (b"set-cookie", b"c"), (b"x-latin", b"\xe9\t ")]
    peer.respond(peer.open(), b"x", sent, status=299)
    assert peer.answers[1].head == [(b":status", b"299"), *sent]


BAD_FIELDS = [
    (b"x-a", b"1\r\nx-b: 2"), (b"x-a", b"1\r"), (b"x-a", b"1\n"), (b"x-a", b"1\0"), (b"x-a", b"\x7f"),
    (b"x-a", b"\x1b"), (b"X-Upper", b"1"), (b"", b"1"), (b"x a", b"1"), (b"x\r\ny", b"1"), (b":status", b"200"),
    (b"x:y", b"1"), (b"x\xe9", b"1"), *[(name, b"close") for name in sorted(FORBIDDEN_IN_RESPONSES)]]


@pytest.mark.parametrize("field", BAD_FIELDS)
def test_a_bad_field_never_goes_out(peer, field):
    stream = peer.open()
    with pytest.raises(InvalidResponse):
        peer.core.send_headers(stream, ResponseHead(200, [(b"x-good", b"1"), field]), True)
    assert peer.collect().frames == []
    peer.respond(stream, b"a response may follow")
    assert peer.answers[1].ended


@pytest.mark.parametrize("field", [*BAD_FIELDS, (b"content-length", b"4")])
def test_a_bad_trailer_never_goes_out(peer, field):
    stream = peer.open()
    peer.respond(stream, b"body", end=False, finish=False)
    with pytest.raises(InvalidResponse):
        peer.core.send_trailers(stream, [field])
    assert not peer.collect().answers[1].ended


def test_interim_responses_come_before_the_head(peer):
    stream = peer.open(end=False)
    peer.core.send_headers(stream, ResponseHead(100, []), False)
    peer.core.send_headers(stream, ResponseHead(103, [(b"link", b"</x>")]), False)
    peer.core.send_headers(stream, ResponseHead(103, [(b"link", b"</y>")]), False)
    peer.respond(stream, b"x", end=False, finish=False)
    peer.core.send_headers(stream, ResponseHead(103, [(b"link", b"</late>")]), False)
    peer.core.send_headers(stream, ResponseHead(500, []), True)
    answer = peer.collect().answers[1]
    assert answer.interim == [[(b":status", b"100")], [(b":status", b"103"), (b"link", b"</x>")],
                              [(b":status", b"103"), (b"link", b"</y>")]]
    assert (answer.status, answer.trailers, answer.ended) == (200, None, False)


def test_trailers_end_a_response(peer):
    stream = peer.open()
    peer.respond(stream, b"body", end=False, finish=False)
    peer.core.send_trailers(stream, [(b"x-sum", b"1")])
    peer.core.send_trailers(stream, [(b"x-sum", b"2")])
    peer.core.send_data(stream, b"ignored", True)
    frames = peer.collect().frames
    assert [type(frame) for frame in frames] == [HeadersFrame, DataFrame, HeadersFrame]
    assert [frame.flags for frame in frames] == [{"END_HEADERS"}, set(), {"END_HEADERS", "END_STREAM"}]
    assert peer.answers[1].trailers == [(b"x-sum", b"1")]


def test_trailers_wait_for_the_data_before_them(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 2)])
    stream = peer.open()
    peer.respond(stream, b"body", end=False, finish=False)
    peer.core.send_trailers(stream, [(b"x-sum", b"1")])
    assert not peer.collect().answers[1].ended
    peer.send(window_update(1, 2))
    assert (peer.answers[1].body, peer.answers[1].trailers) == (b"body", [(b"x-sum", b"1")])
    assert [len(frame.data) for frame in peer.take(DataFrame)] == [2, 2]


def test_trailers_without_data(peer):
    stream = peer.open()
    peer.respond(stream, end=False, finish=False)
    peer.core.send_trailers(stream, [(b"x-sum", b"1")])
    assert [type(frame) for frame in peer.collect().frames] == [HeadersFrame, HeadersFrame]


def test_a_head_larger_than_a_frame_is_continued(peer):
    large = [(b"x-%d" % number, b"v%d" % number * 1_000) for number in range(20)]
    peer.respond(peer.open(), b"x", large)
    assert [type(frame) for frame in peer.frames] == [HeadersFrame, *[ContinuationFrame] * (len(peer.frames) - 2),
                                                      DataFrame]
    assert len(peer.frames) > 3
    assert peer.answers[1].head[1:] == large


@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_data_may_be_a_view(peer, kind):
    stream = peer.open()
    peer.respond(stream, kind(b"0123456789" * 4_000), end=False, finish=False)
    peer.core.send_data(stream, kind(b"end"), True)
    assert peer.collect().answers[1].body == b"0123456789" * 4_000 + b"end"


def test_small_pieces_leave_in_one_frame(peer):
    stream = peer.open()
    peer.core.send_headers(stream, ResponseHead(200, []), False)
    for piece in (b"a", b"bc", b"def"):
        peer.core.send_data(stream, piece, piece == b"def")
    assert [(frame.data, frame.flags) for frame in peer.collect().take(DataFrame)] == [(b"abcdef", {"END_STREAM"})]


@pytest.mark.parametrize("sizes", [[10_000] * 5, [1, 16_384, 16_384, 1], [16_000, 384, 20_000], [40_000, 3, 40]])
def test_pieces_are_joined_and_cut_to_frames(peer, sizes):
    stream = peer.open()
    pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
    peer.core.send_headers(stream, ResponseHead(200, []), False)
    for piece in pieces:
        peer.core.send_data(stream, piece, piece is pieces[-1])
    frames = peer.collect().take(DataFrame)
    assert [len(frame.data) for frame in frames[:-1]] == [16_384] * (len(frames) - 1)
    assert (peer.answers[1].body, peer.answers[1].ended) == (b"".join(pieces), True)


@given(st.lists(st.binary(max_size=40_000), max_size=6), st.integers(0, 70_000), st.booleans())
def test_data_arrives_whatever_the_pieces_and_windows(engine, pieces, window, trailers):
    peer = Peer(engine, settings=[(INITIAL_WINDOW_SIZE, window)])
    stream = peer.open()
    peer.core.send_headers(stream, ResponseHead(200, []), False)
    for piece in pieces:
        peer.core.send_data(stream, piece, False)
    if trailers:
        peer.core.send_trailers(stream, [(b"x-sum", b"1")])
    else:
        peer.core.send_data(stream, b"", True)
    body = b"".join(pieces)
    if window < len(body):
        assert len(peer.collect().answers[1].body) == min(window, 65_535)
    peer.send(window_update(1, 300_000), window_update(0, 300_000))
    assert (peer.answers[1].body, peer.answers[1].ended) == (body, True)
    assert peer.answers[1].trailers == ([(b"x-sum", b"1")] if trailers else None)
    peer.core.finish(stream, peer.now)
    assert peer.core.streams == {}


def test_a_reset_while_the_response_waits_is_told(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 2)])
    stream = peer.open()
    peer.respond(stream, b"body", finish=False)
    peer.send(rst_stream(1, 0xABCD))
    reset, = peer.of(StreamReset)
    assert (reset.stream, reset.code) == (stream, 0xABCD)
    peer.core.finish(stream, peer.now)
    peer.assert_alive()


def test_a_body_error_breaks_a_response_off(connect):
    peer = connect(request_buffer_size=0)
    stream = peer.open((b"content-length", b"1"), end=False)
    peer.respond(stream, b"half", end=False, finish=False)
    peer.send(data(1, b"too much"))
    assert (peer.answers[1].reset, peer.answers[1].ended) == (ErrorCode.PROTOCOL_ERROR, False)


def test_an_invalid_response_is_a_value_error():
    assert issubclass(InvalidResponse, ValueError)


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 65_535, 65_536])
def test_a_whole_response_is_the_same_in_one_step_and_in_two(connect, size):
    def serve(in_one_step):
        peer = connect()
        stream = peer.open()
        if in_one_step:
            peer.core.send_response(stream, ResponseHead(200, [(b"x-a", b"1")]), bytes(size))
        else:
            peer.core.send_headers(stream, ResponseHead(200, [(b"x-a", b"1")]), not size)
            peer.core.send_data(stream, bytes(size), True)
        peer.collect().send(window_update(1, 1), window_update(0, 1))
        assert peer.core.streams == {}
        return peer.written

    assert serve(True) == serve(False)


def test_a_whole_response_with_a_head_larger_than_a_frame(peer):
    large = [(b"x-%d" % number, b"v%d" % number * 1_000) for number in range(20)]
    peer.core.send_response(peer.open(), ResponseHead(200, large), b"body")
    answer = peer.collect().answers[1]
    assert (answer.head[1:], answer.body, answer.ended) == (large, b"body", True)


def test_a_response_behind_a_reset_is_nothing(peer):
    stream = peer.open()
    peer.send(rst_stream(1))
    peer.take()
    assert peer.respond(stream, b"too late").take() == []


def test_a_second_response_is_nothing(peer):
    stream = peer.open()
    peer.respond(stream, b"first", end=False, finish=False)
    peer.respond(stream, b"second", finish=False)
    assert (peer.answers[1].body, peer.answers[1].ended) == (b"first", False)


def test_responses_in_one_step_use_the_windows_up(connect):
    peer = connect()
    for _ in range(4):
        peer.respond(peer.open(), bytes(16_384))
    assert [peer.answers[stream_id].ended for stream_id in (1, 3, 5, 7)] == [True, True, True, False]
    assert len(peer.answers[7].body) == 16_383
    peer.send(window_update(0, 1))
    assert peer.answers[7].ended


# -- in one step, and cut short ----------------------------------------------------------------------------------------

SUM = [(b"x-sum", b"1")]
STATUS = [(b"x-status", b"4")]
EARLY = ResponseHead(200, [(b"x-early", b"1")])


def test_a_whole_response_with_trailers(peer):
    stream = peer.open()
    peer.core.send_with_trailers(stream, ResponseHead(200, []), b"body", SUM)
    peer.core.send_with_trailers(stream, ResponseHead(200, []), b"again", SUM)
    frames = peer.collect().frames
    assert [type(frame) for frame in frames] == [HeadersFrame, DataFrame, HeadersFrame]
    assert (peer.answers[1].body, peer.answers[1].trailers) == (b"body", SUM)
    assert stream.stream_id not in peer.core.streams


@pytest.mark.parametrize("body", [b"", b"x" * 40_000])
def test_a_whole_response_of_no_frame_or_of_several(peer, body):
    peer.core.send_with_trailers(peer.open(), ResponseHead(200, []), body, SUM)
    answer = peer.collect().answers[1]
    assert (answer.body, answer.trailers, answer.ended) == (body, SUM, True)


def test_a_response_cut_short_before_its_head(peer):
    stream = peer.open()
    assert peer.core.cut_short(stream, EARLY, STATUS)
    assert not peer.core.cut_short(stream, EARLY, STATUS)
    peer.respond(stream, b"too late", finish=False)
    (frame,) = peer.collect().frames
    assert frame.flags == {"END_HEADERS", "END_STREAM"}
    assert peer.answers[1].head == [(b":status", b"200"), *EARLY.fields]
    assert peer.core.orphaned_calls == 1
    peer.core.finish(stream, peer.now)
    assert peer.core.orphaned_calls == 0


def test_a_response_cut_short_after_data(peer):
    stream = peer.open()
    peer.respond(stream, b"first", end=False, finish=False)
    assert peer.core.cut_short(stream, EARLY, STATUS)
    peer.core.send_data(stream, b"too late", True)
    answer = peer.collect().answers[1]
    assert (answer.body, answer.trailers, answer.ended, peer.resets) == (b"first", STATUS, True, [])


def test_a_response_cut_short_before_data_that_has_no_window(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 2)])
    stream = peer.open()
    peer.respond(stream, b"body", end=False, finish=False)
    peer.collect()
    assert peer.core.cut_short(stream, EARLY, STATUS)
    assert peer.collect().resets == [(1, ErrorCode.CANCEL)]
    assert peer.core.orphaned_calls == 1


def test_a_response_that_has_ended_is_not_cut_short(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 2)])
    stream = peer.open()
    peer.respond(stream, b"body", finish=False)
    assert not peer.core.cut_short(stream, EARLY, STATUS)
    peer.send(window_update(1, 2))
    assert (peer.answers[1].body, peer.answers[1].trailers) == (b"body", None)
