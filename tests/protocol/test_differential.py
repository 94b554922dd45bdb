"""The engines agree: random sessions, right and wrong, mean the same to `fast` and to `h2` with its referee.

A session is what a client sends, in reads of any size, and what the application does meanwhile. Compared are the
events, the frames that come back with their fields decoded, and how the connection ends.
"""

import dataclasses
from collections.abc import Callable

from hyperframe.frame import ContinuationFrame, HeadersFrame
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.events import ConnectionTerminated, DataReceived
from gunicorn_h2.protocol.headers import ResponseHead

from .effort import examples
from .peer import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    PADDED,
    PREFACE,
    RST_STREAM,
    Peer,
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

# -- what a client sends -----------------------------------------------------------------------------------------------

GET, POST, AUTHORITY = b"\x82\x87\x84", b"\x83\x87\x84", b"\x41\x01a"
REQUESTS = (
    GET + AUTHORITY,
    GET + AUTHORITY + b"\x40\x01x\x03one",
    GET,
    POST + AUTHORITY,
    POST + AUTHORITY + b"\x0f\x0d\x014",
    GET + AUTHORITY + b"\x66\x01A",
    GET + AUTHORITY + b"\x66\x01a",
    GET + b"\x66\x01a",
    GET + AUTHORITY + b"\x00\x02te\x08trailers",
    GET + AUTHORITY + b"\x40\x01y\x7f\xf9\x01" + b"v" * 376,
    b"\x42\x07CONNECT" + AUTHORITY,
    b"\x42\x07OPTIONS\x87\x44\x01*" + AUTHORITY,
    b"\x20" + GET + AUTHORITY,
)
BAD_REQUESTS = (
    GET + AUTHORITY + b"\x66\x01b",
    GET + AUTHORITY + b"\x00\x02te\x04gzip",
    GET + AUTHORITY + b"\x00\x07upgrade\x01x",
    GET + AUTHORITY + b"\x00\x01X\x01x",
    GET + AUTHORITY + b"\x0f\x0d\x01x",
    b"\x82",
    b"\x88",
    b"",
)
TRAILERS = (b"\x40\x01t\x011", b"", b"\x00\x02te\x08trailers", b"\x0f\x0d\x01x", b"\x0f\x0d\x015\x0f\x0d\x016")
BAD_TRAILERS = (b"\x00\x02te\x04gzip", b"\x82", b"\x00\x01T\x011", b"\x00\x01t\x02 1")
# What they mean depends on the table.
INDEXED = (GET + b"\xbe", GET + b"\xbf\xbe", b"\xbe", b"\x80")



@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame to be made once it is known which streams there are: `make` takes the stream, then the arguments."""

    make: Callable[..., bytes]
    arguments: tuple
    stream: tuple[str, int] = ("wild", 0)

    def octets(self, client):
        """The frame of this client; a request where it has no such stream."""
        which, number = self.stream
        if which == "wild":
            stream_id = number
        elif which == "new":
            stream_id = client.next + number
        else:
            stream_id = pick(client.used if which == "used" else client.unfinished, number)
        return headers(client.next, REQUESTS[0], False) if stream_id is None else self.make(stream_id, *self.arguments)


def pick(streams, number):
    """One of the streams, counted from the last one, or None."""
    return streams[-1 - number % len(streams)] if streams else None


def headers(stream_id, block, end):
    """A header block in one frame."""
    return raw(HEADERS, END_HEADERS | END_STREAM * end, stream_id, block)


def odd_headers(stream_id, block, end, cuts, padding, dependency):
    """A header block in a HEADERS frame and CONTINUATIONs, cut at the given places."""
    places = sorted({cut % (len(block) + 1) for cut in cuts})
    fragments = [block[start:stop] for start, stop in zip([0, *places], [*places, len(block)], strict=True)]
    flags, before, after = END_STREAM * end, b"", b""
    if padding is not None:
        flags, before, after = flags | PADDED, bytes([padding]), bytes(padding)
    if dependency is not None:
        flags, before = flags | HAS_PRIORITY, before + dependency.to_bytes(4, "big") + b"\x0f"
    last = len(fragments) - 1
    return b"".join(
        raw(CONTINUATION if number else HEADERS, (0 if number else flags) | END_HEADERS * (number == last), stream_id,
            fragment if number else before + fragment + after)
        for number, fragment in enumerate(fragments))


def body(stream_id, size, end, padding):
    """A DATA frame of zeros."""
    return data(stream_id, bytes(size), end, padding)


def on_connection(_, make, *arguments):
    """A frame that is not a stream's."""
    return make(*arguments)


def any_frame(stream_id, kind, flags, payload):
    """A frame of any type."""
    return raw(kind, flags, stream_id, payload)


def framed(make, stream, *arguments):
    """A strategy for frames."""
    return st.builds(Frame, st.just(make), st.tuples(*arguments), stream)


