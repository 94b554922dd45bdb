"""A plain ASGI application with a route for each corner of the specification, and routes that tell what happened."""

import asyncio
import base64
import hashlib
import json
import os
import time
from urllib.parse import parse_qs

PATTERN = bytes(range(256)) * 256
WAIT = 10


class DeliberateError(Exception):
    """Raised on purpose; its text must never reach a client."""


class Record:
    """What happened, by key; it can be waited for."""

    def __init__(self):
        self._changed, self._entries = asyncio.Condition(), {}

    async def add(self, key, entry):
        """Remember something."""
        async with self._changed:
            self._entries.setdefault(key, []).append(entry)
            self._changed.notify_all()

    async def get(self, key, count):
        """Return what there is under a key, once there are ``count`` entries or it has taken too long."""
        async with self._changed:
            enough = self._changed.wait_for(lambda: len(self._entries.get(key, ())) >= count)
            try:
                await asyncio.wait_for(enough, WAIT)
            except asyncio.TimeoutError:
                pass
            return self._entries.get(key, [])


record = None


class Call:
    """One call of the application for a request."""

    def __init__(self, scope, receive, send):
        self.scope, self.receive, self.send = scope, receive, send
        fields = parse_qs(scope["query_string"].decode(), keep_blank_values=True)
        self.query = {key: values[-1] for key, values in fields.items()}

    async def start(self, status=200, headers=(), **more):
        """Send the head of the response."""
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers), **more})

    async def body(self, data=b"", more_body=False):
        """Send a piece of the response."""
        await self.send({"type": "http.response.body", "body": data, "more_body": more_body})

    async def json(self, value, status=200):
        """Answer with JSON."""
        data = json.dumps(value).encode()
        await self.start(status, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))])
        await self.body(data)

    async def pieces(self):
        """Yield the request's body, piece by piece; raise where the client goes."""
        more = True
        while more:
            message = await self.receive()
            if message["type"] != "http.request":
                raise ConnectionError(message["type"])
            more = message["more_body"]
            yield message["body"]

    def number(self, name, default=0):
        """Return a number from the query string."""
        return int(self.query.get(name, default))

    async def gate(self):
        """Wait at the test's gate."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.number("gate"))
        writer.write(b"x")
        await reader.read()
        writer.close()


def text(value):
    """Return what JSON can hold of a scope's value."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {key: text(item) for key, item in value.items()}
    return [text(item) for item in value] if isinstance(value, (list, tuple)) else value


async def hello(call):
    """A small answer."""
    await call.start(headers=[(b"Content-Type", b"text/plain"), (b"content-length", b"12")])
    await call.body(b"Hello world!")


async def scope(call):
    """The scope, as JSON; the state is changed, which no one else may see."""
    values = text({key: value for key, value in call.scope.items() if key not in ("app", "gunicorn.http2.stream")})
    call.scope["state"]["changed"] = True
    await call.json(values)


async def echo(call):
    """The request's body, piece by piece."""
    await call.start()
    async for piece in call.pieces():
        await call.body(piece, True)
    await call.body()


async def count(call):
    """How long the request's body is, its digest, its trailers."""
    length, digest, message = 0, hashlib.sha256(), {"more_body": True}
    while message["more_body"]:
        message = await call.receive()
        length += len(message["body"])
        digest.update(message["body"])
    await call.json({"length": length, "sha256": digest.hexdigest(), "trailers": text(message.get("trailers"))})


async def unread(call):
    """An answer that does not wait for the body."""
    await hello(call)


async def send_bytes(call):
    """As many octets as are asked for, in pieces; what stops it is recorded."""
    left, piece = call.number("n"), call.number("piece", 65_536)
    await call.start(headers=[(b"content-length", b"%d" % left)] if "length" in call.query else [])
    try:
        while left > 0:
            await call.body(PATTERN[:min(left, piece)], True)
            left -= piece
        await call.body()
    except OSError as error:
        await record.add(call.query.get("key"), {"error": type(error).__name__, "code": error.code})
        raise


