"""Side by side: a worker of gunicorn_h2 and Gunicorn's built-in one of the same kind, in one run.

    python bench/compare.py [--worker thread] [--rounds 5] [--requests 20000]

Both serve the same hello-world application over TLS, one worker process each, and take turns under
h2load, so that what else the machine does hits both alike. Printed are medians, the processor time
that a request costs the worker, and the ratio; then how long ten requests of half a second take on
one connection, and a fresh request beside idle connections. Exit status 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
IDLE_CONNECTIONS = 200
GOAL_RATIO, GOAL_HEAD_OF_LINE, GOAL_IDLE_DELAY = 2.0, 0.6, 0.020
WORKERS = {
    "thread": ("gunicorn_h2.ThreadWorker", "gthread"),
    "gevent": ("gunicorn_h2.GeventWorker", "gevent"),
    "asgi": ("gunicorn_h2.ASGIWorker", "asgi"),
}
ASGI_WORKERS = {*WORKERS["asgi"]}


@dataclass
class Server:
    """A running Gunicorn."""

    name: str
    port: int
    pid: int

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"https://127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """Processor time of the worker process so far."""
        worker = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0]
        fields = Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def certificate() -> Iterator[tuple[str, str]]:
    """A certificate for localhost, for as long as the run lasts."""
    import trustme

    with tempfile.TemporaryDirectory() as folder:
        leaf = trustme.CA().issue_cert("localhost", "127.0.0.1")
        cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
        leaf.cert_chain_pems[0].write_to_path(cert)
        leaf.private_key_pem.write_to_path(key)
        yield cert, key


@contextlib.contextmanager
def serve(worker: str, flags: list[str], files: tuple[str, str]) -> Iterator[Server]:
    """Run Gunicorn with a worker class until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = "bench.hello_asgi:app" if worker in ASGI_WORKERS else "bench.hello:app"
    command = [sys.executable, "-m", "gunicorn", app, "-k", worker, "-b", f"127.0.0.1:{port}"]
    command += ["--certfile", files[0], "--keyfile", files[1], "--log-level", "warning", "--keep-alive", "60", *flags]
    process = subprocess.Popen(command, cwd=HERE.parent)
    try:
        wait_until_open(port)
        yield Server(worker, port, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)


def wait_until_open(port: int, seconds: float = 20) -> None:
    """Return when the port accepts connections."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def h2load(*arguments: str) -> str:
    """Run h2load and return what it prints; every request must have succeeded."""
    output = subprocess.run(["h2load", *arguments], capture_output=True, text=True, check=True).stdout
    wanted = re.search(r"requests: (\d+) total", output)
    good = re.search(r"status codes: (\d+) 2xx", output)
    if not wanted or not good or wanted[1] != good[1]:
        raise SystemExit(f"requests were lost:\n{output}")
    return output


def throughput(server: Server, requests: int) -> tuple[float, float]:
    """Requests a second over 10 connections of 10 streams, and processor seconds a request."""
    before = server.cpu_seconds()
    output = h2load("-n", str(requests), "-c", "10", "-m", "10", server.url)
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", output)
    assert rate is not None
    return float(rate[1]), (server.cpu_seconds() - before) / requests


def head_of_line(server: Server) -> float:
    """Seconds for ten requests of half a second on one connection."""
    started = time.monotonic()
    h2load("-n", "10", "-c", "1", "-m", "10", f"{server.url}/sleep")
    return time.monotonic() - started


def fresh_request(server: Server) -> float:
    """Seconds for one request on a new connection."""
    started = time.monotonic()
    h2load("-n", "1", "-c", "1", server.url)
    return time.monotonic() - started


def idle_delay(server: Server) -> float:
    """What idle connections add to a fresh request, in seconds; medians of eleven."""
    alone = statistics.median(fresh_request(server) for _ in range(11))
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with contextlib.ExitStack() as stack:
        for _ in range(IDLE_CONNECTIONS):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            tls = stack.enter_context(context.wrap_socket(raw))
            tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        beside = statistics.median(fresh_request(server) for _ in range(11))
    return beside - alone


def compare_throughput(ours: Server, theirs: Server, rounds: int, requests: int) -> float:
    """Print both workers' figures; return the ratio of the medians."""
    results: dict[str, list[tuple[float, float]]] = {ours.name: [], theirs.name: []}
    for server in (ours, theirs):
        throughput(server, requests // 10)
    for _ in range(rounds):
        for server in (ours, theirs):
            results[server.name].append(throughput(server, requests))
    for name, figures in results.items():
        rate = statistics.median(rate for rate, _ in figures)
        cpu = statistics.median(cpu for _, cpu in figures)
        print(f"{name:28} {rate:9,.0f} requests/s {cpu * 1e6:8.1f} us of processor time a request")
    rates = [statistics.median(rate for rate, _ in results[server.name]) for server in (ours, theirs)]
    return rates[0] / rates[1]


def main() -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", choices=WORKERS, default="thread")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20000)
    options = parser.parse_args()
    ours, theirs = WORKERS[options.worker]
    with certificate() as files:
        flags = ["--threads", "16", "--http-protocols", "h2,h1"]
        with serve(ours, flags, files) as mine, serve(theirs, flags, files) as builtin:
            ratio = compare_throughput(mine, builtin, options.rounds, options.requests)
            waits = [(server.name, head_of_line(server)) for server in (mine, builtin)]
        with serve(ours, ["--threads", "4"], files) as mine:
            delay = idle_delay(mine)
    print(f"ratio {ratio:.2f} (goal: {GOAL_RATIO} or more)")
    for name, seconds in waits:
        print(f"{name:28} {seconds:6.2f} s for 10 requests of 0.5 s on one connection")
    print(f"{IDLE_CONNECTIONS} idle connections add {delay * 1e3:.1f} ms to a fresh request")
    return int(ratio < GOAL_RATIO or waits[0][1] > GOAL_HEAD_OF_LINE or delay > GOAL_IDLE_DELAY)


if __name__ == "__main__":
    sys.exit(main())
