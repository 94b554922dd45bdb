"""Flask-SocketIO over HTTP/2: long polling, WebSockets, the change from one to the other; its client over HTTP/1.1."""

import json
import subprocess
import sys

import pytest
import requests
import socketio

from tests.support.h2client import TIMEOUT, H2Client
from tests.support.kinds import WSGI_KINDS, kind_param
from tests.support.server import Server, stop_all
from tests.support.websocket import WebSocketStream

ASYNC_MODES = {"thread": "threading", "gevent": "gevent", "eventlet": "eventlet"}
"""What SocketIO must be told, by kind of worker."""
POLLING, WEBSOCKET = "/socket.io/?EIO=4&transport=polling", "/socket.io/?EIO=4&transport=websocket"
# The packets of Engine.IO's protocol 4, and behind MESSAGE those of Socket.IO's protocol 5.
OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = "0123456"
CONNECT, EVENT, ACK = "0", "2", "3"


@pytest.fixture(scope="module", params=map(kind_param, WSGI_KINDS))
def server(request, tmp_path_factory, certs):
    """A running server of each kind of worker. On greenlets, sessions over HTTP/1.1 outlast the graceful timeout."""
    server = Server(tmp_path_factory.mktemp("server"), WSGI_KINDS[request.param], certs, "tests.apps.socketio_app:app",
                    env={"ASYNC_MODE": ASYNC_MODES[request.param]}, keepalive=60, graceful_timeout=1).start()
    yield server
    stop_all([server])


@pytest.fixture
def client(server):
    """A connection of HTTP/2."""
    with H2Client.connect(server) as client:
        client.wait_settings()
        client.grant(2**30)
        yield client


class Polling:
    """A session by long polling."""

    def __init__(self, client):
        self.client, self.packets = client, []
        self.path = POLLING
        (self.opening,) = self._poll()
        self.path += "&sid=" + json.loads(self.opening[1:])["sid"]

    def _poll(self):
        answer = self.client.get(self.path)
        assert answer.status == 200, answer.text
        return answer.text.split("\x1e")

    def send(self, packet):
        """Send a packet."""
        # As browsers do: the library reads nothing of a body without a declared length.
        body = packet.encode()
        assert self.client.post(self.path, body, [("content-length", str(len(body)))]).text == "OK"

    def receive(self):
        """Wait for a packet that is no PING, which is answered."""
        while True:
            self.packets = self.packets or self._poll()
            packet = self.packets.pop(0)
            if packet != PING:
                return packet
            self.send(PONG)


class Socket:
    """A session by a WebSocket."""

    def __init__(self, client, path=WEBSOCKET):
        # As a page of the server's own does; others are refused.
        self.socket = WebSocketStream(client, path, ("origin", f"https://{client.authority}"))
        assert self.socket.stream.status == 200

    def send(self, packet):
        """Send a packet."""
        self.socket.send(self.socket.octets(packet))

    def receive(self):
        """Wait for a packet that is neither PING, which is answered, nor NOOP."""
        while (packet := self.socket.receive()) in (PING, NOOP):
            if packet == PING:
                self.send(PONG)
        return packet


def use(session):
    """Connect to the namespace, and exchange events."""
    session.send(MESSAGE + CONNECT)
    assert session.receive().startswith(MESSAGE + CONNECT + "{")
    session.send(MESSAGE + EVENT + '7["say","hello"]')
    assert {session.receive(), session.receive()} == {MESSAGE + EVENT + '["said","HELLO"]', MESSAGE + ACK + "7[5]"}
    session.send(MESSAGE + EVENT + '["later","some time"]')
    assert session.receive() == MESSAGE + EVENT + '["said","some time"]'


def test_long_polling(client):
    session = Polling(client)
    assert json.loads(session.opening[1:])["upgrades"] == ["websocket"]
    use(session)


def test_a_websocket_beside_other_requests(client):
    sessions = [Socket(client) for _ in range(3)]
    for session in sessions:
        assert session.receive()[0] == OPEN
    for session in sessions:
        use(session)
        assert client.get("/hello").text == "Hello, world!\n"
    assert len({session.socket.stream.stream_id for session in sessions}) == 3


def test_long_polling_that_becomes_a_websocket(client):
    polling = Polling(client)
    socket = Socket(client, polling.path.replace("polling", "websocket"))
    socket.send(PING + "probe")
    assert socket.receive() == PONG + "probe"
    # The poll that waits is answered, and ends.
    assert polling.receive() == NOOP
    socket.send(UPGRADE)
    use(socket)


def test_pings_are_sent(client):
    """By a task that the library starts."""
    session = Socket(client)
    assert session.receive()[0] == OPEN
    assert session.socket.receive() == PING


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_the_librarys_own_client(server, transport):
    """It speaks HTTP/1.1 only."""
    session = requests.Session()
    # Variables of the environment would come before what is said here.
    session.trust_env, session.verify = False, server.certs.ca
    with socketio.SimpleClient(http_session=session) as client:
        client.connect(server.url, transports=[transport], wait_timeout=TIMEOUT)
        assert client.call("say", "hello", timeout=TIMEOUT) == 5
        assert client.receive(timeout=TIMEOUT) == ["said", "HELLO"]
        assert client.transport == transport


def test_its_own_guess_is_wrong_on_a_thread_worker():
    """Both libraries for greenlets are installed here."""
    code = "import flask, flask_socketio as s; print(s.SocketIO(flask.Flask('guess')).async_mode)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("eventlet", "gevent")
