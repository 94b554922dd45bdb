"""The guard (RFC 9113 section 10.5): each flood ends the connection, no honest client does."""

import pytest

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.errors import Budget, ConnectionFailure, ErrorCode
from gunicorn_h2.protocol.events import ConnectionTerminated, RequestReceived
from gunicorn_h2.protocol.guard import Guard, TokenBucket
from gunicorn_h2.protocol.headers import ResponseHead

from .hpack_blocks import literal, string
from .peer import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PADDED,
    PREFACE,
    Peer,
    data,
    fields,
    goaway,
    ping,
    priority,
    raw,
    rst_stream,
    settings,
    window_update,
)

CALM = ErrorCode.ENHANCE_YOUR_CALM
CONTROL, RESETS = 50, 20
EARNED = 4


@pytest.fixture
def guarded(connect):
    """A connection with small budgets and a stream that is open."""
    peer = connect(control_budget=CONTROL, reset_budget=RESETS, max_concurrent_streams=10)
    peer.open(end=False)
    peer.take()
    return peer


def assert_flood(peer, make, most, budget=Budget.TOO_MANY_CONTROL_FRAMES):
    """Frames are served up to `most` of them and the few that a request has earned, then the connection ends."""
    sent = 0
    while sent <= most + EARNED and not peer.core.closed:
        peer.send(make(sent))
        sent += 1
    assert most - 5 <= sent <= most + EARNED + 1, sent
    peer.assert_goaway(CALM, budget=budget)


CONTROL_FLOODS = {
    "PING": lambda _: ping(),
    "PING ACK": lambda _: ping(ack=True),
    "SETTINGS": lambda _: settings(),
    "SETTINGS that move every window": lambda number: settings((INITIAL_WINDOW_SIZE, number)),
    "PRIORITY": lambda number: priority(2 * number + 101),
    "WINDOW_UPDATE of the connection": lambda _: window_update(0, 1),
    "WINDOW_UPDATE of a stream": lambda _: window_update(1, 1),
    "an unknown type": lambda number: raw(0x20 + number, 0, 0, b"?"),
    "empty DATA": lambda _: data(1),
    "DATA of padding alone": lambda _: data(1, padding=9),
    "GOAWAY of a client that stays": lambda _: goaway(),
}


@pytest.mark.parametrize("name", CONTROL_FLOODS)
def test_floods_of_control_frames(guarded, name):
    assert_flood(guarded, CONTROL_FLOODS[name], CONTROL)


def test_a_flood_of_resets(guarded):
    """Rapid reset (CVE-2023-44487): each request is open for a moment only, and its application returns at once."""
    def request_and_reset(number):
        stream = guarded.open()
        if stream is not None:
            guarded.core.finish(stream, guarded.now)
        return rst_stream(stream.stream_id) if stream is not None else b""

    assert_flood(guarded, request_and_reset, RESETS, Budget.TOO_MANY_STREAM_RESETS)


PROVOKED = {
    "a malformed request": lambda peer: peer.headers(peer.next_id(), [(b":method", b"GET")]),
    "an answer of ours": lambda peer: peer.headers(peer.next_id(), [(b":method", b"CONNECT"), (b":authority", b"a")]),
    "PRIORITY of a broken length": lambda peer: raw(0x2, 0, 1, b"four"),
    "WINDOW_UPDATE of 0": lambda peer: peer.headers(stream_id := peer.next_id()) + window_update(stream_id, 0),
    "DATA behind the end": lambda peer: peer.headers(stream_id := peer.next_id()) + data(stream_id, b"x"),
    "a window that overflows": lambda peer: (
        peer.headers(stream_id := peer.next_id()) + window_update(stream_id, 2**31 - 1)),
}


@pytest.mark.parametrize("name", PROVOKED)
def test_floods_of_resets_provoked_from_us(connect, name):
    """Made you reset (CVE-2025-8671)."""
    peer = connect(control_budget=CONTROL, reset_budget=RESETS, max_concurrent_streams=1_000)
    peer.open(end=False)
    peer.take()
    assert_flood(peer, lambda _: PROVOKED[name](peer), RESETS, Budget.TOO_MANY_STREAM_RESETS)


