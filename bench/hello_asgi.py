"""The application of the benchmarks, for ASGI workers."""

import asyncio


async def app(scope, receive, send):
    """Answer "Hello world!"; half a second later for /sleep."""
    assert scope["type"] == "http"
    if scope["path"] == "/sleep":
        await asyncio.sleep(0.5)
    body = b"Hello world!"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
