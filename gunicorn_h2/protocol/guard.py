"""The guard: limits on the work that a peer can cause, charged before it is done (RFC 9113 section 10.5).

Each kind of work draws on a token bucket, and a peer that empties one loses the connection with
ENHANCE_YOUR_CALM. A token of the control budget stands for the work of one small frame, about a microsecond. Frames
that cause more cost more; requests and responses earn what clients send along with them. Frames that open a request
or carry a good deal of data cost nothing: the limits on streams and windows bound them.

`docs/security.md` has an entry for each limit.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import frames
from .config import ConnectionConfig
from .errors import Budget, ConnectionFailure, ErrorCode

__all__ = ["MESSAGE_CREDIT", "SMALL_DATA", "TokenBucket", "Guard"]

_RESET_REFILL_SECONDS = 30.0
_CONTROL_REFILL_SECONDS = 10.0
_SMALL_DATA_REFILL_SECONDS = 1.0
# A new connection begins with a part of the budget: those of many connections must not add up.
_SMALL_DATA_START = 0.2
SMALL_DATA = 16
"""A DATA frame of fewer octets is charged, unless it ends the stream; others cost less by octet than small requests."""
# Clients answer response data with a WINDOW_UPDATE for every few KiB (Go's sends one for each 4 KiB and
# stream), and with a PING to estimate bandwidth. So response data earns control frames.
_OCTETS_PER_CONTROL_FRAME = 1024
# A small message may be answered with a WINDOW_UPDATE for its stream, one for the connection, and a PING (grpc-go).
_CONTROL_FRAMES_PER_MESSAGE = 3
MESSAGE_CREDIT = _CONTROL_FRAMES_PER_MESSAGE * _OCTETS_PER_CONTROL_FRAME
"""What a DATA frame that ends what its application has written adds to `Guard.sent_octets`."""
# Browsers send PRIORITY and WINDOW_UPDATE frames along with each request.
_CONTROL_FRAMES_PER_REQUEST = 4
# Frames that response data has earned may come long after it, as the client's application reads: this many, for
# 64 MiB in flight.
_MAX_EARNED = 65_536
# A stream that a client has waited for this long is not reset at once (Envoy: premature_reset_min_stream_lifetime).
_PREMATURE_SECONDS = 1.0
# RFC 7541 section 4.2: a peer signals at most the smallest and the last table size before a block.
_MAX_SIZE_UPDATES = 2
_MIN_CONTINUATIONS = 8
_UNLIMITED_BLOCK_SIZE = 1_048_576
_BLOCK_OVERHEAD = 16_384
# Work in tokens. An update of the table's size evicts up to 127 entries, and with them the cache of heads.
_COST_OF_SIZE_UPDATE = 8.0
_SETTINGS_PER_TOKEN = 8
_MOVED_WINDOWS_PER_TOKEN = 8
# What it takes to decode and to skip the fields of a section beyond the limit, and to join the values of any.
_DECODED_FIELDS_PER_TOKEN = 8
_SKIPPED_OCTETS_PER_TOKEN = 64
_REPEATED_OCTETS_PER_TOKEN = 512
# An honest encoder names an entry of the dynamic table once in a section, so that a section is not much larger than
# its block (Huffman coding saves three eighths at most) and both tables.
_BLOCK_EXPANSION = 2
_TABLES_SIZE = 4096 + 2048


class TokenBucket:
    """A token bucket of `capacity` tokens that is refilled within `seconds`."""

    __slots__ = ("_capacity", "_rate", "_tokens", "_updated")

    def __init__(self, capacity: float, seconds: float, now: float, start: float = 1.0) -> None:
        """`start` is the part of the capacity that it holds at first."""
        self._capacity = float(capacity)
        self._tokens = self._capacity * start
        self._rate = capacity / seconds
        self._updated = now

    def spend(self, now: float, earned: float = 0.0, cost: float = 1.0) -> bool:
        """Take `cost` tokens; return False if there are not so many. `earned` tokens are added first."""
        self._tokens = min(self._capacity, self._tokens + earned + (now - self._updated) * self._rate)
        self._updated = now
        if self._tokens < cost:
            return False
        self._tokens -= cost
        return True

    def used(self, now: float) -> float:
        """The part of the capacity that is used up, 0 to 1."""
        return max(0.0, 1.0 - (self._tokens + (now - self._updated) * self._rate) / self._capacity)


class Guard:
    """The limits of one connection. A method raises ConnectionFailure(ENHANCE_YOUR_CALM) where one is exceeded."""

    __slots__ = (
        "accepted_requests",
        "expected_frames",
        "max_block_size",
        "sent_octets",
        "reset_requests",
        "_control",
        "_earned",
        "_max_continuations",
        "_paid_requests",
        "_resets",
        "_small_data",
        "_whole_requests",
    )

    def __init__(self, config: ConnectionConfig, now: float) -> None:
        self.accepted_requests = 0
        """Requests for the application so far; each earns a few control frames, and a reset once it is answered."""
        self.reset_requests = 0
        """Those of them whose stream was reset: by the peer, for an error of its own, or because it is too slow."""
        self.expected_frames = 0
        """Control frames that we have provoked since the last one, such as PING ACKs."""
        self.sent_octets = 0
        """Octets of response data since the last control frame, and `MESSAGE_CREDIT` for each message of them; they
        earn the peer WINDOW_UPDATE frames and PINGs."""
        self._earned = 0.0
        """Control frames that were earned and not used."""
        self._paid_requests = 0
        """`accepted_requests` at the last control frame."""
        self._whole_requests = 0
        """Requests that had been answered at the last reset."""
        self._resets = TokenBucket(config.reset_budget, _RESET_REFILL_SECONDS, now)
        self._control = TokenBucket(config.control_budget, _CONTROL_REFILL_SECONDS, now)
        budget = config.small_data_budget
        self._small_data = TokenBucket(budget, _SMALL_DATA_REFILL_SECONDS, now, _SMALL_DATA_START)
        # Huffman coding and indexing only make a block smaller than the section it encodes; the overhead is for
        # peers that send literals and size updates.
        self.max_block_size = (config.max_header_list_size or _UNLIMITED_BLOCK_SIZE) + _BLOCK_OVERHEAD
        """The largest encoded field block, in octets."""
        self._max_continuations = max(_MIN_CONTINUATIONS, self.max_block_size // 4096)

    def used(self, now: float) -> float:
        """The part of the budget for resets, or of that for control frames, that is used up, 0 to 1."""
        return max(self._resets.used(now), self._control.used(now))

    def answered(self, open_streams: int) -> int:
        """How many requests have been answered whole; `open_streams` is how many streams are open."""
        return self.accepted_requests - self.reset_requests - open_streams

    def charge_control(self, now: float, cost: float = 1.0, budget: Budget = Budget.TOO_MANY_CONTROL_FRAMES) -> None:
        """Charge a frame that neither opens a request nor carries data; `cost` is its work in tokens."""
        requests = self.accepted_requests
        earned = self._earned + self.expected_frames + self.sent_octets / _OCTETS_PER_CONTROL_FRAME
        earned += (requests - self._paid_requests) * _CONTROL_FRAMES_PER_REQUEST
        self._paid_requests = requests
        self.expected_frames = self.sent_octets = 0
        if earned >= cost:
            self._earned = min(earned - cost, _MAX_EARNED)
            return
        self._earned = 0.0
        if not self._control.spend(now, 0.0, cost - earned):
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, budget)

    def charge_reset(self, now: float, open_streams: int) -> None:
        """Charge a stream reset: the peer's own, or one of ours that it provoked.

        Each request that was answered earns one, so that a client may cancel every other request for ever.
        `open_streams` includes the stream that is reset.
        """
        whole = self.answered(open_streams)
        earned = max(0, whole - self._whole_requests)
        self._whole_requests += earned
        if not self._resets.spend(now, earned):
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, Budget.TOO_MANY_STREAM_RESETS)

    def charge_cancel(self, now: float, opened_at: float, open_streams: int) -> None:
        """Charge the peer's reset of an open stream, as `charge_reset` does if the stream was opened only just now.

        Of others, the limit on concurrent streams allows few a second.
        """
        if now - opened_at < _PREMATURE_SECONDS:
            self.charge_reset(now, open_streams)
        else:
            self.charge_control(now)
        self.reset_requests += 1

    def charge_small_data(self, now: float, octets: int) -> None:
        """Charge a DATA frame of fewer than `SMALL_DATA` octets, the less of them the more."""
        if not self._small_data.spend(now, 0.0, 1.0 - octets / SMALL_DATA):
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, Budget.TOO_MANY_SMALL_DATA_FRAMES)

    def charge_settings(self, now: float, octets: int) -> None:
        """Limit and charge a SETTINGS payload by its values."""
        if octets > frames.MAX_SETTINGS_SIZE:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, Budget.TOO_MANY_SETTINGS)
        if octets >= 6 * _SETTINGS_PER_TOKEN:
            self.charge_control(now, octets / (6 * _SETTINGS_PER_TOKEN))

    def charge_moved_windows(self, now: float, streams: int) -> None:
        """Charge a new SETTINGS_INITIAL_WINDOW_SIZE, which moves the windows of so many streams (section 6.9.2)."""
        self.charge_control(now, streams / _MOVED_WINDOWS_PER_TOKEN, Budget.TOO_MANY_WINDOW_CHANGES)

    def charge_field_block(self, octets: int, continuations: int) -> None:
        """Limit a field block while its fragments are collected."""
        if octets > self.max_block_size:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, Budget.HEADER_BLOCK_TOO_LARGE)
        if continuations > self._max_continuations:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, Budget.TOO_MANY_CONTINUATION_FRAMES)

    def charge_size_updates(self, now: float, block: bytes) -> None:
        """Limit and charge the dynamic table size updates (RFC 7541 section 6.3) with which a block begins."""
        position = updates = 0
        while position < len(block) and block[position] & 0xE0 == 0x20:
            updates += 1
            if updates > _MAX_SIZE_UPDATES:
                raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, Budget.TOO_MANY_TABLE_SIZE_UPDATES)
            position = _after_integer(block, position)
        self.charge_control(now, updates * _COST_OF_SIZE_UPDATE, Budget.TOO_MANY_TABLE_SIZE_UPDATES)

    def charge_excess_fields(self, now: float, octets: int, fields: int) -> None:
        """Charge a block of so many octets whose section has too many fields, and how many of them were decoded."""
        cost = octets / _SKIPPED_OCTETS_PER_TOKEN + fields / _DECODED_FIELDS_PER_TOKEN
        self.charge_control(now, cost, Budget.TOO_MANY_HEADER_FIELDS)

    def charge_repetition(self, now: float, block_size: int, section: Sequence[tuple[bytes, bytes]]) -> None:
        """Charge a section that names entries of the dynamic table again and again; call it before joining values."""
        size = sum([len(name) + len(value) for name, value in section])
        excess = size - _BLOCK_EXPANSION * block_size - _TABLES_SIZE
        if excess > 0:
            self.charge_control(now, excess / _REPEATED_OCTETS_PER_TOKEN, Budget.TOO_MUCH_REPETITION)


def _after_integer(block: bytes, position: int) -> int:
    """The position after an integer with a prefix of five bits (RFC 7541 section 5.1)."""
    continued = block[position] & 0x1F == 0x1F
    position += 1
    while continued and position < len(block):
        continued = block[position] >= 0x80
        position += 1
    return position
