"""The guard: limits on the work that a peer can cause, charged before it is done (RFC 9113 section 10.5).

Each kind of work draws on a token bucket, and a peer that empties one loses the connection with
ENHANCE_YOUR_CALM. Frames that open a request or carry data are bounded by the limits on streams and windows.
"""

from __future__ import annotations

from . import frames
from .config import ConnectionConfig
from .errors import ConnectionFailure, ErrorCode

__all__ = ["TokenBucket", "Guard"]

_RESET_REFILL_SECONDS = 30.0
_CONTROL_REFILL_SECONDS = 10.0
# Clients answer response data with a WINDOW_UPDATE for every few KiB (Go's sends one for each 4 KiB and
# stream), and with a PING to estimate bandwidth. So response data earns control frames.
_OCTETS_PER_CONTROL_FRAME = 1024
# Browsers send PRIORITY and WINDOW_UPDATE frames along with each request.
_CONTROL_FRAMES_PER_REQUEST = 4
# RFC 7541 section 4.2: a peer signals at most the smallest and the last table size before a block.
_MAX_SIZE_UPDATES = 2
_MIN_CONTINUATIONS = 8
_UNLIMITED_BLOCK_SIZE = 1_048_576
_BLOCK_OVERHEAD = 16_384


class TokenBucket:
    """A token bucket of `capacity` tokens that is refilled within `seconds`."""

    __slots__ = ("_capacity", "_rate", "_tokens", "_updated")

    def __init__(self, capacity: int, seconds: float, now: float) -> None:
        self._capacity = self._tokens = float(capacity)
        self._rate = capacity / seconds
        self._updated = now

    def spend(self, now: float, earned: float = 0.0) -> bool:
        """Take one token; return False if none is left. `earned` tokens are added first."""
        self._tokens = min(self._capacity, self._tokens + earned + (now - self._updated) * self._rate)
        self._updated = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Guard:
    """The limits of one connection. A method raises ConnectionFailure(ENHANCE_YOUR_CALM) where one is exceeded."""

    __slots__ = (
        "accepted_requests",
        "expected_frames",
        "max_block_size",
        "sent_octets",
        "_control",
        "_max_continuations",
        "_resets",
    )

    def __init__(self, config: ConnectionConfig, now: float) -> None:
        self.accepted_requests = 0
        """Requests since the last control frame; each earns the peer a few."""
        self.expected_frames = 0
        """Control frames that we have provoked since the last one, such as PING ACKs."""
        self.sent_octets = 0
        """Octets of response data since the last control frame; they earn the peer WINDOW_UPDATE frames."""
        self._resets = TokenBucket(config.reset_budget, _RESET_REFILL_SECONDS, now)
        self._control = TokenBucket(config.control_budget, _CONTROL_REFILL_SECONDS, now)
        # Huffman coding and indexing only make a block smaller than the section it encodes; the overhead is for
        # peers that send literals and size updates.
        self.max_block_size = (config.max_header_list_size or _UNLIMITED_BLOCK_SIZE) + _BLOCK_OVERHEAD
        """The largest encoded field block, in octets."""
        self._max_continuations = max(_MIN_CONTINUATIONS, self.max_block_size // 4096)

    def charge_control(self, now: float) -> None:
        """Charge a frame that neither opens a request nor carries data."""
        earned = self.accepted_requests * _CONTROL_FRAMES_PER_REQUEST + self.sent_octets / _OCTETS_PER_CONTROL_FRAME
        earned += self.expected_frames
        self.accepted_requests = self.expected_frames = self.sent_octets = 0
        if not self._control.spend(now, earned):
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "too many control frames")

    def charge_reset(self, now: float) -> None:
        """Charge a stream reset: the peer's own, or one of ours that it provoked."""
        if not self._resets.spend(now):
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "too many stream resets")

    def charge_settings(self, octets: int) -> None:
        """Limit a SETTINGS payload: each value may change the window of every stream."""
        if octets > frames.MAX_SETTINGS_SIZE:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "too many values in a SETTINGS frame")

    def charge_field_block(self, octets: int, continuations: int) -> None:
        """Limit a field block while its fragments are collected."""
        if octets > self.max_block_size:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "header block too large")
        if continuations > self._max_continuations:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "too many CONTINUATION frames")

    def charge_size_updates(self, block: bytes) -> None:
        """Limit the dynamic table size updates (RFC 7541 section 6.3) at the beginning of a block."""
        position = updates = 0
        while position < len(block) and block[position] & 0xE0 == 0x20:
            updates += 1
            if updates > _MAX_SIZE_UPDATES:
                raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "too many table size updates")
            position = _after_integer(block, position)


def _after_integer(block: bytes, position: int) -> int:
    """The position after an integer with a prefix of five bits (RFC 7541 section 5.1)."""
    continued = block[position] & 0x1F == 0x1F
    position += 1
    while continued and position < len(block):
        continued = block[position] >= 0x80
        position += 1
    return position
