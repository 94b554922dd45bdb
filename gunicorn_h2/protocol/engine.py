"""The engine's seam: HPACK, the frames that carry fields or data, and the wire-level state machine.

The core has judged every frame before an engine sees it, so an engine that refuses one has found a
rule that the core does not know: it raises ConnectionFailure with the code the peer is to be told.
Header fields cross the seam as lists of `(bytes, bytes)`; frames cross it whole.
"""

from __future__ import annotations

from typing import Protocol

from .errors import ErrorCode
from .headers import Fields

__all__ = ["Engine"]


class Engine(Protocol):
    """What the core asks of an engine. Every `send_*` returns the octets to put on the wire."""

    def receive_frame(self, frame: bytes) -> bytes:
        """Take one whole DATA, RST_STREAM, SETTINGS or WINDOW_UPDATE frame; return the reply, if any.

        What may arrive, in windows and in content-length, the core has counted.
        """

    def decode_headers(self, block: bytes) -> Fields:
        """Decode one whole header block; every block must come by, the dynamic table is shared."""

    def receive_headers(self, stream_id: int, fields: Fields, end_stream: bool) -> None:
        """Open a stream with a request, or end its body with trailers."""

    def send_headers(self, stream_id: int, fields: Fields, end_stream: bool) -> bytes:
        """Begin a response, an interim response, or the trailers."""

    def send_response(self, stream_id: int, fields: Fields, data: bytes | memoryview) -> bytes:
        """Send a whole response: its head, and one DATA frame that ends the stream."""

    def send_data(self, stream_id: int, data: bytes | memoryview, end_stream: bool) -> bytes:
        """Send one DATA frame; the core has seen to the windows and the frame size."""

    def send_reset(self, stream_id: int, code: ErrorCode) -> bytes:
        """End a stream with RST_STREAM."""

    def send_window_update(self, stream_id: int, increment: int) -> bytes:
        """Give credit for data; stream 0 is the connection."""
