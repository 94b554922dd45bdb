"""A whole connection beside a model of it: client and application take turns in an order that no one wrote.

The model is told what either side does, and says from RFC 9113 alone what must come of it: which streams are open, what
each application is told, which octets the client gets, how much each side may send, and with which code a stream or the
connection ends. What is policy of ours, no rule of HTTP/2, is switched off: budgets, growing windows, requests that are
held until their bodies are complete. After each step the model is compared with the core, and all that crossed the wire
with what is allowed.
"""

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.connection import ServerConnection
from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.events import RequestReceived
from gunicorn_h2.protocol.headers import ResponseHead

from .effort import examples
from .observers import DEFAULT_WINDOW, LARGEST_WINDOW, EventCheck, WireCheck, held
from .peer import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PREFACE,
    data,
    goaway,
    ping,
    priority,
    raw,
    rst_stream,
    settings_ack,
    window_update,
)
from .peer import settings as settings_frame

STALL, RESET_DELAY = 30.0, 0.1
MOST_HELD = 250_000
GET, POST = b"\x82\x87\x84\x41\x01a", b"\x83\x87\x84\x41\x01a"
MALFORMED, CONNECT = b"\x82\x87\x84\x00\x01X\x01x", b"\x42\x07CONNECT\x41\x01a"
TRAILERS = b"\x00\x01t\x011"
OCTETS = bytes(range(256)) * 280


class ModelStream:
    """One stream as RFC 9113 section 5.1 has it, and its application."""

    def __init__(self, stream_id, declared, ended, window):
        self.stream_id, self.declared = stream_id, declared
        self.request_ended, self.response_ended = ended, False
        self.window = window
        self.closed_by = None
        """Who ended it early: "client" or "server"; "both" if it ended in order."""
        self.received, self.told, self.has_trailers = 0, 0, False
        """Octets of the body that came, and of these, what the application was told."""
        self.unread = 0
        self.running, self.head, self.end_queued, self.trailers = True, False, False, False
        self.response = bytearray()
        self.since = None
        """Since when its data waits for a window."""
        self.reset_at = math.inf
        """When the server stops the client's body (section 8.1)."""
        self.code = None
        """The code that its application was told."""
        self.stream = None

    @property
    def has_reader(self):
        """Whether the application can be told of more."""
        return self.running and not self.response_ended and self.closed_by is None

    def close(self, by, code=None):
        """End it early."""
        self.closed_by = by
        self.since, self.reset_at = None, math.inf
        if code is not None:
            self.code = code


