"""A plain WSGI application with a route for each corner of PEP 3333, and routes that tell what happened inside."""

import gc
import io
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from urllib.parse import parse_qs

PATTERN = bytes(range(256)) * 256
WAIT = 10
MOST_ENTRIES = 500
"""Of a key: more than a test asks for, and little enough for weeks of load."""
VERSION = os.environ.get("APP_VERSION", "none")
TEXT = [("Content-Type", "text/plain")]


class DeliberateError(Exception):
    """Raised on purpose; its text must never reach a client."""


class Record:
    """What happened last, by key; it can be waited for."""

    def __init__(self):
        self._changed, self._entries, self.running = threading.Condition(), {}, 0

    def add(self, key, entry):
        """Remember something."""
        with self._changed:
            self._entries.setdefault(key, deque(maxlen=MOST_ENTRIES)).append(entry)
            self._changed.notify_all()

    def get(self, key, count=0):
        """Return what there is under a key, once there are ``count`` entries or it has taken too long."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._entries.get(key, ())) >= count, WAIT)
            return list(self._entries.get(key, ()))

    def enter(self, change):
        """Count an application call in or out."""
        with self._changed:
            self.running += change
            self._changed.notify_all()

    def wait_idle(self, allowed):
        """Return the number of running calls, once it is down to ``allowed`` or it has taken too long."""
        with self._changed:
            self._changed.wait_for(lambda: self.running <= allowed, WAIT)
            return self.running


record = Record()
barriers, barriers_lock = {}, threading.Lock()


class Closing:
    """An iterable that records each call of its ``close``."""

    def __init__(self, key, items=(), error=None):
        self.key, self.items, self.error = key, iter(items), error

    def __iter__(self):
        return self

    def __next__(self):
        for item in self.items:
            return item
        if self.error is not None:
            raise self.error
        raise StopIteration

    def close(self):
        """Record that it was called."""
        record.add(self.key, "close")


class Running:
    """Wraps a response: counts it out when the server closes it, and passes ``close`` on."""

    def __init__(self, result):
        self.result, self.iterator = result, iter(result)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.iterator)

    def close(self):
        """Close the wrapped response."""
        try:
            if hasattr(self.result, "close"):
                self.result.close()
        finally:
            record.enter(-1)


def query(environ):
    """Return the query string's fields, the last value of each."""
    fields = parse_qs(environ["QUERY_STRING"], keep_blank_values=True, encoding="latin-1")
    return {key: values[-1] for key, values in fields.items()}


def answer_json(start_response, value, status="200 OK"):
    """Answer with JSON."""
    body = json.dumps(value).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def pattern(size, piece=65_536):
    """Yield ``size`` bytes of a fixed pattern."""
    while size > 0:
        yield PATTERN[:min(size, piece)]
        size -= piece


def recorded(key, operation):
    """Run an operation; record the exception it raises as its class names, code and stream, and raise it again."""
    try:
        return operation()
    except BaseException as error:
        names = [cls.__name__ for cls in type(error).__mro__]
        record.add(key, {"mro": names, "code": getattr(error, "code", None), "text": str(error),
                         "stream_id": getattr(error, "stream_id", None)})
        raise


# -- what the server passes in -----------------------------------------------------------------------------------------

def dump_environ(environ, start_response):
    """The environ as JSON: text and numbers as they are, the rest by type."""
    def plain(value):
        if value is None or isinstance(value, (str, int, float)):
            return value
        return {"type": f"{type(value).__module__}.{type(value).__qualname__}", "callable": callable(value),
                "repr": repr(value) if isinstance(value, tuple) else ""}
    return answer_json(start_response, {key: plain(value) for key, value in environ.items()})


def version(environ, start_response):
    """The version of this application and its process, to see reloads."""
    return answer_json(start_response, {"version": VERSION, "pid": os.getpid()})


def frozen(environ, start_response):
    """How many objects the garbage collector does not look at, and how often it looks at the others."""
    return answer_json(start_response, {"frozen": gc.get_freeze_count(), "thresholds": gc.get_threshold()})


def thread_name(environ, start_response):
    """The thread that serves the request, and how many there are."""
    return answer_json(start_response, {"name": threading.current_thread().name, "count": threading.active_count()})


# -- reading the body --------------------------------------------------------------------------------------------------

