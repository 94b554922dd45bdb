"""What hostile traffic costs the core, beside honest traffic: processor time by octet, by frame and by connection.

    python -m bench.attacks [--engine fast] [--seconds 0.5] [PATTERN ...]

A `ServerConnection` is fed in memory, in reads of a TLS record each, as fast as it takes them. Its clock is the
processor time it has spent, as if it had a core to itself and the network were no limit. The calls into the core that
answer requests at once and take the output are counted as well. A client whose connection ends opens the next one.

The table has for each kind of traffic the microseconds by KiB and by frame; the longest time that a single read took,
for which all other clients wait; the KiB and the processor time until a connection ended; and how it ended.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch

from gunicorn_h2.protocol import frames
from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.connection import ServerConnection
from gunicorn_h2.protocol.events import ConnectionTerminated, DataReceived, RequestReceived, StreamReset
from gunicorn_h2.protocol.headers import ResponseHead

READ_SIZE = 16_384
REPEATS = 3
"""Of these the cheapest counts: something else may have had the core."""

HELLO = b"Hello world!"
HEAD = ResponseHead(200, [(b"content-type", b"text/plain"), (b"content-length", b"12")])

GET, POST = b"\x82\x87\x84\x41\x01a", b"\x83\x87\x84\x41\x01a"
"""Field blocks without an effect on the dynamic table but for :authority, which each of them adds."""
INSERT_COOKIE = b"\x60\x01a"
NEWEST = b"\xbe"
LARGEST_WINDOW = 2**31 - 1

BROWSER = (
    b"\x40\x0auser-agent\x50" + b"m" * 80,
    b"\x40\x06accept\x40" + b"t" * 64,
    b"\x40\x0faccept-language\x0een-GB,en;q=0.5",
    b"\x40\x0faccept-encoding\x0dgzip, deflate",
)

BATCH = 50
"""Requests that an honest client has under way at a time."""

Source = Iterator[bytes]
"""What a client sends, in pieces; an empty one means that it waits for answers."""


# -- frames ------------------------------------------------------------------------------------------------------------


def headers(stream_id: int, block: bytes, end: bool = True) -> bytes:
    """A field block, in as many frames as it takes."""
    size = frames.DEFAULT_MAX_FRAME_SIZE
    kind, flags, pieces = frames.HEADERS, frames.END_STREAM if end else 0, []
    for start in range(0, len(block), size):
        last = frames.END_HEADERS if start + size >= len(block) else 0
        pieces.append(frames.frame(kind, flags | last, stream_id, block[start : start + size]))
        kind, flags = frames.CONTINUATION, 0
    return b"".join(pieces)


def data(stream_id: int, octets: bytes, flags: int = 0) -> bytes:
    """A DATA frame."""
    return frames.frame(frames.DATA, flags, stream_id, octets)


def stream_ids(first: int = 1) -> Iterator[int]:
    """The identifiers of a client's streams."""
    return itertools.count(first, 2)


def batches(make: Callable[[int], bytes], first: int) -> Source:
    """Requests, `BATCH` at a time."""
    identifiers = stream_ids(first)
    while True:
        yield b"".join(map(make, itertools.islice(identifiers, BATCH)))
        yield b""


# -- honest traffic ----------------------------------------------------------------------------------------------------


def hello() -> Source:
    """The same small request again and again, as h2load sends it."""
    yield headers(1, GET)
    yield from batches(lambda stream_id: headers(stream_id, b"\x82\x87\x84\xbe"), 3)


def browser() -> Source:
    """Requests with a browser's fields, each for another path."""
    yield headers(1, GET + b"".join(BROWSER))
    again = b"".join(b"%c" % (0xBE + number) for number in range(len(BROWSER), -1, -1))
    yield from batches(lambda stream_id: headers(stream_id, b"\x82\x87\x04\x09/%08d" % stream_id + again), 3)


def post() -> Source:
    """Requests with a body of 1 kB."""
    yield headers(1, POST, False) + data(1, bytes(1000), frames.END_STREAM)
    body = bytes(1000)
    again = b"\x83\x87\x84\xbe"
    yield from batches(
        lambda stream_id: headers(stream_id, again, False) + data(stream_id, body, frames.END_STREAM), 3
    )


def upload() -> Source:
    """A body in frames of 16 KiB."""
    yield headers(1, POST, False)
    yield from itertools.repeat(data(1, bytes(16_384)))


def messages() -> Source:
    """A stream of messages of 200 octets."""
    yield headers(1, POST, False)
    yield from itertools.repeat(data(1, bytes(200)))


# -- hostile traffic ---------------------------------------------------------------------------------------------------


