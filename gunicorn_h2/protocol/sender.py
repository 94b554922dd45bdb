"""The sending half: turns responses into frames, in one step where the windows allow it."""

from __future__ import annotations

import math

from .codec import HeaderCodec
from .errors import ErrorCode
from .frames import DEFAULT_MAX_FRAME_SIZE
from .headers import Fields, ResponseHead, check_response_trailers
from .inflow import Inflow
from .outbox import Outbox
from .priority import merge_priority
from .stream import AFTER_RESPONSE, CLOSED, HALF_CLOSED_REMOTE, Source, Stream
from .streams import StreamTable

__all__ = ["Sender"]


class Sender:
    """The sending half of one connection."""

    __slots__ = ("codec", "_inflow", "_outbox", "_streams")

    def __init__(self, codec: HeaderCodec, streams: StreamTable, inflow: Inflow, outbox: Outbox) -> None:
        self.codec = codec
        self._streams = streams
        self._inflow = inflow
        self._outbox = outbox

    def send_headers(self, stream: Stream, head: ResponseHead, end_stream: bool) -> None:
        """See `ServerConnection.send_headers`."""
        if stream.response_ended or stream.head_sent:
            return
        if end_stream:
            self.end_response(stream)
        self._outbox.put_headers(stream.stream_id, self.codec.encode_head(head), end_stream)
        if head.status >= 200:
            stream.head_sent = True
            if not end_stream:
                _adopt_priority(stream, head)
        elif head.status == 100:
            stream.continue_sent = True

    def answer_unopened(self, stream_id: int, head: ResponseHead) -> None:
        """Send the head of a response on a stream that was not opened; RST_STREAM must follow."""
        self._outbox.put_headers(stream_id, self.codec.encode_head(head), False)

    def send_response(self, stream: Stream, head: ResponseHead, data: bytes) -> None:
        """See `ServerConnection.send_response`."""
        outbox = self._outbox
        size = len(data)
        if (
            not 0 < size <= stream.send_window
            or size > outbox.window
            or (size > DEFAULT_MAX_FRAME_SIZE and not outbox.has_room(size))
        ):
            self.send_headers(stream, head, not size)
            self.send_data(stream, data, True)
        elif not stream.head_sent:
            if stream.state is HALF_CLOSED_REMOTE:
                # As `end_response` does, for a stream that has nothing queued.
                stream.state = CLOSED
                del self._streams.open[stream.stream_id]
            elif stream.response_ended:
                return
            else:
                self.end_response(stream)
            stream.head_sent = True
            block = self.codec.encode_head(head)
            if size <= outbox.max_frame_size >= len(block):
                outbox.put_response(stream, block, data)
            else:
                outbox.put_headers(stream.stream_id, block, False)
                outbox.put_body(stream, data)

    def send_data(self, stream: Stream, data: bytes | memoryview, end_stream: bool) -> None:
        """See `ServerConnection.send_data`."""
        if not stream.response_ended and not stream.end_queued:
            self._outbox.queue(stream, data, end_stream)

    def send_source(self, stream: Stream, source: Source, end_stream: bool) -> None:
        """See `ServerConnection.send_source`."""
        if stream.response_ended or stream.end_queued:
            source.close()
        else:
            self._outbox.queue_source(stream, source, end_stream)

    def send_trailers(self, stream: Stream, fields: Fields) -> None:
        """See `ServerConnection.send_trailers`."""
        check_response_trailers(fields)
        if not stream.response_ended and not stream.end_queued:
            stream.trailers = list(fields)
            self._outbox.queue(stream, b"", True)

    def send_with_trailers(self, stream: Stream, head: ResponseHead, data: bytes, fields: Fields) -> None:
        """See `ServerConnection.send_with_trailers`."""
        outbox = self._outbox
        if stream.response_ended or stream.head_sent:
            return
        self.send_headers(stream, head, False)
        if 0 < len(data) <= min(stream.send_window, outbox.window, DEFAULT_MAX_FRAME_SIZE):
            outbox.put_data(stream, data, False)
            self.end_response(stream)
            outbox.put_headers(stream.stream_id, self.codec.encode(fields), True)
        else:
            self.send_data(stream, data, False)
            self.send_trailers(stream, fields)

    def encode_trailers(self, stream: Stream) -> bytes:
        """See `OutboxOwner.encode_trailers`."""
        assert stream.trailers is not None
        return self.codec.encode(stream.trailers)

    def lose_response(self, stream: Stream) -> None:
        """See `OutboxOwner.lose_response`."""
        self._streams.reset_and_notify(stream, ErrorCode.INTERNAL_ERROR, "the rest of the response is lost")

    def end_response(self, stream: Stream) -> None:
        """See `OutboxOwner.end_response`.

        If the request has not ended, no one will read the rest of it, and RST_STREAM(NO_ERROR) tells the client
        to stop (RFC 9113 section 8.1). But some clients drop the response if the reset arrives with it (httpx,
        curl), and some read nothing more once they have the response, and would wait for credit forever (curl
        7.88). So credit for the rest is sent before the end of the response, and the reset a moment after it;
        data that arrives in between is dropped.
        """
        state = stream.state = AFTER_RESPONSE[stream.state]
        if state is CLOSED:
            self._streams.forget(stream)
        else:
            self._inflow.grant_rest(stream)
            self._streams.reset_deadlines[stream.stream_id] = math.inf


def _adopt_priority(stream: Stream, head: ResponseHead) -> None:
    """Let the response's own `priority` field say what the client's leaves to it (RFC 9218 section 8)."""
    for name, value in head.fields:
        if name == b"priority":
            stream.priority = merge_priority(stream.current_priority, value)