async def send_large(call):
    """As many octets as are asked for, made for this request, in one message."""
    await call.start()
    await call.body(b"".join([PATTERN] * (call.number("n") // len(PATTERN))))


async def send_events(call):
    """An event every 20 ms, for as long as anyone listens."""
    await call.start()
    while True:
        await call.body(b"data: event\n\n", True)
        await asyncio.sleep(0.02)


async def gate(call):
    """An answer when the test opens the gate."""
    await call.gate()
    await hello(call)


async def stream_gate(call):
    """A first piece at once, the second one when the gate opens."""
    await call.start()
    await call.body(b"first", True)
    await call.gate()
    await call.body(b"second")


async def disconnect(call):
    """What `receive` says after the body, and whether the task lives on afterwards to the gate."""
    await record.add(call.query["key"], "started")
    message = await call.receive()
    while message["type"] == "http.request":
        message = await call.receive()
    await record.add(call.query["key"], message["type"])
    try:
        await call.start()
        await call.body(b"too late")
    except OSError as error:
        await record.add(call.query["key"], type(error).__name__)
    if "gate" in call.query:
        await call.gate()
    await record.add(call.query["key"], "finished")


async def after(call):
    """What `receive` says when the response is complete."""
    await hello(call)
    await record.add(call.query["key"], (await call.receive())["type"])
    await record.add(call.query["key"], (await call.receive())["type"])


async def background(call):
    """Goes on after its response."""
    await hello(call)
    await call.gate()
    await record.add(call.query["key"], "done")


async def fail(call):
    """Raises, at a moment of the test's choice."""
    when = call.query["when"]
    if when != "before":
        await call.start()
    if when in ("body", "after"):
        await call.body(b"part", when == "body")
    if when == "receive":
        await call.receive()
    if when == "return":
        return
    raise DeliberateError("a secret")


async def fields(call):
    """Whatever fields the test asks for."""
    headers = json.loads(base64.b64decode(call.query["headers"]))
    await call.start(call.number("status", 200), [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers])
    await call.body(b"x" * call.number("n"))


async def hints(call):
    """Two ways to send 103, a 102, and one too many after the head."""
    await call.send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]})
    await call.send({"type": "http.response.early_hint", "links": []})
    await call.send({"type": "http.response.informational", "status": 103, "headers": [(b"Link", b"</c.css>")]})
    await call.start()
    try:
        await call.send({"type": "http.response.early_hint", "links": [b"</late>"]})
    except RuntimeError as error:
        await call.body(str(error).encode())


async def trailers(call):
    """Trailers, announced or not."""
    await call.start(trailers="announced" in call.query)
    await call.body(b"x" * call.number("n"), "split" in call.query)
    if "split" in call.query:
        await call.body(b"end")
    if "more" in call.query:
        await call.send({"type": "http.response.trailers", "headers": [(b"First", b"1")], "more_trailers": True})
    name = call.query.get("name", "Checksum").encode()
    if "none" not in call.query:
        await call.send({"type": "http.response.trailers", "headers": [(name, b"abc")]})


async def order(call):
    """Messages in the order of the test's choice, and what came of it."""
    messages = {
        "start": {"type": "http.response.start", "status": 200, "headers": []},
        "switch": {"type": "http.response.start", "status": 101, "headers": []},
        "more": {"type": "http.response.body", "body": b"a", "more_body": True},
        "body": {"type": "http.response.body", "body": b"b"},
        "hint": {"type": "http.response.informational", "status": 103, "headers": []},
        "upgrade": {"type": "http.response.informational", "status": 101, "headers": []},
        "trailers": {"type": "http.response.trailers", "headers": []},
        "other": {"type": "websocket.accept"},
    }
    try:
        for name in call.query["messages"].split(","):
            await call.send(messages[name])
    except (RuntimeError, ValueError) as error:
        await record.add(call.query["key"], [type(error).__name__, str(error)])
        raise DeliberateError from error
    await record.add(call.query["key"], "fine")


async def sleep(call):
    """An answer after a while."""
    await asyncio.sleep(float(call.query["s"]))
    await hello(call)


async def forever(call):
    """Never answers; records that it was cancelled, in a file, for no one could ask any more."""
    await record.add(call.query["key"], "started")
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        with open(call.query["file"], "w", encoding="ascii") as file:
            file.write("cancelled")


async def tasks(call):
    """How many tasks there are, this one left out; waits a while until there are at most ``n``."""
    deadline = time.monotonic() + WAIT
    while len(asyncio.all_tasks()) - 1 > call.number("n") and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    await call.json(len(asyncio.all_tasks()) - 1)


async def loop(call):
    """What kind of event loop this is."""
    await call.json(type(asyncio.get_running_loop()).__module__)


async def records(call):
    """What was recorded under a key."""
    await call.json(await record.get(call.query["key"], call.number("n")))


async def environ(call):
    """A variable of the environment."""
    await call.json(os.environ.get(call.query["name"]))


ROUTES = {
    "/hello": hello, "/scope": scope, "/echo": echo, "/count": count, "/unread": unread, "/bytes": send_bytes,
    "/large": send_large, "/endless-events": send_events,
    "/gate": gate, "/stream-gate": stream_gate, "/disconnect": disconnect, "/after": after, "/background": background,
    "/fail": fail, "/fields": fields, "/hints": hints, "/trailers": trailers, "/order": order, "/sleep": sleep,
    "/forever": forever, "/tasks": tasks, "/loop": loop, "/records": records, "/environ": environ,
}


async def lifespan(scope, receive, send):
    """Start up with a value in the state; shut down."""
    global record
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            record = Record()
            scope["state"]["started"] = "yes"
            await send({"type": "lifespan.startup.complete"})
        else:
            print("lifespan is over", flush=True)
            await send({"type": "lifespan.shutdown.complete"})
            return


async def websocket(scope, receive, send):
    """Send each message back."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def app(scope_, receive, send):
    """The ASGI application."""
    if scope_["type"] == "lifespan":
        await lifespan(scope_, receive, send)
    elif scope_["type"] == "websocket":
        await websocket(scope_, receive, send)
    else:
        route = ROUTES.get(scope_["path"], scope if scope_["path"].startswith("/scope/") else None)
        call = Call(scope_, receive, send)
        await (route(call) if route else call.json("not found", 404))
