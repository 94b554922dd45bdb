"""The features of HTTP/2 in one application, written twice: ``wsgi`` and ``asgi`` have the same routes."""

import asyncio
import hashlib
import json
import threading
from urllib.parse import parse_qs

PLAIN = "text/plain"
LATE = "</late.css>; rel=preload"
STYLE = b"p { color: green }\n"
WAIT = 5
asked, asked_lock = {}, threading.Lock()


def hint(number):
    """The Link field of a hint."""
    return f"</{number}.css>; rel=preload; as=style"


def frame(message):
    """A message as gRPC frames it: not compressed, its length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def describe(body, **more):
    """What a request was."""
    return {"length": len(body), "sha256": hashlib.sha256(body).hexdigest(), **more}


def page(key, preloaded):
    """The page with its style sheet."""
    seen = "preloaded" if preloaded else "not preloaded"
    return f"<!doctype html><title>page</title><link rel=stylesheet href=/style.css?{key}><p>{seen}".encode()


# -- WSGI --------------------------------------------------------------------------------------------------------------


def wsgi_hints(environ, start_response, query):
    """As many hints as are asked for and, where that is asked for, one too many when the response has begun."""
    for number in range(int(query.get("n", 1))):
        environ["wsgi.early_hints"]([("Link", hint(number)), ("X-Number", str(number))])
    write = start_response("200 OK", [("Content-Type", PLAIN)])
    write(b"hello\n")
    if "late" not in query:
        return []
    try:
        environ["wsgi.early_hints"]([("Link", LATE)])
    except RuntimeError as error:
        return [f"late: {error}\n".encode()]
    return [b"late: ignored\n"]


def wsgi_trailers(environ, start_response, query):
    """Trailers, given at the moment that is asked for."""
    def send(now):
        if query["when"] == now:
            environ["gunicorn.http2.send_trailers"]([("X-Checksum", "abc"), ("X-Latin", "caf\xe9")])

    send("before")
    length = [("Content-Length", "8")] if "length" in query else []
    start_response("200 OK", [("Content-Type", PLAIN), *length])
    send("started")
    yield b"one\n"
    send("between")
    yield b"two\n"
    send("last")


def wsgi_forbidden(environ, start_response, query):
    """A trailer that must not go out; the error goes out instead."""
    send, start = environ["gunicorn.http2.send_trailers"], start_response
    start("200 OK", [("Content-Type", PLAIN)])
    try:
        send([(query["name"], "1")])
    except ValueError as error:
        send([("X-Error", f"{type(error).__name__}: {error}".replace("\n", " "))])
    return [b"body\n"]


def wsgi_request(environ, start_response, query):
    """What was asked for, with the trailers that came."""
    body = environ["wsgi.input"].read()
    trailers = [[str(part) for part in field] for field in environ.get("gunicorn.http2.trailers", ())]
    return wsgi_json(start_response, describe(
        body, method=environ["REQUEST_METHOD"], target=environ["RAW_URI"], scheme=environ["wsgi.url_scheme"],
        host=environ["HTTP_HOST"], stream_id=environ.get("gunicorn.http2.stream_id"), trailers=trailers,
        fields=sorted(key[5:].lower().replace("_", "-") for key in environ if key.startswith("HTTP_"))))


def wsgi_priority(environ, start_response, query):
    """The priority of the request."""
    names = ("priority_weight", "priority_depends_on", "urgency", "incremental")
    return wsgi_json(start_response, [environ.get("gunicorn.http2." + name) for name in names])


def wsgi_grpc(environ, start_response, query):
    """A unary call of gRPC: the message comes back in upper case."""
    message = environ["wsgi.input"].read()[5:]
    start_response("200 OK", [("Content-Type", "application/grpc")])
    environ["gunicorn.http2.send_trailers"]([("grpc-status", "0"), ("x-length", str(len(message)))])
    return [frame(message.upper())]


def wsgi_page(environ, start_response, query):
    """A page that comes only after its style sheet was asked for, which the hint alone has named by then."""
    environ["wsgi.early_hints"]([("Link", f"</style.css?{query['key']}>; rel=preload; as=style")])
    preloaded = wsgi_asked(query["key"]).wait(WAIT)
    start_response("200 OK", [("Content-Type", "text/html")])
    return [page(query["key"], preloaded)]


def wsgi_style(environ, start_response, query):
    """The style sheet of the page."""
    wsgi_asked(environ["QUERY_STRING"]).set()
    start_response("200 OK", [("Content-Type", "text/css"), ("Cache-Control", "max-age=600")])
    return [STYLE]


def wsgi_asked(key):
    """The event of a style sheet's request."""
    with asked_lock:
        return asked.setdefault(key, threading.Event())


def wsgi_json(start_response, value):
    """Answer with JSON."""
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(value).encode() + b"\n"]


WSGI_ROUTES = {
    "/hints": wsgi_hints, "/trailers": wsgi_trailers, "/forbidden": wsgi_forbidden, "/request": wsgi_request,
    "*": wsgi_request, "/priority": wsgi_priority, "/tests.Service/Upper": wsgi_grpc, "/page": wsgi_page,
    "/style.css": wsgi_style,
}


def wsgi(environ, start_response):
    """The WSGI application."""
    query = {key: values[-1] for key, values in parse_qs(environ["QUERY_STRING"], keep_blank_values=True).items()}
    route = WSGI_ROUTES.get(environ["PATH_INFO"])
    if route is None:
        start_response("404 Not Found", [("Content-Type", PLAIN)])
        return [b"not found\n"]
    return route(environ, start_response, query)


