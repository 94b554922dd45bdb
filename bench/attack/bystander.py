"""Bystanders: what other clients notice of an attack.

    python -m bench.attack.bystander requests PORT     requests at a fixed rate over one connection
    python -m bench.attack.bystander newcomers PORT    one connection after another, with a request each

A process of its own: it writes a line when it is ready, goes on until its input ends, and then writes what it has seen
as JSON. Requests are made when they are due, whether or not others have been answered, so that a server that stops for
a while answers all of them late. A bystander also notes how late it was itself: that is no server's fault.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from dataclasses import dataclass, field

from bench.apps.content import HELLO
from bench.client import ClientError, Connection

RATE = 100.0
NEWCOMER_SECONDS = 0.2
MAX_OPEN = 90
"""Requests under way at a time: servers allow 100 streams and more."""
PATIENCE = 5.0
RECONNECT_SECONDS = 0.1
NICENESS = -15


@dataclass
class Seen:
    """What a bystander has seen; times are of the monotonic clock, in seconds."""

    answered: list[tuple[float, float]] = field(default_factory=list)
    """When a request was made, and how long its answer took."""
    failed: list[float] = field(default_factory=list)
    """When those requests were due that were not answered, or could not even be made."""
    late: list[tuple[float, float]] = field(default_factory=list)
    """When something was due, and by how much the bystander was late for it."""


class Requests:
    """Requests at a fixed rate over one connection, which is opened anew when it has broken."""

    def __init__(self, port: int) -> None:
        self.seen = Seen()
        self._port = port
        self._connection: Connection | None = Connection(port, PATIENCE)
        self._open: dict[int, float] = {}
        self._retry_at = 0.0

    def run(self) -> Seen:
        """Make requests until the input ends, and wait a moment for the last answers."""
        due = time.monotonic()
        while not _input_ended():
            due += 1 / RATE
            self._receive_until(due)
            now = time.monotonic()
            if self._connection is not None:
                self.seen.late.append((due, now - due))
            self._request(due, now)
        end = time.monotonic() + PATIENCE
        while self._open and self._connection is not None and time.monotonic() < end:
            self._receive_until(time.monotonic() + 1 / RATE)
        self.seen.failed += self._open.values()
        return self.seen

    def _request(self, due: float, now: float) -> None:
        if self._connection is None and now >= self._retry_at:
            self._connect()
        if self._connection is None or len(self._open) >= MAX_OPEN:
            self.seen.failed.append(due)
            return
        try:
            self._open[self._connection.request("/hello")] = time.monotonic()
        except ClientError:
            self.seen.failed.append(due)
            self._broken()

    def _connect(self) -> None:
        try:
            self._connection = Connection(self._port, PATIENCE)
        except ClientError:
            self._retry_at = time.monotonic() + RECONNECT_SECONDS

    def _receive_until(self, due: float) -> None:
        """Take in answers until the next request is due."""
        while (left := due - time.monotonic()) > 0:
            if self._connection is None:
                time.sleep(left)
                return
            try:
                self._connection.receive(left)
            except ClientError:
                self._broken()
                return
            self._note(self._connection, time.monotonic())

    def _note(self, connection: Connection, now: float) -> None:
        for stream_id, response in connection.take_done().items():
            made = self._open.pop(stream_id)
            if response.status == 200 and bytes(response.body) == HELLO:
                self.seen.answered.append((made, now - made))
            else:
                self.seen.failed.append(made)

    def _broken(self) -> None:
        self.seen.failed += self._open.values()
        self._open.clear()
        if self._connection is not None:
            self._connection.close()
        self._connection, self._retry_at = None, time.monotonic()


class Newcomers:
    """One connection after another, at a fixed rate unless the server is slower."""

    def __init__(self, port: int) -> None:
        self.seen = Seen()
        self._port = port

    def run(self) -> Seen:
        """Connect and ask until the input ends."""
        due = time.monotonic()
        while not _input_ended(max(0.0, due - time.monotonic())):
            started = time.monotonic()
            self.seen.late.append((due, started - due))
            try:
                with Connection(self._port, PATIENCE) as connection:
                    connection.fetch("/hello")
                self.seen.answered.append((started, time.monotonic() - started))
            except ClientError:
                self.seen.failed.append(started)
            due = max(due + NEWCOMER_SECONDS, time.monotonic())
        return self.seen


KINDS = {"requests": Requests, "newcomers": Newcomers}


def _input_ended(seconds: float = 0.0) -> bool:
    """Tell whether the process that has started this one wants the result, waiting so long for that."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def main() -> None:
    """Look on until the input ends."""
    kind, port = sys.argv[1:]
    try:
        os.nice(NICENESS)
    except PermissionError:
        pass
    bystander = KINDS[kind](int(port))
    print("ready", flush=True)
    print(json.dumps(vars(bystander.run())))


if __name__ == "__main__":
    main()
