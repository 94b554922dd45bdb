"""Receive windows (RFC 9113 section 5.2), and the budget that they grow from."""

from __future__ import annotations

from .errors import ConnectionFailure, ErrorCode
from .frames import LARGEST_WINDOW

__all__ = ["ReceiveWindow", "WindowBudget"]

_ROUND_TRIPS = 4


class WindowBudget:
    """How much receive windows may grow by, together, in octets.

    One is shared by all connections of a worker; they are not to use it from two threads at a time.
    """

    __slots__ = ("left", "taken")

    def __init__(self, octets: int) -> None:
        self.left = octets
        self.taken = 0

    def take(self, octets: int) -> None:
        """Take some of what is left."""
        self.left -= octets
        self.taken += octets

    def give_back(self, octets: int) -> None:
        """Give back what was taken."""
        self.take(-octets)


class ReceiveWindow:
    """What a peer may still send, in octets.

    Credit is handed back in halves of the window, which keeps a sender going without a WINDOW_UPDATE
    for each frame. Most bodies end before that, so what they do not need is a default of the class.
    """

    renewed_at: float | None = None
    """When credit was handed back last."""
    edges: tuple[int, ...] = ()
    """Where the peer had to stop before each of the latest increments, as values of `position`; those ahead of it."""

    owed = 0
    """What was taken from the buffer since then."""

    _granted = 0

    def __init__(self, size: int) -> None:
        self.size = size
        self.available = size

    @property
    def position(self) -> int:
        """How far the peer has come: a number that grows with each octet."""
        return self._granted - self.available

    @property
    def is_at_edge(self) -> bool:
        """Whether the peer has used up what it was granted at some time, and nothing of what it got since then."""
        return self._granted - self.available in self.edges

    def consume(self, octets: int) -> None:
        """The peer sent so much. Raises ConnectionFailure(FLOW_CONTROL_ERROR) where it was too much."""
        self.available -= octets
        # An empty frame needs no window, and our SETTINGS may have taken it below zero.
        if self.available < 0 and octets:
            raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "more data than the window allows")

    def acknowledge(self, octets: int) -> bool:
        """So much was taken from the buffer; return whether it is time to `renew`."""
        self.owed += octets
        return self.owed * 2 >= self.size

    def consume_and_acknowledge(self, octets: int) -> bool:
        """Both in one step: nothing is kept."""
        self.available -= octets
        if self.available < 0 and octets:
            raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "more data than the window allows")
        self.owed += octets
        return self.owed * 2 >= self.size

    def wanted_growth(self, now: float, round_trip: float | None) -> int:
        """What the window should grow by: by its own size where it is used up within four round trips, else 0.

        To keep a sender going it has to last for two, half of it being on its way back. The rest is for
        the time that either side takes.
        """
        if self.renewed_at is None or round_trip is None:
            return 0
        return self.size if (now - self.renewed_at) * self.size <= _ROUND_TRIPS * round_trip * self.owed else 0

    def renew(self, growth: int, now: float) -> int:
        """Hand back what was taken from the buffer, and let the window grow: the increment to announce now, or 0."""
        self.size += growth
        # Where more than a window was granted once, that is used up first.
        increment = max(0, min(self.owed + growth, self.size - self.available))
        self.owed = 0
        self.renewed_at = now
        if increment:
            position = self.position
            self.edges = (*(edge for edge in self.edges if edge >= position), self._granted)
            self._extend(increment)
        return increment

    def grant(self, octets: int) -> int:
        """Open the window beyond its size: the increment to announce."""
        increment = max(0, min(octets, LARGEST_WINDOW - self.available))
        self._extend(increment)
        return increment

    def resize(self, change: int) -> None:
        """Our SETTINGS_INITIAL_WINDOW_SIZE was acknowledged (section 6.9.2)."""
        self.size += change
        self._extend(change)

    def _extend(self, octets: int) -> None:
        self.available += octets
        self._granted += octets
