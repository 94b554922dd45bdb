"""What HTTP asks of responses, in two applications with the same routes: one for WSGI, one for ASGI.

`/hello` answers with a small body, `/stream` with one in pieces, `/own` with a Date and Server of its own, `/fail` not
at all. `/file/NAME` sends a file from the folder FILES, or a range of it; `/framework/NAME` leaves that to Flask or
Starlette. `*` tells the method and the target. Only `/file` and `/hello` have a Content-Length.
"""

import os
import re
from pathlib import Path

from tests.support.tools import require_module

FILES = Path(os.environ.get("FILES", "."))
OWN = {"Date": "Sun, 06 Nov 1994 08:49:37 GMT", "Server": "own"}
HELLO = b"Hello world!\n"
PIECE = 65_536


def byte_range(value, size):
    """The first octet and the length of what a Range field asks for; None for all."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", value or "")
    if not found:
        return None
    first, last = int(found[1]), int(found[2] or size - 1)
    return first, min(last, size - 1) - first + 1


def file_head(path, wanted):
    """The status, the fields, the first octet and the length of the response with a file."""
    size = path.stat().st_size
    part = byte_range(wanted, size)
    first, length = part or (0, size)
    fields = {"Content-Length": str(length), "Content-Type": "application/octet-stream"}
    if part is None:
        return 200, fields, 0, size
    return 206, {**fields, "Content-Range": f"bytes {first}-{first + length - 1}/{size}"}, first, length


def respond(path, method):
    """The fields and the body of a response that is not a file's."""
    if path == "/fail":
        raise RuntimeError("deliberate")
    if path == "/own":
        return OWN, [HELLO]
    if path == "/stream":
        return {}, [HELLO] * 3
    if path == "*":
        return {}, [f"{method} {path}\n".encode()]
    return {"Content-Length": str(len(HELLO))}, [HELLO]


# -- WSGI --------------------------------------------------------------------------------------------------------------


def wsgi(environ, start_response):
    """The WSGI application."""
    path = environ["PATH_INFO"]
    if path.startswith("/framework/"):
        return wsgi_framework()(environ, start_response)
    if not path.startswith("/file/"):
        fields, body = respond(path, environ["REQUEST_METHOD"])
        start_response("200 OK", list(fields.items()))
        return body if len(body) == 1 else iter(body)
    path = FILES / Path(path).name
    status, fields, first, _ = file_head(path, environ.get("HTTP_RANGE"))
    start_response(f"{status} OK", list(fields.items()))
    file = path.open("rb")
    file.seek(first)
    return environ["wsgi.file_wrapper"](file, PIECE)


def wsgi_framework():
    """Flask, which knows ranges."""
    flask = require_module("flask")
    app = flask.Flask("semantics")
    app.add_url_rule("/framework/<name>", "file", lambda name: flask.send_file(FILES / name, conditional=True))
    return app


# -- ASGI --------------------------------------------------------------------------------------------------------------


async def asgi(scope, receive, send):
    """The ASGI application; it has no lifespan."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    path = scope["path"]
    if path.startswith("/framework/"):
        await require_module("starlette.responses").FileResponse(FILES / Path(path).name)(scope, receive, send)
    elif path.startswith("/file/"):
        await asgi_file(FILES / Path(path).name, scope, send)
    else:
        fields, body = respond(path, scope["method"])
        await asgi_start(send, 200, fields)
        for number, piece in enumerate(body, 1):
            await send({"type": "http.response.body", "body": piece, "more_body": number < len(body)})


async def asgi_start(send, status, fields):
    """Send the head."""
    headers = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def asgi_file(path, scope, send):
    """Send a file as a whole by its path, or a range of it."""
    wanted = dict(scope["headers"]).get(b"range", b"").decode()
    status, fields, first, length = file_head(path, wanted)
    await asgi_start(send, status, fields)
    if status == 200:
        assert "http.response.pathsend" in scope["extensions"]
        await send({"type": "http.response.pathsend", "path": str(path)})
        return
    with path.open("rb") as file:
        file.seek(first)
        while length:
            data = file.read(min(PIECE, length))
            length -= len(data)
            await send({"type": "http.response.body", "body": data, "more_body": length > 0})
