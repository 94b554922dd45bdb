"""One connection of an attacker: a socket that never blocks, and the script that says what to send."""

from __future__ import annotations

import errno
import select
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bench.client import ACK, GOAWAY, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, client_context, frame
from gunicorn_h2.protocol.errors import ErrorCode

INITIAL_WINDOW_SIZE = 4
DEFAULT_WINDOW = 65_535
READ_SIZE = 256 * 1024
READABLE, WRITABLE = select.EPOLLIN | select.EPOLLRDHUP, select.EPOLLOUT
GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
CONTEXT = client_context()
REFUSED, NO_HANDSHAKE, CLOSED, STAYED, DONE = "refused", "no handshake", "closed", "stayed", "done"
"""Ends without a GOAWAY: no connection, no TLS, a plain close, still open at the end, given up by the attacker."""

Step = bytes | float | None
Script = Callable[["Link"], Iterator[Step]]
"""Yields octets to send, a number of seconds to wait, or None: wait until something has come.

The connection stays when its script has returned, unless that was told to `quit`.
"""


@dataclass
class Tally:
    """What all connections of an attack have done, and what came of it."""

    connections: int = 0
    octets: int = 0
    """Sent, before encryption."""
    responses: int = 0
    resets: Counter[str] = field(default_factory=Counter)
    """RST_STREAM frames received, by the name of their code."""
    ends: Counter[str] = field(default_factory=Counter)
    """How connections ended: the name of the code in the GOAWAY, or one of the words above."""


