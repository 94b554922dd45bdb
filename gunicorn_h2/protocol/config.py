"""What the protocol core needs to know: limits, windows and deadlines, with their defaults.

One frozen value per worker, shared by all of its connections. Sizes are octets, times are
seconds; a time of 0 means "no limit" unless its line says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from . import frames

__all__ = ["ConnectionConfig"]


@dataclass(frozen=True)
class ConnectionConfig:
    """The limits of one connection (RFC 9113 sections 6.5.2, 6.9 and 10.5)."""

    engine: str = "fast"
    """`fast`, or `h2` for the hpack library's header codec and the h2 library as a referee."""

    max_concurrent_streams: int = 100
    """Streams a client may have open at once, 1 to 2^31-1.

    One that was reset counts until its application call has returned."""

    initial_window_size: int = 65_535
    """Initial receive window of a stream, 1 to 2^31-1."""

    connection_window_size: int = 1_048_576
    """Initial receive window of the whole connection, 65 535 to 2^31-1: what may be under way on it.

    What it holds unread is limited by the windows of its streams."""

    max_window_size: int = 16_777_216
    """What receive windows may grow to, 0 to 2^31-1: the connection's, and a stream's.

    A stream's counts with what the connection's other streams have grown by."""

    worker_window_size: int = 268_435_456
    """What the windows of all streams of a worker may grow by, together."""

    max_frame_size: int = 16_384
    """Largest frame payload accepted, 16 384 to 2^24-1."""

    max_header_list_size: int = 65_536
    """Largest decoded header section accepted, counted as RFC 9113 section 6.5.2 says; 0: no limit."""

    stream_buffer_size: int = 65_536
    """High mark of the response data queued for one stream; the low mark is half of it."""

    setup_timeout: float = 10.0
    """From the first byte to the end of the client's preface and first SETTINGS."""

    header_timeout: float = 10.0
    """From a HEADERS frame to the END_HEADERS of its header block."""

    idle_timeout: float = 2.0
    """How long a connection may stay without an open stream; 0 closes it after its last response."""

    stream_timeout: float = 30.0
    """How long a stream's queued response data may wait without any progress."""

    drain_timeout: float = 1.0
    """How long a graceful shutdown waits for a moment without requests, and then for its PING to come back."""

    reset_budget: int = 200
    """RST_STREAM frames accepted, or provoked from us, in one burst; refilled within 30 seconds."""

    control_budget: int = 1_000
    """Frames that carry no request and no data, in one burst; refilled within 10 seconds."""

    @cached_property
    def preface(self) -> bytes:
        """What a connection begins with: SETTINGS, and WINDOW_UPDATE for a window larger than all begin with."""
        settings = [
            (frames.MAX_CONCURRENT_STREAMS, self.max_concurrent_streams),
            (frames.INITIAL_WINDOW_SIZE, self.initial_window_size),
            (frames.MAX_FRAME_SIZE, self.max_frame_size),
        ]
        if self.max_header_list_size:
            settings.append((frames.MAX_HEADER_LIST_SIZE, self.max_header_list_size))
        increment = self.connection_window_size - frames.DEFAULT_WINDOW_SIZE
        return frames.settings(settings) + (frames.window_update(0, increment) if increment else b"")
