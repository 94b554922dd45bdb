"""What goes to the peer: response heads at once, data by turns, within windows and a bounded output."""

from __future__ import annotations

from .events import StreamWritable
from .state import ConnectionState
from .stream import Stream

__all__ = ["Sending"]

_EMPTY = b""


class Sending(ConnectionState):
    """The sending half of `ServerConnection`."""

    def _queue(self, stream: Stream, data: bytes | memoryview, end_stream: bool) -> None:
        if data:
            stream.queue.append(data)
            stream.queued += len(data)
            if stream.queued > self.config.stream_buffer_size:
                stream.above_high_mark = True
        if end_stream:
            stream.end_queued = True
        # With its window shut it gets a turn all the same: there its wait begins to count.
        if data or end_stream:
            self.scheduler.add(stream)

    def _send_queued(self, limit: int, now: float) -> None:
        """Turn queued data into frames until the output holds `limit` octets or nothing may go."""
        while self._output_size < limit:
            stream = self.scheduler.next()
            if stream is None:
                return
            if stream.queued and stream.send_window <= 0:
                self.blocked.setdefault(stream.stream_id, now)
            elif stream.queued and self.send_window <= 0:
                self._wait_for_connection_window(stream, now)
                return
            else:
                self._send_one_frame(stream, now)

    def _wait_for_connection_window(self, stream: Stream, now: float) -> None:
        """Data is stuck, but the ends of streams need no window (section 6.9.1)."""
        turns = [stream, *self.scheduler.waiting()]
        while self.scheduler.next() is not None:
            pass
        for waiting in turns:
            if waiting.queued:
                self.blocked.setdefault(waiting.stream_id, now)
                self.scheduler.add(waiting)
            else:
                self._send_one_frame(waiting, now)

    def _send_one_frame(self, stream: Stream, now: float) -> None:
        size = min(stream.queued, stream.send_window, self.send_window, self.peer_max_frame_size)
        data = self._take(stream, size) if stream.queued else _EMPTY
        ends = stream.end_queued and not stream.queued
        if ends:
            self._before_end(stream)
        if not ends or data or stream.trailers is None:
            self._put(self.engine.send_data(stream.stream_id, data, ends and stream.trailers is None))
            self._sent(stream, len(data))
        self._note_progress(stream, now)
        if ends:
            if stream.trailers is not None:
                self._put(self.engine.send_headers(stream.stream_id, stream.trailers, True))
            self._ended(stream)

    def _sent(self, stream: Stream, octets: int) -> None:
        stream.send_window -= octets
        self.send_window -= octets
        self._guard.earn_data(octets)

    def _take(self, stream: Stream, size: int) -> bytes | memoryview:
        """Take `size` octets off the stream's queue, joining small pieces and slicing large ones."""
        stream.queued -= size
        first = stream.queue.popleft()
        if len(first) == size:
            return first
        if len(first) > size:
            view = memoryview(first)
            stream.queue.appendleft(view[size:])
            return view[:size]
        pieces: list[bytes | memoryview] = [first]
        missing = size - len(first)
        while missing:
            piece = stream.queue.popleft()
            if len(piece) > missing:
                view = memoryview(piece)
                stream.queue.appendleft(view[missing:])
                piece = view[:missing]
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _note_progress(self, stream: Stream, now: float) -> None:
        self.blocked.pop(stream.stream_id, None)
        if stream.sendable:
            self.scheduler.add(stream)
        elif stream.queued:
            self.blocked[stream.stream_id] = now
        if stream.above_high_mark and stream.queued * 2 <= self.config.stream_buffer_size:
            stream.above_high_mark = False
            self._events.append(StreamWritable(stream))
