"""What must hold whatever a client does: checks of all that a `ServerConnection` writes and reports.

`WireCheck` reads the octets of both directions, and keeps states and windows of its own, as RFC 9113 tells a client to.
`EventCheck` follows the events as a driver must be able to. `held` counts what the core keeps in memory. None of them
asks the core; each fails with an AssertionError.
"""

import gc
import sys
import types

from hpack import Decoder

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.events import (
    ConnectionTerminated,
    DataReceived,
    RequestReceived,
    RequestRefused,
    StreamReset,
    StreamWritable,
    TrailersReceived,
)

from .peer import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    PADDED,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)

LARGEST_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65_535
LAST_ERROR_CODE = 0xD


def split(octets):
    """The complete frames at the beginning, as (kind, flags, stream, payload), and the octets after them."""
    frames, position = [], 0
    while len(octets) - position >= 9:
        stop = position + 9 + int.from_bytes(octets[position:position + 3], "big")
        if stop > len(octets):
            break
        stream_id = int.from_bytes(octets[position + 5:position + 9], "big") & LARGEST_WINDOW
        frames.append((octets[position + 3], octets[position + 4], stream_id, octets[position + 9:stop]))
        position = stop
    return frames, octets[position:]


def pairs(payload):
    """The values of a SETTINGS payload, in order."""
    return [(int.from_bytes(payload[start:start + 2], "big"), int.from_bytes(payload[start + 2:start + 6], "big"))
            for start in range(0, len(payload) - 5, 6)]


class WireStream:
    """A stream as its client sees it."""

    def __init__(self, window, credit):
        self.window = window
        """What the server may send, in octets."""
        self.credit = credit
        """What the client may send, in octets."""
        self.request_ended = self.cancelled = False
        self.head = None
        """The fields of the final response."""
        self.interim = 0
        self.trailers = None
        self.body = bytearray()
        self.ended = False
        """Whether the server has sent END_STREAM."""
        self.reset = None
        """The code of the server's RST_STREAM."""

    @property
    def is_closed(self):
        """Whether both sides have ended it, or one has reset it (section 5.1)."""
        return self.reset is not None or self.cancelled or (self.ended and self.request_ended)


