"""A run: servers and workloads, interleaved and repeated.

For each workload all of its servers are started; in each round each of them is warmed up and measured in turn, so that
what else the machine does hits all alike; then they are ended. The servers run on one core, this process and h2load on
another.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bench import processes
from bench.h2load import H2LoadError
from bench.measuring import Effort, Outcome, Workload
from bench.progress import Progress
from bench.results import Results, Sample, ServerInfo, WorkloadInfo
from bench.running import Certificate, NotAvailable, RunningServer, certificate, serve
from bench.servers import APPS, Server, fits


@dataclass(frozen=True)
class Plan:
    """What to measure, how often, how long, and where. `server_core` None leaves the servers unpinned."""

    servers: Sequence[Server]
    workloads: Sequence[Workload]
    effort: Effort
    rounds: int = 3
    server_core: int | None = 0

    def rounds_of(self, workload: Workload) -> int:
        """Return how often a workload is repeated."""
        return min(self.rounds, workload.rounds or self.rounds)

    def servers_of(self, workload: Workload) -> list[Server]:
        """Return the servers that a workload fits."""
        return [
            server
            for server in self.servers
            if (workload.app, server.interface) in APPS and fits(workload.name, server.only)
        ]

    def steps(self) -> int:
        """Return the number of measurements."""
        return sum(len(self.servers_of(workload)) * self.rounds_of(workload) for workload in self.workloads)


@dataclass
class Runner:
    """Carries a plan out and fills `results`."""

    plan: Plan
    results: Results
    progress: Progress

    def run(self) -> None:
        """Measure everything. Servers are ended however this ends."""
        self.results.workloads = [
            WorkloadInfo(workload.name, workload.title, workload.group, workload.metrics)
            for workload in self.plan.workloads
        ]
        try:
            with certificate() as files:
                for workload in self.plan.workloads:
                    self._run_workload(workload, files)
        finally:
            self.results.servers = [
                ServerInfo(server.name, server.title, server.family, server.interface, self._reason(server))
                for server in self.plan.servers
            ]

    def _reason(self, server: Server) -> str:
        """Say why a server has no figures at all, if so."""
        measured = any(sample.server == server.name and sample.values for sample in self.results.samples)
        reasons = [reason for name, _, reason in self.results.unavailable if name == server.name]
        return "" if measured else (reasons or ["none of the workloads fits"])[0]

    def _run_workload(self, workload: Workload, files: Certificate) -> None:
        servers, rounds = self.plan.servers_of(workload), range(1, self.plan.rounds_of(workload) + 1)
        with ExitStack() as stack:
            running = {} if workload.fresh else self._start_all(servers, workload, files, stack)
            for number in rounds:
                for server in servers:
                    self._step(number, server, workload, files, running)

    def _start_all(
        self, servers: Iterable[Server], workload: Workload, files: Certificate, stack: ExitStack
    ) -> dict[str, RunningServer]:
        """Start the servers and check how they answer; those that fail are left out."""
        running = {}
        for server in servers:
            self.progress.show(f"{workload.name}: starting {server.name}")
            try:
                running[server.name] = self._start(server, workload, files, stack)
            except NotAvailable as error:
                self._not_available(server, workload, error)
        return running

    def _start(self, server: Server, workload: Workload, files: Certificate, stack: ExitStack) -> RunningServer:
        with ExitStack() as own:
            process = own.enter_context(serve(server, workload.app, files, self.plan.server_core))
            workload.check(process)
            stack.push(own.pop_all())
            return process

    def _not_available(self, server: Server, workload: Workload, error: NotAvailable) -> None:
        row = server.name, workload.name, str(error)
        if row not in self.results.unavailable:
            self.results.unavailable.append(row)
            self.progress.say(f"{workload.name:14} {server.name:18} is not available: {error}")

    def _step(
        self, number: int, server: Server, workload: Workload, files: Certificate, running: dict[str, RunningServer]
    ) -> None:
        """Make one measurement, on a server that runs or on a fresh one."""
        self.progress.show(f"{workload.name}: {server.name}, round {number}")
        with ExitStack() as stack:
            try:
                process = self._start(server, workload, files, stack) if workload.fresh else running.get(server.name)
            except NotAvailable as error:
                self._not_available(server, workload, error)
                process = None
            if process is not None:
                self._measure(number, process, workload)
        self.progress.step()

    def _measure(self, number: int, server: RunningServer, workload: Workload) -> None:
        try:
            workload.warm_up(server, self.plan.effort)
            beside = _Beside(server)
            outcome = workload.measure(server, self.plan.effort)
        except (NotAvailable, H2LoadError, OSError) as error:
            outcome, beside = Outcome({}, 1, 1, str(error) or type(error).__name__), _Beside(server)
        sample = Sample(
            server.name, workload.name, number, outcome.values, outcome.requests, outcome.failed,
            round(beside.cores(), 3), outcome.note,
        )  # fmt: skip
        self.results.samples.append(sample)
        self.progress.measured(sample, workload.metrics)


class _Beside:
    """Processor time that neither the server nor we have used since this was made."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._started, self._before = time.monotonic(), self._others()

    def _others(self) -> float:
        return processes.machine_busy_seconds() - processes.own_seconds() - self._server.cpu_seconds()

    def cores(self) -> float:
        elapsed = time.monotonic() - self._started
        return max(0.0, (self._others() - self._before) / elapsed) if elapsed > 0.05 else 0.0