class ConnectionMachine(RuleBasedStateMachine):
    """The core, its client, its applications and the model of them."""

    engine = "fast"
    examples = 50

    @initialize(cut=st.sampled_from([None, None, 1, 7]), window=st.sampled_from([100, 16_384, 65_535, 200_000]),
                connection_window=st.sampled_from([65_535, 100_000]), most=st.sampled_from([2, 100]),
                client_window=st.sampled_from([0, 50, 65_535, 200_000]),
                requests=st.lists(st.tuples(st.booleans(), st.sampled_from([None, None, 400])), max_size=3))
    def begin(self, cut, window, connection_window, most, client_window, requests):
        """Connect, with a client that has not acknowledged anything yet, and has a few requests."""
        self.cut, self.now, self.most = cut, 1000.0, most
        config = ConnectionConfig(
            engine=self.engine, initial_window_size=window, connection_window_size=connection_window,
            max_concurrent_streams=most, idle_timeout=1e6, control_budget=10**7, reset_budget=10**7,
            small_data_budget=10**7, max_window_size=0, request_buffer_size=0, min_body_rate=0, min_read_rate=0)
        self.core = ServerConnection(config, self.now)
        self.wire, self.told = WireCheck(), EventCheck()
        self.streams, self.refused = {}, set()
        self.initial_window, self.next = DEFAULT_WINDOW, 1
        self.fate = None
        """The code with which the connection must have ended; None while it goes on."""
        self.shutting_down = self.leaving = self.acknowledged = False
        self.deliver(PREFACE + settings_frame((INITIAL_WINDOW_SIZE, client_window)))
        self.initial_window = client_window
        for end, declared in requests:
            self.open(POST, end, None if end else declared, 0)

    # -- carrying octets -----------------------------------------------------------------------------------------------

    def deliver(self, octets):
        """The client sends; all that comes of it is read."""
        step = self.cut or max(len(octets), 1)
        self.wire.sent(octets)
        for start in range(0, len(octets), step):
            self.core.receive_data(octets[start:start + step], self.now)
        self.drain()

    def drain(self):
        """The driver writes all output, and passes the events on."""
        while octets := self.core.data_to_send(self.now):
            self.wire.wrote(octets)
        for event in self.told.take(self.core.events()):
            if isinstance(event, RequestReceived):
                self.streams[event.stream.stream_id].stream = event.stream
        self.account()

    def account(self):
        """Bring the model's responses up to date with what the windows let through."""
        for stream in self.open_streams():
            seen = self.wire.streams[stream.stream_id]
            left = len(stream.response) - len(seen.body)
            if stream.end_queued and not left and not stream.response_ended:
                stream.response_ended = True
                if stream.request_ended:
                    stream.close("both")
                else:
                    stream.reset_at = self.now + RESET_DELAY
            if not left or stream.closed_by:
                stream.since = None
            elif stream.since is None or len(seen.body) != stream.sent:
                stream.since = self.now
            stream.sent = len(seen.body)

    # -- the model -----------------------------------------------------------------------------------------------------

    def open_streams(self):
        """The streams that are neither closed nor reset."""
        return [stream for stream in self.streams.values() if stream.closed_by is None]

    def orphans(self):
        """Streams that were reset while their application runs."""
        return [stream for stream in self.streams.values()
                if stream.running and stream.closed_by in ("client", "server")]

    @property
    def alive(self):
        """Whether the connection goes on."""
        return self.fate is None

    def end(self, code):
        """The connection must end with a code, and every stream with it."""
        self.fate = code
        for stream in self.open_streams():
            stream.close("connection", code or ErrorCode.CANCEL)

    def server_resets(self, stream, code):
        """The server must reset a stream, and tell its application."""
        stream.close("server", code)

    def is_ignored(self, stream_id):
        """Whether a stream is beyond the last one of the final GOAWAY."""
        return bool(self.wire.goaways) and stream_id > self.wire.goaways[-1][0]

    @staticmethod
    def is_late(stream):
        """Whether DATA or HEADERS on the stream are an error of the connection (section 5.1)."""
        return stream.closed_by not in (None, "server")

    def note_late(self, stream):
        """DATA or HEADERS on a closed stream; they may have crossed a reset of the server's."""
        if self.is_late(stream):
            self.end(ErrorCode.STREAM_CLOSED)

    def pick(self, which):
        """An open stream, or one of all that ever were; None without any."""
        number, is_open = which
        known = self.open_streams() if is_open else list(self.streams.values())
        return known[-1 - number % len(known)] if known else None

    # -- the client ----------------------------------------------------------------------------------------------------

    alive_only = precondition(lambda self: self.alive)
    with_streams = precondition(lambda self: self.alive and self.streams)
    with_calls = precondition(lambda self: any(stream.running for stream in self.streams.values()))
    which = st.tuples(st.integers(0, 3), st.sampled_from([True] * 5 + [False]))
    boldly = st.sampled_from([False] * 15 + [True])
    """Whether to do what ends the connection; it would seldom last otherwise."""

    @alive_only
    @rule(block=st.sampled_from([GET, POST, POST, POST, POST, MALFORMED, CONNECT]),
          end=st.sampled_from([False, False, True]), declared=st.sampled_from([None, None, None, 0, 3, 400]),
          skip=st.sampled_from([0, 0, 0, 2]))
    def open(self, block, end, declared, skip):
        """A request."""
        stream_id = self.next + skip
        self.next = stream_id + 2
        if declared is not None:
            block += b"\x0f\x0d" + bytes([len(str(declared))]) + str(declared).encode()
        if not self.is_ignored(stream_id):
            if len(self.open_streams()) + len(self.orphans()) >= self.most:
                self.refused.add((stream_id, ErrorCode.REFUSED_STREAM))
            elif MALFORMED in block or (end and declared):
                self.refused.add((stream_id, ErrorCode.PROTOCOL_ERROR))
            else:
                stream = self.streams[stream_id] = ModelStream(stream_id, declared, end, self.initial_window)
                stream.sent = 0
                if CONNECT in block:
                    stream.running, stream.head, stream.end_queued = False, True, True
        self.deliver(raw(HEADERS, END_HEADERS | END_STREAM * end, stream_id, block))

    @with_streams
    @rule(which=which, size=st.sampled_from([0, 1, 3, 100, 397, 5_000, 16_384]), boldly=boldly,
          end=st.sampled_from([False, False, True]), padding=st.sampled_from([None, None, None, 0, 20]))
    def send_data(self, which, size, end, padding, boldly):
        """DATA within the windows, on a stream in any state."""
        stream = self.pick(which)
        if stream is None or (self.is_late(stream) and not boldly):
            return
        extra = 0 if padding is None else padding + 1
        room = min(self.wire.credit, self.wire.streams[stream.stream_id].credit) - extra
        if room < 0 and (extra or stream.closed_by is None):
            return
        size = min(size, max(room, 0), 16_384 - extra)
        self.foresee_data(stream, size, end)
        self.deliver(data(stream.stream_id, OCTETS[stream.received:stream.received + size], end, padding))
        stream.received += size if stream.closed_by is None else 0

    def foresee_data(self, stream, size, end):
        """What DATA must do."""
        total = stream.received + size
        if stream.closed_by:
            self.note_late(stream)
        elif stream.request_ended:
            self.server_resets(stream, ErrorCode.STREAM_CLOSED)
        elif stream.declared is not None and (total > stream.declared or (end and total != stream.declared)):
            self.server_resets(stream, ErrorCode.PROTOCOL_ERROR)
        else:
            if stream.has_reader:
                stream.told += size
                stream.unread += size
            self.end_request(stream, end)

    def end_request(self, stream, end):
        """The client's END_STREAM."""
        if end:
            stream.request_ended = True
            if stream.response_ended:
                stream.close("both")

    @with_streams
    @rule(which=which, end=st.sampled_from([True, True, True, False]), boldly=boldly)
    def send_trailers(self, which, end, boldly):
        """HEADERS on a stream that exists."""
        stream = self.pick(which)
        if stream is None or (self.is_late(stream) and not boldly):
            return
        if stream.closed_by:
            self.note_late(stream)
        elif stream.request_ended:
            self.server_resets(stream, ErrorCode.STREAM_CLOSED)
        elif not end or stream.declared not in (None, stream.received):
            self.server_resets(stream, ErrorCode.PROTOCOL_ERROR)
        else:
            stream.has_trailers = stream.has_reader
            self.end_request(stream, True)
        self.deliver(raw(HEADERS, END_HEADERS | END_STREAM * end, stream.stream_id, TRAILERS))

    @with_streams
    @rule(which=which, code=st.sampled_from([0, 8, 2**32 - 1]))
    def cancel(self, which, code):
        """RST_STREAM; on a closed stream it changes nothing."""
        stream = self.pick(which)
        if stream is None:
            return
        if stream.closed_by is None:
            stream.close("client", code)
        self.deliver(rst_stream(stream.stream_id, code))

    @with_streams
    @rule(which=which, increment=st.sampled_from([1, 50, 50, 5_000, 100_000, 0, LARGEST_WINDOW]))
    def open_stream_window(self, which, increment):
        """WINDOW_UPDATE on a stream."""
        stream = self.pick(which)
        if stream is None:
            return
        if stream.closed_by is None:
            if not increment:
                self.server_resets(stream, ErrorCode.PROTOCOL_ERROR)
            elif self.window_of(stream) + increment > LARGEST_WINDOW:
                self.server_resets(stream, ErrorCode.FLOW_CONTROL_ERROR)
            stream.window += increment
        self.deliver(window_update(stream.stream_id, increment))

    def window_of(self, stream):
        """What the server may still send on a stream."""
        return stream.window - len(self.wire.streams[stream.stream_id].body)

    @alive_only
    @rule(increment=st.sampled_from([1, 50, 5_000, 100_000, 100_000, 0, LARGEST_WINDOW]), boldly=boldly)
    def open_connection_window(self, increment, boldly):
        """WINDOW_UPDATE on the connection."""
        if not boldly and not 0 < increment <= LARGEST_WINDOW - self.wire.window:
            return
        if not increment:
            self.end(ErrorCode.PROTOCOL_ERROR)
        elif self.wire.window + increment > LARGEST_WINDOW:
            self.end(ErrorCode.FLOW_CONTROL_ERROR)
        self.deliver(window_update(0, increment))

    @alive_only
    @rule(size=st.sampled_from([0, 10, 1_000, 70_000, LARGEST_WINDOW]), boldly=boldly)
    def change_initial_window(self, size, boldly):
        """SETTINGS_INITIAL_WINDOW_SIZE moves all windows, below zero if need be (section 6.9.2)."""
        if size == LARGEST_WINDOW and not boldly:
            return
        change, self.initial_window = size - self.initial_window, size
        for stream in self.open_streams():
            if not stream.response_ended:
                stream.window += change
        if any(self.window_of(stream) > LARGEST_WINDOW for stream in self.open_streams() if not stream.response_ended):
            self.end(ErrorCode.FLOW_CONTROL_ERROR)
        self.deliver(settings_frame((INITIAL_WINDOW_SIZE, size)))

    @precondition(lambda self: self.alive and self.streams and not self.acknowledged)
    @rule()
    def acknowledge_settings(self):
        """The server's own windows apply from here on."""
        self.acknowledged = True
        self.deliver(settings_ack())

    @alive_only
    @rule(which=which, payload=st.sampled_from([b"12345678", b"shutdown", b"distance"]), ack=st.booleans())
    def send_what_changes_nothing(self, which, payload, ack):
        """PING, PRIORITY and frames of no known type."""
        stream = self.pick(which)
        if not (ack and payload == b"shutdown"):
            self.deliver(ping(payload, ack))
        self.deliver(raw(0xBE, 0xFF, stream.stream_id if stream else 0, b"?"))
        if stream is not None:
            self.deliver(priority(stream.stream_id, stream.stream_id + 2))

    @precondition(lambda self: self.alive and self.acknowledged and self.streams)
    @rule(which=which, end=st.booleans(), boldly=boldly)
    def overrun(self, which, end, boldly):
        """One octet more than a window has room for."""
        stream = self.pick(which)
        if stream is None or not boldly:
            return
        seen = self.wire.streams[stream.stream_id]
        room = min(self.wire.credit, seen.credit)
        if stream.closed_by or stream.request_ended or not 0 <= room < 16_384 or stream.declared is not None:
            return
        self.end(ErrorCode.FLOW_CONTROL_ERROR)
        self.deliver(data(stream.stream_id, bytes(room + 1), end))

    @alive_only
    @rule(make=st.sampled_from([lambda stream_id: data(stream_id, b"x"), rst_stream,
                                lambda stream_id: window_update(stream_id, 1)]), skip=st.sampled_from([0, 1, 10]),
          boldly=boldly)
    def use_an_idle_stream(self, make, skip, boldly):
        """A frame on a stream that was never opened (section 5.1); beyond the final GOAWAY it is ignored."""
        if not boldly or self.is_ignored(self.next + skip):
            return
        self.end(ErrorCode.PROTOCOL_ERROR)
        self.deliver(make(self.next + skip))

    @alive_only
    @rule(boldly=boldly)
    def go_away(self, boldly):
        """The client will open no more streams: the connection ends with the last one."""
        if boldly:
            self.leaving = True
            self.deliver(goaway())

    # -- the application -----------------------------------------------------------------------------------------------

    def pick_call(self, which):
        """A stream whose application runs, or None."""
        number, is_open = which
        running = [stream for stream in self.streams.values()
                   if stream.running and (stream.closed_by is None) >= is_open]
        return running[-1 - number % len(running)] if running else None

    @with_calls
    @rule(which=which, size=st.sampled_from([0, 1, 200, 20_000, 70_000]))
    def respond(self, which, size):
        """A whole response; nothing happens on a stream that is over."""
        stream = self.pick_call(which)
        if stream is None or stream.head:
            return
        if stream.closed_by is None:
            stream.head = stream.end_queued = True
            stream.response += OCTETS[:size]
        self.core.send_response(stream.stream, ResponseHead(200, [(b"x-size", b"%d" % size)]), OCTETS[:size])
        self.drain()

    @with_calls
    @rule(which=which, status=st.sampled_from([103, 200, 200]))
    def send_head(self, which, status):
        """The beginning of a response, or an interim one."""
        stream = self.pick_call(which)
        if stream is None or stream.head:
            return
        stream.head = status == 200
        self.core.send_headers(stream.stream, ResponseHead(status, [(b"x-a", b"b")]), False)
        self.drain()

    @with_calls
    @rule(which=which, size=st.sampled_from([0, 1, 200, 20_000, 70_000]), end=st.booleans())
    def write(self, which, size, end):
        """More of a response."""
        stream = self.pick_call(which)
        if stream is None or not stream.head:
            return
        start = len(stream.response) % 256
        piece = OCTETS[start:start + size]
        if stream.closed_by is None and not stream.end_queued:
            stream.response += piece
            stream.end_queued = end
        self.core.send_data(stream.stream, piece, end)
        self.drain()

    @with_calls
    @rule(which=which)
    def end_with_trailers(self, which):
        """The end of a response, after what is queued."""
        stream = self.pick_call(which)
        if stream is None or not stream.head:
            return
        if stream.closed_by is None and not stream.end_queued:
            stream.end_queued = stream.trailers = True
        self.core.send_trailers(stream.stream, [(b"x-t", b"1")])
        self.drain()

    @with_calls
    @rule(which=which, part=st.sampled_from([1, 2]))
    def read(self, which, part):
        """The application reads what has come, or half of it."""
        stream = self.pick_call(which)
        if stream is not None and stream.unread:
            octets = -(-stream.unread // part)
            stream.unread -= octets
            self.core.acknowledge(stream.stream, octets, self.now)
            self.drain()

    @with_calls
    @rule(which=which)
    def give_up(self, which):
        """The application resets its stream."""
        stream = self.pick_call(which)
        if stream is None:
            return
        if stream.closed_by is None:
            stream.close("server")
        self.core.reset(stream.stream, ErrorCode.INTERNAL_ERROR)
        self.drain()

    @with_calls
    @rule(which=which)
    def finish(self, which):
        """The call returns, its response complete or its stream gone."""
        stream = self.pick_call(which)
        if stream is None or not (stream.closed_by or stream.end_queued):
            return
        stream.running = False
        self.core.finish(stream.stream, self.now)
        self.drain()

    # -- time ----------------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.01, 0.05, 0.2, 5.0, 29.0]))
    def wait(self, seconds):
        """Time passes; the driver calls when a deadline comes."""
        until = self.now + seconds
        while (deadline := self.core.next_deadline()) is not None and deadline <= until:
            assert deadline >= self.now - 1e-9, "a deadline in the past"
            self.now = max(deadline, self.now)
            self.foresee_deadlines()
            self.core.handle_timeout(self.now)
            self.drain()
        self.now = until

    def foresee_deadlines(self):
        """Who must be reset by now."""
        for stream in self.open_streams():
            if stream.since is not None and stream.since + STALL <= self.now:
                self.server_resets(stream, ErrorCode.CANCEL)
            elif stream.reset_at <= self.now:
                stream.close("server")

    @precondition(lambda self: self.alive and not self.shutting_down)
    @rule(boldly=boldly)
    def shut_down(self, boldly):
        """The worker stops."""
        if boldly:
            self.shutting_down = True
            self.core.shutdown(self.now)
            self.drain()

    @alive_only
    @rule(boldly=boldly)
    def lose_the_connection(self, boldly):
        """The client is gone."""
        if boldly:
            self.end(ErrorCode.NO_ERROR)
            self.core.receive_eof()
            self.drain()

    # -- what must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def the_core_agrees(self):
        """Streams, calls, and the end."""
        final = bool(self.wire.goaways) and self.wire.goaways[-1][0] < LARGEST_WINDOW
        if self.alive and not self.open_streams() and (final or (self.leaving and not self.shutting_down)):
            self.end(ErrorCode.NO_ERROR)
        assert self.core.closed == (not self.alive), self.told.terminated
        if self.alive:
            assert set(self.core.streams) == {stream.stream_id for stream in self.open_streams()}
            assert self.core.orphaned_calls == len(self.orphans())
        else:
            assert self.told.terminated.code == self.fate
            assert not self.core.streams
            assert self.core.next_deadline() is None
            assert self.core.data_to_send(self.now) == b""
        assert not self.alive or self.core.next_deadline() is None or self.core.next_deadline() > self.now

    @invariant()
    def each_stream_is_as_foreseen(self):
        """What client and application were told of it."""
        for stream in self.streams.values():
            self.check_response(stream, self.wire.streams[stream.stream_id])
            if stream.stream is not None:
                self.check_request(stream, self.told.requests[stream.stream_id])
        refused = {(stream_id, self.wire.streams[stream_id].reset) for stream_id, _ in self.refused}
        assert refused == self.refused

    def check_response(self, stream, seen):
        """The client has all that the windows allow, in order, and the end of it."""
        if stream.stream is None:
            assert int(seen.head[b":status"]) == 501
            return
        assert stream.response.startswith(seen.body)
        if stream.closed_by in (None, "both"):
            assert (seen.head is not None) == stream.head
            assert seen.ended == stream.response_ended
            assert bool(seen.trailers) == (stream.trailers and seen.ended)
        if stream.closed_by == "server":
            assert seen.reset is not None
        elif self.alive:
            assert seen.reset is None
        if self.alive and stream.closed_by is None and len(seen.body) < len(stream.response):
            assert self.wire.window <= 0 or self.window_of(stream) <= 0, "data that could be sent"
            assert seen.window == self.window_of(stream)

    def check_request(self, stream, request):
        """The application has been told all that came while it could read, and how it ended."""
        assert request.body == OCTETS[:stream.told]
        assert request.reset == stream.code
        assert bool(request.trailers) == stream.has_trailers
        if stream.has_reader:
            assert request.ended == stream.request_ended

    @invariant()
    def the_client_has_credit(self):
        """An application that has read everything, or reads nothing any more, holds no client up."""
        if not self.alive:
            return
        assert self.wire.credit > 0
        for stream in self.open_streams():
            if not stream.unread and not stream.request_ended:
                assert self.wire.streams[stream.stream_id].credit > 0, "an upload that is stuck for ever"

    def teardown(self):
        """Of a connection that is over, little is kept, whatever it has been through."""
        if hasattr(self, "core"):
            self.core.receive_eof()
            self.core.data_to_send(self.now)
            self.core.events()
            assert held(self.core) < MOST_HELD


class RefereedMachine(ConnectionMachine):
    """The same with h2's engine: its referee must not object to anything either."""

    engine = "h2"
    examples = 15


@pytest.mark.uncovered
@pytest.mark.parametrize("machine", [ConnectionMachine, RefereedMachine], ids=lambda machine: machine.engine)
def test_the_connection_and_its_model_agree(machine):
    run_state_machine_as_test(machine, settings=examples(machine.examples, stateful_step_count=40))
