"""Which stream sends the next frame: one frame each, in turn."""

from __future__ import annotations

from collections import deque

from .stream import Stream

__all__ = ["Scheduler"]


class Scheduler:
    """The streams that are ready to send, in a queue."""

    __slots__ = ("turns",)

    def __init__(self) -> None:
        self.turns: deque[Stream] = deque()
        """The streams that wait for a turn; the responses of some may have ended meanwhile."""

    def add(self, stream: Stream) -> None:
        """Add the stream at the end of the queue, unless it is in it."""
        if not stream.scheduled:
            stream.scheduled = True
            self.turns.append(stream)

    def next(self) -> Stream | None:
        """Take the stream whose turn it is; None if no stream waits."""
        while self.turns:
            stream = self.turns.popleft()
            stream.scheduled = False
            if not stream.response_ended:
                return stream
        return None

    def waiting(self) -> list[Stream]:
        """The streams that wait for a turn, in order, without those whose response has ended."""
        return [stream for stream in self.turns if not stream.response_ended]
