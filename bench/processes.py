"""Processes as /proc shows them: trees, processor time, memory, who listens where, who else is busy."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
LISTEN = "0A"
HOG_SHARE = 0.1
"""Share of a core from which on a process that is not ours is worth a warning."""


@dataclass(frozen=True)
class Process:
    """One line of the process table. `cpu` in seconds, user and system; `rss` in octets."""

    pid: int
    parent: int
    name: str
    cpu: float
    rss: int


def process_table() -> dict[int, Process]:
    """Return every process that can be seen, by pid."""
    return {process.pid: process for process in map(_read, _pids()) if process}


def tree(root: int) -> list[Process]:
    """Return a process and all that descend from it."""
    table = process_table()
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    found = [table[root]] if root in table else []
    for process in found:
        found.extend(children.get(process.pid, ()))
    return found


def cpu_seconds(roots: Iterable[int]) -> float:
    """Return the processor time of the trees below `roots`, of the processes that still run."""
    return sum(process.cpu for root in roots for process in tree(root))


def resident_octets(roots: Iterable[int]) -> int:
    """Return the resident memory of the trees below `roots`; pages shared between processes count for each."""
    return sum(process.rss for root in roots for process in tree(root))


def listens(roots: Iterable[int], port: int) -> bool:
    """Tell whether a process of the trees below `roots` listens on a TCP port."""
    sockets = _listening_sockets(port)
    return any(link in sockets for root in roots for process in tree(root) for link in _descriptors(process.pid))


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Pin this thread, and so the processes that it starts inside the block, to a core; None changes nothing."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def busy_strangers(seconds: float = 1.0) -> list[str]:
    """Watch for so long and name the processes outside our own tree that take a tenth of a core or more."""
    before, started = process_table(), time.monotonic()
    time.sleep(seconds)
    after, elapsed = process_table(), time.monotonic() - started
    ours = {process.pid for process in tree(os.getpid())}
    shares = [
        ((process.cpu - (before[pid].cpu if pid in before else 0)) / elapsed, process)
        for pid, process in after.items()
        if pid not in ours
    ]
    busy = sorted((pair for pair in shares if pair[0] >= HOG_SHARE), key=lambda pair: -pair[0])
    return [f"{process.name} (pid {process.pid}) takes {share:.0%} of a core" for share, process in busy]


def machine_busy_seconds() -> float:
    """Return the time that all cores together have been busy since boot: user, nice, system and stolen.

    Interrupts are left out: those of the loopback device are part of every server's work.
    """
    user, nice, system, _idle, _iowait, _irq, _softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + steal) * TICK


def own_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _read(pid: int) -> Process | None:
    try:
        head, _, tail = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
    except OSError:
        return None
    fields = tail.split()
    cpu = (int(fields[11]) + int(fields[12])) * TICK
    return Process(pid, int(fields[1]), head.partition("(")[2], cpu, int(fields[21]) * PAGE)


def _listening_sockets(port: int) -> set[str]:
    lines = [line.split() for name in ("tcp", "tcp6") for line in _lines(Path("/proc/net", name))]
    return {
        f"socket:[{fields[9]}]" for fields in lines if fields[3] == LISTEN and int(fields[1].split(":")[1], 16) == port
    }


def _lines(table: Path) -> list[str]:
    return table.read_text().splitlines()[1:] if table.exists() else []


def _descriptors(pid: int) -> list[str]:
    folder, links = f"/proc/{pid}/fd", []
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    for name in names:
        try:
            links.append(os.readlink(f"{folder}/{name}"))
        except OSError:
            continue
    return links
