"""A link with a round-trip time and a bandwidth, between a client and a server on the same machine.

`delayed` runs a TCP proxy in a thread of its own. Each direction is a line that all connections share: octets are put
on it one after another at the link's rate and arrive half a round trip later. What a sender offers beyond a short queue
is left unread, so that TCP slows it down as a full router would, without losses. Not modelled: the round trip of TCP's
own handshake, which the kernel completes before the proxy sees the connection.
"""

from __future__ import annotations

import math
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

READ_SIZE = 32 * 1024
QUEUE_SECONDS = 0.02
"""How much may wait for its turn on the line, in time."""


@dataclass(frozen=True)
class Link:
    """Round-trip time in seconds, bandwidth of each direction in octets a second.

    The kernel takes `buffer` octets of what the server sends in advance, by default as many as it likes.
    """

    round_trip: float
    rate: float
    buffer: int | None = None


class Line:
    """One direction of a link. Time is an argument."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._free_at = 0.0

    def transmit(self, size: int, now: float) -> float:
        """Put octets on the line; return when they arrive."""
        self._free_at = max(self._free_at, now) + size / self._link.rate
        return self._free_at + self._link.round_trip / 2

    def accepts_at(self) -> float:
        """Return from when on the queue has room."""
        return self._free_at - QUEUE_SECONDS


class Pipe:
    """One direction of one connection: what was read from `source` and is on its way to `sink`."""

    def __init__(self, source: socket.socket, sink: socket.socket, line: Line) -> None:
        self.source, self.sink, self.line = source, sink, line
        self.blocked = self.ended = self._shut = False
        self._under_way: deque[tuple[float, memoryview]] = deque()
        self._end_due = 0.0

    @property
    def done(self) -> bool:
        """Whether the end of the source has arrived at the sink."""
        return self._shut

    def may_read(self, now: float) -> bool:
        """Tell whether more may be taken in."""
        return not self.ended and self.line.accepts_at() <= now

    def read(self, now: float) -> None:
        """Take in what the source has sent. Raises `OSError` when it is broken."""
        with suppress(BlockingIOError):
            data = self.source.recv(READ_SIZE)
            due = self.line.transmit(len(data), now)
            if data:
                self._under_way.append((due, memoryview(data)))
            else:
                self.ended, self._end_due = True, due

    def deliver(self, now: float) -> None:
        """Hand over what has arrived by now. Raises `OSError` when the sink is broken."""
        self.blocked = False
        while self._under_way and self._under_way[0][0] <= now:
            due, data = self._under_way[0]
            try:
                sent = self.sink.send(data)
            except BlockingIOError:
                sent = 0
            if sent < len(data):
                self._under_way[0] = due, data[sent:]
                self.blocked = True
                return
            self._under_way.popleft()
        if self.ended and not self._under_way and not self._shut and self._end_due <= now:
            self._shut = True
            self.sink.shutdown(socket.SHUT_WR)

    def next_due(self, now: float) -> float | None:
        """Return when something is to be done next without any socket's doing; None when never."""
        dues = [self.line.accepts_at()] if not self.ended and not self.may_read(now) else []
        if self._under_way and not self.blocked:
            dues.append(self._under_way[0][0])
        elif self.ended and not self._shut and not self._under_way:
            dues.append(self._end_due)
        return min(dues, default=None)


class Proxy:
    """Connects every client of `port` with a local target port over a link. `run` serves until `stop`.

    Made for a handful of connections: every turn looks at all of them.
    """

    def __init__(self, target_port: int, link: Link) -> None:
        self._target = target_port
        self._buffer = link.buffer
        self._lines = Line(link), Line(link)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._wake, self._woken = socket.socketpair()
        self._pairs: list[tuple[Pipe, Pipe]] = []

    def run(self) -> None:
        """Serve until `stop` is called; then close everything."""
        with self._listener, self._woken:
            try:
                while self._turn():
                    pass
            finally:
                for pair in self._pairs:
                    _close(pair)

    def stop(self) -> None:
        """Make `run` return, from any thread."""
        self._wake.close()

    def _turn(self) -> bool:
        """Wait for the next thing to do and do it; return whether to go on."""
        ready = self._wait(time.monotonic())
        if self._woken.fileno() in ready:
            return False
        if self._listener.fileno() in ready:
            self._accept()
        now = time.monotonic()
        self._pairs = [pair for pair in self._pairs if _move(pair, ready, now)]
        return True

    def _wait(self, now: float) -> set[int]:
        """Return the descriptors that are ready, when some are or something is due."""
        wanted = {self._listener.fileno(): select.POLLIN, self._woken.fileno(): select.POLLIN}
        dues = []
        for pipe in (pipe for pair in self._pairs for pipe in pair):
            if pipe.may_read(now):
                wanted[pipe.source.fileno()] = wanted.get(pipe.source.fileno(), 0) | select.POLLIN
            if pipe.blocked:
                wanted[pipe.sink.fileno()] = wanted.get(pipe.sink.fileno(), 0) | select.POLLOUT
            if (due := pipe.next_due(now)) is not None:
                dues.append(due)
        poll = select.poll()
        for descriptor, mask in wanted.items():
            poll.register(descriptor, mask)
        # Rounded up: poll counts milliseconds, and to wake early is to turn in a circle.
        timeout = max(0, math.ceil((min(dues) - now) * 1000)) if dues else None
        return {descriptor for descriptor, _ in poll.poll(timeout)}

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.socket()
        if self._buffer is not None:
            # The window that TCP offers goes by the buffer at the time of the connection.
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
        try:
            server.connect(("127.0.0.1", self._target))
        except OSError:
            client.close()
            server.close()
            return
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
        self._pairs.append((Pipe(client, server, self._lines[0]), Pipe(server, client, self._lines[1])))


@contextmanager
def delayed(target_port: int, link: Link) -> Iterator[int]:
    """Put a link before a local port for as long as the block lasts; yields the port to connect to."""
    proxy = Proxy(target_port, link)
    thread = threading.Thread(target=proxy.run, name="link")
    thread.start()
    try:
        yield proxy.port
    finally:
        proxy.stop()
        thread.join()


def _move(pair: tuple[Pipe, Pipe], ready: set[int], now: float) -> bool:
    """Move what can be moved; return whether the connection lives on, and close it otherwise."""
    try:
        for pipe in pair:
            if pipe.source.fileno() in ready and pipe.may_read(now):
                pipe.read(now)
            pipe.deliver(now)
        if not all(pipe.done for pipe in pair):
            return True
    except OSError:
        pass
    _close(pair)
    return False


def _close(pair: tuple[Pipe, Pipe]) -> None:
    for pipe in pair:
        pipe.source.close()
