"""The ASGI application of the benchmarks: the paths of `bench.apps.wsgi`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from bench.apps.content import CHUNK_SIZE, EVENT, FIXED, FRESH, HELLO, LARGE, SLEEP_SECONDS, received

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
CHUNK = LARGE[:CHUNK_SIZE]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Answer a path of `bench.apps.content`, an upload, a sleep or a stream; "Hello world!" to all others."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    path = scope["path"]
    if scope["method"] == "POST":
        await upload(receive, send)
    elif path == "/sleep":
        await asyncio.sleep(SLEEP_SECONDS)
        await respond(send, HELLO)
    elif path == "/stream":
        await stream(send, len(LARGE))
    elif path == "/endless":
        await stream(send, None)
    elif path == "/events":
        await stream(send, None, EVENT, b"text/event-stream")
    elif path in FRESH:
        await stream(send, FRESH[path])
    else:
        await respond(send, FIXED.get(path, HELLO))


async def lifespan(receive: Receive, send: Send) -> None:
    """Take part in start-up and shutdown, so that no server logs that it is missing."""
    for _ in range(2):
        message = await receive()
        await send({"type": message["type"] + ".complete"})


async def respond(send: Send, body: bytes, kind: bytes = b"text/plain") -> None:
    """Send a whole response."""
    await start(send, kind, len(body))
    await send({"type": "http.response.body", "body": body})


async def start(send: Send, kind: bytes, length: int | None) -> None:
    """Send the head of a response."""
    headers = [(b"content-type", kind)]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def upload(receive: Receive, send: Send) -> None:
    """Read the request's body and answer with its length."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await respond(send, received(size), b"application/json")


async def stream(send: Send, length: int | None, piece: bytes = CHUNK, kind: bytes = b"text/plain") -> None:
    """Answer so many octets in pieces, each a copy; or, without a length, pieces for as long as someone reads them."""
    await start(send, kind, length)
    left = length
    while left is None or left > 0:
        body = bytes(memoryview(piece)[:left])
        await send({"type": "http.response.body", "body": body, "more_body": True})
        left = None if left is None else left - len(body)
    await send({"type": "http.response.body", "body": b""})