def tiny_fields() -> Source:
    """3 000 fields a request, each a literal of five octets."""
    block = GET + b"".join(b"\x00\x02%c%c\x00" % (97 + n // 100 % 26, 97 + n % 26) for n in range(3_000))
    for stream_id in stream_ids():
        yield headers(stream_id, block)


def some_fields() -> Source:
    """250 fields a request, each a literal of five octets: fewer than a site's cookies may be."""
    block = GET + b"".join(b"\x00\x02%c%c\x00" % (97 + n // 100 % 26, 97 + n % 26) for n in range(250))
    for stream_id in stream_ids():
        yield headers(stream_id, block)


def crumbs() -> Source:
    """4 000 cookie crumbs a request, each an index of one octet."""
    for stream_id in stream_ids():
        yield headers(stream_id, GET + INSERT_COOKIE + NEWEST * 4_000)


def references() -> Source:
    """A field of 3 900 octets, named 15 times by an index of one octet: within the limit of the list."""
    yield headers(1, GET + b"\x40\x01x\x7f\xbd\x1d" + b"v" * 3_900)
    for stream_id in stream_ids(3):
        yield headers(stream_id, b"\x82\x87\x04\x09/%08d" % stream_id + NEWEST * 15)


def oversized() -> Source:
    """A field of 3 900 octets, named 60 times: four times the limit of the list."""
    yield headers(1, GET + b"\x40\x01x\x7f\xbd\x1d" + b"v" * 3_900)
    for stream_id in stream_ids(3):
        yield headers(stream_id, b"\x82\x87\x84" + NEWEST * 60)


def size_updates() -> Source:
    """Two legal table size updates in every block, and a table to be filled again."""
    entries = b"".join(b"\x40\x01%c\x00" % (97 + n % 26) for n in range(100))
    for stream_id in stream_ids():
        yield headers(stream_id, b"\x20\x3f\xe1\x1f" + GET + (entries if stream_id == 1 else b"\x40\x01a\x00"))


def evictions() -> Source:
    """A field that evicts all others, and small ones that evict it."""
    entries = b"".join(b"\x40\x01%c\x00" % (97 + n % 26) for n in range(80))
    large = b"\x40\x01x\x7f\x80\x1e" + b"v" * 3_967
    for stream_id in stream_ids():
        yield headers(stream_id, GET + (entries if stream_id & 2 else large))


def refused_streams() -> Source:
    """Streams that never end, beyond the limit."""
    for stream_id in stream_ids():
        yield headers(stream_id, POST, False)


def resets() -> Source:
    """Requests that are reset at once (CVE-2023-44487)."""
    for stream_id in stream_ids():
        yield headers(stream_id, GET) + frames.rst_stream(stream_id, 8)


def provoked_resets() -> Source:
    """Resets that the server has to send (CVE-2025-8671)."""
    for stream_id in stream_ids():
        yield headers(stream_id, POST, False) + frames.window_update(stream_id, 0)


def moved_windows() -> Source:
    """SETTINGS that move the windows of 99 open streams."""
    yield b"".join(headers(2 * n + 1, POST, False) for n in range(99))
    for size in itertools.cycle((100, 200)):
        yield frames.settings([(frames.INITIAL_WINDOW_SIZE, size)])


def open_streams(frame: bytes) -> Callable[[], Source]:
    """A frame again and again, on a connection with a stream that is open."""

    def source() -> Source:
        yield headers(1, POST, False)
        yield from itertools.repeat(frame)

    return source


def late_data() -> Source:
    """DATA that ends a stream which the server has reset, again and again."""
    yield headers(1, b"\x83\x87\x84\x42\x03ABC\x04\x00", False)
    yield from itertools.repeat(data(1, b"", frames.END_STREAM))


def dribble() -> Source:
    """A large response whose client gives credit for an octet at a time (CVE-2019-9511)."""
    yield frames.settings([(frames.INITIAL_WINDOW_SIZE, 0)]) + headers(1, GET)
    yield from itertools.repeat(frames.window_update(1, 1))


HONEST = {"hello": hello, "browser": browser, "post": post, "upload": upload, "messages": messages}
HOSTILE = {
    "3 000 tiny fields": tiny_fields,
    "250 tiny fields": some_fields,
    "4 000 cookie crumbs": crumbs,
    "15 references to a large field": references,
    "60 references to a large field": oversized,
    "table size updates": size_updates,
    "evictions": evictions,
    "streams beyond the limit": refused_streams,
    "resets": resets,
    "provoked resets": provoked_resets,
    "windows of 99 streams": moved_windows,
    "DATA of one octet": open_streams(data(1, b"x")),
    "empty DATA": open_streams(data(1, b"")),
    "DATA of padding": open_streams(data(1, b"\xff" + bytes(255), frames.PADDED)),
    "late DATA": late_data,
    "dribble": dribble,
    "PING": open_streams(frames.ping(b"ping ...")),
    "PING ACK": open_streams(frames.ping(b"ping ...", frames.ACK)),
    "SETTINGS": open_streams(frames.settings([])),
    "SETTINGS of 32 values": open_streams(frames.settings([(frames.HEADER_TABLE_SIZE, 4096)] * 32)),
    "PRIORITY": open_streams(frames.frame(frames.PRIORITY, 0, 1, bytes(5))),
    "WINDOW_UPDATE of 1": open_streams(frames.window_update(1, 1)),
    "unknown types": open_streams(frames.frame(0xBB, 0, 1, b"?")),
}


# -- measuring ---------------------------------------------------------------------------------------------------------


@dataclass
class Cost:
    """What a kind of traffic has cost; times in seconds."""

    octets: int = 0
    frames: int = 0
    seconds: float = 0.0
    longest_read: float = 0.0
    connections: int = 0
    """Connections that have ended."""
    end: str = "goes on"

    @property
    def by_kib(self) -> float:
        """Microseconds by KiB received."""
        return self.seconds * 1e6 / (self.octets / 1024)


def reads(source: Source) -> Iterator[bytes]:
    """Gather what a client sends into reads."""
    pending = bytearray()
    for piece in source:
        pending += piece
        while len(pending) >= READ_SIZE:
            yield bytes(pending[:READ_SIZE])
            del pending[:READ_SIZE]
        if not piece and pending:
            yield bytes(pending)
            pending.clear()


def opening() -> bytes:
    """What a client sends first: windows that never stop the server."""
    settings = frames.settings([(frames.INITIAL_WINDOW_SIZE, LARGEST_WINDOW)])
    window = frames.window_update(0, LARGEST_WINDOW - frames.DEFAULT_WINDOW_SIZE)
    return frames.PREFACE + settings + frames.frame(frames.SETTINGS, frames.ACK, 0, b"") + window


def answer(core: ServerConnection, cost: Cost, now: float) -> bool:
    """Do what an application does that answers at once and reads everything; return whether the connection goes on."""
    for event in core.events():
        if isinstance(event, RequestReceived):
            if event.end_stream:
                core.send_response(event.stream, HEAD, HELLO)
                core.finish(event.stream, now)
        elif isinstance(event, DataReceived):
            core.acknowledge(event.stream, len(event.data), now)
            if event.end_stream:
                core.send_response(event.stream, HEAD, HELLO)
                core.finish(event.stream, now)
        elif isinstance(event, StreamReset):
            core.finish(event.stream, now)
        elif isinstance(event, ConnectionTerminated):
            cost.end = f"{event.code.name}: {event.reason}"
            return False
    return True


def serve_one(source: Source, config: ConnectionConfig, cost: Cost, until: float) -> None:
    """Feed one connection until it ends or `until` seconds have been spent in all."""
    core = ServerConnection(config, cost.seconds)
    core.receive_data(opening(), cost.seconds)
    for read in reads(source):
        before = time.thread_time()
        core.receive_data(read, cost.seconds)
        goes_on = answer(core, cost, cost.seconds)
        while core.data_to_send(cost.seconds):
            pass
        spent = time.thread_time() - before
        cost.seconds += spent
        cost.longest_read = max(cost.longest_read, spent)
        cost.octets += len(read)
        if not goes_on:
            cost.connections += 1
            return
        if cost.seconds >= until:
            return


def frame_size(source: Source) -> float:
    """Octets a frame takes on average, from the beginning of what a client sends."""
    octets = b"".join(itertools.islice(reads(source), 8))
    position = count = 0
    while position + frames.FRAME_HEADER_SIZE <= len(octets):
        high, low, *_ = frames.unpack_header(octets, position)
        position += frames.FRAME_HEADER_SIZE + (high << 8 | low)
        count += 1
    return position / count


def measure(make: Callable[[], Source], config: ConnectionConfig, seconds: float) -> Cost:
    """Measure a kind of traffic for so many seconds of processor time, several times; return the cheapest."""
    costs = []
    for _ in range(REPEATS):
        cost = Cost()
        while cost.seconds < seconds:
            serve_one(make(), config, cost, seconds)
        costs.append(cost)
    cheapest = min(costs, key=lambda cost: cost.by_kib)
    cheapest.longest_read = min(cost.longest_read for cost in costs)
    cheapest.frames = round(cheapest.octets / frame_size(make()))
    return cheapest


def main() -> None:
    """Measure what was asked for, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.attacks", description="What attacks cost the core.")
    parser.add_argument("names", nargs="*", default=["*"], metavar="PATTERN", help="traffic to measure (default: all)")
    parser.add_argument("--engine", default="fast", choices=("fast", "h2"))
    parser.add_argument("--seconds", type=float, default=0.5, help="processor time by kind of traffic (default: 0.5)")
    options = parser.parse_args()
    config = ConnectionConfig(engine=options.engine)
    print(f"{'traffic':32}{'us/KiB':>8}{'us/frame':>10}{'ms/read':>9}{'KiB/conn.':>11}{'ms/conn.':>10}  how it ended")
    for name, make in {**HONEST, **HOSTILE}.items():
        if not any(fnmatch(name, pattern) for pattern in options.names):
            continue
        cost = measure(make, config, options.seconds)
        connections = cost.connections or float("nan")
        print(
            f"{name:32}{cost.by_kib:8.1f}{cost.seconds * 1e6 / cost.frames:10.2f}{cost.longest_read * 1e3:9.2f}"
            f"{cost.octets / 1024 / connections:11.1f}{cost.seconds * 1e3 / connections:10.2f}  {cost.end}",
            flush=True,
        )


if __name__ == "__main__":
    main()
