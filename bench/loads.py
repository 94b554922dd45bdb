"""Workloads that h2load makes: rates, latencies, transfers, handshakes.

The number of requests is found for each server by a short trial run, so that slow servers do not take for ever and fast
ones run long enough. Processor time is that of the server's processes between the first and the last request.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from bench import h2load
from bench.apps.content import HELLO, MESSAGE_ON_WIRE, document, received
from bench.client import CALL_FIELDS, ClientError, Connection
from bench.measuring import Effort, Outcome, Workload
from bench.results import Metric
from bench.running import NotAvailable, RunningServer

TRIAL_SECONDS = 1.0
TRIAL_TIMEOUT = 15.0
"""For h2load with -D, which never ends when not all of its connections stand by the end of the time."""
WARM_SECONDS = 0.2

RATE = Metric("rate", "req/s")
CPU = Metric("cpu", "us/req", higher_is_better=False, digits=1)
SPEED = Metric("speed", "MB/s")
CPU_MB = Metric("cpu", "ms/MB", higher_is_better=False, digits=2)


@dataclass(frozen=True)
class Load(Workload):
    """Requests as fast as they are answered, by h2load: `connections` of `streams` each.

    `paths` are asked for in turn. `upload` octets of JSON make it a POST. Each of the `header_sets`, arguments with the
    fields of one kind of client, has an h2load of its own; the connections are shared out among them.
    """

    connections: int = 10
    streams: int = 10
    paths: Sequence[str] = ("/hello",)
    upload: int = 0
    header_sets: Sequence[Sequence[str]] = ((),)
    expected: bytes | None = HELLO
    LEAST_TURNS: ClassVar[int] = 2
    metrics: ClassVar[tuple[Metric, ...]] = (RATE, CPU)

    def check(self, server: RunningServer) -> None:
        """Make the request once and compare its response."""
        try:
            with Connection(server.port) as connection:
                method, body = ("POST", document(self.upload)) if self.upload else ("GET", b"")
                response = connection.fetch(self.paths[0], method, body)
        except ClientError as error:
            raise NotAvailable(f"{self.paths[0]}: {error}") from error
        expected = received(self.upload) if self.upload else self.expected
        if response.status != 200 or (expected is not None and response.body != expected):
            raise NotAvailable(f"{self.paths[0]} is answered {response.status} with {response.size} octets")
        server.memory[self.name, "size"] = response.size

    def warm_up(self, server: RunningServer, effort: Effort) -> None:
        """Run for a moment; the first time for longer, to learn how many requests fill the time of a measurement."""
        known = effort.requests is not None or (self.name, "rate") in server.memory
        milliseconds = (WARM_SECONDS if known else TRIAL_SECONDS) * 1000
        trial = self.for_trial()._run(server, TRIAL_TIMEOUT, "-D", f"{milliseconds:.0f}ms")
        if not known:
            server.memory[self.name, "rate"] = trial.rate

    def for_trial(self) -> Load:
        """Return what to warm up with."""
        return self

    def measure(self, server: RunningServer, effort: Effort) -> Outcome:
        """Make as many requests as fill the time."""
        count = self._count(server, effort)
        before = server.cpu_seconds()
        result = self._run_requests(server, count)
        cpu = server.cpu_seconds() - before
        note, failed = result.trouble, result.failed
        if not failed and result.data != result.succeeded * server.memory[self.name, "size"]:
            failed, note = result.total, f"{result.data} octets of bodies are not those of {result.succeeded} responses"
        return Outcome(self._values(result, cpu), result.total, failed, note)

    def _values(self, result: h2load.Result, cpu: float) -> dict[str, float]:
        return {"rate": result.rate, "cpu": cpu / result.succeeded * 1e6} if result.succeeded else {}

    def _count(self, server: RunningServer, effort: Effort) -> int:
        """Return how many requests to make: whole turns of all streams."""
        turn = self.connections * self.streams
        count = effort.requests or server.memory[self.name, "rate"] * effort.seconds
        if limit := server.server.requests_a_connection:
            count = min(count, limit * self.connections)
        return max(self.LEAST_TURNS * turn, round(count / turn) * turn)

    def _run_requests(self, server: RunningServer, count: int, *arguments: str) -> h2load.Result:
        return self._run(server, h2load.HANG_SECONDS, "-n", str(count // len(self.header_sets)), *arguments)

    def _run(self, server: RunningServer, timeout: float, *arguments: str) -> h2load.Result:
        return h2load.run_together(self._commands(server, *arguments), timeout)

    def _commands(self, server: RunningServer, *arguments: str) -> list[list[str]]:
        shares = len(self.header_sets)
        return [
            [*arguments, "-c", str(self.connections // shares), "-m", str(self.streams), *self._input(server), *headers]
            for headers in self.header_sets
        ]

    def _input(self, server: RunningServer) -> list[str]:
        """Return the arguments that say what to ask for."""
        arguments = []
        if self.upload:
            body = server.folder / f"body-{self.upload}"
            if not body.exists():
                body.write_bytes(document(self.upload))
            arguments += ["-d", str(body), "-H", "content-type: application/json"]
        if len(self.paths) == 1:
            return [*arguments, server.url(self.paths[0])]
        uris = server.folder / f"uris-{self.name}"
        uris.write_text("".join(server.url(path) + "\n" for path in self.paths))
        return [*arguments, "-i", str(uris)]


@dataclass(frozen=True)
class Calls(Load):
    """Calls of gRPC, each with a body of `sent` messages and an answer of `received` ones; the rate is theirs."""

    app: str = "grpc"
    method: str = "Unary"
    sent: int = 1
    received: int = 1
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("rate", "messages/s"),
        Metric("cpu", "us/message", higher_is_better=False, digits=1),
        Metric("p99", "ms/call", higher_is_better=False, digits=2),
    )

    @property
    def _path(self) -> str:
        return f"/bench.Messages/{self.method}"

    def check(self, server: RunningServer) -> None:
        """Make the call once and compare its response."""
        try:
            with Connection(server.port) as connection:
                response = connection.fetch(self._path, "POST", MESSAGE_ON_WIRE * self.sent, CALL_FIELDS)
        except ClientError as error:
            raise NotAvailable(f"{self._path}: {error}") from error
        if response.body != MESSAGE_ON_WIRE * self.received:
            raise NotAvailable(f"{self._path} is answered {response.status} with {response.size} octets")
        server.memory[self.name, "size"] = response.size

    def _input(self, server: RunningServer) -> list[str]:
        body = server.folder / f"messages-{self.sent}"
        body.write_bytes(MESSAGE_ON_WIRE * self.sent)
        fields = [word for name, value in CALL_FIELDS for word in ("-H", f"{name}: {value}")]
        return ["-d", str(body), *fields, server.url(self._path)]

    def _values(self, result: h2load.Result, cpu: float) -> dict[str, float]:
        messages = max(self.sent, self.received)
        values = super()._values(result, cpu)
        return {"rate": values["rate"] * messages, "cpu": values["cpu"] / messages} if values else {}

    def measure(self, server: RunningServer, effort: Effort) -> Outcome:
        """Make as many calls as fill the time; note how long each takes."""
        outcome = super().measure(server, effort)
        if outcome.values:
            times = h2load.latencies(self._log(server))
            outcome.values["p99"] = h2load.percentile(times, 0.99) * 1e3
        return outcome

    def _run_requests(self, server: RunningServer, count: int, *arguments: str) -> h2load.Result:
        log = self._log(server)
        log.unlink(missing_ok=True)
        return super()._run_requests(server, count, f"--log-file={log}", *arguments)

    @staticmethod
    def _log(server: RunningServer) -> Path:
        return server.folder / "latencies"


@dataclass(frozen=True)
class SteadyLoad(Load):
    """Many connections: what making them costs is left out, for only the middle of the run is measured."""

    FIRST: ClassVar[int] = 20
    LAST: ClassVar[int] = 90
    LEAST_TURNS: ClassVar[int] = 5
    TRIAL_CONNECTIONS: ClassVar[int] = 50

    def for_trial(self) -> Load:
        """Return the same with fewer connections: making them all would take the time of the trial."""
        return replace(self, connections=min(self.connections, self.TRIAL_CONNECTIONS))

    def measure(self, server: RunningServer, effort: Effort) -> Outcome:
        """Make as many requests as fill the time, and look at the clocks when part of them is done."""
        count, clocks = self._count(server, effort), {}

        def look(percent: int) -> None:
            if percent in (self.FIRST, self.LAST):
                clocks[percent] = time.monotonic(), server.cpu_seconds()

        (command,) = self._commands(server, "-n", str(count))
        result = h2load.run_watched(command, look)
        if result.failed or len(clocks) < 2:
            return Outcome({}, result.total, result.failed, result.trouble)
        seconds, cpu = (last - first for first, last in zip(clocks[self.FIRST], clocks[self.LAST], strict=True))
        middle = count * (self.LAST - self.FIRST) / 100
        return Outcome({"rate": middle / seconds, "cpu": cpu / middle * 1e6}, result.total)


@dataclass(frozen=True)
class Transfer(Load):
    """Large bodies, one after another on one connection: the rate of what they carry."""

    connections: int = 1
    streams: int = 1
    metrics: ClassVar[tuple[Metric, ...]] = (SPEED, CPU_MB)

    def _values(self, result: h2load.Result, cpu: float) -> dict[str, float]:
        if not result.succeeded:
            return {}
        size = (self.upload or len(self.expected or b"")) / 1e6
        return {"speed": result.rate * size, "cpu": cpu * 1e3 / (result.succeeded * size)}


@dataclass(frozen=True)
class FixedRate(Load):
    """A rate that most servers reach: what counts is how long a request takes."""

    rate: int = 2000
    streams: int = 100
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("p50", "ms", higher_is_better=False, digits=2),
        Metric("p99", "ms", higher_is_better=False, digits=2),
        RATE,
        CPU,
    )

    def measure(self, server: RunningServer, effort: Effort) -> Outcome:
        """Send so many requests a second; requests that find all streams taken wait, and the rate drops."""
        log = server.folder / "latencies"
        log.unlink(missing_ok=True)
        count = effort.requests or round(self.rate * effort.seconds)
        before = server.cpu_seconds()
        each = f"--rps={self.rate // self.connections}"
        result = self._run_requests(server, count, each, f"--log-file={log}")
        cpu = server.cpu_seconds() - before
        times = h2load.latencies(log) if log.exists() else []
        values = self._values(result, cpu)
        if times:
            values.update(p50=h2load.percentile(times, 0.5) * 1e3, p99=h2load.percentile(times, 0.99) * 1e3)
        return Outcome(values, result.total, result.failed, result.trouble)


@dataclass(frozen=True)
class Handshakes(Load):
    """So many connections at once, one request on each."""

    connections: int = 1000
    streams: int = 1
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("rate", "handshakes/s"),
        Metric("cpu", "us/handshake", higher_is_better=False),
    )

    def warm_up(self, server: RunningServer, effort: Effort) -> None:
        """Make a few of them."""
        h2load.run(["-n", "20", "-c", "20", server.url(self.paths[0])])

    def measure(self, server: RunningServer, effort: Effort) -> Outcome:
        """Open all connections, make a request on each, and close them."""
        before = server.cpu_seconds()
        result = self._run_requests(server, self.connections)
        return Outcome(self._values(result, server.cpu_seconds() - before), result.total, result.failed, result.trouble)
