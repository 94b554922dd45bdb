"""How long an urgent response waits behind a bulk one that fills a slow link."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from bench.client import ClientError, Connection
from bench.link import Link, delayed
from bench.measuring import Effort, Outcome, Workload
from bench.results import Metric
from bench.running import RunningServer

KIB = 1024
BUFFER = 16_384
"""What the link takes in advance: far less than a kernel would, so that what waits is the server's doing."""
SLOW_LINK = Link(round_trip=0.1, rate=1e6, buffer=BUFFER)
PATIENCE = 15.0
"""Seconds: a server that answers one request after another never answers beside an endless response."""
LEAST, MOST = (("priority", "u=7"),), (("priority", "u=0"),)


class Wait(NamedTuple):
    """From an urgent request to the end of its response: the time, and the octets of bulk that came meanwhile."""

    seconds: float
    octets: int


def waits(connection: Connection, bulk: str, urgent: str, size: int) -> Iterator[Wait]:
    """Ask for the path `urgent` again and again, each time when `size` more octets of `bulk` have come.

    What is urgent is small, and the bulk is to be larger than all of that. Raises `ClientError`.
    """
    large = connection.progress(connection.request(bulk, headers=LEAST, keep_body=False))
    while True:
        before = large.size
        while large.size < before + size:
            connection.receive_some()
        before, started = large.size, time.monotonic()
        small = connection.progress(connection.request(urgent, headers=MOST))
        while not small.done:
            connection.receive_some()
            if time.monotonic() - started > PATIENCE:
                raise ClientError(f"no urgent response within {PATIENCE:.0f} s")
        if small.status != 200 or large.done:
            raise ClientError(f"the urgent response has status {small.status}, and the bulk one {large.size} octets")
        yield Wait(time.monotonic() - started, large.size - before)


@dataclass(frozen=True)
class Overtaking(Workload):
    """A small response of urgency 0 beside an endless one of urgency 7, several times on one connection."""

    link: Link = SLOW_LINK
    times: int = 5
    bulk_seconds: float = 0.4
    rounds: int | None = 2
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("wait", "ms", higher_is_better=False),
        Metric("bulk before", "KiB", higher_is_better=False),
    )

    def measure(self, server: RunningServer, effort: Effort) -> Outcome:
        """Take the medians."""
        size = int(self.link.rate * self.bulk_seconds)
        try:
            with delayed(server.port, self.link) as port, Connection(port) as connection:
                asked = waits(connection, "/endless", "/hello", size)
                found = [next(asked) for _ in range(self.times)]
        except ClientError as error:
            return Outcome({}, self.times, self.times, str(error))
        wait, octets = (statistics.median(values) for values in zip(*found, strict=True))
        return Outcome({"wait": wait * 1e3, "bulk before": octets / KIB}, self.times)
