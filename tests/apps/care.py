"""Applications that wait for a client, and tell the log what becomes of it: one for WSGI, one for ASGI.

`/read` waits for a body, `/write` sends a line now and then, `/wait` answers after as many seconds as its query says,
and `/large` with as many octets.
"""

import asyncio
import time

PAUSE = 0.05
DAY = 86_400


def tell(path, what):
    """Have the test learn what became of a request."""
    print(f"TOLD {path} {what}", flush=True)


def wsgi(environ, start_response):
    """The WSGI application."""
    path = environ["PATH_INFO"]
    try:
        if path == "/wait":
            time.sleep(float(environ["QUERY_STRING"]))
        elif path == "/read":
            environ["gunicorn.http2.stream"].lift_read_timeout()
            environ["wsgi.input"].read()
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"begun\n")
        if path == "/large":
            return [bytes(int(environ["QUERY_STRING"]))]
        for _ in range(int(DAY / PAUSE) if path == "/write" else 0):
            time.sleep(PAUSE)
            write(b"more\n")
    except Exception as error:
        tell(path, type(error).__name__)
        raise
    return [b"ended\n"]


async def asgi(scope, receive, send):
    """The ASGI application; it has no lifespan."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    path = scope["path"]
    if path == "/wait":
        await asyncio.sleep(float(scope["query_string"]))
    elif path == "/read":
        scope["gunicorn.http2.stream"].lift_read_timeout()
        message = await receive()
        tell(path, message["type"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"begun\n", "more_body": True})
    if path == "/large":
        await send({"type": "http.response.body", "body": bytes(int(scope["query_string"]))})
        return
    try:
        for _ in range(int(DAY / PAUSE) if path == "/write" else 0):
            await asyncio.sleep(PAUSE)
            await send({"type": "http.response.body", "body": b"more\n", "more_body": True})
    except OSError as error:
        tell(path, type(error).__name__)
        raise
    await send({"type": "http.response.body", "body": b"ended\n"})
