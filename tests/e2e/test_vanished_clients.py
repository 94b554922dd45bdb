"""Connections that are cared for: clients that have vanished are noticed, and no client that is there is cut off.

With every worker class, over TLS and without, and with clients that no one here wrote.
"""

import select
import socket
import threading

import pytest

from tests.support.h2client import NO_ERROR, H2Client, Stream
from tests.support.kinds import KINDS, make_server
from tests.support.server import stop_all
from tests.support.tools import curl

CARE = {"http2_keepalive_interval": 0.2, "http2_keepalive_timeout": 0.3, "keepalive": 100, "timeout": 100}


@pytest.fixture(scope="module", params=KINDS)
def servers(request, certs, tmp_path_factory):
    """A function that returns a running server of a worker class, booted when it is first asked for."""
    running = {}

    def get(tls=True, **options):
        key = (tls, repr(options))
        if key not in running:
            running[key] = make_server(request.param, tmp_path_factory.mktemp("care"), certs, "tests.apps.care:{}",
                                       tls=tls, **options).start()
        return running[key]

    yield get
    stop_all(running.values())


@pytest.fixture(params=[True, False], ids=["tls", "clear"])
def server(servers, request):
    """A server that asks for signs of life often."""
    return servers(tls=request.param, **CARE)


class Path:
    """What lies between a client and a server, until it swallows all that either sends, and says nothing of it.

    A slow one takes some 100 KB a second, and little more than it delivers.
    """

    def __init__(self, server, is_slow=False):
        self._server, self._is_slow = server, is_slow
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._bell, self._ear = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._sockets = [self._listener, self._bell, self._ear]

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self.vanish()
        for sock in self._sockets:
            sock.close()

    def _run(self):
        client, _ = self._listener.accept()
        server = socket.socket()
        if self._is_slow:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        server.connect((self._server.host, self._server.port))
        self._sockets += client, server
        ways = {client: server, server: client}
        while self._ear not in (readable := select.select([self._ear, *ways], [], [])[0]):
            for sock in readable:
                data = sock.recv(1_000 if self._is_slow else 65_536)
                if not data:
                    return
                if self._is_slow:
                    threading.Event().wait(0.01)
                ways[sock].sendall(data)

    def vanish(self):
        """Swallow everything from now on."""
        self._bell.send(b"!")
        self._thread.join()

    def connect(self, settings=None, **options):
        """Open an HTTP/2 connection over it."""
        sock = socket.create_connection(("127.0.0.1", self.port))
        if self._server.tls:
            sock = self._server.certs.client_context().wrap_socket(sock, server_hostname="localhost")
        client = H2Client(sock, scheme=self._server.scheme, **options)
        client.send_preface(settings)
        client.ping()
        return client


def open_stream(client, path) -> Stream:
    """Make a request that the application serves until its client is gone."""
    stream = client.request("POST" if path == "/read" else "GET", path, end=path != "/read")
    if path == "/write":
        client.wait_headers(stream)
    client.ping()
    return stream


@pytest.mark.parametrize("path", ["/read", "/write"])
def test_a_client_that_vanishes_is_noticed_and_the_application_told(server, path):
    mark = server.log_mark()
    with Path(server) as way, way.connect() as client:
        stream = open_stream(client, path)
        # It is there, and silent for longer than the interval.
        client.wait_for(lambda: len(client.pings) >= 3, "three PINGs")
        assert not stream.done
        way.vanish()
        server.wait_log(r"HTTP/2 connection from .* closed: the client does not answer PINGs", after=mark)
        told = server.wait_log(rf"TOLD {path} (\S+)", after=mark)[1]
    is_asgi = server.kind.worker_class.endswith("ASGIWorker")
    assert told == ("http.disconnect" if is_asgi and path == "/read" else "StreamAborted")


def test_a_client_that_does_not_answer(server):
    """At the level of TCP it is there."""
    mark = server.log_mark()
    with H2Client.connect(server, auto_ping=False) as client:
        client.request("POST", "/read", end=False)
        client.wait_closed()
    assert client.goaways[-1] == (1, NO_ERROR)
    server.wait_log(r"TOLD /read", after=mark)


def test_a_slow_path(server):
    """The PING stands behind octets that take longer than the client has for its answer; it has nothing else to say."""
    size, mark = 400_000, server.log_mark()
    with Path(server, is_slow=True) as way, way.connect({4: 2 * size}, auto_window=False) as client:
        client.grant(2 * size)
        stream = client.response(client.request("GET", f"/large?{size}"))
        assert (stream.received, stream.ended) == (size + len(b"begun\n"), True)
        assert len(client.pings) >= 2
    assert "does not answer PINGs" not in "\n".join(server.log.splitlines()[mark:])


def test_curl_answers(server):
    """It waits for a response for as long as several answers may take, and reuses its connection."""
    done = curl(server, "/wait?1.5", "--http2", f"{server.url}/wait?0.1", "--write-out", "%{num_connects}")
    assert done.stdout == "begun\nended\n1begun\nended\n0"


@pytest.mark.parametrize("limit", [{"http2_max_connection_age": 0.5}, {"http2_max_requests_per_connection": 1}],
                         ids=["age", "requests"])
def test_connections_that_retire_finish_what_is_open(servers, limit):
    """Two GOAWAYs, between which requests are taken; the response ends after both."""
    server = servers(**limit)
    with H2Client.connect(server) as client:
        stream = client.request("GET", "/wait?1.5")
        assert client.wait_goaway() == (2**31 - 1, NO_ERROR)
        assert client.wait_goaway(2) == (1, NO_ERROR)
        assert not stream.done
        assert client.response(stream).text == "begun\nended\n"
        client.wait_closed()
