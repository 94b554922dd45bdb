"""Receive windows (RFC 9113 section 5.2), and the budget for their growth."""

from __future__ import annotations

from .errors import ConnectionFailure, ErrorCode
from .frames import LARGEST_WINDOW

__all__ = ["ReceiveWindow", "WindowBudget"]

_ROUND_TRIPS = 4


class WindowBudget:
    """The octets by which a group of receive windows may grow in total.

    All connections of a worker share one. It is not thread-safe: callers take turns.
    """

    __slots__ = ("left", "taken")

    def __init__(self, octets: int) -> None:
        self.left = octets
        """Octets still available."""
        self.taken = 0
        """Octets taken and not given back."""

    def take(self, octets: int) -> None:
        """Take octets from the budget."""
        self.left -= octets
        self.taken += octets

    def give_back(self, octets: int) -> None:
        """Return octets to the budget."""
        self.take(-octets)


class ReceiveWindow:
    """A receive window, in octets.

    Credit is returned once half of the window is owed: that keeps a sender going, without a WINDOW_UPDATE for
    each frame. Most bodies end before that, so the fields they do not need are class attributes.
    """

    renewed_at: float | None = None
    """When credit was last returned; None before the first time."""
    edges: tuple[int, ...] = ()
    """Earlier right edges of the window that the peer has not passed, as values of `position`; the oldest first."""
    owed = 0
    """Octets acknowledged since then, whose credit has not been returned."""

    _granted = 0

    def __init__(self, size: int) -> None:
        self.size = size
        self.available = size
        """Octets that the peer may still send; a change of our SETTINGS may take it below zero (section 6.9.2)."""

    @property
    def position(self) -> int:
        """The octets received, less the initial size: comparable to `edges`."""
        return self._granted - self.available

    @property
    def is_at_edge(self) -> bool:
        """Whether the peer has stopped at an earlier right edge: it has used none of the credit granted since."""
        return self._granted - self.available in self.edges

    @property
    def unacknowledged(self) -> int:
        """The octets received that still need buffer space; fewer where the window is larger than its size."""
        return max(0, self.size - self.available - self.owed)

    def consume(self, octets: int) -> None:
        """Count octets received. Raises ConnectionFailure(FLOW_CONTROL_ERROR) if they exceed the window."""
        self.available -= octets
        # An empty frame needs no credit, even if our SETTINGS took the window below zero.
        if self.available < 0 and octets:
            raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "more data than the window allows")

    def acknowledge(self, octets: int) -> bool:
        """Count octets that no longer need buffer space; return whether it is time to `renew`."""
        self.owed += octets
        return self.owed * 2 >= self.size

    def consume_and_acknowledge(self, octets: int) -> bool:
        """Do both in one step, for octets that are not buffered. Raises as `consume` does."""
        self.available -= octets
        if self.available < 0 and octets:
            raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "more data than the window allows")
        self.owed += octets
        return self.owed * 2 >= self.size

    def wanted_growth(self, now: float, round_trip: float | None) -> int:
        """Return the growth wanted, in octets: the window's size if it is used up within four round trips, else 0.

        A window must last for two round trips to keep a sender going, because half of its credit may be on
        its way back. The other two allow for delays at either end.
        """
        if self.renewed_at is None or round_trip is None:
            return 0
        return self.size if (now - self.renewed_at) * self.size <= _ROUND_TRIPS * round_trip * self.owed else 0

    def renew(self, growth: int, now: float) -> int:
        """Return the credit owed and let the window grow; the result is the increment to announce, or 0."""
        self.size += growth
        # Credit beyond the window's size, from `grant`, is used up first.
        increment = max(0, min(self.owed + growth, self.size - self.available))
        self.owed = 0
        self.renewed_at = now
        if increment:
            position = self.position
            self.edges = (*(edge for edge in self.edges if edge >= position), self._granted)
            self._extend(increment)
        return increment

    def grant(self, octets: int) -> int:
        """Open the window beyond its size; return the increment to announce, or 0."""
        increment = max(0, min(octets, LARGEST_WINDOW - self.available))
        self._extend(increment)
        return increment

    def resize(self, change: int) -> None:
        """Apply a change of our SETTINGS_INITIAL_WINDOW_SIZE, once it is acknowledged (section 6.9.2)."""
        self.size += change
        self._extend(change)

    def _extend(self, octets: int) -> None:
        self.available += octets
        self._granted += octets