class WireCheck:
    """Both directions of one connection, checked frame by frame against what a server may write."""

    def __init__(self):
        self.streams = {}
        self.window = self.credit = DEFAULT_WINDOW
        self.initial_window = self.initial_credit = DEFAULT_WINDOW
        self.max_frame_size = 16_384
        self.last_opened = 0
        self.goaways = []
        self.settings = None
        """The server's SETTINGS."""
        self._decoder = Decoder()
        self._decoder.max_header_list_size = 2**24
        self._section = None
        self._unacknowledged, self._pings = [], []
        self._preface, self._unread = PREFACE, b""
        self._is_acknowledged = False

    # What the client sends

    def sent(self, octets):
        """Note octets of the client's, right or wrong, before the core gets them."""
        if self._preface:
            size = min(len(octets), len(self._preface))
            # Of a client with a wrong preface, no frame will be read.
            right = octets[:size] == self._preface[:size]
            self._preface, octets = self._preface[size:] if right else None, octets[size:]
        if self._preface is None:
            return
        frames, self._unread = split(self._unread + octets)
        for frame in frames:
            self._note_sent(*frame)

    def _note_sent(self, kind, flags, stream_id, payload):
        stream = self.streams.get(stream_id)
        if kind == HEADERS and stream_id & 1 and stream_id > self.last_opened:
            self.last_opened = stream_id
            stream = self.streams[stream_id] = WireStream(self.initial_window, self.initial_credit)
        if kind == SETTINGS and not flags & ACK:
            self._unacknowledged.append(pairs(payload))
        elif kind == SETTINGS:
            self._acknowledge()
        elif kind == PING and not flags & ACK:
            self._pings.append(payload)
        elif kind == WINDOW_UPDATE and len(payload) == 4:
            self._give_credit(stream_id, stream, int.from_bytes(payload, "big") & LARGEST_WINDOW)
        if kind == DATA:
            self.credit -= len(payload)
        if stream is None:
            return
        if kind == DATA:
            stream.credit -= len(payload)
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            stream.request_ended = True
        if kind == RST_STREAM:
            stream.cancelled = True

    def _acknowledge(self):
        if self.settings is None or self._is_acknowledged:
            return
        self._is_acknowledged = True
        change = self.settings.get(INITIAL_WINDOW_SIZE, DEFAULT_WINDOW) - self.initial_credit
        self.initial_credit += change
        for stream in self.streams.values():
            stream.credit += change
            assert stream.credit <= LARGEST_WINDOW, "the server's SETTINGS overflow a window that it has opened"

    def _give_credit(self, stream_id, stream, increment):
        if not stream_id:
            self.window += increment
        elif stream is not None:
            stream.window += increment

    # What the server writes

    def wrote(self, octets):
        """Check octets of the server's: whole frames, in an order that section 5.1 allows."""
        frames, rest = split(octets)
        assert not rest, "part of a frame"
        for frame in frames:
            self._check(*frame)

    def _check(self, kind, flags, stream_id, payload):
        assert len(payload) <= self.max_frame_size, "a frame beyond SETTINGS_MAX_FRAME_SIZE"
        assert not (self.goaways and self.goaways[-1][1]), "a frame after a GOAWAY with an error"
        if self.settings is None:
            assert (kind, flags & ACK) == (SETTINGS, 0), "the first frame is not SETTINGS"
        if self._section is not None:
            assert (kind, stream_id) == (CONTINUATION, self._section[0]), "a frame inside a field block"
        if kind in (HEADERS, DATA, RST_STREAM, CONTINUATION) or (kind == WINDOW_UPDATE and stream_id):
            self._check_stream(kind, flags, stream_id, payload)
        else:
            assert stream_id == 0, f"a frame of type {kind} on a stream"
            _CHECKS[kind](self, flags, payload)

    def _check_stream(self, kind, flags, stream_id, payload):
        stream = self.streams.get(stream_id)
        if kind == RST_STREAM and stream is None and stream_id & 1 and stream_id < self.last_opened:
            # The client passed it over, which closes it (section 5.1.1).
            stream = self.streams[stream_id] = WireStream(0, 0)
        assert stream is not None, f"a frame of type {kind} on idle stream {stream_id}"
        assert not self.goaways or stream_id <= self.goaways[-1][0], "a frame on a stream beyond the GOAWAY"
        assert stream.reset is None, f"a frame of type {kind} after RST_STREAM"
        if kind == RST_STREAM:
            assert len(payload) == 4
            stream.reset = int.from_bytes(payload, "big")
            assert stream.reset <= LAST_ERROR_CODE
        elif kind == WINDOW_UPDATE:
            assert not (stream.ended and stream.request_ended), "WINDOW_UPDATE on a closed stream"
            stream.credit += self._increment(payload)
            assert stream.credit <= LARGEST_WINDOW, "a stream's window overflows"
        else:
            assert not stream.ended, f"a frame of type {kind} after END_STREAM"
            if kind == DATA:
                self._check_data(stream, flags, payload)
            else:
                self._check_fields(stream, stream_id, kind, flags, payload)

    def _check_data(self, stream, flags, payload):
        assert stream.head is not None, "DATA before HEADERS"
        assert not flags & PADDED
        if payload:
            stream.window -= len(payload)
            self.window -= len(payload)
            assert stream.window >= 0, "more than the stream's window allows"
            assert self.window >= 0, "more than the connection's window allows"
        stream.body += payload
        stream.ended = bool(flags & END_STREAM)

    def _check_fields(self, stream, stream_id, kind, flags, payload):
        if kind == HEADERS:
            self._section = (stream_id, bool(flags & END_STREAM), bytearray())
        assert self._section is not None, "CONTINUATION without HEADERS"
        self._section[2].extend(payload)
        if flags & END_HEADERS:
            (_, ends, block), self._section = self._section, None
            self._check_section(stream, ends, dict(self._decoder.decode(bytes(block), raw=True)))

    def _check_section(self, stream, ends, section):
        if stream.head is not None:
            assert ends, "trailers do not end the stream"
            assert not any(name.startswith(b":") for name in section)
            stream.trailers = section
        else:
            status = section[b":status"]
            assert len(status) == 3
            if status.startswith(b"1"):
                assert not ends, "an interim response ends the stream"
                stream.interim += 1
            else:
                stream.head = section
        stream.ended = ends

    def _check_settings(self, flags, payload):
        if flags & ACK:
            assert not payload
            assert self._unacknowledged, "an acknowledgement of nothing"
            self._apply(self._unacknowledged.pop(0))
        else:
            assert self.settings is None, "a second SETTINGS frame"
            assert len(payload) % 6 == 0
            self.settings = dict(pairs(payload))

    def _apply(self, values):
        for identifier, value in values:
            if identifier == HEADER_TABLE_SIZE:
                self._decoder.max_allowed_table_size = value
        values = dict(values)
        self.max_frame_size = values.get(MAX_FRAME_SIZE, self.max_frame_size)
        change = values.get(INITIAL_WINDOW_SIZE, self.initial_window) - self.initial_window
        self.initial_window += change
        for stream in self.streams.values():
            stream.window += change

    def _check_ping(self, flags, payload):
        assert len(payload) == 8
        if flags & ACK:
            assert self._pings[:1] == [payload], "an answer to no PING"
            del self._pings[0]

    def _check_goaway(self, flags, payload):
        last, code = int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")
        assert len(payload) == 8
        assert code <= LAST_ERROR_CODE
        assert not self.goaways or last <= self.goaways[-1][0], "GOAWAY with a higher stream than the one before"
        assert last in (LARGEST_WINDOW, *self.streams) or last == 0
        self.goaways.append((last, code))

    def _check_window_update(self, flags, payload):
        self.credit += self._increment(payload)
        assert self.credit <= LARGEST_WINDOW, "the connection's window overflows"

    @staticmethod
    def _increment(payload):
        assert len(payload) == 4
        increment = int.from_bytes(payload, "big")
        assert 0 < increment <= LARGEST_WINDOW
        return increment


