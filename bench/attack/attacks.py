"""The attacks: what each connection of them sends, how many there are, and how they end on our workers.

What needs no answer comes from `bench.attacks`, recorded once for all connections. What obeys flow control, keeps time
or reads nothing is a script of its own.
"""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from bench import attacks as core
from bench.attack.link import CLOSED, CONTEXT, DONE, SETTINGS_ACK, STAYED, Link, Script, Step
from bench.attacks import GET, LARGEST_WINDOW, POST, data, headers
from gunicorn_h2.protocol import frames
from gunicorn_h2.protocol.frames import INITIAL_WINDOW_SIZE, window_update

PIECE_SIZE = 64 * 1024
RECORDED_PIECES = 512
"""32 MiB: a connection that has sent all of it begins anew, on a new connection."""
PRIORITY_UPDATE = 0x10
CALM = "ENHANCE_YOUR_CALM"
SECOND = 1.0


@dataclass(frozen=True)
class Attack:
    """One attack. `make` makes the script of its connections.

    There are `connections` at a time, each replaced at once when it ends; or `rate` new ones a second. `ends` has the
    words for the ends that they may come to on our workers, with the default limits: see `bench.attack.link`. `threads`
    is what --threads must be. The latencies are those after `settle` seconds: before them, the application is busy with
    the requests that the attack has made, as it would be for clients that read.
    """

    name: str
    title: str
    make: Callable[[], Script]
    ends: frozenset[str] = field(default=frozenset({CALM}))
    connections: int = 4
    rate: float = 0.0
    tls: bool = True
    threads: int = 16
    settle: float = 0.0

    @cached_property
    def script(self) -> Script:
        """The script of each connection."""
        return self.make()

    def prepare(self) -> None:
        """Make what can be made before the attack."""
        assert self.script


# -- scripts -----------------------------------------------------------------------------------------------------------


def opening(link: Link, *settings: tuple[int, int]) -> Iterator[Step]:
    """Open the connection, with windows that are as large as can be but for what `settings` say."""
    values = dict([(INITIAL_WINDOW_SIZE, LARGEST_WINDOW), *settings])
    window = window_update(0, LARGEST_WINDOW - frames.DEFAULT_WINDOW_SIZE)
    yield frames.PREFACE + frames.settings(values.items()) + window
    while not link.has_settings:
        yield None
    yield SETTINGS_ACK


class Recording:
    """The pieces of a source, made once."""

    def __init__(self, source: core.Source) -> None:
        self._octets, self._pieces = source, list[bytes]()

    def __iter__(self) -> Iterator[bytes]:
        for number in range(RECORDED_PIECES):
            if number == len(self._pieces):
                self._pieces.append(self._next())
            yield self._pieces[number]

    def _next(self) -> bytes:
        piece = bytearray()
        while len(piece) < PIECE_SIZE:
            piece += next(self._octets)
        return bytes(piece)


def flood(make: Callable[[], core.Source]) -> Callable[[], Script]:
    """A source of `bench.attacks`, as fast as the server takes it, and then the next connection."""

    def make_script() -> Script:
        recording = Recording(make())

        def script(link: Link) -> Iterator[Step]:
            yield from opening(link)
            yield from recording
            link.quit()

        next(iter(recording))
        return script

    return make_script


