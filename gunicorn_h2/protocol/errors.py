"""Error codes (RFC 9113 section 7), and exceptions for connection errors, stream errors and invalid responses."""

from __future__ import annotations

from enum import Enum, IntEnum

__all__ = [
    "Budget",
    "ConnectionFailure",
    "EndReason",
    "ErrorCode",
    "InvalidResponse",
    "MalformedRefusal",
    "RequestRefusal",
    "StreamFailure",
    "StreamLimit",
    "code_name",
]


class ErrorCode(IntEnum):
    """The codes that RST_STREAM and GOAWAY frames carry."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


def code_name(code: int) -> str:
    """The name of an error code, or its number: a peer may send one that `ErrorCode` does not have."""
    return ErrorCode(code).name if code in ErrorCode._value2member_map_ else f"0x{code:x}"


class _Reason(str, Enum):
    """A reason that is counted: the value is for the log."""

    __str__ = str.__str__

    @property
    def counter(self) -> str:
        """The name of its counter."""
        return self.name.lower()


class StreamLimit(_Reason):
    """The limits that end a stream, or refuse a request, while the connection goes on."""

    BODY_RATE = "the client sends its body too slowly"
    BODY_TIMEOUT = "the client stopped sending"
    READ_RATE = "the client reads too slowly"
    READ_TIMEOUT = "the client stopped reading"
    TOO_MANY_STREAMS = "too many concurrent streams"
    TOO_MANY_FIELDS = "too many header fields"
    HEADERS_TOO_LARGE = "header list too large"
    TRAILERS_TOO_LARGE = "too many or too large trailers"


class Budget(_Reason):
    """What there is too much of where a connection ends with ENHANCE_YOUR_CALM."""

    TOO_MANY_STREAM_RESETS = "too many stream resets"
    TOO_MANY_CONTROL_FRAMES = "too many control frames"
    TOO_MANY_SMALL_DATA_FRAMES = "too many small DATA frames"
    TOO_MANY_SETTINGS = "too many values in a SETTINGS frame"
    TOO_MANY_WINDOW_CHANGES = "too many changes of the initial window size"
    TOO_MANY_TABLE_SIZE_UPDATES = "too many table size updates"
    TOO_MANY_CONTINUATION_FRAMES = "too many CONTINUATION frames"
    TOO_MANY_HEADER_FIELDS = "too many header fields"
    TOO_MUCH_REPETITION = "too much repetition in header fields"
    HEADER_BLOCK_TOO_LARGE = "header block too large"
    HEADER_BLOCK_TOO_SLOW = "a header block took too long"
    HEADER_LIST_TOO_LARGE = "header list much too large"
    UNREAD_OUTPUT = "the client does not read"


class EndReason(_Reason):
    """Why a connection ends without an error of the client's."""

    IDLE = "it was idle"
    MAX_AGE = "it is old"
    MAX_REQUESTS = "it has had its requests"
    SHUTDOWN = "the worker ends"
    MADE_ROOM = "others need its place"
    KEEPALIVE_TIMEOUT = "the client does not answer PINGs"
    WRITE_TIMEOUT = "the client stopped reading"
    GOAWAY = "the client has sent GOAWAY"
    INTERNAL_ERROR = "an internal error"


class ConnectionFailure(Exception):
    """A connection error (RFC 9113 section 5.4.1): the connection ends with GOAWAY(`code`).

    `reason` is for the log and never leaves the server.
    """

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(f"{code.name}: {reason}")
        self.code = code
        self.reason = reason


class StreamFailure(Exception):
    """A stream error (RFC 9113 section 5.4.2): the stream ends with RST_STREAM(`code`)."""

    def __init__(self, stream_id: int, code: ErrorCode, reason: str) -> None:
        super().__init__(f"stream {stream_id}: {code.name}: {reason}")
        self.stream_id = stream_id
        self.code = code
        self.reason = reason


class RequestRefusal(StreamFailure):
    """A stream error in the HEADERS that would open the stream: no application sees the request."""


class MalformedRefusal(RequestRefusal):
    """The refusal of a malformed request (RFC 9113 section 8.1.1): the reset follows an answer of 400."""

    def __init__(self, stream_id: int, reason: str) -> None:
        super().__init__(stream_id, ErrorCode.PROTOCOL_ERROR, reason)


class InvalidResponse(ValueError):
    """The application gave response fields that must not be sent (RFC 9113 section 8.2)."""
