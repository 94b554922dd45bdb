"""Four workers behind a real nginx, which ends TLS and HTTP/2 and speaks HTTP/1.1 to Gunicorn.

    python bench/nginx.py [--worker thread] [--workers 4] [--requests 40000] [--rounds 3]

Printed is the median of the rounds, in all and for each worker process. Exit status 1 where it is
below the goal, or where a request failed.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from compare import ASGI_WORKERS, HERE, WORKERS, certificate

GOAL_PER_WORKER = 1000
BOOT_SECONDS = 20

CONF = """\
daemon off;
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    upstream gunicorn {{
        server 127.0.0.1:{upstream};
        keepalive 64;
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {cert};
        ssl_certificate_key {key};
        http2_max_concurrent_streams 128;
        location / {{
            proxy_pass http://gunicorn;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"""


def free_port() -> int:
    """A port that no one listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """Run a server until the block ends; it listens when the block begins."""
    process = subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_listening(process, port)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_listening(process: subprocess.Popen[bytes], port: int) -> None:
    """Return when someone listens on the port."""
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"did not start: {process.args!r}") from None
            time.sleep(0.05)


def gunicorn(worker: str, workers: int, port: int) -> list[str]:
    """The command of the server behind; it keeps connections for longer than nginx does."""
    app = "bench.hello_asgi:app" if worker in ASGI_WORKERS else "bench.hello:app"
    return [
        sys.executable, "-m", "gunicorn", app, "-k", worker, "--bind", f"127.0.0.1:{port}",
        "--workers", str(workers), "--threads", "8", "--keep-alive", "75",
    ]  # fmt: skip


def measure(port: int, requests: int) -> float:
    """Requests a second that nginx answers over HTTP/2: 20 connections of 10 streams."""
    command = ["h2load", "-n", str(requests), "-c", "20", "-m", "10", f"https://127.0.0.1:{port}/"]
    output = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    rate = re.search(r"finished in \S+, ([\d.]+) req/s", output)
    good = re.search(r"status codes: (\d+) 2xx", output)
    if not rate or not good or int(good[1]) != requests:
        raise SystemExit(f"not every request was answered:\n{output}")
    return float(rate[1])


def bench(options: argparse.Namespace) -> list[float]:
    """Measure so many rounds."""
    upstream, port = free_port(), free_port()
    with certificate() as (cert, key), tempfile.TemporaryDirectory() as folder:
        conf = Path(folder, "nginx.conf")
        conf.write_text(CONF.format(folder=folder, upstream=upstream, port=port, cert=cert, key=key))
        nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        if nginx is None:
            raise SystemExit("nginx is not installed; install the package nginx-light")
        behind = gunicorn(WORKERS[options.worker][0], options.workers, upstream)
        with running(behind, upstream), running([nginx, "-e", f"{folder}/error.log", "-c", str(conf)], port):
            measure(port, options.requests // 10)
            return [measure(port, options.requests) for _ in range(options.rounds)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure workers behind nginx.")
    parser.add_argument("--worker", choices=sorted(WORKERS), default="thread")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--requests", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rates = bench(options)
    rate = statistics.median(rates)
    each = rate / options.workers
    print(f"{options.workers} {options.worker} workers behind nginx: {rate:,.0f} requests a second, "
          f"{each:,.0f} for each worker (of {', '.join(f'{rate:,.0f}' for rate in rates)})")  # fmt: skip
    if each < GOAL_PER_WORKER:
        raise SystemExit(f"the goal is {GOAL_PER_WORKER:,} for each worker")


if __name__ == "__main__":
    main()
