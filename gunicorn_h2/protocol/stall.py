"""Clients that have credit and do not use it: a PING gets them going again.

A client may read the WINDOW_UPDATE that one of its uploads waits for on behalf of another one, and
then wait for the network although nothing more is to come. httpcore does, below httpx: each of its
tasks that waits for credit or for a response takes its turn at reading, and blocks there until
something arrives, even if its own stream could go on. Where the server has said all that it has to
say, client and server wait for each other until a time-out ends the whole connection.

Whatever arrives passes the turn on. So a connection whose uploads have credit and are silent is sent
a PING, and another one when that has come back or a moment has passed, until data comes or every
task has had its turn.
"""

from __future__ import annotations

__all__ = ["PING_PAYLOAD", "StallProbe"]

PING_PAYLOAD = b"stalled?"
_DELAY = 0.005
# On a long way several are under way; more would only be read together.
_MAX_OUTSTANDING = 8
# Uploads earn PINGs by their data. Streams of small messages, which fall silent after each one, earn few.
_OCTETS_PER_PING = 1024
_MAX_CREDIT = 1000.0
_DELAY_WITHOUT_CREDIT = 0.25
# Locks are not always fair, and a task may wait whose stream has just ended.
_TURNS_PER_TASK = 2
_SPARE_TURNS = 2


class StallProbe:
    """When to send a PING to a connection whose uploads are silent; one for a connection.

    `waiting` is how many tasks of the client may wait for something to read; 0 where no upload has
    credit. `deadline` is when to ask `is_due`; None for not at all.
    """

    __slots__ = ("_credit", "_enabled", "_moved", "_turn_at", "_turns", "deadline", "outstanding")

    def __init__(self) -> None:
        self.deadline: float | None = None
        self.outstanding = 0
        """PINGs that have not come back yet."""
        self._enabled = False
        self._credit = 0.0
        self._moved = False
        self._turns = 0
        self._turn_at = 0.0

    def enable(self) -> None:
        """The client has more than one stream open: its tasks may be in each other's way from now on."""
        self._enabled = True

    def note_data(self, octets: int, now: float) -> None:
        """Data of a request's body has come."""
        if self._enabled:
            self._moved = True
            self._turns = 0
            self._credit = min(self._credit + octets / _OCTETS_PER_PING, _MAX_CREDIT)
            self.arm(now)

    def arm(self, now: float) -> None:
        """Data has come, or credit goes out: see in a moment whether there is silence."""
        if self._enabled and self.deadline is None:
            self.deadline = now + _DELAY

    def is_due(self, now: float, waiting: int) -> bool:
        """Whether to send a PING now."""
        if self.deadline is None or self.deadline > now:
            return False
        self.deadline = None
        return self._ask(now, waiting)

    def acknowledged(self, now: float, waiting: int) -> bool:
        """A PING has come back; whether to send the next one."""
        self.outstanding -= 1
        if now <= self._turn_at:
            # It was read together with the one before: both were one turn.
            return False
        self._turn_at = now
        self._turns += 1
        if self._credit < 1:
            self.deadline = self.deadline or now + _DELAY_WITHOUT_CREDIT
            return False
        return self._ask(now, waiting)

    def _ask(self, now: float, waiting: int) -> bool:
        if not waiting or self._turns > waiting * _TURNS_PER_TASK + _SPARE_TURNS:
            return False
        if self.outstanding >= _MAX_OUTSTANDING:
            # The next acknowledgement goes on from here.
            return False
        moved, self._moved = self._moved, False
        self.deadline = now + (_DELAY if self._credit >= 1 else _DELAY_WITHOUT_CREDIT)
        if moved:
            return False
        self._credit = max(self._credit - 1, 0.0)
        self.outstanding += 1
        return True