def test_a_flood_of_streams_beyond_the_limit(guarded):
    for _ in range(9):
        guarded.open(end=False)
    guarded.take()
    assert_flood(guarded, lambda _: guarded.headers(guarded.next_id()), RESETS, Budget.TOO_MANY_STREAM_RESETS)


def test_a_flood_of_streams_beyond_a_limit_that_is_never_acknowledged(connect):
    peer = connect(setup=False, control_budget=CONTROL, reset_budget=RESETS, max_concurrent_streams=1)
    peer.send(PREFACE, settings(), peer.headers(peer.next_id()))
    peer.take()
    assert_flood(peer, lambda _: peer.headers(peer.next_id()), CONTROL // 4)


def test_a_flood_of_headers_on_a_stream_that_we_reset(guarded):
    guarded.core.reset(guarded.core.streams[1], ErrorCode.CANCEL)
    guarded.collect().take()
    assert_flood(guarded, lambda _: guarded.headers(1, [(b"x-late", b"1")]), CONTROL)


def test_a_flood_of_streams_behind_the_final_goaway(guarded):
    guarded.core.shutdown(guarded.now)
    guarded.wait(guarded.config.drain_timeout)
    guarded.send(ping(b"shutdown", ack=True))
    guarded.take()
    assert_flood(guarded, lambda _: guarded.headers(guarded.next_id()), CONTROL)


def test_a_request_that_is_refused_earns_nothing(connect):
    """Answers of 431 are charged as resets, and the requests they answer pay for none."""
    peer = connect(max_header_fields=3, reset_budget=RESETS, control_budget=10_000)
    section = fields(*[(b"x-%d" % number, b"") for number in range(5)])
    assert_flood(peer, lambda _: peer.headers(peer.next_id(), section), RESETS, Budget.TOO_MANY_STREAM_RESETS)


def test_a_flood_of_ends_of_a_stream_that_we_reset(guarded):
    guarded.core.reset(guarded.core.streams[1], ErrorCode.CANCEL)
    guarded.collect().take()
    assert_flood(guarded, lambda _: data(1, end=True), CONTROL)


def test_a_flood_of_streams_while_cancelled_calls_run(connect):
    """The client may not know that they count, so it is no reset; but it is work."""
    peer = connect(max_concurrent_streams=2, control_budget=100, reset_budget=2)
    for _ in range(2):
        peer.send(rst_stream(peer.open().stream_id))
    assert_flood(peer, lambda _: peer.headers(peer.next_id()), 25)


def test_a_stream_that_is_not_reset_at_once_costs_no_reset(connect):
    peer = connect(max_concurrent_streams=10, reset_budget=1)
    for _ in range(20):
        stream = peer.open()
        peer.wait(1.0)
        peer.send(rst_stream(stream.stream_id))
        peer.core.finish(stream, peer.now)
    peer.assert_alive()


def test_running_requests_bound_a_flood_of_resets_before_any_budget(connect):
    peer = connect(reset_budget=1_000_000, max_concurrent_streams=3)
    for _ in range(50):
        stream = peer.open()
        if stream is not None:
            peer.send(rst_stream(stream.stream_id))
    assert len(peer.of(RequestReceived)) == 3


# -- small DATA ------------------------------------------------------------------------------------------------------


def test_a_flood_of_data_frames_of_one_octet(connect):
    """A fifth of the budget at first, and then as much in a second as it says."""
    peer = connect(small_data_budget=100)
    peer.open(end=False)
    peer.take()
    assert_flood(peer, lambda _: data(1, b"x"), 21, Budget.TOO_MANY_SMALL_DATA_FRAMES)


@pytest.mark.parametrize(("size", "frames"), [(0, 20), (1, 21), (8, 40), (12, 80)])
def test_the_smaller_a_data_frame_the_more_it_costs(size, frames):
    guard = Guard(ConnectionConfig(small_data_budget=100), 0.0)
    for _ in range(frames):
        guard.charge_small_data(0.0, size)
    with pytest.raises(ConnectionFailure):
        guard.charge_small_data(0.0, size)
    guard.charge_small_data(0.02, size)


@pytest.mark.parametrize("frame", [data(1, b"x" * 16), data(1, b"x" * 16, padding=200)])
def test_larger_data_frames_are_free(connect, frame):
    peer = connect(small_data_budget=100)
    stream = peer.open(end=False)
    for _ in range(300):
        peer.send(frame)
        peer.core.acknowledge(stream, 16, peer.now)
    peer.assert_alive()


# -- what responses earn ---------------------------------------------------------------------------------------------


def test_a_client_that_gives_credit_for_an_octet_at_a_time(connect):
    """Data dribble (CVE-2019-9511): frames that are small because the client wants them so earn it nothing."""
    peer = connect([(INITIAL_WINDOW_SIZE, 0)], control_budget=CONTROL)
    peer.respond(peer.open(), bytes(10_000), finish=False)
    assert_flood(peer, lambda _: window_update(1, 1), CONTROL)


def test_what_responses_have_earned_is_bounded():
    guard = Guard(ConnectionConfig(control_budget=10), 0.0)
    guard.sent_octets = 2**40
    for _ in range(65_536 + 1 + 10):
        guard.charge_control(0.0)
    with pytest.raises(ConnectionFailure):
        guard.charge_control(0.0)


# -- output ----------------------------------------------------------------------------------------------------------


class Deaf:
    """A client that sends requests and takes nothing that comes back, and the application of them."""

    def __init__(self, peer):
        self.core, self.peer = peer.core, peer

    def ask(self, answer):
        """Send a request, and have it answered; return whether the connection goes on."""
        self.core.receive_data(self.peer.headers(self.peer.next_id()), self.peer.now)
        for event in self.core.events():
            if isinstance(event, ConnectionTerminated):
                self.end = event
                return False
            answer(event.stream)
            self.core.finish(event.stream, self.peer.now)
        return True


@pytest.mark.parametrize("body", [b"x", bytes(16_384)], ids=["small", "full"])
def test_responses_that_nobody_reads_are_bounded(engine, body):
    """CVE-2019-9517: windows that are open wide, and a socket that is not read."""
    peer = Peer(engine, settings=[(INITIAL_WINDOW_SIZE, 2**31 - 1)], max_concurrent_streams=4)
    peer.send(window_update(0, 2**31 - 1 - 65_535))
    client, asked = Deaf(peer), 0
    head = ResponseHead(200, [(b"x-large", b"v" * 8_000)])
    while client.ask(lambda stream: client.core.send_response(stream, head, body)):
        asked += 1
        assert asked < 1_000
    assert (client.end.code, client.end.reason) == (CALM, Budget.UNREAD_OUTPUT)
    assert len(client.core.data_to_send(peer.now)) < 500_000


def test_as_many_responses_as_streams_may_wait_for_a_slow_reader(engine):
    peer = Peer(engine, settings=[(INITIAL_WINDOW_SIZE, 2**31 - 1)], max_concurrent_streams=100)
    peer.send(window_update(0, 2**31 - 1 - 65_535))
    client = Deaf(peer)
    for _ in range(100):
        assert client.ask(lambda stream: client.core.send_response(stream, ResponseHead(200, []), bytes(16_384)))
    peer.collect()
    peer.assert_alive()


# -- header blocks ---------------------------------------------------------------------------------------------------


def until_closed(peer, frame):
    """Send a frame again and again, a hundred times at most; return how often."""
    sent = 0
    while sent < 100 and not peer.core.closed:
        peer.send(frame)
        sent += 1
    return sent


def test_a_flood_of_continuations(peer):
    """CVE-2024-27983 and its kin; empty frames too."""
    peer.send(raw(HEADERS, 0, 1, b"\x82"))
    sent = until_closed(peer, raw(CONTINUATION, 0, 1))
    assert sent < 25
    peer.assert_goaway(CALM, 0, Budget.TOO_MANY_CONTINUATION_FRAMES)


def test_a_block_larger_than_any_list_could_need(connect):
    peer = connect(max_header_list_size=8_192)
    assert not peer.send(raw(HEADERS, 0, 1, b"\x82" * 16_000)).core.closed
    peer.send(raw(CONTINUATION, 0, 1, b"\x82" * 16_000)).assert_goaway(CALM, 0, Budget.HEADER_BLOCK_TOO_LARGE)


def test_a_block_without_a_limit_of_the_list_has_one(connect):
    peer = connect(max_header_list_size=0)
    peer.send(raw(HEADERS, 0, 1, b"\x82" * 16_000))
    assert until_closed(peer, raw(CONTINUATION, 0, 1, b"\x82" * 16_000)) > 60
    peer.assert_goaway(CALM, 0)


@pytest.mark.parametrize("update", [b"\x20", b"\x3f\x00", b"\x3f\x80\x00"])
def test_a_flood_of_table_size_updates(peer, update):
    peer.send(raw(HEADERS, END_HEADERS | END_STREAM, 1, update * 3 + b"\x82"))
    peer.assert_goaway(CALM, 0, Budget.TOO_MANY_TABLE_SIZE_UPDATES)


def test_a_flood_of_blocks_with_table_size_updates(connect):
    """Legal ones, two in each block; a few are enough for any client."""
    peer = connect(control_budget=200)
    block = b"\x20\x3f\xe1\x1f" + SMALL
    assert_flood(peer, lambda _: raw(HEADERS, END_HEADERS | END_STREAM, peer.next_id(), block), 17,
                 Budget.TOO_MANY_TABLE_SIZE_UPDATES)


SMALL = b"\x82\x87\x84\x01\x01a"


def tiny_fields(count):
    """A request with so many fields of a few octets, and none that enters the table."""
    return SMALL + b"".join(literal(0x00, b"x-%d" % number, b"") for number in range(count))


def test_a_flood_of_sections_with_too_many_fields(connect):
    peer = connect(control_budget=1_000)
    assert_flood(peer, lambda _: raw(HEADERS, END_HEADERS | END_STREAM, peer.next_id(), tiny_fields(1_000)), 6,
                 Budget.TOO_MANY_HEADER_FIELDS)
    assert peer.answers[1].status == 431


def test_a_flood_of_cookie_crumbs(connect):
    """CVE-2026-49975 and its kin: an octet each, and more than a browser keeps cookies."""
    peer = connect(control_budget=1_000)
    block = SMALL + literal(0x40, b"cookie", b"a") + b"\xbe" * 4_000
    assert_flood(peer, lambda _: raw(HEADERS, END_HEADERS | END_STREAM, peer.next_id(), block), 9,
                 Budget.TOO_MANY_HEADER_FIELDS)
    assert peer.answers[1].status == 431


def test_a_flood_of_references_to_a_large_field(connect):
    """Within the limit of the list: the cost is in joining it, a thousand times what it takes to send."""
    peer = connect()
    peer.send(raw(HEADERS, END_HEADERS | END_STREAM, peer.next_id(), SMALL + literal(0x40, b"x", b"v" * 3_900)))
    peer.respond(peer.core.streams[1])

    def block(number):
        return b"\x82\x87\x01\x01a\x04" + string(b"/%d" % number) + b"\xbe" * 15

    assert_flood(peer, lambda number: raw(HEADERS, END_HEADERS, peer.next_id(), block(number)), 11,
                 Budget.TOO_MUCH_REPETITION)


def test_references_that_repeat_in_each_request_are_known(connect):
    """A block that was seen before is not decoded, and costs nothing."""
    peer = connect()
    peer.send(raw(HEADERS, END_HEADERS | END_STREAM, peer.next_id(), SMALL + literal(0x40, b"x", b"v" * 3_900)))
    for _ in range(50):
        peer.send(raw(HEADERS, END_HEADERS | END_STREAM, peer.next_id(), SMALL + b"\xbe" * 15))
    peer.assert_alive()


def test_a_flood_of_large_sections(connect):
    """Four times the limit of the list, again and again."""
    peer = connect()
    peer.send(raw(HEADERS, END_HEADERS | END_STREAM, peer.next_id(), SMALL + literal(0x40, b"x", b"v" * 3_900)))
    block = SMALL + b"\xbe" * 60
    assert_flood(peer, lambda _: raw(HEADERS, END_HEADERS | END_STREAM, peer.next_id(), block), 3,
                 Budget.TOO_MUCH_REPETITION)


@pytest.mark.parametrize("block", [b"\x20\x3f\xe1\x1f", b"\x3f", b"\x3f\xff\xff", b"\x20"])
def test_two_updates_are_no_flood(block):
    Guard(ConnectionConfig(), 0.0).charge_size_updates(0.0, block)


def test_a_flood_of_settings_that_move_the_windows_of_many_streams(connect):
    peer = connect(control_budget=105, max_concurrent_streams=80)
    for _ in range(80):
        peer.open(end=False)
    peer.take()
    # The streams have earned something as well.
    assert_flood(peer, lambda number: settings((INITIAL_WINDOW_SIZE, number)), (105 + 80 * 4) // 11,
                 Budget.TOO_MANY_WINDOW_CHANGES)


def test_settings_that_change_nothing_move_no_window(connect):
    peer = connect(control_budget=60, max_concurrent_streams=80)
    for _ in range(80):
        peer.open(end=False)
    peer.send(*[settings((INITIAL_WINDOW_SIZE, 65_535))] * 300)
    peer.assert_alive()


def test_settings_are_charged_by_their_values(connect):
    many = settings(*[(HEADER_TABLE_SIZE, 4096)] * 32)
    assert_flood(connect(control_budget=100), lambda _: many, 20)


def test_settings_with_many_values(peer):
    many = [(HEADER_TABLE_SIZE, 4096)] * 33
    peer.send(settings(*many[:32])).assert_alive()
    peer.send(settings(*many)).assert_goaway(CALM, budget=Budget.TOO_MANY_SETTINGS)


# -- honest clients --------------------------------------------------------------------------------------------------


def test_a_client_may_send_four_control_frames_a_request(guarded):
    for _ in range(20 * CONTROL):
        stream = guarded.open()
        guarded.send(priority(stream.stream_id), window_update(stream.stream_id, 10), window_update(0, 10), ping())
        guarded.respond(stream, b"x")
    guarded.assert_alive()


def test_a_client_may_update_its_windows_for_each_kib(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 2_048)], control_budget=CONTROL)
    stream = peer.open()
    peer.respond(stream, bytes(1_000_000), finish=False)
    while stream.queued:
        peer.send(window_update(1, 2_048), window_update(0, 2_048))
    assert len(peer.answers[1].body) == 1_000_000
    peer.assert_alive()


