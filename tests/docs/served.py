"""The applications and conf files in the documentation: how each is served, and what it is asked."""

import json
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple

import grpc

from tests.support.h2client import H2Client
from tests.support.tools import curl
from tests.support.websocket import WebSocketStream

CERTIFICATE = "--certfile cert.pem --keyfile key.pem"


class Served(NamedTuple):
    """An application of a page: the command that serves it, and a request that sees it work."""

    probe: Callable
    name: str = "app"
    worker: str = "gunicorn_h2.ThreadWorker"

    @property
    def command(self):
        """The command line."""
        return f"gunicorn app:{self.name} -k {self.worker} --threads 4 {CERTIFICATE}"


def get(server, path="/"):
    """Return a response by HTTP/2 with its head, hints and trailers, as curl prints it."""
    return curl(server, path, "--http2", "--include").stdout


def hello(server):
    """The quick start's."""
    assert get(server).endswith("\nHello over HTTP/2.0!\n")


def early_hint(server):
    """A hint comes before the page."""
    response = get(server)
    assert response.index("HTTP/2 103") < response.index("link: </style.css>") < response.index("HTTP/2 200")


def trailer(server):
    """A checksum comes behind the body."""
    assert get(server).partition("onetwothree")[2].startswith("x-checksum: ")


def priority(server):
    """A response says how urgent it is."""
    assert "\npriority: u=1, i\n" in get(server).replace("\r", "")


def status(path):
    """Return a probe of the figures at `path`."""
    def probe(server):
        figures = json.loads(curl(server, path, "--http2").stdout)
        assert {"counters", "gauges", "histograms", "workers"} <= figures.keys()

    return probe


def echo(server):
    """A WebSocket over HTTP/2 answers."""
    with H2Client.connect(server) as client:
        client.wait_settings()
        assert WebSocketStream(client, "/echo").say("Hello") == "Hello"


def socketio(server):
    """The same with the packets of Socket.IO: open, connect, event."""
    with H2Client.connect(server) as client:
        client.wait_settings()
        path, origin = "/socket.io/?EIO=4&transport=websocket", ("origin", f"https://{client.authority}")
        socket = WebSocketStream(client, path, origin)
        assert socket.receive().startswith("0{")
        assert socket.say("40").startswith("40{")
        assert socket.say('42["say","Hello"]') == '42["said","Hello"]'


def metrics(server):
    """An application's own metrics and ours, in one answer."""
    assert "\ngunicorn_h2_requests_total{" in get(server)


def greeting(server):
    """A gRPC call with what the page has had generated; messages are made by hand, for that code is in a folder."""
    with open(server.certs.ca, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    with grpc.secure_channel(server.authority, credentials) as channel:
        # A string of three octets in field 1; one of ten.
        assert channel.unary_unary("/Greeter/Greet")(b"\x0a\x03Ada", timeout=10) == b"\x0a\x0aHello Ada!"


def other_host(server):
    """A client that asks for the hook's other name gets that certificate, and HTTP/2."""
    context = server.certs.client_context()
    # The tests' certificate has other names.
    context.check_hostname = False
    sock = socket.create_connection((server.host, server.port), timeout=10)
    with context.wrap_socket(sock, server_hostname="example.net") as tls:
        assert tls.selected_alpn_protocol() == "h2"
        shown = tls.getpeercert(binary_form=True)
    with open(server.certs.server_cert) as file:
        first, end, _ = file.read().partition("-----END CERTIFICATE-----\n")
    assert shown == ssl.PEM_cert_to_DER_cert(first + end)


SERVED = {
    "docs/quickstart.md#serve-an-application/1": Served(hello),
    "docs/features.md#early-hints/1": Served(early_hint, "page"),
    "docs/features.md#trailers/1": Served(trailer, "download"),
    "docs/priorities.md#for-applications/1": Served(priority, "events"),
    "docs/status.md#serve-it/1": Served(status("/status/json")),
    "docs/status.md#serve-it/2": Served(status("/-/h2/json"), worker="gunicorn_h2.ASGIWorker"),
    "docs/status.md#prometheus/2": Served(metrics, "metrics"),
    "docs/grpc.md#grpc/4": Served(greeting),
    "docs/websocket.md#wsgi/1": Served(echo),
    "docs/websocket.md#flask-socketio/1": Served(socketio),
}
CONF_PROBES = {
    "docs/deployment.md#several-certificates/2": other_host,
}
"""Of conf files, besides a request."""