def repeated(frame: bytes, first: bytes = b"") -> Callable[[], Script]:
    """A frame again and again, behind what goes first."""
    piece = frame * max(1, PIECE_SIZE // len(frame))

    def script(link: Link) -> Iterator[Step]:
        yield from opening(link)
        yield first
        yield from itertools.repeat(piece)

    return lambda: script


def unread(frame: bytes) -> Callable[[], Script]:
    """A frame that asks for an answer, again and again, and nothing is ever read."""
    piece = frame * (PIECE_SIZE // len(frame))

    def script(link: Link) -> Iterator[Step]:
        yield from opening(link)
        link.deaf = True
        yield from itertools.repeat(piece)

    return lambda: script


def body(frame: bytes, cost: int) -> Callable[[], Script]:
    """A DATA frame of stream 1 again and again, within the windows, of which each takes `cost` octets."""
    piece = frame * (PIECE_SIZE // len(frame))

    def script(link: Link) -> Iterator[Step]:
        yield from opening(link)
        yield headers(1, POST, end=False)
        while True:
            count = min(len(piece) // len(frame), link.room(1) // cost)
            if count:
                link.spend(1, count * cost)
                yield piece[: count * len(frame)]
            else:
                yield None

    return lambda: script


def get(path: bytes, count: int, *settings: tuple[int, int], deaf: bool = False) -> Callable[[], Script]:
    """So many requests of a path, whose responses are not read, or not beyond the windows that `settings` leave."""
    block = b"\x82\x87\x41\x01a\x04" + bytes([len(path)]) + path
    requests = b"".join(headers(2 * number + 1, block) for number in range(count))

    def script(link: Link) -> Iterator[Step]:
        yield from opening(link, *settings)
        link.deaf = deaf
        yield requests

    return lambda: script


def responses() -> Script:
    """Requests for 100 KiB each, as fast as they are taken, and not a response is read."""
    block = b"\x82\x87\x41\x01a\x04\x05/100k"
    requests = b"".join(headers(2 * number + 1, block) for number in range(100_000))

    def script(link: Link) -> Iterator[Step]:
        yield from opening(link)
        link.deaf = True
        for start in range(0, len(requests), PIECE_SIZE):
            yield requests[start : start + PIECE_SIZE]

    return script


def dribble() -> Script:
    """Credit for an octet at a time, for a large response."""
    piece = window_update(1, 1) * (PIECE_SIZE // 13)

    def script(link: Link) -> Iterator[Step]:
        yield from opening(link, (INITIAL_WINDOW_SIZE, 0))
        yield headers(1, b"\x82\x87\x41\x01a\x04\x05/100k")
        yield from itertools.repeat(piece)

    return script


def uploads(count: int) -> Callable[[], Script]:
    """So many uploads of a declared 10 MB, each an octet a second."""
    declared = b"\x0f\x0d\x0810000000"
    identifiers = range(1, 2 * count, 2)

    def script(link: Link) -> Iterator[Step]:
        yield from opening(link)
        yield b"".join(headers(stream_id, POST + declared, end=False) for stream_id in identifiers)
        while True:
            yield b"".join(data(stream_id, b"x") for stream_id in identifiers)
            yield SECOND

    return lambda: script


def trickled_block(link: Link) -> Iterator[Step]:
    """A field block, an octet a second."""
    yield from opening(link)
    yield frames.frame(frames.HEADERS, frames.END_STREAM, 1, GET)
    while True:
        yield SECOND
        yield frames.frame(frames.CONTINUATION, 0, 1, b"\x82")


def trickled_preface(link: Link) -> Iterator[Step]:
    """The preface, an octet a second."""
    for octet in frames.PREFACE:
        yield bytes([octet])
        yield SECOND


def idle(link: Link) -> Iterator[Step]:
    """One request, and then nothing."""
    yield from opening(link)
    yield headers(1, GET)


def handshakes() -> Script:
    """The first half of a ClientHello and silence; or a whole one, and a reset once the server has answered it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = CONTEXT.wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = outgoing.read()
    turn = itertools.count()

    def script(link: Link) -> Iterator[Step]:
        if next(turn) % 2:
            yield hello
            yield None
            link.quit()
        else:
            yield hello[: len(hello) // 2]

    return script


def slow_clients() -> Script:
    """The scripts of the slow clients in turn: 240 connections make 200 of each kind.

    A download or an event stream stops where its window ends, or where the socket does, because nothing is read.
    """
    window = (INITIAL_WINDOW_SIZE, frames.DEFAULT_WINDOW_SIZE)
    kinds = [
        *[uploads(10)()] * 20,
        *[get(b"/4m", 10, window)()] * 10, *[get(b"/4m", 1, deaf=True)()] * 100,
        *[get(b"/events", 10, window)()] * 10, *[get(b"/events", 1, deaf=True)()] * 100,
    ]  # fmt: skip
    turn = itertools.cycle(kinds)
    return lambda link: next(turn)(link)



def malformed() -> core.Source:
    """Requests that are malformed, so that the server resets them."""
    for stream_id in core.stream_ids():
        yield headers(stream_id, GET + b"\x00\x01A\x011")


STREAM = headers(1, POST, end=False)
"""A request whose body is to follow."""
NEVER_INDEXED = b"\x10\x01a\x7f\x81\x1f" + b"v" * 4_096
PRIORITY_UPDATE_1 = frames.frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=1")


# -- the table ---------------------------------------------------------------------------------------------------------


def _table(*attacks: Attack) -> dict[str, Attack]:
    return {attack.name: attack for attack in attacks}


ATTACKS = _table(
    Attack("tiny-fields", "header sections of 3 000 tiny fields", flood(core.tiny_fields)),
    Attack("cookie-crumbs", "cookie crumbs, 4 000 a request", flood(core.crumbs)),
    Attack("refused-streams", "streams beyond the limit, never ended", flood(core.refused_streams)),
    Attack("moved-windows", "SETTINGS that move the windows of 99 streams", flood(core.moved_windows)),
    Attack("size-updates", "two table size updates in every block", flood(core.size_updates)),
    Attack("rapid-reset", "requests reset at once", flood(core.resets)),
    Attack("one-octet-data", "DATA of one octet", body(data(1, b"x"), 1)),
    Attack("handshakes", "half-open and aborted TLS handshakes, 3 000 a second", handshakes,
           frozenset({STAYED, DONE, CLOSED}), rate=3_000.0, tls=False),
    Attack("idle", "1 500 idle connections at once", lambda: idle, frozenset({STAYED, "NO_ERROR", CLOSED}),
           connections=1_500),
    Attack("made-you-reset", "requests that the server must reset", flood(core.provoked_resets)),
    Attack("malformed", "malformed requests", flood(malformed)),
    Attack("late-data", "DATA on a stream that was reset", flood(core.late_data)),
    Attack("continuation", "CONTINUATION without end", repeated(
        frames.frame(frames.CONTINUATION, 0, 1, NEVER_INDEXED),
        frames.frame(frames.HEADERS, frames.END_STREAM, 1, GET))),
    Attack("empty-continuation", "empty CONTINUATION frames", repeated(
        frames.frame(frames.CONTINUATION, 0, 1, b""), frames.frame(frames.HEADERS, frames.END_STREAM, 1, GET))),
    Attack("hpack-bomb", "60 references to a large field", flood(core.oversized)),
    Attack("references", "15 references to a large field", flood(core.references)),
    Attack("evictions", "a field that evicts all others", flood(core.evictions), frozenset({STAYED, DONE, CALM})),
    Attack("ping", "PING", repeated(frames.ping(b"ping ..."))),
    Attack("ping-ack", "PING acknowledgements", repeated(frames.ping(b"ping ...", frames.ACK))),
    Attack("unread-ping", "PING whose answers are not read", unread(frames.ping(b"ping ..."))),
    Attack("settings", "SETTINGS", repeated(frames.settings([]))),
    Attack("settings-32", "SETTINGS of 32 values", repeated(frames.settings([(frames.HEADER_TABLE_SIZE, 4096)] * 32))),
    Attack("unread-settings", "SETTINGS whose acknowledgements are not read", unread(frames.settings([]))),
    Attack("priority", "PRIORITY", repeated(frames.frame(frames.PRIORITY, 0, 1, bytes(5)), STREAM)),
    Attack("priority-update", "PRIORITY_UPDATE", repeated(PRIORITY_UPDATE_1, STREAM)),
    Attack("window-update", "WINDOW_UPDATE of an octet", repeated(window_update(1, 1), STREAM)),
    Attack("unknown-frames", "frames of an unknown type", repeated(frames.frame(0xBB, 0, 1, b"?"), STREAM)),
    Attack("empty-data", "empty DATA", repeated(data(1, b""), STREAM)),
    Attack("padding", "DATA of padding alone", body(data(1, b"\xff" + bytes(255), frames.PADDED), 256)),
    Attack("unread-responses", "responses of 100 KiB that are not read", responses),
    Attack("dribble", "credit for an octet at a time", dribble),
    Attack("zero-windows", "2 000 responses of 60 kB with shut windows", get(b"/60k", 100, (INITIAL_WINDOW_SIZE, 0)),
           frozenset({STAYED}), connections=20),
    Attack("trickled-headers", "200 field blocks at an octet a second", lambda: trickled_block,
           frozenset({STAYED, CALM}), connections=200),
    Attack("trickled-preface", "200 prefaces at an octet a second", lambda: trickled_preface,
           frozenset({STAYED, CLOSED, "SETTINGS_TIMEOUT"}), connections=200),
    Attack("trickled-bodies", "200 uploads at an octet a second", uploads(1), frozenset({STAYED}), connections=200),
    Attack("slow-clients", "200 slow uploads, 200 unread downloads, 200 unread event streams", slow_clients,
           frozenset({STAYED}), connections=240, threads=4, settle=2.0),
)  # fmt: skip
"""Every attack. `--attacks` takes patterns of names."""