def read_all(environ, start_response):
    """Read everything, in one go or in pieces of ``size``."""
    size, body = int(query(environ).get("size", -1)), environ["wsgi.input"]
    pieces = [body.read()] if size < 0 else list(iter(lambda: body.read(size), b""))
    return answer_json(start_response, {"length": sum(map(len, pieces)), "pieces": [len(p) for p in pieces][:100],
                                        "text": b"".join(pieces)[:200].decode("latin-1"), "again": len(body.read())})


def read_calls(environ, start_response):
    """Call methods of ``wsgi.input`` as told: ``calls=read:3,readline:,readlines:10,next:``."""
    body, results = environ["wsgi.input"], []
    for call in query(environ)["calls"].split(","):
        name, _, size = call.partition(":")
        arguments = [int(size)] if size else []
        if name == "next":
            result = next(iter(body), b"<end>")
        elif name == "iter":
            result = list(body)
        else:
            result = getattr(body, name)(*arguments)
        lines = result if isinstance(result, list) else [result]
        results.append([line.decode("latin-1") for line in lines])
    return answer_json(start_response, results)


def count_body(environ, start_response):
    """Read in pieces and count, recording what goes wrong."""
    fields = query(environ)
    key, size, total = fields.get("key", "count"), int(fields.get("size", 65_536)), 0
    while piece := recorded(key, lambda: environ["wsgi.input"].read(size)):
        total += len(piece)
    return answer_json(start_response, {"length": total})


def echo_pieces(environ, start_response):
    """Send each piece back as it comes."""
    start_response("200 OK", TEXT)
    while piece := environ["wsgi.input"].read1(65_536) if hasattr(environ["wsgi.input"], "read1") \
            else environ["wsgi.input"].readline():
        yield piece


def unread(environ, start_response):
    """Never look at the body."""
    start_response("200 OK", [*TEXT, ("Content-Length", "7")])
    return [b"unread\n"]


def unread_wait(environ, start_response):
    """Never look at the body, and stay until the test lets go."""
    visit_gate(environ)
    return unread(environ, start_response)


# -- responses ---------------------------------------------------------------------------------------------------------

def hello(environ, start_response):
    """A small response."""
    body = b"Hello, world!\n"
    start_response("200 OK", [*TEXT, ("Content-Length", str(len(body)))])
    return [body]


def with_write(environ, start_response):
    """Use the ``write`` callable, then the iterable."""
    write = start_response("200 OK", TEXT)
    write(b"written 1\n")
    write(b"")
    write(b"written 2\n")
    return [b"iterated\n"]


def empty_iterable(environ, start_response):
    """No body at all."""
    start_response("200 OK", TEXT)
    return []


def empty_strings(environ, start_response):
    """Empty pieces between others."""
    start_response("200 OK", TEXT)
    yield b""
    yield b"a"
    yield b""
    yield b"b"
    yield b""


def file_wrapper(environ, start_response):
    """A real file (``n`` bytes from ``skip``) through ``wsgi.file_wrapper``."""
    fields = query(environ)
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the server closes it
    for piece in pattern(int(fields.get("n", 100_000))):
        file.write(piece)
    file.seek(int(fields.get("skip", 0)))
    headers = [("Content-Length", fields["length"])] if "length" in fields else []
    start_response("200 OK", [("Content-Type", "application/octet-stream"), *headers])
    return environ["wsgi.file_wrapper"](file, 4096)


def file_like(environ, start_response):
    """Something that is no real file through ``wsgi.file_wrapper``; its ``close`` is recorded."""
    key = query(environ)["key"]

    class Recorder(io.BytesIO):
        def close(self):
            if not self.closed:
                record.add(key, "close")
            super().close()

    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](Recorder(b"like a file\n" * 1000), 1000)


