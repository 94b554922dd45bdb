"""The core's configuration: limits, windows and timeouts, with their defaults.

One frozen value per worker, shared by all of its connections. Sizes are in octets, times in seconds; a time
of 0 means no limit unless its docstring says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from . import frames

__all__ = ["ConnectionConfig"]

# Browsers send each cookie as a field of its own, and keep up to 180 of a site.
_MAX_COOKIES = 256
_PSEUDO_FIELDS = 4


@dataclass(frozen=True)
class ConnectionConfig:
    """The limits of one connection (RFC 9113 sections 6.5.2, 6.9 and 10.5)."""

    engine: str = "fast"
    """`fast`: our own header codec; `h2`: the hpack library's, with the h2 library as a referee."""

    max_concurrent_streams: int = 100
    """Streams a client may have open at once, 1 to 2^31-1.

    A reset stream counts until its application call has returned."""

    initial_window_size: int = 65_535
    """Initial receive window of a stream, 1 to 2^31-1."""

    connection_window_size: int = 1_048_576
    """Initial receive window of the connection, 65 535 to 2^31-1: a limit on data in flight.

    The stream windows limit what is buffered unread."""

    max_window_size: int = 16_777_216
    """Size up to which receive windows grow, 0 to 2^31-1.

    It applies to the connection's window, and to a stream's window plus the growth of all other streams."""

    worker_window_size: int = 268_435_456
    """Octets by which the stream windows of a worker may grow in total; 0: they do not grow."""

    max_frame_size: int = 16_384
    """Largest frame payload accepted, 16 384 to 2^24-1."""

    max_header_list_size: int = 65_536
    """Largest decoded header section accepted, counted as RFC 9113 section 6.5.2 says; 0: no limit."""

    max_header_fields: int = 100
    """Fields of a request or of its trailers, at least 1; the host counts, and all cookies count as one."""

    stream_buffer_size: int = 131_072
    """High mark of the response data queued for one stream; the low mark is half of it."""

    response_spool_size: int = 67_108_864
    """Octets of one response that may be kept in the worker's temporary file for a client that reads slowly."""

    worker_spool_size: int = 1_073_741_824
    """Size of that file; 0: there is none."""

    worker_buffer_size: int = 16_777_216
    """Response octets in a worker's memory; beyond half of it, those that wait for clients leave it; 0: no limit."""

    min_read_rate: int = 240
    """Octets a second that a client must take of the responses that wait for it, over `stream_timeout`; 0: no limit."""

    websocket: bool = True
    """Whether clients are offered extended CONNECT (RFC 8441), for WebSockets."""

    request_buffer_size: int = 65_535
    """Octets of a body of declared length that are held before the application is called; 0: it is called at once.

    At most the initial window of the stream, because no credit is returned for what no application reads."""

    min_body_rate: int = 240
    """Octets a second that a client must send of a body of declared length, on average; 0: no minimum."""

    setup_timeout: float = 10.0
    """From the first byte to the end of the client's preface and first SETTINGS."""

    header_timeout: float = 10.0
    """From a HEADERS frame to the END_HEADERS of its field block."""

    idle_timeout: float = 2.0
    """How long a connection may stay without an open stream; 0 closes it after its last response."""

    keepalive_interval: float = 7_200.0
    """Seconds without anything from the peer after which it is sent a PING; 0: never."""

    keepalive_timeout: float = 20.0
    """Seconds that it may take to answer, by whatever frame; more than 0."""

    max_connection_age: float = 3_600.0
    """Seconds after which a connection is shut down gracefully, give or take a tenth; 0: no limit."""

    max_requests_per_connection: int = 0
    """Requests after which a connection is shut down gracefully, those on skipped identifiers included; 0: no limit."""

    stream_timeout: float = 30.0
    """How long a stream may go without progress: response data that waits for a window, a body that is to come."""

    drain_timeout: float = 1.0
    """How long a graceful shutdown waits for a moment without open streams, and then for the ACK of its PING."""

    reset_budget: int = 200
    """RST_STREAM frames accepted, or provoked from us, in one burst; refilled within 30 seconds."""

    control_budget: int = 1_000
    """Frames that carry no request and no data, in one burst; refilled within 10 seconds."""

    small_data_budget: int = 10_000
    """DATA frames of a single octet, a second; those of 16 and more are free, others in proportion."""

    @cached_property
    def max_decoded_fields(self) -> int:
        """The most fields of a section that are decoded, pseudo-header fields and each cookie among them."""
        return self.max_header_fields + _PSEUDO_FIELDS + _MAX_COOKIES

    @cached_property
    def preface(self) -> bytes:
        """The server's preface (section 3.4): SETTINGS, and a WINDOW_UPDATE for a connection window above 65 535."""
        settings = [
            (frames.MAX_CONCURRENT_STREAMS, self.max_concurrent_streams),
            (frames.INITIAL_WINDOW_SIZE, self.initial_window_size),
            (frames.MAX_FRAME_SIZE, self.max_frame_size),
        ]
        if self.max_header_list_size:
            settings.append((frames.MAX_HEADER_LIST_SIZE, self.max_header_list_size))
        if self.websocket:
            settings.append((frames.ENABLE_CONNECT_PROTOCOL, 1))
        increment = self.connection_window_size - frames.DEFAULT_WINDOW_SIZE
        return frames.settings(settings) + (frames.window_update(0, increment) if increment else b"")