def often(good, bad, times=9):
    """Mostly the one, sometimes the other."""
    return st.one_of(*[st.sampled_from(good)] * times, st.sampled_from(bad))


new = st.tuples(st.just("new"), st.sampled_from([0, 0, 0, 0, 4]))
wild = st.tuples(st.just("wild"), st.sampled_from([0, 1, 2, 7, 2**31 - 1, 2**31 + 5]))
some = st.one_of(*[st.tuples(st.sampled_from(["unfinished", "used"]), st.integers(0, 3))] * 9, new, wild)
oddities = (st.lists(st.integers(0, 60) | st.just(0), max_size=3), st.sampled_from([None, None, 0, 7]),
            st.sampled_from([None, None, 0, 1, 3]))
requests = often(REQUESTS, BAD_REQUESTS)
trailers = often(TRAILERS, BAD_TRAILERS)
ends = st.booleans()
changes = st.lists(st.one_of(
    st.tuples(st.just(INITIAL_WINDOW_SIZE), often([0, 1, 50, 100_000], [2**31 - 1, 2**31])),
    st.tuples(st.just(HEADER_TABLE_SIZE), st.sampled_from([0, 100, 4_096, 2**32 - 1])),
    st.tuples(st.just(MAX_FRAME_SIZE), often([16_384, 20_000], [100])),
    st.tuples(st.sampled_from([2, 3, 6, 8, 9, 0xFFFF]), often([0, 1], [2]))), max_size=3)
control_frames = st.one_of(
    st.builds(Frame, st.just(on_connection), st.one_of(
        st.tuples(st.just(window_update), st.just(0), often([1, 50, 100_000], [0, 2**31 - 1, 2**31 + 7])),
        st.tuples(st.just(ping), st.sampled_from([b"12345678", b"shutdown"]), ends),
        st.builds(lambda pairs: (settings_frame, *pairs), changes),
        often([(settings_ack,)], [(goaway,)], 3))),
    framed(window_update, some, often([1, 50, 50, 100_000], [0, 2**31 - 70_000, 2**31 - 1, 2**31 + 7], 3)),
    framed(rst_stream, some, st.sampled_from([0, 8, 2**32 - 1])),
    framed(priority, some, st.sampled_from([0, 0, 0, 1, 3, 5])),
    framed(any_frame, some, st.integers(0, 12), st.integers(0, 255), st.binary(max_size=12)))
frames = st.one_of(
    *[framed(headers, new, requests, ends)] * 3,
    framed(odd_headers, new, requests, ends, *oddities),
    framed(headers, some, trailers, often([True], [False])),
    framed(odd_headers, some, trailers, often([True], [False]), *oddities),
    framed(headers, some, st.sampled_from(INDEXED), ends),
    *[framed(body, some, st.sampled_from([0, 0, 1, 2, 2, 4, 50, 1_000, 16_384]), ends,
             st.sampled_from([None, None, None, 0, 9]))] * 3,
    *[control_frames] * 3)

# -- what the application does -----------------------------------------------------------------------------------------

# Which of the open streams, how much it answers, how (whole, in pieces, with trailers), and whether the driver writes
# it before it reads on.
answers = st.tuples(st.just("answer"), st.integers(0, 3), st.sampled_from([0, 1, 30, 100, 20_000, 70_000]),
                    st.sampled_from(["whole", "pieces", "trailers", "empty trailers", "unfinished", "interim"]),
                    st.booleans())
verbs = st.tuples(st.sampled_from(["reset", "finish", "read"]), st.integers(0, 3), st.booleans())
times = st.tuples(st.sampled_from(["wait", "shutdown"]), st.sampled_from([0.05, 0.2, 1.5, 40.0]))
cuts = st.sampled_from([1, 7, 20, 100_000])
greetings = st.tuples(
    st.just("send"), st.lists(framed(headers, new, st.sampled_from(REQUESTS), ends), min_size=1, max_size=3), cuts)
reads = st.tuples(st.just("send"), st.lists(frames, min_size=1, max_size=5), cuts)
sessions = st.builds(lambda first, rest: [first, *rest], greetings, st.lists(
    st.one_of(reads, reads, reads, answers, answers, verbs, times), min_size=3, max_size=16))