_CHECKS = {SETTINGS: WireCheck._check_settings, PING: WireCheck._check_ping, GOAWAY: WireCheck._check_goaway,
           WINDOW_UPDATE: WireCheck._check_window_update}


class Request:
    """A request as its application sees it."""

    def __init__(self, stream):
        self.stream = stream
        self.body = bytearray()
        self.trailers = None
        self.ended = False
        self.reset = None
        """The code with which the stream ended for it."""


class EventCheck:
    """The events of one connection: every stream begins and ends once, and the connection last of all."""

    def __init__(self):
        self.requests, self.refused = {}, []
        self.terminated = None
        """The event that ended the connection."""

    def take(self, events):
        """Check events in order; return them."""
        for event in events:
            assert self.terminated is None, f"{event} after the end"
            _TAKE[type(event)](self, event)
        return events

    def _begin(self, event):
        stream_id = event.stream.stream_id
        assert stream_id & 1
        assert stream_id > max(self.requests, default=0)
        assert stream_id not in self.refused
        assert event.end_stream or not event.body
        request = self.requests[stream_id] = Request(event.stream)
        request.body += event.body
        request.ended = event.end_stream
        self._check_length(request)

    def _request(self, event):
        """The request that an event is about; one that the core has answered may still be reset."""
        stream_id = event.stream.stream_id
        if stream_id in self.refused:
            assert isinstance(event, StreamReset)
            self.refused.remove(stream_id)
            self.requests[stream_id] = Request(event.stream)
        request = self.requests[stream_id]
        assert request.stream is event.stream
        assert request.reset is None, f"{event} after StreamReset"
        return request

    def _take_data(self, event):
        request = self._request(event)
        assert not request.ended
        request.body += event.data
        request.ended = event.end_stream
        self._check_length(request)

    def _take_trailers(self, event):
        request = self._request(event)
        assert not request.ended
        request.ended, request.trailers = True, event.fields
        self._check_length(request)

    @staticmethod
    def _check_length(request):
        declared = request.stream.head.content_length
        if declared is not None:
            assert len(request.body) <= declared
            assert not request.ended or len(request.body) == declared

    def _take_reset(self, event):
        self._request(event).reset = event.code

    def _take_writable(self, event):
        self._request(event)

    def _take_refusal(self, event):
        assert event.stream_id not in self.requests
        assert event.stream_id not in self.refused
        self.refused.append(event.stream_id)

    def _end(self, event):
        self.terminated = event


_TAKE = {RequestReceived: EventCheck._begin, DataReceived: EventCheck._take_data,
         TrailersReceived: EventCheck._take_trailers, StreamReset: EventCheck._take_reset,
         StreamWritable: EventCheck._take_writable, RequestRefused: EventCheck._take_refusal,
         ConnectionTerminated: EventCheck._end}


_SHARED = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType, ConnectionConfig)


def held(core):
    """The octets of memory that only this connection refers to, each object counted once."""
    seen, queue, total = {id(None)}, [core], 0
    while queue:
        thing = queue.pop()
        if id(thing) in seen or isinstance(thing, _SHARED):
            continue
        seen.add(id(thing))
        total += sys.getsizeof(thing)
        queue += gc.get_referents(thing)
    return total
