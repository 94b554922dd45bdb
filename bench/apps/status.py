"""The benchmarks' applications with the status beside them; run as a program, someone who has its page open.

    python -m bench.apps.status PORT
"""

from __future__ import annotations

import os
import sys
import time

from bench.apps import asgi, wsgi
from bench.client import ClientError, Connection
from gunicorn_h2.status import StatusMiddleware
from gunicorn_h2.status.asgi import StatusMiddleware as AsyncStatusMiddleware

SECONDS = 1.0
"""How often the page asks for the figures, on one connection."""

app = StatusMiddleware(wsgi.app)
asgi_app = AsyncStatusMiddleware(asgi.app)


def watch(port: int) -> None:
    """Ask a server for its figures until it is gone, on another core than the server's where there is one."""
    here = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)) - here or here)
    was_there = False
    while True:
        try:
            with Connection(port) as connection:
                while True:
                    was_there = connection.fetch("/status/json").status == 200
                    time.sleep(SECONDS)
        except ClientError:
            if was_there:
                return
        time.sleep(SECONDS / 10)


if __name__ == "__main__":
    watch(int(sys.argv[1]))