# -- ASGI --------------------------------------------------------------------------------------------------------------


class Call:
    """One call of the ASGI application for a request."""

    def __init__(self, scope, receive, send):
        self.scope, self._receive, self._send = scope, receive, send
        fields = parse_qs(scope["query_string"].decode(), keep_blank_values=True)
        self.query = {key: values[-1] for key, values in fields.items()}
        self.body, self.trailers = b"", []

    async def read(self):
        """Read the body and its trailers."""
        more = True
        while more:
            message = await self._receive()
            self.body += message["body"]
            self.trailers += message.get("trailers", ())
            more = message["more_body"]
        return self.body

    async def start(self, content_type=PLAIN, headers=(), **more):
        """Send the head."""
        headers = [(b"content-type", content_type.encode()), *headers]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers, **more})

    async def write(self, data, more_body=False):
        """Send a piece of the body, by default the last."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more_body})

    async def hints(self, number, form):
        """Send a hint in one of its two forms."""
        if form == "early_hint":
            await self._send({"type": "http.response.early_hint", "links": [hint(number).encode()]})
        else:
            headers = [(b"link", hint(number).encode()), (b"x-number", b"%d" % number)]
            await self._send({"type": "http.response.informational", "status": 103, "headers": headers})

    async def preload(self, link):
        """Send a hint in the standard's form."""
        await self._send({"type": "http.response.early_hint", "links": [link.encode()]})

    async def end(self, *headers):
        """Send the trailers."""
        await self._send({"type": "http.response.trailers", "headers": list(headers)})

    async def json(self, value):
        """Answer with JSON."""
        await self.start("application/json")
        await self.write(json.dumps(value).encode() + b"\n")


async def asgi_hints(call):
    """As many hints as are asked for and, where that is asked for, one too many when the response has begun."""
    form = call.query.get("form", "informational")
    for number in range(int(call.query.get("n", 1))):
        await call.hints(number, form)
    await call.start()
    await call.write(b"hello\n", "late" in call.query)
    if "late" not in call.query:
        return
    try:
        await call.hints(99, form)
    except RuntimeError as error:
        await call.write(f"late: {error}\n".encode())
    else:
        await call.write(b"late: ignored\n")


async def asgi_trailers(call):
    """Trailers, announced or sent right behind the body."""
    length = [(b"content-length", b"8")] if "length" in call.query else []
    await call.start(headers=length, trailers=call.query["when"] == "announced")
    await call.write(b"one\n", True)
    await call.write(b"two\n")
    await call.end((b"X-Checksum", b"abc"), (b"X-Latin", b"caf\xe9"))


async def asgi_forbidden(call):
    """A trailer that must not go out; the error goes out instead."""
    await call.start(trailers=True)
    await call.write(b"body\n")
    try:
        await call.end((call.query["name"].encode(), b"1"))
    except ValueError as error:
        await call.end((b"x-error", f"{type(error).__name__}: {error}".replace("\n", " ").encode()))


async def asgi_request(call):
    """What was asked for, with the trailers that came."""
    scope, body = call.scope, await call.read()
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    trailers = [[part.decode("latin-1") for part in field] for field in call.trailers]
    await call.json(describe(
        body, method=scope["method"], target=target.decode(), scheme=scope["scheme"],
        host=dict(scope["headers"])[b"host"].decode(), trailers=trailers,
        stream_id=None if scope["http_version"] != "2" else 0,
        fields=sorted(name.decode() for name, _ in scope["headers"])))


async def asgi_priority(call):
    """The priority of the request."""
    priority = call.scope.get("extensions", {}).get("http.response.priority", {})
    await call.json([priority.get(name) for name in ("weight", "depends_on", "urgency", "incremental")])


async def asgi_grpc(call):
    """A unary call of gRPC: the message comes back in upper case."""
    message = (await call.read())[5:]
    await call.start("application/grpc", trailers=True)
    await call.write(frame(message.upper()))
    await call.end((b"grpc-status", b"0"), (b"x-length", b"%d" % len(message)))


async def asgi_page(call):
    """A page that comes only after its style sheet was asked for, which the hint alone has named by then."""
    key = call.query["key"]
    await call.preload(f"</style.css?{key}>; rel=preload; as=style")
    try:
        preloaded = await asyncio.wait_for(asgi_asked(key).wait(), WAIT)
    except asyncio.TimeoutError:
        preloaded = False
    await call.start("text/html")
    await call.write(page(key, preloaded))


async def asgi_style(call):
    """The style sheet of the page."""
    asgi_asked(call.scope["query_string"].decode()).set()
    await call.start("text/css", [(b"cache-control", b"max-age=600")])
    await call.write(STYLE)


def asgi_asked(key):
    """The event of a style sheet's request."""
    return asked.setdefault(key, asyncio.Event())


ASGI_ROUTES = {
    "/hints": asgi_hints, "/trailers": asgi_trailers, "/forbidden": asgi_forbidden, "/request": asgi_request,
    "*": asgi_request, "/priority": asgi_priority, "/tests.Service/Upper": asgi_grpc, "/page": asgi_page,
    "/style.css": asgi_style,
}


async def asgi(scope, receive, send):
    """The ASGI application; it has no lifespan."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    call = Call(scope, receive, send)
    route = ASGI_ROUTES.get(scope["path"])
    if route is None:
        await call.json("not found")
    else:
        await route(call)
