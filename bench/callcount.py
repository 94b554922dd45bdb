"""Counting the calls of a request in a real worker, by a profile hook in each of its threads.

The numbers have no noise of the machine's: what is left are the reads and wake-ups that several requests share.

The hook and the application are for the worker process. A conf file has

    from bench.callcount import post_fork

and the application is `bench.callcount:app`, which answers /hello, and /calls with the numbers so far. `measure` does
it all: it boots the server, makes h2load ask, and returns the calls of a request.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from types import CodeType, FrameType
from typing import Any

from bench import h2load
from bench.apps.content import HELLO
from bench.client import Connection
from bench.layers import layer_of, waiting_module
from bench.running import Certificate, RunningServer, serve
from bench.servers import Server

ProfileFunction = Callable[[FrameType, str, Any], None]
Row = list[Any]
"""Module, name, calls, and calls of C functions that it makes; a C function that may wait has a row of its own."""

MODULE, NAME, PYTHON, C = range(4)

Key = tuple[str, str]
"""Module and name of a function."""

HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(HELLO)))]
ASGI_HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(HELLO))]

_threads: list[list[Row]] = []
"""The rows of each thread."""


# -- in the worker -----------------------------------------------------------------------------------------------------


def post_fork(server: object, worker: object) -> None:
    """Gunicorn's hook: count from here on, in this thread and in all that are still to be started."""
    threading.setprofile(_begin_thread)
    sys.setprofile(_counter())


def app(environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], Any]) -> Iterable[bytes]:
    """Answer "Hello world!"; the numbers so far for /calls."""
    if environ["PATH_INFO"] == "/calls":
        body = _report()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]
    start_response("200 OK", HEADERS)
    return [HELLO]


async def asgi_app(scope: dict[str, Any], receive: Any, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """The same for ASGI; without a lifespan, which Gunicorn's worker then does not expect."""
    assert scope["type"] == "http"
    if scope["path"] == "/calls":
        body, headers = _report(), [(b"content-type", b"application/json")]
    else:
        body, headers = HELLO, ASGI_HEADERS
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _begin_thread(frame: FrameType, event: str, argument: Any) -> None:
    """Give a new thread a counter of its own: one that threads share would lose counts."""
    counter = _counter()
    sys.setprofile(counter)
    counter(frame, event, argument)


def _counter() -> ProfileFunction:
    rows: list[Row] = []
    by_id: dict[int, Row] = {}
    codes: list[CodeType] = []
    waiting: dict[tuple[type, str], Row | None] = {}
    _threads.append(rows)

    def row_of(frame: FrameType) -> Row:
        # By identity: the hash of a code object is that of all that is in it.
        row = by_id.get(id(frame.f_code))
        if row is None:
            code = frame.f_code
            row = by_id[id(code)] = [frame.f_globals.get("__name__", ""), _name(code), 0, 0]
            codes.append(code)
            rows.append(row)
        return row

    def waiting_row_of(function: Any) -> Row | None:
        key = type(function.__self__), function.__qualname__
        if key not in waiting:
            module = waiting_module(function)
            waiting[key] = None if module is None else [module, function.__qualname__, 0, 0]
            rows.extend(row for row in [waiting[key]] if row)
        return waiting[key]

    def count(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            row_of(frame)[PYTHON] += 1
        elif event == "c_call":
            (waiting_row_of(argument) or row_of(frame))[C] += 1

    return count


def _report() -> bytes:
    """Return the rows of all threads as JSON; what this takes is not counted."""
    counter = sys.getprofile()
    sys.setprofile(None)
    body = json.dumps([row for rows in list(_threads) for row in list(rows)]).encode()
    sys.setprofile(counter)
    return body


def _name(code: CodeType) -> str:
    return f"{getattr(code, 'co_qualname', code.co_name)}, line {code.co_firstlineno}"


# -- outside -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Function:
    """Calls of one function, and of C functions by it, a request."""

    module: str
    name: str
    python: float
    c: float


@dataclass(frozen=True)
class Calls:
    """Calls a request: in all, and by function, the busiest first."""

    python: float
    c: float
    functions: list[Function]

    def by_layer(self) -> dict[str, tuple[float, float]]:
        """Return Python and C calls a request by layer."""
        layers: dict[str, tuple[float, float]] = {}
        for function in self.functions:
            layer = layer_of(function.module)
            python, c = layers.get(layer, (0.0, 0.0))
            layers[layer] = python + function.python, c + function.c
        return layers


def measure(
    server: Server, files: Certificate, requests: int = 2000, connections: int = 10, streams: int = 10
) -> Calls:
    """Boot a Gunicorn server of the table with the hook, load it, and count.

    Raises `NotAvailable` where it does not boot, `H2LoadError` where h2load does not run or a request fails.
    """
    with serve(hooked(server, "bench.callcount"), "calls", files, core=None) as running:
        load = ["-c", str(connections), "-m", str(streams), running.url("/hello")]
        h2load.run(["-n", str(requests // 2), *load])
        before = _fetch(running)
        result = h2load.run(["-n", str(requests), *load])
        after = _fetch(running)
    if result.failed:
        raise h2load.H2LoadError(f"{result.failed} of {result.total} requests failed: {result.trouble}")
    return _difference(before, after, requests)


def hooked(server: Server, module: str) -> Server:
    """Return a Gunicorn server of the table whose conf file takes its `post_fork` hook from a module."""
    conf = server.files["conf.py"] + f"\nfrom {module} import post_fork\n"
    return replace(server, files={**server.files, "conf.py": conf})


def _fetch(running: RunningServer) -> dict[Key, tuple[int, int]]:
    with Connection(running.port) as connection:
        rows = json.loads(bytes(connection.fetch("/calls").body))
    total: dict[Key, tuple[int, int]] = {}
    for module, name, python, c in rows:
        so_far = total.get((module, name), (0, 0))
        total[module, name] = so_far[0] + python, so_far[1] + c
    return total


def _difference(before: dict[Key, tuple[int, int]], after: dict[Key, tuple[int, int]], requests: int) -> Calls:
    functions = []
    for (module, name), (python, c) in after.items():
        python_before, c_before = before.get((module, name), (0, 0))
        functions.append(Function(module, name, (python - python_before) / requests, (c - c_before) / requests))
    functions.sort(key=lambda function: -function.python - function.c)
    return Calls(sum(each.python for each in functions), sum(each.c for each in functions), functions)
