"""Workloads of our own client: what h2load cannot do, or cannot stop doing.

Sleeping requests, start-up, memory of idle connections and of open streams, transfers over a slow link, and calls of
gRPC whose sides take turns.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import ClassVar

from bench import h2load
from bench.apps.content import MESSAGE_ON_WIRE, received
from bench.client import CALL_FIELDS, ClientError, Connection, StreamError
from bench.link import Link, delayed
from bench.measuring import Effort, Outcome, Workload
from bench.results import Metric
from bench.running import RunningServer

KIB = 1024
FRESH_REQUESTS = 11
SETTLE_SECONDS = 0.5
RESERVED_DESCRIPTORS = 200
SLOW_LINK = Link(round_trip=0.05, rate=25e6)
PATIENCE = 5.0
"""Seconds that one connection or one PING may take before the server counts as unable to hold more."""


@dataclass(frozen=True)
class StartUp(Workload):
    """From the start of the command to the first good response, and the memory of the processes then."""

    fresh: bool = True
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("boot", "ms", higher_is_better=False),
        Metric("memory", "MiB", higher_is_better=False),
    )

    def measure(self, server: RunningServer, effort: Effort) -> Outcome:
        """Read what the start has shown."""
        memory = server.resident_octets() / KIB / KIB
        return Outcome({"boot": server.boot_seconds * 1e3, "memory": memory}, 1)


@dataclass(frozen=True)
class Sleepers(Workload):
    """Requests that wait half a second each in the application, all on one connection at once."""

    streams: int = 100
    limit: float = 60.0
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("time", "s", higher_is_better=False, digits=2),)

    def measure(self, server: RunningServer, effort: Effort) -> Outcome:
        """Wait for all of them, or for the limit."""
        started, done, note = time.monotonic(), 0, ""
        try:
            with Connection(server.port, timeout=self.limit) as connection:
                streams = [connection.request("/sleep") for _ in range(self.streams)]
                for stream in streams:
                    done += connection.response(stream).status == 200
        except ClientError as error:
            note = str(error)
        elapsed = time.monotonic() - started
        values = {"time": elapsed} if done == self.streams else {}
        return Outcome(values, self.streams, self.streams - done, note)


@dataclass(frozen=True)
class IdleConnections(Workload):
    """Connections that have made one request and stay open: what they cost, and how long a fresh request then takes."""

    connections: int = 5000
    watched_seconds: float = 2.0
    fresh: bool = True
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("memory", "KiB/connection", higher_is_better=False, digits=1),
        Metric("held", "connections"),
        Metric("fresh request before", "ms", higher_is_better=False, digits=2),
        Metric("fresh request beside", "ms", higher_is_better=False, digits=2),
        Metric("idle cpu", "%", higher_is_better=False, digits=1),
    )

    def warm_up(self, server: RunningServer, effort: Effort) -> None:
        """Let the server make what it makes once."""
        h2load.run(["-n", "2000", "-c", "20", "-m", "10", server.url("/hello")])

    def measure(self, server: RunningServer, effort: Effort) -> Outcome:
        """Open them one by one until all stand or the server takes no more."""
        wanted = min(self.connections, _descriptors_to_spare())
        alone, before, note = _fresh_milliseconds(server), server.resident_octets(), ""
        with ExitStack() as stack:
            held = 0
            try:
                while held < wanted:
                    stack.enter_context(closing(_idle_connection(server)))
                    held += 1
            except ClientError as error:
                note = f"after {held} connections: {error}"
            time.sleep(SETTLE_SECONDS)
            memory = server.resident_octets() - before
            values = {"held": float(held), "idle cpu": _idle_percent(server, self.watched_seconds)}
            if held:
                values["memory"] = memory / KIB / held
            for name, value in ("fresh request before", alone), ("fresh request beside", _fresh_milliseconds(server)):
                if value is not None:
                    values[name] = value
        return Outcome(values, wanted, wanted - held, note)


@dataclass(frozen=True)
class OpenStreams(Workload):
    """Requests whose body has not come to its end: what each adds to the memory of the server."""

    connections: int = 10
    streams: int = 100
    fresh: bool = True
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("memory", "KiB/stream", higher_is_better=False, digits=1),)

    def warm_up(self, server: RunningServer, effort: Effort) -> None:
        """Let the server make what it makes once."""
        h2load.run(["-n", "2000", "-c", "10", "-m", "10", server.url("/hello")])

    def measure(self, server: RunningServer, effort: Effort) -> Outcome:
        """Open the streams on connections that exist already; end them all afterwards and look at the responses."""
        total = self.connections * self.streams
        values, done, note = {}, 0, ""
        with ExitStack() as stack:
            try:
                connections = [
                    stack.enter_context(Connection(server.port, PATIENCE)) for _ in range(self.connections)
                ]
                before = server.resident_octets()
                opened = [(each, self._open(each)) for each in connections]
                time.sleep(SETTLE_SECONDS)
                values["memory"] = (server.resident_octets() - before) / KIB / total
                for connection, streams in opened:
                    for stream in streams:
                        try:
                            done += self._end(connection, stream)
                        except StreamError as error:
                            note = str(error)
            except ClientError as error:
                note = str(error)
        return Outcome(values if done == total else {}, total, total - done, note)

    def _open(self, connection: Connection) -> list[int]:
        streams = [connection.request("/upload", "POST", end=False) for _ in range(self.streams)]
        connection.ping()
        return streams

    @staticmethod
    def _end(connection: Connection, stream: int) -> bool:
        connection.send(stream, b"!", end=True)
        return connection.response(stream).body == received(1)


@dataclass(frozen=True)
class LinkTransfer(Workload):
    """One body over a slow link, for a given time: how much of the link's bandwidth is made use of."""

    link: Link = SLOW_LINK
    upload: bool = True
    seconds: float = 4.0
    rounds: int | None = 2
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("speed", "MB/s", digits=1),
        Metric("share", "% of the link"),
    )

    def measure(self, server: RunningServer, effort: Effort) -> Outcome:
        """Connect over the link and move octets for the time."""
        try:
            with delayed(server.port, self.link) as port, Connection(port) as connection:
                octets, elapsed = self._transfer(connection)
        except ClientError as error:
            return Outcome({}, 1, 1, str(error))
        speed = octets / elapsed
        return Outcome({"speed": speed / 1e6, "share": speed / self.link.rate * 100}, 1)

    def _transfer(self, connection: Connection) -> tuple[int, float]:
        if not self.upload:
            return connection.download_for("/endless", self.seconds)
        octets, elapsed, response = connection.upload_for("/upload", self.seconds)
        if response.body != received(octets):
            raise ClientError(f"{octets} octets went up, {bytes(response.body)!r} came back")
        return octets, elapsed


