"""Which stream sends the next DATA frame: one frame each, in turn."""

from __future__ import annotations

from collections import deque

from .stream import Stream

__all__ = ["Scheduler"]


class Scheduler:
    """The streams that have something to send and a window to send it in."""

    __slots__ = ("turns",)

    def __init__(self) -> None:
        self.turns: deque[Stream] = deque()
        """The streams that are waiting for their turn; some may have ended meanwhile."""

    def add(self, stream: Stream) -> None:
        """Give the stream a turn, behind the others; harmless where it has one."""
        if not stream.scheduled:
            stream.scheduled = True
            self.turns.append(stream)

    def next(self) -> Stream | None:
        """Take the stream whose turn it is."""
        while self.turns:
            stream = self.turns.popleft()
            stream.scheduled = False
            if not stream.response_ended:
                return stream
        return None

    def waiting(self) -> list[Stream]:
        """The streams that have a turn to come."""
        return [stream for stream in self.turns if not stream.response_ended]
