"""Running h2load and reading what it prints."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
HANG_SECONDS = 120


class H2LoadError(Exception):
    """h2load could not be run, or printed something that cannot be read."""


@dataclass(frozen=True)
class Result:
    """What a run of h2load brought. `seconds` is the time it took, `data` the octets of response bodies."""

    seconds: float
    total: int
    succeeded: int
    data: int = 0
    protocol: str = ""
    trouble: str = ""

    @property
    def failed(self) -> int:
        """Requests without a response of status 2xx: refused, reset, timed out, not even sent, or 4xx."""
        return self.total - self.succeeded

    @property
    def rate(self) -> float:
        """Good responses a second."""
        return self.succeeded / self.seconds if self.seconds else 0.0


def run(arguments: Sequence[str], timeout: float = HANG_SECONDS) -> Result:
    """Run h2load; see `run_together`."""
    return run_together([arguments], timeout)


def run_together(commands: Sequence[Sequence[str]], timeout: float = HANG_SECONDS) -> Result:
    """Run several h2loads at the same time, each with its own arguments, and add up what they did.

    One that hangs is ended after `timeout` seconds, with all of its requests counted as failed. Raises `H2LoadError`
    when h2load is not there or does not say how it went.
    """
    deadline = time.monotonic() + timeout
    running: list[subprocess.Popen[str]] = []
    try:
        for arguments in commands:
            running.append(_start(arguments))
        return _sum([_finish(process, deadline - time.monotonic()) for process in running])
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()


def run_watched(
    arguments: Sequence[str], at: Callable[[int], None], timeout: float = HANG_SECONDS
) -> Result:
    """Run h2load with a number of requests, and call `at` with 10, 20 to 100 when so many percent of them are done."""
    process = _start(arguments)
    killer = threading.Timer(timeout, process.kill)
    killer.start()
    lines = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if percent := re.match(r"progress: (\d+)% done", line):
                at(int(percent[1]))
        _, errors = process.communicate()
    finally:
        killer.cancel()
        process.kill()
        process.wait()
    if process.returncode == -signal.SIGKILL:
        return _hung(process, timeout)
    return parse("".join(lines), errors)


def _start(arguments: Sequence[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(["h2load", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise H2LoadError("h2load is not installed (package nghttp2-client)") from None


def _finish(process: subprocess.Popen[str], timeout: float) -> Result:
    try:
        return parse(*process.communicate(timeout=max(0.0, timeout)))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return _hung(process, timeout)


def _hung(process: subprocess.Popen[str], seconds: float) -> Result:
    words = [str(word) for word in process.args] if isinstance(process.args, list) else []
    total = int(words[words.index("-n") + 1]) if "-n" in words else 1
    return Result(seconds, total, 0, trouble="h2load hung")


def _sum(results: Sequence[Result]) -> Result:
    return Result(
        seconds=max(result.seconds for result in results),
        total=sum(result.total for result in results),
        succeeded=sum(result.succeeded for result in results),
        data=sum(result.data for result in results),
        protocol=results[0].protocol,
        trouble=next((result.trouble for result in results if result.trouble), ""),
    )


def parse(output: str, errors: str = "") -> Result:
    """Read h2load's summary. Raises `H2LoadError` when there is none."""
    finished = re.search(r"^finished in ([\d.]+)(us|ms|s|m|h)", output, re.MULTILINE)
    requests = re.search(r"^requests: (\d+) total, .* (\d+) succeeded, (.*)$", output, re.MULTILINE)
    codes = re.search(r"^status codes: (\d+) 2xx, (.*)$", output, re.MULTILINE)
    if not finished or not requests or not codes:
        raise H2LoadError((errors or output).strip().rpartition("\n")[2] or "h2load printed nothing")
    data = re.search(r"\((\d+)\) data$", output, re.MULTILINE)
    protocol = re.search(r"^Application protocol: (\S+)", output, re.MULTILINE)
    result = Result(
        seconds=float(finished[1]) * UNITS[finished[2]],
        total=int(requests[1]),
        succeeded=min(int(requests[2]), int(codes[1])),
        data=int(data[1]) if data else 0,
        protocol=protocol[1] if protocol else "",
    )
    return replace(result, trouble=f"{requests[3]}; {codes[0]}") if result.failed else result


def latencies(log: Path) -> list[float]:
    """Return the seconds that each request of status 2xx took, sorted, from what `--log-file` wrote."""
    rows = (line.split("\t") for line in log.read_text().splitlines())
    return sorted(int(microseconds) * 1e-6 for _, status, microseconds in rows if status.startswith("2"))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value of sorted `values` that `share` of them do not exceed; 0 when there are none."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0
