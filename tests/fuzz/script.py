"""A session of a connection, written as octets that a fuzzer can change, and a player that checks what comes of it.

The first octet chooses a configuration (`CONFIGS`). Each instruction after it is an octet, its operation in the lower
four bits and a number of four bits above them, and what the operation takes. Whatever the octets, they are a session.
"""

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.connection import ServerConnection
from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.events import DataReceived, RequestReceived
from gunicorn_h2.protocol.headers import ResponseHead
from gunicorn_h2.protocol.outbox import OUTPUT_LIMIT
from tests.protocol.observers import EventCheck, WireCheck
from tests.protocol.peer import CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PREFACE, raw, settings, settings_ack

(SEND, FRAME, REQUEST, RESPOND, HEAD, WRITE, END, TRAILERS,
 READ, FINISH, RESET, WAIT, SHUTDOWN, PAUSE, INTERIM, EOF) = range(16)

BUDGETS = {"control_budget": 5_000, "reset_budget": 1_000}
CONFIGS = (
    BUDGETS,
    {"control_budget": 60, "reset_budget": 10, "small_data_budget": 100},
    {**BUDGETS, "initial_window_size": 100, "max_concurrent_streams": 2},
    {**BUDGETS, "initial_window_size": 1_000_000, "connection_window_size": 65_535, "max_frame_size": 20_000},
    {**BUDGETS, "max_header_list_size": 300, "max_header_fields": 8},
    {**BUDGETS, "stream_buffer_size": 1_000, "stream_timeout": 1.0, "idle_timeout": 0.0},
    {**BUDGETS, "max_window_size": 0, "worker_window_size": 0, "max_header_list_size": 0},
    {**BUDGETS, "max_concurrent_streams": 1, "drain_timeout": 0.0},
)
SIZES = (0, 1, 2, 9, 30, 100, 1_000, 5_000, 16_383, 16_384, 16_385, 20_000, 65_535, 65_536, 100_000, 131_073)
SECONDS = (0.0, 0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 1.5, 2.0, 5.0, 10.0, 20.0, 30.0, 31.0, 60.0, 1_000.0)
PIECES = (None, 1, 2, 3, 5, 8, 9, 10, 17, 24, 100, 500, 1_000, None, None, None)
GREETING = PREFACE + settings() + settings_ack()
OCTETS = bytes(range(256)) * 520
UNREAD = 2 * OUTPUT_LIMIT
MAX_INSTRUCTIONS = 600


def instruction(operation, number=0, *payload):
    """An instruction with what it takes."""
    return bytes((operation | number << 4,)) + b"".join(payload)


def send(octets, number=0):
    """The instruction that sends octets; longer ones in several instructions."""
    return b"".join(instruction(SEND, number, len(part).to_bytes(2, "big"), part)
                    for part in (octets[start:start + 65_535] for start in range(0, len(octets), 65_535)))


class Input:
    """Octets to be used up; after the last one come zeros."""

    def __init__(self, octets):
        self.octets, self.position = octets, 0

    def __bool__(self):
        return self.position < len(self.octets)

    def take(self, size):
        """The next octets, as many as there are."""
        part = self.octets[self.position:self.position + size]
        self.position += size
        return part

    def number(self, size=1):
        """The next octets as a number."""
        return int.from_bytes(self.take(size), "big")


