"""What the applications answer, and so what the benchmark checks before it measures."""

from __future__ import annotations

HELLO = b"Hello world!"
MEDIUM = b"0123456789abcdef" * (100 * 1024 // 16)
LARGE = b"0123456789abcdef" * (10 * 1024 * 1024 // 16)
CHUNK_SIZE = 64 * 1024
SLEEP_SECONDS = 0.5

FIXED = {"/hello": HELLO, "/100k": MEDIUM, "/10m": LARGE}
"""The paths whose answer is one object; whatever follows /hello/ is answered like /hello."""
FRESH = {"/60k": 60_000, "/4m": 4_000_000}
"""The paths whose answer is made anew for each request, as templates make it, and their octets."""
MESSAGE = MEDIUM[:128]
MESSAGE_ON_WIRE = b"\0\0\0\0\x80" + MESSAGE
"""What calls of gRPC send and receive, and how a message goes with its prefix."""
MESSAGES = 1000
"""How many of them a stream has."""
EVENT = b"data: " + b"x" * 1_016 + b"\n\n"
"""What /events sends again and again: 1 KiB."""


def document(size: int) -> bytes:
    """Return a JSON document of `size` octets, 12 at least: what is uploaded."""
    return b'{"text": "' + b"x" * (size - 12) + b'"}'


def received(size: int) -> bytes:
    """Return the answer to a request body of `size` octets."""
    return b'{"received": %d}' % size
