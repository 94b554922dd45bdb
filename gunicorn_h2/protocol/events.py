"""The core's events for the driver. An event carries its stream, so that drivers need no look-up."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ErrorCode
from .headers import Fields, RequestHead
from .stream import Stream

__all__ = [
    "ConnectionTerminated",
    "DataReceived",
    "Event",
    "RequestReceived",
    "RequestRefused",
    "StreamReset",
    "StreamWritable",
    "TrailersReceived",
]


@dataclass(slots=True)
class RequestReceived:
    """A request for the application; its head is `stream.head`."""

    stream: Stream
    end_stream: bool
    """Whether the request is complete."""
    body: bytes = b""
    """The whole body if `end_stream` is true, else empty."""


@dataclass(slots=True)
class DataReceived:
    """A piece of a request's body; `ServerConnection.acknowledge` returns its credit."""

    stream: Stream
    data: bytes
    end_stream: bool
    """Whether the body is complete."""


@dataclass(slots=True)
class TrailersReceived:
    """The end of a request's body, with its trailers (RFC 9113 section 8.1)."""

    stream: Stream
    fields: Fields


@dataclass(slots=True)
class StreamReset:
    """The peer or the core ended a stream: nothing more can be received or sent on it."""

    stream: Stream
    code: int
    """The error code (section 7); a peer may send one that `ErrorCode` does not have."""
    reason: str
    """For the log; a `StreamLimit` if one has ended the stream."""


@dataclass(slots=True)
class StreamWritable:
    """A stream's queue has fallen to its low mark after it was above the high mark."""

    stream: Stream


@dataclass(slots=True)
class RequestRefused:
    """The core answered a request itself, or reset its stream; no application sees it."""

    stream_id: int
    reason: str
    """For the log; a `StreamLimit` if one has refused the request."""
    status: int = 0
    """The status of the answer; 0 if the stream was reset."""
    head: RequestHead | None = None
    """The head of a request that was answered; None if the stream was reset."""


@dataclass(slots=True)
class ConnectionTerminated:
    """The connection is over: send the remaining output, then close the socket. The last event."""

    code: ErrorCode
    reason: str
    """For the log: a `Budget` with ENHANCE_YOUR_CALM, an `EndReason` with NO_ERROR; empty if the client has closed its
    side, or the socket has failed."""


Event = (
    RequestReceived
    | DataReceived
    | TrailersReceived
    | StreamReset
    | StreamWritable
    | RequestRefused
    | ConnectionTerminated
)