class Player:
    """Plays one session on one engine. `record` holds what came of it, for a comparison of engines."""

    def __init__(self, engine, config):
        self.now = 1000.0
        self.config = ConnectionConfig(engine=engine, **config)
        self.core = ServerConnection(self.config, self.now)
        self.wire, self.told = WireCheck(), EventCheck()
        self.calls, self.unread, self.next = [], {}, 1
        self.is_paused = False
        self.record = []

    def follow(self, script):
        """Do what the instructions say; check after each."""
        for _ in range(MAX_INSTRUCTIONS):
            if not script:
                break
            octet = script.number()
            _OPERATIONS[octet & 0x0F](self, octet >> 4, script)
            self.drain()
            self.check()

    def end(self):
        """Take all output, then lose the connection."""
        self.is_paused = False
        self.drain()
        self.check()
        self.core.receive_eof()
        self.drain()
        self.check()
        assert self.core.closed

    # -- carrying octets -----------------------------------------------------------------------------------------------

    def deliver(self, octets, step=None):
        """The client sends, in pieces of a size."""
        step = step or max(len(octets), 1)
        self.wire.sent(octets)
        for start in range(0, len(octets), step):
            self.core.receive_data(octets[start:start + step], self.now)

    def drain(self):
        """Pass the events on; write the output, unless the socket takes none."""
        self.take_events()
        while not self.is_paused and (octets := self.core.data_to_send(self.now)):
            assert len(octets) <= UNREAD + self.config.max_concurrent_streams * 32_768 + 2 * OUTPUT_LIMIT
            self.wire.wrote(octets)
            self.record.append(octets)
            self.take_events()

    def take_events(self):
        """What a driver notes of the events."""
        for event in self.told.take(self.core.events()):
            self.record.append(event)
            if isinstance(event, RequestReceived):
                self.calls.append(event.stream)
            elif isinstance(event, DataReceived):
                stream_id = event.stream.stream_id
                self.unread[stream_id] = self.unread.get(stream_id, 0) + len(event.data)

    def check(self):
        """What must hold at any time."""
        core = self.core
        assert core.closed == (self.told.terminated is not None)
        deadline = core.next_deadline()
        if core.closed:
            assert not core.streams
            assert deadline is None
        else:
            assert len(core.streams) + core.orphaned_calls <= self.config.max_concurrent_streams + len(self.calls)
            # What a stream's end changes beside it is noted when the output is taken.
            assert deadline is not None or core.streams or self.is_paused
        for stream in self.calls:
            assert stream.queued >= 0
            seen = self.wire.streams[stream.stream_id]
            assert seen.ended or seen.reset is not None or seen.cancelled or core.closed or (
                stream.stream_id in core.streams) or self.is_paused

    # -- operations ----------------------------------------------------------------------------------------------------

    def call(self, number):
        """An application that was called: the latest is number 0."""
        return self.calls[-1 - number % len(self.calls)] if self.calls else None

    def send_octets(self, number, script):
        """Octets as they are."""
        self.deliver(script.take(script.number(2)), PIECES[number])

    def send_frame(self, number, script):
        """A frame of any type whose length is right."""
        kind, flags, which = script.number(), script.number(), script.number()
        stream_id = 0 if not number else max(0, self.next - 2 * number) if which < 250 else which
        self.deliver(raw(kind, flags, stream_id, script.take(script.number())))

    def send_request(self, number, script):
        """A field block on the next stream, with any flags, and perhaps its end in a CONTINUATION frame."""
        block, stream_id = script.take(script.number()), self.next
        self.next += 2
        flags = END_STREAM * (number & 1)
        if number & 2:
            cut = len(block) // 2
            self.deliver(raw(HEADERS, flags, stream_id, block[:cut])
                         + raw(CONTINUATION, END_HEADERS, stream_id, block[cut:]))
        else:
            self.deliver(raw(HEADERS, flags | END_HEADERS | (number & 0x8) | (number & 4) << 3, stream_id, block))

    def respond(self, number, script):
        """A whole response."""
        stream = self.call(number)
        if stream is not None and not stream.head_sent and not stream.end_queued:
            size = SIZES[script.number() & 15]
            self.core.send_response(stream, ResponseHead(200, [(b"x-size", b"%d" % size)]), OCTETS[:size])

    def send_head(self, number, script):
        """The beginning of a response; of one without a body, all of it."""
        stream = self.call(number)
        if stream is not None and not stream.head_sent:
            ends = script.number() == 1
            self.core.send_headers(stream, ResponseHead(204 if ends else 200, [(b"x-a", b"b")]), ends)

    def send_interim(self, number, script):
        """A response that is not the last."""
        stream = self.call(number)
        if stream is not None:
            self.core.send_headers(stream, ResponseHead(103, [(b"link", b"</>")]), False)

    def write(self, number, script):
        """More of a response."""
        self._send_data(number, SIZES[script.number() & 15], False)

    def end_response(self, number, script):
        """The end of a response."""
        self._send_data(number, SIZES[script.number() & 3], True)

    def _send_data(self, number, size, end):
        stream = self.call(number)
        if stream is not None and stream.head_sent and stream.queued <= self.config.stream_buffer_size:
            self.core.send_data(stream, OCTETS[:size], end)

    def send_trailers(self, number, script):
        """The end of a response, with trailers."""
        stream = self.call(number)
        if stream is not None and stream.head_sent:
            self.core.send_trailers(stream, [(b"x-t", b"1")])

    def read(self, number, script):
        """The application reads what there is."""
        stream = self.call(number)
        octets = self.unread.pop(stream.stream_id, 0) if stream is not None else 0
        if octets:
            self.core.acknowledge(stream, octets, self.now)

    def finish(self, number, script):
        """The call returns: its response is complete, or it gives up."""
        stream = self.call(number)
        if stream is not None:
            if not stream.end_queued and not stream.response_ended:
                self.core.reset(stream, ErrorCode.INTERNAL_ERROR)
            self.core.finish(stream, self.now)

    def reset(self, number, script):
        """The application resets its stream."""
        stream = self.call(number)
        if stream is not None:
            self.core.reset(stream, ErrorCode.CANCEL)

    def wait(self, number, script):
        """Time passes."""
        until = self.now + SECONDS[number]
        for _ in range(10_000):
            deadline = self.core.next_deadline()
            if deadline is None or deadline > until:
                break
            self.now = max(deadline, self.now)
            self.core.handle_timeout(self.now)
            self.drain()
        else:
            raise AssertionError("a deadline that handle_timeout does not move")
        self.now = until

    def shut_down(self, number, script):
        """The worker stops."""
        self.core.shutdown(self.now)

    def pause(self, number, script):
        """The client stops reading, or begins again; or the usual beginning of its connection."""
        if number == 15:
            self.deliver(GREETING)
        else:
            self.is_paused = bool(number & 1)

    def lose(self, number, script):
        """The client is gone."""
        if number == 15:
            self.core.receive_eof()


_OPERATIONS = {
    SEND: Player.send_octets, FRAME: Player.send_frame, REQUEST: Player.send_request, RESPOND: Player.respond,
    HEAD: Player.send_head, WRITE: Player.write, END: Player.end_response, TRAILERS: Player.send_trailers,
    READ: Player.read, FINISH: Player.finish, RESET: Player.reset, WAIT: Player.wait, SHUTDOWN: Player.shut_down,
    PAUSE: Player.pause, INTERIM: Player.send_interim, EOF: Player.lose,
}


def play(octets, engine):
    """Play a session; return its player."""
    script = Input(octets)
    player = Player(engine, CONFIGS[script.number() % len(CONFIGS)])
    player.follow(script)
    player.end()
    return player
