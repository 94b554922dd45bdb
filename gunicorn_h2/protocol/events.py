"""What the core tells the driver. An event carries its stream, so no driver looks one up."""

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
    """A request may run; its head is `stream.head`."""

    stream: Stream
    end_stream: bool
    """The request is complete."""
    body: bytes = b""
    """Its body, where that came whole, and before this event was taken."""


@dataclass(slots=True)
class DataReceived:
    """A piece of a request's body; `acknowledge` gives its credit back."""

    stream: Stream
    data: bytes
    end_stream: bool
    """The body is complete."""


@dataclass(slots=True)
class TrailersReceived:
    """A request's body is complete, and these are its trailers (RFC 9113 section 8.1)."""

    stream: Stream
    fields: Fields


@dataclass(slots=True)
class StreamReset:
    """A stream died: nothing more can be read from it or sent on it."""

    stream: Stream
    code: int
    """The wire code; a peer may send one that is no ErrorCode."""
    reason: str


@dataclass(slots=True)
class StreamWritable:
    """A stream's queue fell to its low mark after it had been above the high one."""

    stream: Stream


@dataclass(slots=True)
class RequestRefused:
    """A request that no application will see was answered, or its stream reset."""

    stream_id: int
    reason: str
    status: int = 0
    """What it was answered with; 0 where its stream was reset."""
    head: RequestHead | None = None
    """Of a request that was answered."""


@dataclass(slots=True)
class ConnectionTerminated:
    """The connection is over: send what is left, then close. The last event."""

    code: ErrorCode
    reason: str
    """For the log; empty for an orderly end."""


Event = (
    RequestReceived
    | DataReceived
    | TrailersReceived
    | StreamReset
    | StreamWritable
    | RequestRefused
    | ConnectionTerminated
)