class Session(Peer):
    """A client and an application that do as they are told, and a record of it all."""

    def __init__(self, engine, acknowledges, opening, **config):
        super().__init__(engine, setup=False, control_budget=400, **config)
        self.record, self.reason, self.unread = [], "", {}
        self.next, self.used, self.unfinished = 1, [], []
        self.read_octets(PREFACE + settings_frame(*opening) + settings_ack() * acknowledges)

    def play(self, steps):
        """Do each step."""
        for number, (step, *arguments) in enumerate(steps):
            self.record.append(number)
            {"send": self.deliver, "answer": self.answer, "reset": self.reset, "finish": self.finish, "read": self.read,
             "wait": self.pass_time, "shutdown": self.shut_down}[step](*arguments)
        return self

    def deliver(self, pieces, size):
        """Send frames, `size` octets a read."""
        octets = b"".join([self.remember(piece.octets(self)) for piece in pieces])
        for start in range(0, len(octets), size):
            self.read_octets(octets[start:start + size])

    def read_octets(self, octets):
        """One read of the driver's."""
        self.core.receive_data(octets, self.now)
        self.note()

    def remember(self, frame):
        """Follow what the client's frames do to its streams."""
        kind, ends, stream_id = frame[3], frame[4] & END_STREAM, int.from_bytes(frame[5:9], "big")
        if kind == HEADERS and stream_id not in self.used:
            self.used.append(stream_id)
            self.unfinished.append(stream_id)
            self.next = max(self.next, stream_id + 2)
        if stream_id in self.unfinished and (kind == RST_STREAM or (kind in (DATA, HEADERS) and ends)):
            self.unfinished.remove(stream_id)
        return frame

    def open_stream(self, number):
        """One of the streams that are open to the server, or None."""
        return pick(list(self.core.streams.values()), number)

    def answer(self, number, size, how, writes):
        """Begin or go on with a response, or send all of it."""
        stream = self.open_stream(number)
        if stream is None:
            return
        head = ResponseHead(200, [(b"content-type", b"text/plain"), (b"x-size", b"%d" % size)])
        if how == "interim":
            if not stream.head_sent:
                self.core.send_headers(stream, ResponseHead(103, [(b"link", b"</>")]), False)
        elif how == "whole":
            self.core.send_response(stream, head, bytes(size))
        else:
            self.core.send_headers(stream, head, False)
            self.core.send_data(stream, bytes(size), False)
            if how == "pieces":
                self.core.send_data(stream, b"end", True)
            elif "trailers" in how:
                self.core.send_trailers(stream, [(b"x-t", b"1")] if how == "trailers" else [])
        if writes:
            self.note()

    def reset(self, number, writes):
        """The application gives a stream up."""
        if stream := self.open_stream(number):
            self.core.reset(stream, ErrorCode.INTERNAL_ERROR)
            if writes:
                self.note()

    def finish(self, number, _):
        """The application call returns."""
        if stream := self.open_stream(number):
            self.core.finish(stream, self.now)
            self.note()

    def read(self, number, writes):
        """The application reads what has come of a body."""
        if (stream := self.open_stream(number)) and stream.stream_id in self.unread:
            self.core.acknowledge(stream, self.unread.pop(stream.stream_id), self.now)
            if writes:
                self.note()

    def pass_time(self, seconds):
        """Time passes."""
        self.wait(seconds)
        self.note()

    def shut_down(self, _):
        """The worker stops."""
        self.core.shutdown(self.now)
        self.note()

    def note(self):
        """Write down what happened."""
        self.collect()
        for event in self.take_events():
            if isinstance(event, DataReceived):
                self.unread[event.stream.stream_id] = self.unread.get(event.stream.stream_id, 0) + len(event.data)
            if isinstance(event, ConnectionTerminated):
                self.reason = event.reason
            self.record.append(told(event))
        self.record += [seen(frame) for frame in self.take()]


def told(event):
    """An event, its stream by number; reasons are for the log and differ."""
    values = {field.name: getattr(event, field.name) for field in dataclasses.fields(event) if field.name != "reason"}
    stream, head = values.pop("stream", None), values.pop("head", None)
    head = stream.head if stream else head
    request = head and (head.method, head.scheme, head.authority, head.path, head.fields)
    return type(event).__name__, stream and stream.stream_id, request, values


def seen(frame):
    """A frame, its header block by the fields in it."""
    if isinstance(frame, (HeadersFrame, ContinuationFrame)):
        return type(frame).__name__, frame.stream_id, sorted(frame.flags), getattr(frame, "fields", None)
    return type(frame).__name__, frame.stream_id, sorted(frame.flags), frame.serialize_body()


openings = st.lists(st.sampled_from([(INITIAL_WINDOW_SIZE, 0), (INITIAL_WINDOW_SIZE, 40), (MAX_FRAME_SIZE, 20_000),
                                     (HEADER_TABLE_SIZE, 0)]), max_size=2)
configs = st.fixed_dictionaries({
    "initial_window_size": st.sampled_from([1, 100, 65_535, 200_000]),
    "connection_window_size": st.sampled_from([65_535, 100_000]),
    "max_frame_size": st.sampled_from([16_384, 16_385]),
    "max_concurrent_streams": st.sampled_from([1, 3, 100]),
    "max_header_list_size": st.sampled_from([300, 65_536, 0]),
})


@given(sessions, st.booleans(), openings, configs)
@examples(100)
def test_the_engines_agree(steps, acknowledges, opening, config):
    fast, h2 = (Session(engine, acknowledges, opening, **config).play(steps) for engine in ("fast", "h2"))
    assert (h2.record, h2.core.closed) == (fast.record, fast.core.closed), (fast.reason, h2.reason)
    assert not h2.reason.startswith("h2: ")
