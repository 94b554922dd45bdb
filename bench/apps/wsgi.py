"""The WSGI application of the benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from bench.apps.content import CHUNK_SIZE, EVENT, FIXED, FRESH, HELLO, LARGE, SLEEP_SECONDS, received

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]

TEXT = {path: [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))] for path, body in FIXED.items()}


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer a path of `bench.apps.content`, an upload, a sleep or a stream; "Hello world!" to all others."""
    path = environ["PATH_INFO"]
    if environ["REQUEST_METHOD"] == "POST":
        return upload(environ, start_response)
    if path in SPECIAL:
        return SPECIAL[path](start_response)
    if path in FRESH:
        return fresh(start_response, FRESH[path])
    body = FIXED.get(path, HELLO)
    start_response("200 OK", TEXT.get(path, TEXT["/hello"]))
    return [body]


def upload(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Read the request's body and answer with its length."""
    size = 0
    while data := environ["wsgi.input"].read(CHUNK_SIZE):
        size += len(data)
    body = received(size)
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def sleep(start_response: StartResponse) -> Iterable[bytes]:
    """Answer after half a second."""
    time.sleep(SLEEP_SECONDS)
    start_response("200 OK", TEXT["/hello"])
    return [HELLO]


def stream(start_response: StartResponse) -> Iterable[bytes]:
    """Answer the large body in pieces."""
    start_response("200 OK", TEXT["/10m"])
    return (LARGE[start : start + CHUNK_SIZE] for start in range(0, len(LARGE), CHUNK_SIZE))


def endless(start_response: StartResponse) -> Iterable[bytes]:
    """Answer pieces for as long as someone reads them."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return iter(lambda: LARGE[:CHUNK_SIZE], None)


def events(start_response: StartResponse) -> Iterable[bytes]:
    """Answer one event after another for as long as someone reads them."""
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return iter(lambda: EVENT, None)


def fresh(start_response: StartResponse, size: int) -> Iterable[bytes]:
    """Answer a body that no one else holds."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(size))])
    return [LARGE[:size]]


SPECIAL = {"/sleep": sleep, "/stream": stream, "/endless": endless, "/events": events}
