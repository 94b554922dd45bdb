"""An application for the tests of faults, written twice: ``wsgi`` and ``asgi`` have the same routes.

``/held`` tells what the worker holds: threads, greenlets, tasks, descriptors, and the objects of connections.
"""

import asyncio
import ctypes
import gc
import json
import os
import resource
import socket
import sys
import time
from collections import Counter
from urllib.parse import parse_qs

PIECE = bytes(65_536)
COUNTED = ("ServerConnection", "Stream", "Channel", "AsyncChannel", "Http2Connection", "AsyncHttp2Connection",
           "Negotiation", "SSLSocket", "SSLObject")
"""The classes whose instances are counted, by name: one for each connection or request that is not over."""


class DeliberateError(Exception):
    """Raised on purpose."""


class DeliberateExit(BaseException):
    """Raised on purpose, and no Exception."""


gc.disable()
"""So nothing that counts is left to the garbage collector: under load it would hold memory until that runs."""


def held():
    """What this worker holds now."""
    objects = gc.get_objects()
    names = Counter(type(thing).__name__ for thing in objects)
    library = sys.modules.get("greenlet")
    greenlets = [thing for thing in objects if isinstance(thing, library.greenlet)] if library else []
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "greenlets": sum(not greenlet.dead for greenlet in greenlets),
        "threads": len(os.listdir("/proc/self/task")),
        **{name: names[name] for name in COUNTED},
    }


def limit_descriptors(number):
    """Leave the worker room for so many more descriptors than it has."""
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + number, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def grab_descriptors(seconds):
    """Take every descriptor that becomes free for a while; return how many those were."""
    taken, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            time.sleep(0)
    for descriptor in taken:
        os.close(descriptor)
    return len(taken)


def query_of(text):
    """The fields of a query string, the last value of each."""
    return {key: values[-1] for key, values in parse_qs(text).items()}


def visit_gate(query):
    """Wait until the test lets go."""
    with socket.create_connection(("127.0.0.1", int(query["gate"])), timeout=60) as sock:
        sock.sendall(b"x")
        sock.recv(1)


def error_of(query):
    """The exception that a request asks for."""
    return {"exit": SystemExit(1), "base": DeliberateExit(), "memory": MemoryError()}.get(
        query.get("kind"), DeliberateError("a secret"))


def plain_answer(path, query):
    """The answers that take no more than a moment; NotImplemented for another path."""
    if path == "/held":
        return held()
    if path == "/pid":
        return os.getpid()
    if path == "/limit":
        return limit_descriptors(int(query["n"]))
    if path == "/grab":
        return grab_descriptors(float(query["s"]))
    if path == "/time":
        return time.process_time()
    return {} if path == "/hello" else NotImplemented


# -- WSGI --------------------------------------------------------------------------------------------------------------


class Failing:
    """A response whose parts fail as they are told."""

    def __init__(self, query):
        self.query, self.left = query, 2

    def __iter__(self):
        if self.query["when"] == "iter":
            raise error_of(self.query)
        return self

    def __next__(self):
        self.left -= 1
        if self.left == 1 and self.query["when"] != "next":
            return b"part"
        if self.query["when"] in ("next", "body"):
            raise error_of(self.query)
        raise StopIteration

    def close(self):
        """See PEP 3333."""
        if self.query["when"] == "close":
            raise error_of(self.query)


def wsgi(environ, start_response):
    """The WSGI application."""
    path, query = environ["PATH_INFO"], query_of(environ["QUERY_STRING"])
    answer = plain_answer(path, query)
    if answer is not NotImplemented:
        body = json.dumps(answer).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]
    return WSGI_ROUTES[path](environ, start_response, query)


def wsgi_fail(environ, start_response, query):
    """Fail at the moment that is asked for."""
    when = query["when"]
    if when == "call":
        raise error_of(query)
    if when == "read":
        environ["wsgi.input"].read(1)
        raise error_of(query)
    start_response("200 OK", [("Content-Type", "text/plain")])
    if when == "start":
        raise error_of(query)
    return Failing(query)


def wsgi_bytes(environ, start_response, query):
    """Many octets."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    for _ in range(int(query["n"])):
        yield PIECE


def wsgi_whole(environ, start_response, query):
    """The same in one piece."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [PIECE * int(query["n"])]


def wsgi_count(environ, start_response, query):
    """Read the body."""
    length = 0
    while piece := environ["wsgi.input"].read(65_536):
        length += len(piece)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(length).encode()]


def wsgi_gate(environ, start_response, query):
    """Wait for the test."""
    visit_gate(query)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"open"]


def wsgi_sleep(environ, start_response, query):
    """Sleep as applications of this kind do."""
    time.sleep(float(query["s"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"awake"]


def wsgi_block(environ, start_response, query):
    """Let nothing else of this thread run for a while: no library has patched this sleep."""
    ctypes.CDLL(None).sleep(int(query["s"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]


WSGI_ROUTES = {"/fail": wsgi_fail, "/bytes": wsgi_bytes, "/whole": wsgi_whole, "/count": wsgi_count, "/gate": wsgi_gate,
               "/sleep": wsgi_sleep, "/block": wsgi_block}


# -- ASGI --------------------------------------------------------------------------------------------------------------


async def asgi(scope, receive, send):
    """The ASGI application."""
    if scope["type"] == "lifespan":
        await asgi_lifespan(receive, send)
        return
    path, query = scope["path"], query_of(scope["query_string"].decode())
    answer = plain_answer(path, query)
    if answer is not NotImplemented:
        if path == "/held":
            answer["tasks"] = len(asyncio.all_tasks())
        await asgi_answer(send, json.dumps(answer).encode())
    else:
        await ASGI_ROUTES[path](receive, send, query)


async def asgi_lifespan(receive, send):
    """Start up, shut down."""
    for name in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{name}.complete"})


async def asgi_answer(send, body):
    """A whole response."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def asgi_fail(receive, send, query):
    """Fail at the moment that is asked for."""
    when = query["when"]
    if when == "read":
        await receive()
    if when in ("call", "read"):
        raise error_of(query)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if when != "start":
        await send({"type": "http.response.body", "body": b"part", "more_body": when != "close"})
    raise error_of(query)


async def asgi_bytes(receive, send, query):
    """Many octets."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(int(query["n"])):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body"})


async def asgi_whole(receive, send, query):
    """The same in one piece."""
    await asgi_answer(send, PIECE * int(query["n"]))


async def asgi_count(receive, send, query):
    """Read the body."""
    length, message = 0, {"more_body": True}
    while message.get("more_body"):
        message = await receive()
        length += len(message.get("body", b""))
    await asgi_answer(send, str(length).encode())


async def asgi_gate(receive, send, query):
    """Wait for the test."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(query["gate"]))
    writer.write(b"x")
    await reader.read()
    writer.close()
    await asgi_answer(send, b"open")


async def asgi_sleep(receive, send, query):
    """Sleep as applications of this kind do."""
    await asyncio.sleep(float(query["s"]))
    await asgi_answer(send, b"awake")


async def asgi_block(receive, send, query):
    """Let nothing else of the event loop run for a while."""
    time.sleep(float(query["s"]))
    await asgi_answer(send, b"done")


ASGI_ROUTES = {"/fail": asgi_fail, "/bytes": asgi_bytes, "/whole": asgi_whole, "/count": asgi_count, "/gate": asgi_gate,
               "/sleep": asgi_sleep, "/block": asgi_block}
