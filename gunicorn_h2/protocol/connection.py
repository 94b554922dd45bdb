"""`ServerConnection`: one HTTP/2 connection, without a socket, a thread or a clock.

A driver owns the connection's socket and calls, from one thread at a time: `receive_data` and
`receive_eof` with what arrives, `handle_timeout` when `next_deadline` has come, and the `send_*`
verbs for the application. After each it takes `events()` and writes out `data_to_send()`. Once
`closed` is true it sends what is left and closes the socket.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import frames
from .config import ConnectionConfig
from .engine import Engine
from .errors import ConnectionFailure, ErrorCode, StreamFailure
from .events import DataReceived
from .h2_engine import H2Engine
from .headers import check_response, check_response_trailers
from .receiving import Receiving
from .sending import Sending
from .stall import PING_PAYLOAD
from .state import Phase
from .stream import Stream
from .upgrade import SWITCHING_PROTOCOLS, Upgrade

__all__ = ["ServerConnection"]

EngineFactory = Callable[[int], Engine]
"""Makes an engine that decodes header lists of this size, and of a few times more; 0 is no limit."""

_SHUTDOWN_PING = b"shutdown"
OUTPUT_LIMIT = 131_072
"""How many octets of output one `data_to_send` gathers; a frame may go beyond it."""


class ServerConnection(Receiving, Sending):
    """The server's end of one connection (RFC 9113)."""

    def __init__(self, config: ConnectionConfig, now: float, engine: EngineFactory = H2Engine) -> None:
        settings = [
            (frames.MAX_CONCURRENT_STREAMS, config.max_concurrent_streams),
            (frames.INITIAL_WINDOW_SIZE, config.initial_window_size),
            (frames.MAX_FRAME_SIZE, config.max_frame_size),
        ]
        if config.max_header_list_size:
            settings.append((frames.MAX_HEADER_LIST_SIZE, config.max_header_list_size))
        super().__init__(config, engine(config.max_header_list_size), now)
        self._splitter = frames.FrameSplitter(config.max_frame_size)
        self._preface = bytearray()
        self._put(frames.settings(settings))
        extra = config.connection_window_size - frames.DEFAULT_WINDOW_SIZE
        if extra:
            self._put(self.engine.send_window_update(0, extra))

    # Receiving

    def receive_data(self, data: bytes, now: float) -> None:
        """Take octets from the peer.

        Never raises for what a peer sends: its errors become RST_STREAM or GOAWAY, and events.
        """
        if self.closed:
            return
        self._now = now
        try:
            if self.phase is Phase.SETUP and len(self._preface) < len(frames.PREFACE):
                data = self._receive_preface(data)
            for frame in self._splitter.split(data):
                if self.closed:
                    break
                try:
                    self._receive_frame(frame, now)
                except StreamFailure as failure:
                    self._fail_stream(failure)
        except ConnectionFailure as failure:
            self.fail(failure.code, failure.reason)
        self._note_quiet(now)

    def receive_upgrade(self, upgrade: Upgrade) -> None:
        """Begin with a request that came by HTTP/1.1 (RFC 7540 section 3.2): it is stream 1.

        To be called before anything else; the client's preface is still to come.
        """
        self._output.insert(0, SWITCHING_PROTOCOLS)
        # These settings are not acknowledged: the 101 does that.
        self._apply_settings(frames.frame(frames.SETTINGS, 0, 0, upgrade.settings))
        self.last_stream_id = 1
        stream = self._accept(1, True, upgrade.section, upgrade.head)
        self._deliver_request(stream, not upgrade.body)
        if upgrade.body:
            self._events.append(DataReceived(stream, upgrade.body, True))

    def receive_eof(self) -> None:
        """The peer closed its side, or the socket broke."""
        if not self.closed:
            self._terminate(ErrorCode.NO_ERROR, "")

    def _receive_preface(self, data: bytes) -> bytes:
        """Compare with the client's preface (section 3.4); return what follows it."""
        missing = len(frames.PREFACE) - len(self._preface)
        self._preface += data[:missing]
        if not frames.PREFACE.startswith(self._preface):
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "the client's preface is wrong")
        return data[missing:]

    def _fail_stream(self, failure: StreamFailure) -> None:
        self._guard.charge_reset(self._now)
        stream = self.streams.get(failure.stream_id)
        if stream is not None:
            self._reset_and_tell(stream, failure.code, failure.reason)
        elif failure.stream_id <= self.last_stream_id and failure.stream_id & 1:
            self._put(frames.rst_stream(failure.stream_id, failure.code))
        else:
            # A RST_STREAM on an idle stream would be an error of ours.
            raise ConnectionFailure(failure.code, failure.reason)

    # Sending

    def send_headers(
        self, stream: Stream, status: int, fields: Sequence[tuple[bytes, bytes]], end_stream: bool
    ) -> None:
        """Send a response's head; a 1xx status is an interim one and may be repeated.

        `fields` are (name, value), names in lower case, without `:status`. Raises InvalidResponse
        where a field must not go out; nothing was sent then. Does nothing on a dead stream.
        """
        check_response(fields)
        if stream.local_closed or stream.headers_sent:
            return
        section = [(b":status", b"%d" % status), *fields]
        if end_stream:
            self._before_end(stream)
        self._put(self.engine.send_headers(stream.stream_id, section, end_stream))
        if status >= 200:
            stream.headers_sent = True
        if end_stream:
            self._ended(stream)

    def send_response(self, stream: Stream, status: int, fields: Sequence[tuple[bytes, bytes]], data: bytes) -> None:
        """Send a whole response; as `send_headers` and `send_data`, in one step where the windows allow it."""
        check_response(fields)
        size = len(data)
        if stream.local_closed or stream.headers_sent:
            return
        if not 0 < size <= min(stream.send_window, self.send_window, self.peer_max_frame_size):
            self.send_headers(stream, status, fields, not size)
            self.send_data(stream, data, True)
            return
        section = [(b":status", b"%d" % status), *fields]
        self._before_end(stream)
        self._put(self.engine.send_response(stream.stream_id, section, data))
        self._sent(stream, size)
        stream.headers_sent = True
        self._ended(stream)

    def send_data(self, stream: Stream, data: bytes | memoryview, end_stream: bool) -> None:
        """Queue response data; `stream.queued` counts the octets not yet turned into frames.

        A driver keeps to `ConnectionConfig.stream_buffer_size` and waits for StreamWritable.
        """
        if not stream.local_closed and not stream.end_queued:
            self._queue(stream, data, end_stream)

    def send_trailers(self, stream: Stream, fields: Sequence[tuple[bytes, bytes]]) -> None:
        """End the response with a trailer section behind the queued data. Raises InvalidResponse."""
        check_response_trailers(fields)
        if not stream.local_closed and not stream.end_queued:
            stream.trailers = list(fields)
            self._queue(stream, b"", True)

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream with RST_STREAM; what it has queued is dropped."""
        if stream.stream_id in self.streams:
            self._reset(stream, code)

    def acknowledge(self, stream: Stream, octets: int) -> None:
        """The application took so much of the body: give its credit back (section 6.9)."""
        if not self.closed and not stream.remote_closed:
            self._give_credit(stream.receive_window, stream.stream_id, octets)

    def finish(self, stream: Stream, now: float) -> None:
        """The application call has returned: nobody will read what is left of the body."""
        self._now = now
        if stream.orphaned:
            stream.orphaned = False
            self.orphaned_calls -= 1
        stream.running = False
        stream.finished = True
        self._note_quiet(now)

    def data_to_send(self, now: float) -> bytes:
        """Take the octets to write now: control frames all, data up to OUTPUT_LIMIT."""
        if not self.closed:
            self._now = now
            self._send_queued(OUTPUT_LIMIT, now)
            self._note_quiet(now)
        if not self._output:
            return b""
        data = self._output[0] if len(self._output) == 1 else b"".join(self._output)
        self._output.clear()
        self._output_size = 0
        return data

    # Timers

    def next_deadline(self) -> float | None:
        """When `handle_timeout` must be called at the latest; None for not at all."""
        if self.closed:
            return None
        deadlines = [self.deadline, self._idle_deadline()]
        if self._block is not None:
            deadlines.append(self._block.deadline)
        if self.config.stream_timeout:
            deadlines.append(self._stall_deadline())
        deadlines.append(next(iter(self.abandoned.values()), None))
        deadlines.append(self._stall.deadline)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Act on every deadline that has passed."""
        if self.closed:
            return
        self._now = now
        self._reset_stalled(now)
        self._reset_abandoned(now)
        if self._stall.is_due(now, self._waiting_tasks()):
            self._put(frames.ping(PING_PAYLOAD))
        block = self._block
        if block is not None and block.deadline is not None and block.deadline <= now:
            self.fail(ErrorCode.ENHANCE_YOUR_CALM, "a header block took too long")
        elif self.deadline is not None and self.deadline <= now:
            self._handle_phase_deadline(now)
        else:
            idle = self._idle_deadline()
            if idle is not None and idle <= now:
                self.fail(ErrorCode.NO_ERROR, "")
        self._note_quiet(now)

    def _idle_deadline(self) -> float | None:
        if self.quiet_since is None or self.phase is not Phase.OPEN:
            return None
        timeout = self.config.idle_timeout
        if not timeout and not self.served:
            timeout = self.config.setup_timeout
            return self.quiet_since + timeout if timeout else None
        return self.quiet_since + timeout

    def _stall_deadline(self) -> float | None:
        for since in self.blocked.values():
            return since + self.config.stream_timeout
        return None

    def _reset_stalled(self, now: float) -> None:
        while self.config.stream_timeout:
            deadline = self._stall_deadline()
            if deadline is None or deadline > now:
                return
            stream = self.streams[next(iter(self.blocked))]
            self._reset_and_tell(stream, ErrorCode.CANCEL, "the client stopped reading")

    def _reset_abandoned(self, now: float) -> None:
        """Have clients stop sending bodies that nobody reads (section 8.1)."""
        for stream_id in [stream_id for stream_id, deadline in self.abandoned.items() if deadline <= now]:
            self._reset(self.streams[stream_id], ErrorCode.NO_ERROR)

    # The end

    def fail(self, code: ErrorCode, reason: str) -> None:
        """End the connection at once with GOAWAY(`code`); `reason` is for the log."""
        if not self.closed:
            self._put(frames.goaway(self.last_stream_id, code))
            self._terminate(code, reason)

    def shutdown(self, now: float) -> None:
        """Begin a graceful end (section 6.8); repeated calls change nothing.

        The first GOAWAY names stream 2^31-1, the final one the last stream that will be served;
        between them lies a PING's round trip. Clients built on the h2 library take any frame that
        follows a GOAWAY for an error, and so lose the responses they wait for. So the first one goes
        out with the end of a response, when no other stream is open, or to a connection that has
        been idle; where there is no such moment within `drain_timeout`, then.
        """
        if self.phase is Phase.OPEN:
            self.phase = Phase.QUIETING
            since = now if self.quiet_since is None else self.quiet_since
            self.deadline = since + self.config.drain_timeout
            if self.deadline <= now:
                self._send_first_goaway(now)
        elif self.phase is Phase.SETUP:
            # A client that is silent for so long has nothing to lose.
            self._shutdown_requested = True
            deadline = now + self.config.drain_timeout
            self.deadline = deadline if self.deadline is None else min(self.deadline, deadline)

    def _setup_complete(self, now: float) -> None:
        self.phase = Phase.OPEN
        self.deadline = None
        # Stream 1 may be open already, by an upgrade.
        self.quiet_since = None if self.streams else now
        if self._shutdown_requested:
            self.shutdown(now)

    def _handle_phase_deadline(self, now: float) -> None:
        if self.phase is Phase.SETUP:
            self.fail(ErrorCode.SETTINGS_TIMEOUT, "the client did not finish its preface")
        elif self.phase is Phase.QUIETING:
            self._send_first_goaway(now)
        else:
            self._shutdown_acknowledged(now)

    def _send_first_goaway(self, now: float) -> None:
        self.phase = Phase.GOING_AWAY
        self.deadline = now + self.config.drain_timeout
        self._shutdown_ping = _SHUTDOWN_PING
        # The PING goes first: behind a GOAWAY the h2 library would take it for an error.
        self._put(frames.ping(_SHUTDOWN_PING) + frames.goaway(frames.LARGEST_STREAM_ID, ErrorCode.NO_ERROR))

    def _shutdown_acknowledged(self, now: float) -> None:
        self.phase = Phase.DRAINING
        self.deadline = None
        self.last_accepted_stream_id = self.last_stream_id
        self._put(frames.goaway(self.last_stream_id, ErrorCode.NO_ERROR))
        self._note_quiet(now)

    def _note_quiet(self, now: float) -> None:
        """See whether the last stream is gone, and what follows from it."""
        if self.streams or self.closed:
            return
        became_quiet = self.quiet_since is None
        if became_quiet:
            self.quiet_since = now
        if self.phase is Phase.QUIETING:
            if became_quiet:
                self._send_first_goaway(now)
        elif self.phase is Phase.DRAINING:
            self._terminate(ErrorCode.NO_ERROR, "")
        elif self.peer_going_away or (self.phase is Phase.OPEN and self.served and not self.config.idle_timeout):
            self.fail(ErrorCode.NO_ERROR, "")