def test_budgets_fill_up_again(guarded):
    for _ in range(50):
        guarded.send(*[ping()] * (CONTROL // 2))
        guarded.now += 10.0
    guarded.assert_alive()


def test_a_browser_may_cancel_now_and_then(guarded):
    for _ in range(10 * RESETS):
        stream = guarded.open()
        guarded.send(rst_stream(stream.stream_id))
        guarded.core.finish(stream, guarded.now)
        guarded.now += 2.0
    guarded.assert_alive()


def test_uploads_are_no_control_frames(guarded):
    stream = guarded.core.streams[1]
    for _ in range(20 * CONTROL):
        guarded.send(data(1, b"x"))
        guarded.core.acknowledge(stream, 1, guarded.now)
    guarded.send(raw(DATA, END_STREAM | PADDED, 1, b"\0"))
    guarded.assert_alive()


# -- the budget itself -----------------------------------------------------------------------------------------------


def test_a_budget_is_a_token_bucket():
    budget = TokenBucket(4, 8.0, 100.0)
    assert [budget.spend(100.0) for _ in range(5)] == [True] * 4 + [False]
    assert [budget.spend(101.0), budget.spend(102.0), budget.spend(102.0)] == [False, True, False]
    assert [budget.spend(1_000.0) for _ in range(5)] == [True] * 4 + [False]
    assert [budget.spend(1_000.0, earned) for earned in (2.5, 0, 0)] == [True, True, False]
    assert [budget.spend(1_000.0, earned) for earned in (100, 0, 0, 0, 0)] == [True] * 4 + [False]
    assert [budget.spend(1_004.0, cost=cost) for cost in (1.5, 1.0, 0.5)] == [True, False, True]


def test_a_budget_may_begin_with_a_part_of_its_tokens():
    budget = TokenBucket(10, 1.0, 0.0, start=0.2)
    assert [budget.spend(0.0) for _ in range(3)] == [True, True, False]
    assert [budget.spend(5.0) for _ in range(11)] == [True] * 10 + [False]


def test_a_budget_survives_a_clock_that_stands_still():
    budget = TokenBucket(1, 1.0, 5.0)
    assert [budget.spend(5.0), budget.spend(5.0)] == [True, False]


def test_a_failure_says_what_and_why():
    failure = ConnectionFailure(CALM, "too much")
    assert (str(failure), failure.code, failure.reason) == ("ENHANCE_YOUR_CALM: too much", CALM, "too much")