@dataclass(frozen=True)
class PingPong(Workload):
    """A call of gRPC both of whose sides stream: each message waits for the answer to the one before."""

    app: str = "grpc"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("rate", "messages/s"),
        Metric("cpu", "us/message", higher_is_better=False, digits=1),
        Metric("p99", "ms", higher_is_better=False, digits=2),
    )

    def measure(self, server: RunningServer, effort: Effort) -> Outcome:
        """Go on for the time."""
        times: list[float] = []
        try:
            with Connection(server.port) as connection:
                play = self._play(connection)
                next(play)
                before, started = server.cpu_seconds(), time.monotonic()
                while time.monotonic() - started < effort.seconds and len(times) != effort.requests:
                    times.append(next(play))
                elapsed, cpu = time.monotonic() - started, server.cpu_seconds() - before
        except ClientError as error:
            return Outcome({}, len(times) + 1, 1, str(error))
        p99 = h2load.percentile(sorted(times), 0.99)
        values = {"rate": len(times) / elapsed, "cpu": cpu / len(times) * 1e6, "p99": p99 * 1e3}
        return Outcome(values, len(times))

    @staticmethod
    def _play(connection: Connection) -> Iterator[float]:
        """Send a message and wait for its answer, again and again; yield how long it took."""
        stream_id = connection.request("/bench.Messages/PingPong", "POST", CALL_FIELDS, end=False, keep_body=False)
        response = connection.progress(stream_id)
        while True:
            started, goal = time.monotonic(), response.size + len(MESSAGE_ON_WIRE)
            connection.send(stream_id, MESSAGE_ON_WIRE)
            while response.size < goal and not response.done:
                connection.receive_some()
            if response.size != goal:
                raise ClientError(f"status {response.status}, and {response.size} octets in place of {goal}")
            yield time.monotonic() - started


def _idle_connection(server: RunningServer) -> Connection:
    """Return a connection that has made its request. Raises `ClientError`."""
    connection = Connection(server.port, PATIENCE)
    try:
        connection.fetch("/hello")
    except BaseException:
        connection.close()
        raise
    return connection


def _fresh_milliseconds(server: RunningServer) -> float | None:
    """Return the median time of a connection with one request; None when the server does not answer."""
    times = []
    try:
        for _ in range(FRESH_REQUESTS):
            started = time.monotonic()
            _idle_connection(server).close()
            times.append((time.monotonic() - started) * 1e3)
    except ClientError:
        return None
    return statistics.median(times)


def _idle_percent(server: RunningServer, seconds: float) -> float:
    """Return the processor time that a server takes when no one asks anything of it, in percent of a core."""
    before, started = server.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    return (server.cpu_seconds() - before) / (time.monotonic() - started) * 100


def _descriptors_to_spare() -> int:
    """Return how many connections the limit on descriptors allows, here and in a server."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft - RESERVED_DESCRIPTORS