def content_length(environ, start_response):
    """Announce ``announced`` bytes and send ``sent``."""
    fields = query(environ)
    start_response("200 OK", [*TEXT, ("Content-Length", fields["announced"])])
    return [b"x" * 10] * (int(fields["sent"]) // 10)


def send_bytes(environ, start_response):
    """Send ``n`` bytes in pieces, recording each piece when asked to and what goes wrong in ``write``."""
    fields = query(environ)
    size, key = int(fields["n"]), fields.get("key", "bytes")
    headers = [("Content-Length", str(size))] if "length" in fields else []
    write = start_response("200 OK", [("Content-Type", fields.get("type", "application/octet-stream")), *headers])
    for piece in pattern(size, int(fields.get("piece", 65_536))):
        recorded(key, lambda piece=piece: write(piece))
        if "progress" in fields:
            record.add(fields["progress"], len(piece))
    return []


def send_large(environ, start_response):
    """Send ``n`` bytes, made for this request, in one piece."""
    start_response("200 OK", TEXT)
    return [b"".join(pattern(int(query(environ)["n"])))]


def send_events(environ, start_response):
    """An event every 20 ms, for as long as anyone listens."""
    start_response("200 OK", TEXT)
    while True:
        yield b"data: event\n\n"
        time.sleep(0.02)


def yield_bytes(environ, start_response):
    """Yield ``n`` bytes; ``close`` is recorded."""
    fields = query(environ)
    start_response("200 OK", TEXT)
    return Closing(fields.get("key", "yield"), pattern(int(fields["n"]), int(fields.get("piece", 65_536))))


def status(environ, start_response):
    """Answer with the given status line and, if told, a body."""
    fields = query(environ)
    body = fields.get("body", "").encode()
    headers = [("Content-Length", fields["length"])] if "length" in fields else []
    start_response(fields["status"], TEXT + headers)
    return [body] if body else []


def headers(environ, start_response):
    """Response fields in all their variety."""
    start_response("200 OK", [
        ("Content-Type", "text/plain"), ("X-Latin", "caf\xe9"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2; Path=/"),
        ("X-Mixed-Case", "Kept As It Is"), ("X-Empty", ""), ("X-Spaces", "  padded\t"), ("Connection", "close"),
        ("Keep-Alive", "timeout=5"), ("Server", "the application"), ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ])
    return [b"headers\n"]


def bad_header(environ, start_response):
    """A response field that must never be sent."""
    kinds = {
        "crlf": ("X-Bad", "a\r\nX-Injected: 1"), "lf": ("X-Bad", "a\nb"), "cr": ("X-Bad", "a\rb"),
        "nul": ("X-Bad", "a\x00b"), "name": ("X Bad", "a"), "name-crlf": ("X-Bad\r\nX-Injected", "1"),
        "colon": (":status", "200"), "unicode": ("X-Bad", "\u017elu\u0165"), "number": ("X-Bad", 1),
    }
    start_response("200 OK", [*TEXT, kinds[query(environ)["kind"]]])
    return [b"never\n"]


def informational(environ, start_response):
    """An early hint before the response."""
    environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload; as=style")])
    return hello(environ, start_response)


# -- start_response and errors -----------------------------------------------------------------------------------------

def restarted(environ, start_response):
    """Change one's mind about the response, before anything was sent."""
    start_response("200 OK", [*TEXT, ("X-First", "1")])
    try:
        raise DeliberateError("secret")
    except DeliberateError:
        start_response("503 Service Unavailable", [*TEXT, ("X-Second", "1")], sys.exc_info())
    return [b"second thoughts\n"]


def restarted_late(environ, start_response):
    """Change one's mind too late: ``start_response`` raises the error again."""
    start_response("200 OK", TEXT)
    yield b"x" * int(query(environ).get("n", 1))
    try:
        raise DeliberateError("secret")
    except DeliberateError:
        start_response("503 Service Unavailable", TEXT, sys.exc_info())
    yield b"never"


def started_twice(environ, start_response):
    """Call ``start_response`` twice without a reason."""
    start_response("200 OK", TEXT)
    start_response("201 Created", TEXT)
    return [b"never\n"]


def never_started(environ, start_response):
    """Forget ``start_response``."""
    return [b"never\n"]


def late_start(environ, start_response):
    """A generator that calls ``start_response`` on its first step."""
    start_response("200 OK", TEXT)
    yield b"late start\n"


def not_bytes(environ, start_response):
    """Yield text."""
    start_response("200 OK", TEXT)
    return ["text"]


def fail_early(environ, start_response):
    """Raise before the response."""
    raise DeliberateError("secret")


def fail_started(environ, start_response):
    """Raise after ``start_response`` but before the first byte."""
    start_response("200 OK", [*TEXT, ("X-First", "1")])
    return Closing(query(environ)["key"], error=DeliberateError("secret"))


def fail_late(environ, start_response):
    """Raise after the first bytes have been sent."""
    start_response("200 OK", TEXT)
    return Closing(query(environ)["key"], [b"first\n"], error=DeliberateError("secret"))


def exit_early(environ, start_response):
    """Raise SystemExit."""
    sys.exit(3)


def closing(environ, start_response):
    """An ordinary response whose ``close`` is recorded."""
    start_response("200 OK", TEXT)
    return Closing(query(environ)["key"], [b"one\n", b"two\n"])


# -- meeting the test --------------------------------------------------------------------------------------------------

def visit_gate(environ):
    """Connect to the test's gate and wait until it lets go."""
    with socket.create_connection(("127.0.0.1", int(query(environ)["gate"])), timeout=60) as sock:
        sock.sendall(b"x")
        sock.recv(1)


def gate(environ, start_response):
    """Wait at the test's gate, then answer."""
    visit_gate(environ)
    return answer_json(start_response, {"pid": os.getpid()})


def gate_stream(environ, start_response):
    """Send a first piece, wait at the gate, send a second one."""
    start_response("200 OK", TEXT)
    yield b"before\n"
    visit_gate(environ)
    yield b"after\n"


def gate_read(environ, start_response):
    """Wait at the gate, then read the body, recording what goes wrong."""
    visit_gate(environ)
    return count_body(environ, start_response)


def gate_write(environ, start_response):
    """Wait at the gate, then write until something goes wrong."""
    visit_gate(environ)
    return send_bytes(environ, start_response)


def events(environ, start_response):
    """An event stream: ``n`` events, ``s`` seconds apart."""
    fields = query(environ)
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    for number in range(int(fields["n"])):
        yield b"data: %d\n\n" % number
        time.sleep(float(fields["s"]))


def barrier(environ, start_response):
    """Answer once ``n`` requests with the same key are inside at the same time."""
    fields = query(environ)
    count = int(fields["n"])
    with barriers_lock:
        meeting = barriers.setdefault((fields.get("key"), count), threading.Barrier(count))
    try:
        meeting.wait(WAIT)
    except threading.BrokenBarrierError:
        return answer_json(start_response, {"error": "the others did not come"}, "503 Service Unavailable")
    return answer_json(start_response, {"thread": threading.current_thread().name})


def records(environ, start_response):
    """What has been recorded under ``key``; waits until there are ``n`` entries."""
    fields = query(environ)
    return answer_json(start_response, record.get(fields["key"], int(fields.get("n", 0))))


def busy(environ, start_response):
    """How many other calls are running; waits until there are at most ``n``."""
    return answer_json(start_response, record.wait_idle(1 + int(query(environ).get("n", 0))) - 1)


def tunnel(environ, start_response):
    """A WebSocket, by what HTTP/1.1 knows of it: greet, and wait for the end."""
    sock = environ["gunicorn.socket"]
    sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 b"Sec-WebSocket-Accept: x\r\n\r\n\x81\x05hello")
    while sock.recv(65_536):
        pass
    raise StopIteration


ROUTES = {
    "/": hello, "/hello": hello, "/version": version, "/thread": thread_name,
    "/frozen": frozen,
    "/read": read_all, "/calls": read_calls, "/count": count_body, "/echo": echo_pieces, "/unread": unread,
    "/unread-wait": unread_wait, "/write": with_write, "/empty": empty_iterable, "/empty-strings": empty_strings,
    "/file": file_wrapper, "/file-like": file_like, "/content-length": content_length, "/bytes": send_bytes,
    "/large": send_large, "/endless-events": send_events, "/yield": yield_bytes,
    "/status": status, "/headers": headers, "/bad-header": bad_header,
    "/informational": informational, "/restarted": restarted, "/restarted-late": restarted_late,
    "/started-twice": started_twice, "/never-started": never_started, "/late-start": late_start,
    "/not-bytes": not_bytes, "/fail-early": fail_early, "/fail-started": fail_started, "/fail-late": fail_late,
    "/exit": exit_early, "/closing": closing, "/gate": gate, "/gate-stream": gate_stream, "/gate-read": gate_read,
    "/gate-write": gate_write, "/barrier": barrier, "/events": events, "/records": records, "/busy": busy,
    "/tunnel": tunnel,
}


def app(environ, start_response):
    """Find the route; everything under ``/environ`` shows the environ."""
    route = dump_environ if environ["PATH_INFO"].startswith("/environ") else ROUTES.get(environ["PATH_INFO"])
    if route is None:
        return answer_json(start_response, {"error": "not found"}, "404 Not Found")
    record.enter(+1)
    try:
        result = route(environ, start_response)
    except BaseException:
        record.enter(-1)
        raise
    if isinstance(result, (list, environ["wsgi.file_wrapper"])):
        record.enter(-1)
        return result
    return Running(result)