class Link:
    """One connection. `handle` is called with what epoll says; `wanted` is what it should watch for."""

    def __init__(self, port: int, tls: bool, script: Script, tally: Tally, source: str = "") -> None:
        self.tally, self.closed, self.deaf, self.has_settings = tally, False, False, False
        self.end = ""
        """How it ended."""
        self.wake_at: float | None = None
        self.has_timer = False
        """For whoever wakes it."""
        self._script, self._rest = script, memoryview(b"")
        self._steps: Iterator[Step] | None = None
        self._waits = self._quits = False
        self._input, self._goaway = bytearray(), ""
        self._window, self._initial_window, self._windows = DEFAULT_WINDOW, DEFAULT_WINDOW, dict[int, int]()
        self._connect(port, tls, source)

    def _connect(self, port: int, tls: bool, source: str) -> None:
        raw = socket.socket()
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A close is a reset, and leaves no TIME_WAIT behind: ports would soon be used up.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if source:
            raw.bind((source, 0))
        self.socket, self._tls = raw, tls
        self._connected = self._established = False
        error = raw.connect_ex(("127.0.0.1", port))
        if error not in (0, errno.EINPROGRESS):
            self._end(REFUSED)

    @property
    def wanted(self) -> int:
        """The events of epoll that matter now."""
        if not self._established:
            return READABLE if self._connected else WRITABLE
        sends = self._rest or (self._steps is not None and not self._waits and self.wake_at is None)
        return (GONE if self.deaf else READABLE) | (WRITABLE if sends else 0)

    # What scripts use

    def quit(self) -> None:
        """Close the connection when the script returns."""
        self._quits = True

    def room(self, stream_id: int) -> int:
        """Octets of DATA that flow control lets through now."""
        return min(self._window, self._windows.setdefault(stream_id, self._initial_window))

    def spend(self, stream_id: int, size: int) -> None:
        """Take octets of DATA from the windows."""
        self._window -= size
        self._windows[stream_id] -= size

    # Events

    def handle(self, events: int) -> None:
        """Go on after an event of epoll."""
        try:
            if not self._established and not self._establish():
                return
            if (events & READABLE and not self.deaf) or events & GONE:
                self._receive()
            self._advance()
        except BlockingIOError:
            pass
        except ssl.SSLError as error:
            if error.errno not in (ssl.SSL_ERROR_WANT_READ, ssl.SSL_ERROR_WANT_WRITE):
                self._broken()
        except OSError:
            self._broken()

    def wake(self) -> None:
        """Go on after the time that the script asked for."""
        self.wake_at = None
        self.handle(0)

    def close(self, how: str = STAYED) -> None:
        """Close the connection; note how it ended."""
        self._end(self._goaway or how)

    def _establish(self) -> bool:
        """Go on with the connection and its handshake; return whether both are complete."""
        if not self._connected:
            if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._end(REFUSED)
                return False
            self._connected = True
            if self._tls:
                self.socket = CONTEXT.wrap_socket(self.socket, server_hostname="localhost",
                                                  do_handshake_on_connect=False)  # fmt: skip
        if isinstance(self.socket, ssl.SSLSocket):
            self.socket.do_handshake()
        self._established, self._steps = True, self._script(self)
        return True

    def _advance(self) -> None:
        """Send the rest of a step, and take one more step."""
        if not self._rest and self.wake_at is None and self._steps is not None:
            self._step(self._steps)
        if self._rest:
            sent = self.socket.send(self._rest)
            self.tally.octets += sent
            self._rest = self._rest[sent:]

    def _step(self, steps: Iterator[Step]) -> None:
        self._waits = False
        try:
            step = next(steps)
        except StopIteration:
            self._steps = None
            if self._quits:
                self._end(DONE)
            return
        if step is None:
            self._waits = True
        elif isinstance(step, float):
            self.wake_at = time.monotonic() + step
        else:
            self._rest = memoryview(step)

    def _broken(self) -> None:
        """Look for a last word of the server's, and note the end."""
        if self._established and not self.closed:
            try:
                self._receive()
            except OSError:
                pass
        if not self.closed:
            self._end(self._goaway or (CLOSED if self._established else NO_HANDSHAKE))

    def _end(self, how: str) -> None:
        self.closed, self._steps, self.end = True, None, how
        self.tally.ends[how] += 1
        self.socket.close()

    # Frames

    def _receive(self) -> None:
        """Read all that is there. Raises `OSError` at the end."""
        while True:
            try:
                data = self.socket.recv(READ_SIZE)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            if not data:
                raise ConnectionError
            self._waits = False
            if self._tls:
                self._input += data
                self._take_frames()

    def _take_frames(self) -> None:
        position, octets = 0, self._input
        while len(octets) - position >= 9:
            end = position + 9 + int.from_bytes(octets[position : position + 3], "big")
            if end > len(octets):
                break
            self._take(octets[position + 3], octets[position + 4], octets[position + 5 : end])
            position = end
        del octets[:position]

    def _take(self, kind: int, flags: int, rest: bytearray) -> None:
        """Note what matters of a frame: `rest` begins with its stream's identifier."""
        stream_id, payload = int.from_bytes(rest[:4], "big"), rest[4:]
        if kind == WINDOW_UPDATE:
            self._credit(stream_id, int.from_bytes(payload, "big"))
        elif kind == SETTINGS and not flags & ACK:
            self._settings(payload)
        elif kind == RST_STREAM:
            self.tally.resets[_name(payload)] += 1
        elif kind == GOAWAY:
            self._goaway = _name(payload[4:8])
        elif kind == HEADERS:
            self.tally.responses += 1

    def _credit(self, stream_id: int, size: int) -> None:
        if stream_id == 0:
            self._window += size
        else:
            self._windows[stream_id] = self._windows.get(stream_id, self._initial_window) + size

    def _settings(self, payload: bytearray) -> None:
        for start in range(0, len(payload), 6):
            if int.from_bytes(payload[start : start + 2], "big") == INITIAL_WINDOW_SIZE:
                self._initial_window = int.from_bytes(payload[start + 2 : start + 6], "big")
        self.has_settings = True


SETTINGS_ACK = frame(SETTINGS, ACK, 0)


def _name(code: bytes | bytearray) -> str:
    number = int.from_bytes(code, "big")
    return ErrorCode(number).name if number in ErrorCode._value2member_map_ else f"code {number}"
