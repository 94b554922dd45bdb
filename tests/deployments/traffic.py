"""What every deployment has to carry, by curl, grpcio, Node and a client that sends frames of its own."""

import hashlib
import itertools
import json
from contextlib import ExitStack
from typing import NamedTuple

from tests.support.checks import records
from tests.support.gate import Gate
from tests.support.h2client import CANCEL, H2Client, pattern_digest
from tests.support.node import NodeClient
from tests.support.tools import curl, require_module

NUMBERS = itertools.count()
SIZE = 64 * 1024 * 1024
SOME = {"hello": 100, "upload": 1, "events": 1}
LYING = ("--header", "X-Forwarded-For: 203.0.113.9", "--header", "X-Forwarded-Proto: http")
"""What a client says that pretends to be a proxy."""


class Route(NamedTuple):
    """A way to the application: where clients connect, and what it can carry."""

    front: object
    """What clients connect to: a `Server`."""
    worker: object
    """Gunicorn."""
    protocol: str = "HTTP/2.0"
    """What Gunicorn is spoken to in."""
    prefix: str = ""
    """What stands before each path."""
    forwards: bool = True
    """Whether a proxy stands between, and says for whom it asks."""
    http1: bool = True
    """Whether clients may speak HTTP/1.1."""
    duplex: bool = True
    """Whether a request is passed on before it is complete, and so is gRPC."""
    tells: bool = True
    """Whether an application that sends is told that its client has gone."""
    request_trailers: bool | None = True
    """Whether trailers of requests are passed on; None where they are an error."""

    def client(self):
        """Connect a client for frames."""
        return H2Client.connect(self.front)

    def curl(self, path, *arguments, **options):
        """Run curl with HTTP/2, and time for large bodies on a busy machine."""
        http2 = "--http2" if self.front.tls else "--http2-prior-knowledge"
        return curl(self.front, self.prefix + path, http2, "--fail", "--max-time", "100", *arguments,
                    timeout=110, **options)


def check_all(route, large):
    """Traffic of every kind, and a reload under load."""
    check_traffic(route, large)
    check_reload(route)


def check_traffic(route, large):
    """Send one of each; `large` is a file of `SIZE`."""
    check_small_traffic(route)
    check_large_bodies(route, large)


def check_small_traffic(route):
    """Send one of each but large bodies."""
    check_environ(route)
    check_streaming(route)
    check_trailers(route)
    if route.tells:
        check_disconnect(route)
    if route.duplex:
        check_duplex(route)
        check_grpc(route)


def check_environ(route):
    """Small requests, over HTTP/2 and HTTP/1.1: the application learns who asks, and is not lied to."""
    scheme = "https" if route.front.tls else "http"
    for option in [(), ("--http1.1",)][:1 + route.http1]:
        lies = LYING if route.forwards else ()
        done = route.curl("/environ", *option, *lies, "--write-out", "\n%{http_version}")
        environ, version = done.stdout.rsplit("\n", 1)
        environ = json.loads(environ)
        assert version == ("1.1" if option else "2")
        assert environ["wsgi.url_scheme"] == scheme
        if route.forwards:
            assert environ["SERVER_PROTOCOL"] == route.protocol
            assert environ["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"


def check_large_bodies(route, large):
    """64 MiB up, and 64 MiB down."""
    answer = route.curl("/digest", "--upload-file", large, "--header", "Expect:")
    assert json.loads(answer.stdout) == {"length": SIZE, "sha256": pattern_digest(SIZE)}
    answer = route.curl(f"/bytes?n={SIZE}&length", text=False)
    assert hashlib.sha256(answer.stdout).hexdigest() == pattern_digest(SIZE)


def check_streaming(route):
    """A piece of a response arrives before the application has made the next one."""
    with Gate() as gate, route.client() as client:
        stream = client.request("GET", route.prefix + gate.path("/gate-stream"), [("x-unbuffered", "1")])
        gate.wait_inside()
        client.wait_for(lambda: stream.text == "before\n", "the first piece")
        gate.release()
        assert client.response(stream).text == "before\nafter\n"


def check_duplex(route):
    """The application answers while the request still comes."""
    with route.client() as client:
        stream = client.request("POST", f"{route.prefix}/echo", [("content-type", "application/grpc")], end=False)
        for number in range(1, 4):
            client.send_body(stream, b"a line\n", end=False)
            client.wait_for(lambda number=number: len(stream.body) == 7 * number, "an echo")
        client.send_body(stream, b"")
        assert client.response(stream).ended


def check_trailers(route):
    """Trailers of responses and of requests, where they are carried; what a proxy drops does no harm."""
    if route.protocol != "HTTP/2.0":
        return
    with route.client() as client:
        stream = client.get(f"{route.prefix}/trailers?when=started", [("te", "trailers")])
        assert (stream.status, stream.text) == (200, "one\ntwo\n")
        assert dict(stream.trailers)["x-checksum"] == "abc"
        if route.request_trailers is None:
            return
        stream = client.request("POST", f"{route.prefix}/request", [("te", "trailers"), ("trailer", "x-checksum")],
                                body=b"body", end=False)
        client.send_raw(client.header_frames(stream.stream_id, [("x-checksum", "abc")], end_stream=True))
        answer = json.loads(client.response(stream).text)
        assert answer["length"] == 4
        trailers = [[name.lower(), value] for name, value in answer["trailers"]]
        assert trailers == ([["x-checksum", "abc"]] if route.request_trailers else [])


def check_grpc(route):
    """Calls of the real client."""
    grpc = require_module("grpc")
    path = route.front.socket_path
    target = f"unix:{path}" if path else f"localhost:{route.front.port}"
    if route.front.tls:
        with open(route.front.certs.ca, "rb") as file:
            channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(file.read()))
    else:
        channel = grpc.insecure_channel(target, [("grpc.default_authority", route.front.authority)])
    with channel:
        upper = channel.unary_unary("/tests.Service/Upper")
        for message in (b"hello", b"x" * 1_000_000):
            answer, call = upper.with_call(message, timeout=20)
            assert answer == message.upper()
            assert dict(call.trailing_metadata())["x-length"] == str(len(message))


def check_disconnect(route):
    """A client that goes: the application is told, and nothing is left."""
    key = f"gone-{next(NUMBERS)}"
    with route.client() as client:
        stream = client.request("GET", f"{route.prefix}/bytes?n=1000000000&key={key}", [("x-unbuffered", "1")])
        client.wait_for(lambda: stream.received > 100_000, "the beginning of the response")
        client.reset(stream, CANCEL)
        (record,) = records(route.front, key)
        assert "OSError" in record["mro"]
        assert client.get(f"{route.prefix}/busy").text == "0"


def check_reload(route, *more):
    """Gunicorn is reloaded while small requests, slow uploads and event streams of Node's are under way.

    `more` are other ways to the same Gunicorn, with as much on each.
    """
    with ExitStack() as stack:
        nodes = [stack.enter_context(NodeClient(way.front, chains=4, prefix=way.prefix)) for way in (route, *more)]
        for node in nodes:
            node.wait_for_more(**SOME)
        route.worker.reload()
        for node in nodes:
            node.wait_for_more(**SOME)
    assert [node.seen["lost"] for node in nodes] == [[] for _ in nodes]
