"""Error codes (RFC 9113 section 7) and the two ways in which a peer can be wrong."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ConnectionFailure", "ErrorCode", "InvalidResponse", "RequestRefusal", "StreamFailure"]


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


class ConnectionFailure(Exception):
    """The peer broke the connection (RFC 9113 section 5.4.1): it ends with GOAWAY(`code`).

    `reason` is for the log and never leaves the server.
    """

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(f"{code.name}: {reason}")
        self.code = code
        self.reason = reason


class StreamFailure(Exception):
    """The peer broke one stream (RFC 9113 section 5.4.2): it ends with RST_STREAM(`code`)."""

    def __init__(self, stream_id: int, code: ErrorCode, reason: str) -> None:
        super().__init__(f"stream {stream_id}: {code.name}: {reason}")
        self.stream_id = stream_id
        self.code = code
        self.reason = reason


class RequestRefusal(StreamFailure):
    """A request that no application will see: its stream ends with RST_STREAM(`code`) at once."""


class InvalidResponse(ValueError):
    """The application gave response fields that must not go out (RFC 9113 section 8.2)."""
