"""One measurement: a server of its own, the bystanders, a quiet time, the attack, and a time after it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import processes
from bench.attack.attacks import Attack
from bench.attack.servers import with_threads
from bench.h2load import percentile
from bench.running import ROOT, Certificate, RunningServer, serve
from bench.servers import Server

WARM_UP_SECONDS = 0.5
AFTER_SECONDS = 1.0
SAMPLE_SECONDS = 0.25
LEFT_SECONDS = 5.0
"""How long a server has to be done with what an attack has left it."""
STOP_SECONDS = 30.0


class AttackError(Exception):
    """A process of the measurement did not do its part. The text says what was seen."""


@dataclass
class Latency:
    """Of the bystanders in one phase, in milliseconds; `failed` counts requests without an answer."""

    p50: float
    p99: float
    worst: float
    requests: int
    failed: int
    newcomer_p50: float
    newcomer_worst: float
    newcomers: int
    newcomers_failed: int
    late_p99: float
    """By how much the bystander itself was late."""


@dataclass
class Result:
    """What one attack on one server brought. Memory in octets, `cpu` as a share of the core, `rate` in octets/s."""

    server: str
    attack: str
    seconds: float
    quiet: Latency
    under: Latency
    after: Latency
    memory_growth: int
    """The highest resident memory during the attack, beyond that before it."""
    memory_left: int
    cpu: float
    rate: float
    connections: int
    responses: int
    resets: dict[str, int]
    ends: dict[str, int]
    left: dict[str, int]
    """Threads, descriptors and octets of deleted files beyond those before the attack, after a time; tracebacks."""


@dataclass
class Resources:
    """What the processes of a server hold."""

    threads: int
    descriptors: int
    deleted_octets: int

    @classmethod
    def of(cls, roots: list[int]) -> Resources:
        """Count them now."""
        found = [_held(process.pid) for root in roots for process in processes.tree(root)]
        return cls(*(sum(counts) for counts in zip(*found, strict=True)))

    def beyond(self, other: Resources) -> dict[str, int]:
        """Return what there is more of here, by name."""
        more = {name: value - getattr(other, name) for name, value in vars(self).items()}
        return {name: value for name, value in more.items() if value > 0}


Cores = tuple[int | None, int | None]
"""One for the server, one for the clients; None: any."""


def measure(server: Server, attack: Attack, seconds: float, files: Certificate, cores: Cores) -> Result:
    """Attack a server for so long. Raises `NotAvailable` where it does not serve, `AttackError` where we do not."""
    with (
        serve(with_threads(server, attack.threads), "plain", files, cores[0]) as running,
        processes.on_core(cores[1]),
        _process("bystander", "requests", running.port) as requests,
        _process("bystander", "newcomers", running.port) as newcomers,
        _process("assault", attack.name, running.port, seconds) as assault,
    ):
        time.sleep(WARM_UP_SECONDS)
        phases = [time.monotonic()]
        time.sleep(max(1.0, seconds / 2))
        before, memory = Resources.of(running.roots), running.resident_octets()
        phases.append(time.monotonic())
        cpu, peak = _watch(assault, running)
        phases.append(time.monotonic())
        tally = _result_of(assault)
        left = {**_wait_for_the_end(running, before), **_tracebacks(running)}
        time.sleep(max(0.0, phases[-1] + AFTER_SECONDS - time.monotonic()))
        phases.append(time.monotonic())
        memory_left = running.resident_octets() - memory
        seen, new = _result_of(requests), _result_of(newcomers)
    settle = (0.0, attack.settle, 0.0)
    quiet, under, after = (_latency(seen, new, *phase) for phase in zip(phases, phases[1:], settle, strict=False))
    return Result(
        server=server.name, attack=attack.name, seconds=seconds, quiet=quiet, under=under, after=after,
        memory_growth=peak - memory, memory_left=memory_left, cpu=cpu, rate=tally["octets"] / seconds,
        connections=tally["connections"], responses=tally["responses"], resets=tally["resets"], ends=tally["ends"],
        left=left,
    )  # fmt: skip


@contextmanager
def _process(module: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start one of the processes here; it is ready when the block begins, and gone when that has ended."""
    command = [sys.executable, "-m", f"bench.attack.{module}", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise AttackError(f"{module} did not start")
        yield process
    finally:
        process.kill()
        process.communicate()


def _result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """End the input of a process, and return what it has to say."""
    try:
        output, _ = process.communicate(timeout=STOP_SECONDS)
        found: dict[str, Any] = json.loads(output)
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise AttackError(f"{process.args} has no result: {error}") from None
    return found


def _watch(assault: subprocess.Popen[str], server: RunningServer) -> tuple[float, int]:
    """Let an attack go, and wait for its end; return the share of a core, and the highest memory."""
    assert assault.stdin is not None
    assert assault.stdout is not None
    started, cpu, peak = time.monotonic(), server.cpu_seconds(), 0
    assault.stdin.write("go\n")
    assault.stdin.flush()
    while not select.select([assault.stdout], [], [], SAMPLE_SECONDS)[0]:
        peak = max(peak, server.resident_octets())
    return (server.cpu_seconds() - cpu) / (time.monotonic() - started), max(peak, server.resident_octets())


def _held(pid: int) -> tuple[int, int, int]:
    """Return the threads, the descriptors and the octets of deleted files of a process."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        sizes = [_deleted_octets(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return 0, 0, 0
    return int(status.partition("Threads:")[2].split()[0]), len(sizes), sum(sizes)


def _deleted_octets(descriptor: str) -> int:
    """Return the size of the file that a descriptor stands for, if it has no name any more."""
    try:
        return os.stat(descriptor).st_size if os.readlink(descriptor).endswith(" (deleted)") else 0
    except OSError:
        return 0


def _wait_for_the_end(server: RunningServer, before: Resources) -> dict[str, int]:
    """Give the server a time to be done with the attack; return what it holds beyond before."""
    end = time.monotonic() + LEFT_SECONDS
    while (left := Resources.of(server.roots).beyond(before)) and time.monotonic() < end:
        time.sleep(SAMPLE_SECONDS)
    return left


def _tracebacks(server: RunningServer) -> dict[str, int]:
    """Count the errors that the server has not expected, by its log."""
    count = (server.folder / "log").read_text(errors="replace").count("Traceback (most recent call last)")
    return {"tracebacks": count} if count else {}


def _latency(requests: dict[str, Any], newcomers: dict[str, Any], start: float, end: float, settle: float) -> Latency:
    """Return what the bystanders have seen of what began in a phase: latencies after so many seconds, all failures."""
    answers, failed, late = _phase(requests, start, end, settle)
    new, new_failed, new_late = _phase(newcomers, start, end, settle)
    return Latency(
        p50=percentile(answers, 0.5), p99=percentile(answers, 0.99), worst=percentile(answers, 1.0),
        requests=len(answers) + failed, failed=failed,
        newcomer_p50=percentile(new, 0.5), newcomer_worst=percentile(new, 1.0),
        newcomers=len(new) + new_failed, newcomers_failed=new_failed,
        late_p99=percentile(sorted(late + new_late), 0.99),
    )  # fmt: skip


def _phase(seen: dict[str, Any], start: float, end: float, settle: float) -> tuple[list[float], int, list[float]]:
    """Return the latencies of a phase in order, the number of failures, and how late the bystander was; in ms."""
    answers = sorted(taken * 1e3 for made, taken in seen["answered"] if start + settle <= made < end)
    late = sorted(by * 1e3 for due, by in seen["late"] if start <= due < end)
    return answers, sum(start <= due < end for due in seen["failed"]), late
