"""Requests that wait for a thread: connections take turns, and each has its most urgent request served first.

A connection with a thousand requests thus keeps another one waiting for no longer than one of them takes. And a client
decides on the order of its own requests alone: what it calls urgent does not overtake those of others.

Most turns are for connections whose clients read what they ask for. So those do not wait for a crowd of others that
have only just come, or that leave their responses unread; and these are served as well, however many read.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import Generic, Protocol, TypeVar

from gunicorn_h2.protocol.stream import Stream

__all__ = ["Connection", "Request", "RequestQueue"]


class Connection(Protocol):
    """What the queue needs to know of a connection."""

    @property
    def priority_changes(self) -> int:
        """How often a request of the connection has been given another priority."""

    @property
    def is_reading(self) -> bool:
        """Whether the client has been sent whole responses, and leaves nothing unread now; callable from any thread."""

    def __hash__(self) -> int:
        """By identity."""


class Channel(Protocol):
    """What the queue needs to know of a request."""

    stream: Stream


Request = tuple[Connection, Channel]
_T = TypeVar("_T")

_READERS_TURNS = 4
"""How many turns connections whose clients read have for one of the others."""


class _Line(Generic[_T]):
    """The requests of one connection."""

    __slots__ = ("changes", "heap", "turns")

    turns: OrderedDict[Connection, None]
    """Where the connection has queued up."""

    def __init__(self, changes: int) -> None:
        self.changes = changes
        self.heap: list[tuple[int, int, Channel, _T]] = []
        """By urgency, then in the order in which they came."""


class RequestQueue(Generic[_T]):
    """A queue of requests, each with an item that `take` returns. Any thread may call its methods."""

    __slots__ = ("_count", "_lines", "_lock", "_others", "_put_back", "_readers", "_turns_left")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._put_back = 0
        self._lines: dict[Connection, _Line[_T]] = {}
        self._readers: OrderedDict[Connection, None] = OrderedDict()
        """The connections with requests whose clients read, in turn."""
        self._others: OrderedDict[Connection, None] = OrderedDict()
        """The other ones with requests, in turn."""
        self._turns_left = _READERS_TURNS
        """The turns of the readers before one of the others has its own."""

    def put(self, requests: Iterable[tuple[Request, _T]]) -> None:
        """Add requests with their items."""
        with self._lock:
            for (connection, channel), item in requests:
                line = self._lines.get(connection)
                if line is None:
                    self._lines[connection] = line = _Line(connection.priority_changes)
                    self._queue_up(connection, line)
                self._count += 1
                heappush(line.heap, (_urgency(channel), self._count, channel, item))

    def put_back(self, requests: Sequence[tuple[Request, _T]]) -> None:
        """Add requests that came before all others, or have been taken, with their items: they are next, in order."""
        with self._lock:
            for (connection, channel), item in reversed(requests):
                line = self._lines.get(connection)
                if line is None:
                    self._lines[connection] = line = _Line(connection.priority_changes)
                else:
                    del line.turns[connection]
                self._queue_up(connection, line)
                line.turns.move_to_end(connection, last=False)
                self._put_back -= 1
                heappush(line.heap, (_urgency(channel), self._put_back, channel, item))

    def take(self) -> _T:
        """Remove the next request and return its item. Raises KeyError if there is none."""
        with self._lock:
            connection = self._next_connection()
            line = self._lines[connection]
            if line.changes != connection.priority_changes:
                line.changes = connection.priority_changes
                line.heap = [(_urgency(channel), number, channel, item) for _, number, channel, item in line.heap]
                heapify(line.heap)
            item = heappop(line.heap)[3]
            if line.heap:
                self._queue_up(connection, line)
            else:
                del self._lines[connection]
            return item

    def _queue_up(self, connection: Connection, line: _Line[_T]) -> None:
        line.turns = self._readers if connection.is_reading else self._others
        line.turns[connection] = None

    def _next_connection(self) -> Connection:
        readers, others = self._readers, self._others
        if not others or (readers and self._turns_left):
            self._turns_left -= bool(others)
            return readers.popitem(last=False)[0]
        self._turns_left = _READERS_TURNS
        return others.popitem(last=False)[0]


def _urgency(channel: Channel) -> int:
    return channel.stream.current_priority.urgency
