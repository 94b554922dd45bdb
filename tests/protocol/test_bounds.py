"""Whatever a client sends, however it is cut, and whether or not anybody reads: the same events, and bounded memory."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gunicorn_h2.protocol.events import ConnectionTerminated, DataReceived, RequestReceived

from .effort import examples
from .observers import EventCheck, WireCheck, held
from .peer import (
    CONTINUATION,
    END_HEADERS,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PREFACE,
    Peer,
    data,
    ping,
    priority,
    raw,
    rst_stream,
    settings,
    settings_ack,
    window_update,
)
from .test_differential import told
from .test_properties import garbage_frames, likely_frames

GET, POST = b"\x82\x87\x84\x41\x01a", b"\x83\x87\x84\x41\x01a"
OPENING = PREFACE + settings((INITIAL_WINDOW_SIZE, 100))
QUIET = 300_000
"""What a connection may take beside what it buffers: tables, cached heads, what is remembered of closed streams."""


@given(st.lists(st.one_of(likely_frames, likely_frames, garbage_frames), max_size=25),
       st.lists(st.integers(1, 60), min_size=1, max_size=8))
@examples(60)
def test_octets_mean_the_same_however_they_are_cut(engine, frames, sizes):
    octets = OPENING + b"".join(frames)
    whole, pieces = Peer(engine, setup=False), Peer(engine, setup=False)
    whole.core.receive_data(octets, whole.now)
    start = number = 0
    while start < len(octets):
        size = sizes[number % len(sizes)]
        pieces.core.receive_data(octets[start:start + size], pieces.now)
        start, number = start + size, number + 1
    for peer in (whole, pieces):
        peer.collect()
    assert list(map(told, pieces.events)) == list(map(told, whole.events))
    assert pieces.octets + pieces.written == whole.octets + whole.written


FLOODS = {
    "requests": lambda stream_id, number: raw(HEADERS, 5, stream_id, GET),
    "uploads": lambda stream_id, number: raw(HEADERS, 4, stream_id, POST) + data(stream_id, bytes(16_000)),
    "skipped streams": lambda stream_id, number: raw(HEADERS, 5, 5 * stream_id, GET),
    "new fields": lambda stream_id, number: raw(
        HEADERS, 5, stream_id, GET + b"\x40\x02x-\x7f\x81\x01" + b"%0256d" % number),
    "new paths": lambda stream_id, number: raw(HEADERS, 5, stream_id, b"\x82\x87\x04\x7f\x81\x01/%0255d" % number),
    "malformed requests": lambda stream_id, number: raw(HEADERS, 5, stream_id, b"\x82"),
    "cancelled requests": lambda stream_id, number: raw(HEADERS, 5, stream_id, GET) + rst_stream(stream_id),
    "endless blocks": lambda stream_id, number: raw(HEADERS, 1, stream_id, GET) + raw(
        CONTINUATION, 0, stream_id, bytes(16_000)),
    "blocks in many pieces": lambda stream_id, number: raw(HEADERS, 1, stream_id, GET) + raw(
        CONTINUATION, 0, stream_id) * 8 + raw(CONTINUATION, END_HEADERS, stream_id),
    "pings": lambda stream_id, number: ping(),
    "settings": lambda stream_id, number: settings((INITIAL_WINDOW_SIZE, number), (HEADER_TABLE_SIZE, number)),
    "unknown settings": lambda stream_id, number: settings(*[(1_000 + number, number)] * 30),
    "priorities": lambda stream_id, number: priority(stream_id + 2_000, 1),
    "windows": lambda stream_id, number: window_update(0, 1) + window_update(1, 1),
    "unknown frames": lambda stream_id, number: raw(0x21, 0, stream_id, bytes(16_000)),
    "half a frame": lambda stream_id, number: data(1, bytes(16_384))[:16_000],
}
"""A frame or more, by stream and number; sent over and over."""


class Idle:
    """An application that is called and does nothing, and a driver whose socket takes nothing."""

    def __init__(self, engine):
        self.peer = Peer(engine, setup=False, max_window_size=0)
        self.core, self.wire, self.told = self.peer.core, WireCheck(), EventCheck()
        self.unread = self.calls = 0
        self.send(OPENING + settings_ack())

    def send(self, octets):
        """Receive, and keep what comes of it."""
        self.wire.sent(octets)
        self.core.receive_data(octets, self.peer.now)
        for event in self.told.take(self.core.events()):
            self.calls += isinstance(event, RequestReceived)
            self.unread += len(event.data) if isinstance(event, DataReceived) else 0

    def check(self):
        """What is kept has a bound, and so has what an application could have to hold."""
        config = self.core.config
        assert self.unread <= config.max_concurrent_streams * config.initial_window_size
        assert held(self.core) < QUIET + 131_072 + 2 * config.max_header_list_size + 5_000 * self.calls
        ended = isinstance(self.told.terminated, ConnectionTerminated)
        assert self.calls <= config.max_concurrent_streams + config.reset_budget
        assert self.core.closed == ended


@given(st.lists(st.tuples(st.sampled_from(sorted(FLOODS)), st.integers(1, 300)), min_size=1, max_size=6))
@example([("requests", 300)])
@examples(60)
def test_what_is_kept_is_bounded_while_nobody_reads(engine, floods):
    """Neither the application reads or answers, nor the client."""
    idle, stream_id = Idle(engine), 1
    for name, count in floods:
        for number in range(count):
            idle.send(FLOODS[name](stream_id, number))
            stream_id += 2
            if idle.core.closed:
                break
        idle.check()
    idle.wire.wrote(idle.core.data_to_send(idle.peer.now))


@pytest.mark.uncovered
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_one_kind_keeps_no_more_the_longer_it_lasts(engine, name):
    """Or it ends the connection."""
    idle, sizes = Idle(engine), []
    for number in range(1, 4_001):
        if not idle.core.closed:
            idle.send(FLOODS[name](2 * number - 1, number))
        if number % 1_000 == 0:
            sizes.append(held(idle.core))
    idle.check()
    assert sizes[-1] <= sizes[0] + 10_000
    idle.wire.wrote(idle.core.data_to_send(idle.peer.now))
