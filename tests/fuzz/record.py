"""Makes the corpus: `python -m tests.fuzz.record` records what real clients send, and writes a few sessions by hand.

curl, nghttp, h2load, httpx, grpc and Chromium talk to a real worker, through a recorder that takes TLS off where they
insist on it. What fuzzing has found (`found-*`) stays as it is.
"""

import select
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import grpc
import httpx
from hpack import Decoder

from tests.protocol.observers import split
from tests.protocol.peer import (
    CONTINUATION,
    DATA,
    END_STREAM,
    HAS_PRIORITY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PADDED,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    data,
    goaway,
    ping,
    priority,
    raw,
    rst_stream,
    settings,
    settings_ack,
    window_update,
)
from tests.protocol.test_huffman import encode
from tests.protocol.test_proxy_header import CLIENT_HELLO, MALFORMED
from tests.protocol.test_proxy_header import HEADERS as PROXY_HEADERS
from tests.support.certs import Certs
from tests.support.server import Server, WorkerKind

from .script import (
    CONFIGS,
    END,
    FINISH,
    FRAME,
    HEAD,
    INTERIM,
    PAUSE,
    READ,
    REQUEST,
    RESET,
    RESPOND,
    SHUTDOWN,
    TRAILERS,
    WAIT,
    WRITE,
    Input,
    Player,
    instruction,
    send,
)

CORPUS = Path(__file__).parent / "corpus"
LARGEST = 8_000
BODY = b"x" * 1_500
CHROMIUM = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--ignore-certificate-errors"]


class Recorder(threading.Thread):
    """Passes the octets of one connection at a time on to a server, and keeps what its clients send."""

    def __init__(self, server, context=None):
        super().__init__(daemon=True)
        self.server, self.context, self.sessions = server, context, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.start()

    def run(self):
        """Take connections until the recorder is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client):
        try:
            if self.context is not None:
                client = self.context.wrap_socket(client, server_side=True)
            with client, socket.create_connection(("127.0.0.1", self.server.port)) as upstream:
                self._pass(client, upstream)
        except OSError:
            pass

    def _pass(self, client, upstream):
        session = []
        self.sessions.append(session)
        while True:
            pending = isinstance(client, ssl.SSLSocket) and client.pending()
            ready = [client] if pending else select.select([client, upstream], [], [])[0]
            for source in ready:
                octets = source.recv(65_536)
                if not octets:
                    return
                if source is client:
                    session.append(octets)
                    upstream.sendall(octets)
                else:
                    client.sendall(octets)

    def take(self):
        """The sessions so far, which are forgotten."""
        sessions, self.sessions = self.sessions, []
        return [session for session in sessions if sum(map(len, session)) > len(PREFACE)]

    def close(self):
        """Take no more connections."""
        self._listener.close()


def run(*command):
    """Run a client; what it thinks of the answers is of no interest."""
    subprocess.run([str(part) for part in command], timeout=60, check=False, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def by_curl(url, file):
    """GET with cookies, POST, HEAD, and a wait for 100."""
    curl = ("curl", "-s", "--http2-prior-knowledge")
    run(*curl, "-b", "a=1; b=2", f"{url}/hello", f"{url}/headers")
    run(*curl, "--data-binary", f"@{file}", "-H", "Expect: 100-continue", f"{url}/count")
    run(*curl, "-I", f"{url}/bytes?n=100000")


def by_nghttp(url, file):
    """Several requests with priorities, an upload with trailers, a large response."""
    run("nghttp", "-n", f"{url}/hello", f"{url}/headers", f"{url}/bytes?n=200000")
    run("nghttp", "-n", "-w", "10", "-W", "12", "-d", file, "--trailer", "check: sum", f"{url}/count")
    run("nghttp", "-n", "-p", "32", "--no-dep", "-b", "7", f"{url}/hello")


def by_h2load(url, file):
    """Many requests at once."""
    run("h2load", "-n", "12", "-c", "1", "-m", "4", "-d", file, f"{url}/count")


def by_httpx(url, file):
    """GET and POST on one connection."""
    with httpx.Client(http1=False, http2=True) as client:
        client.get(f"{url}/hello", headers={"accept-language": "en"})
        client.post(f"{url}/count", content=file.read_bytes())


def by_grpc(url, file):
    """A call with messages both ways, one with a deadline that passes, one that is cancelled."""
    with grpc.insecure_channel(url.removeprefix("http://")) as channel:
        call = channel.stream_stream("/echo", None, None)
        for attempt in ([b"one", b"two" * 100], [b""]):
            try:
                list(call(iter(attempt), timeout=0.5, metadata=[("x-key", "value")]))
            except grpc.RpcError:
                pass


def by_chromium(url, file):
    """A page and what a browser asks for beside it."""
    with tempfile.TemporaryDirectory() as profile:
        run("chromium", *CHROMIUM, f"--user-data-dir={profile}", "--dump-dom", f"{url}/hello")


CLIENTS = {"curl": by_curl, "nghttp": by_nghttp, "h2load": by_h2load, "httpx": by_httpx, "grpc": by_grpc,
           "chromium": by_chromium}


def script_of(session, config=0):
    """A script that sends a session, whose application reads and answers each request as it comes."""
    player = Player("fast", CONFIGS[config])
    script = bytes((config,))
    for octets in session:
        called = len(player.calls)
        step = send(octets[:LARGEST])
        player.follow(Input(step))
        for number in reversed(range(len(player.calls) - called)):
            answer = instruction(READ, number) + instruction(RESPOND, number, b"\x06") + instruction(FINISH, number)
            player.follow(Input(answer))
            step += answer
        script += step
    return script


def blocks_of(session):
    """The field blocks of a session."""
    blocks = []
    for kind, flags, _, payload in split(b"".join(session).removeprefix(PREFACE))[0]:
        if kind == HEADERS:
            if flags & PADDED:
                payload = payload[1:len(payload) - payload[0]]
            blocks.append(payload[5:] if flags & HAS_PRIORITY else payload)
        elif kind == CONTINUATION:
            blocks[-1] += payload
    return [block for block in blocks if len(block) < 256]


def sections_of(blocks):
    """The field sections, for the target that encodes them."""
    decoder, octets = Decoder(), b""
    for number, block in enumerate(blocks):
        fields = [(name[:63], value[:255]) for name, value in decoder.decode(block, raw=True)][:15]
        octets += bytes((len(fields) | number % 16 << 4,))
        octets += b"".join(bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in fields)
    return octets


GET, POST = b"\x82\x87\x84\x41\x01a", b"\x83\x87\x84\x41\x01a"
GREET = instruction(PAUSE, 15)


def request(block=GET, end=True, **more):
    """A request of a script's."""
    return instruction(REQUEST, end | more.get("how", 0), bytes((len(block),)), block)


def frame(number, kind, flags=0, payload=b""):
    """A frame of a script's, on the stream before the next by so many requests."""
    return instruction(FRAME, number, bytes((kind, flags, 0, len(payload))), payload)


WRITTEN = {
    "answers": GREET + request() + instruction(HEAD, 0, b"\0") + instruction(WRITE, 0, b"\x0d")
    + frame(1, WINDOW_UPDATE, 0, b"\0\1\0\0") + frame(0, WINDOW_UPDATE, 0, b"\0\1\0\0") + instruction(WRITE, 0, b"\x0e")
    + instruction(TRAILERS) + instruction(FINISH),
    "interim": GREET + request(POST, False) + instruction(INTERIM) + frame(1, DATA, 0, b"body") + instruction(READ)
    + frame(1, HEADERS, 5, b"\x00\x01t\x011") + instruction(RESPOND, 0, b"\x04") + instruction(FINISH),
    "shutdown": GREET + request() + instruction(SHUTDOWN) + instruction(WAIT, 8) + frame(0, PING, 1, b"shutdown")
    + request() + instruction(RESPOND, 1, b"\x05") + instruction(WAIT, 9),
    "stall": b"".join((GREET, frame(0, SETTINGS, 0, b"\0\4\0\0\0\0"), request(), instruction(RESPOND, 0, b"\x07"),
                       instruction(WAIT, 13), frame(1, RST_STREAM, 0, b"\0\0\0\10"), instruction(FINISH))),
    "unread": GREET + request(POST, False) + frame(1, DATA, 0, b"x" * 200) + instruction(RESPOND, 0, b"\x04")
    + instruction(WAIT, 3) + instruction(WAIT, 4) + frame(1, DATA, END_STREAM, b"late"),
    "paused": GREET + instruction(PAUSE, 1) + request() * 9 + b"".join(
        instruction(RESPOND, number, b"\x0d") for number in range(9)) + instruction(PAUSE, 0),
    "cancelled": GREET + (request() + frame(1, RST_STREAM, 0, b"\0\0\0\10")) * 12 + instruction(FINISH) * 2,
    "given-up": GREET + request(POST, False) + instruction(RESET) + frame(1, DATA, 0, b"x") + frame(2, DATA, 0, b"x"),
    "cut": GREET + request(how=2) + request(how=8) + request(b"\x02" + POST + b"\0\0", how=8) + request(
        b"\0\0\0\3\7" + GET, how=4) + instruction(END),
    "upload": b"".join((GREET, request(POST + b"\x0f\x0d\x03600", False), (
        frame(1, DATA, 0, b"y" * 100) + instruction(READ)) * 6, instruction(WAIT, 2), frame(1, DATA, END_STREAM))),
    "errors": b"".join((bytes((15 << 4 | PAUSE,)), send(
        raw(HEADERS, 5, 1, GET + b"\x00\x01X\x01y") + window_update(1, 0) + priority(3, 3) + data(1, b"x")
        + goaway() + ping() + settings((INITIAL_WINDOW_SIZE, 2**31 - 1), (1, 0), (5, 20_000)) + rst_stream(1)))),
    "opened": send(PREFACE + settings((INITIAL_WINDOW_SIZE, 50), (1, 100)), 1) + send(
        settings_ack() + raw(HEADERS, 5, 1, GET), 7),
}
UPGRADES = {
    "get": b"",
    "length": b"Content-Length: 5\r\n",
    "chunked": b"Transfer-Encoding: chunked\r\n",
}
HEAD_OF_UPGRADE = (b"POST /path HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
                   b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n%s\r\n")
BODIES = {"get": b"", "length": b"hello", "chunked": b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"}


def write(target, name, octets):
    """Write a seed."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(octets)


def write_session(name, session):
    """Write what a recorded session gives each target."""
    script, blocks = script_of(session), blocks_of(session)
    write("session", name, script)
    if blocks:
        write("decode", name, b"\x0f" + b"".join(bytes((len(block),)) + block for block in blocks))
        write("encode", name, sections_of(blocks))
        write("huffman", name, encode(blocks[0]))
    write("opening", name, b"\0\x06" + session[0][:200])


def record(folder):
    """Run every client; write what each has sent."""
    certs = Certs(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs.server_cert, certs.server_key)
    context.set_alpn_protocols(["h2"])
    file = folder / "body"
    file.write_bytes(BODY)
    server = Server(folder, WorkerKind("gunicorn_h2.ThreadWorker"), certs, "wsgi", tls=False).start()
    recorders = {"http": Recorder(server), "https": Recorder(server, context)}
    try:
        for name, client in CLIENTS.items():
            scheme = "https" if name == "chromium" else "http"
            client(f"{scheme}://127.0.0.1:{recorders[scheme].port}", file)
            for number, session in enumerate(recorders[scheme].take()):
                write_session(f"{name}-{number}", session)
                print(f"{name}-{number}: {sum(map(len, session))} octets")
        url = f"http://127.0.0.1:{recorders['http'].port}"
        run("curl", "-s", "--http2", f"{url}/hello")
        run("nghttp", "-n", "-u", f"{url}/hello")
        for number, session in enumerate(recorders["http"].take()):
            write("upgrade", f"client-{number}", session[0])
            write("opening", f"client-{number}", b"\2\x09" + session[0])
    finally:
        for recorder in recorders.values():
            recorder.close()
        server.stop()


def write_proxy_headers():
    """Write the PROXY headers of the tests but the largest ones, before TLS."""
    headers = {**{name: header for name, (header, _) in PROXY_HEADERS.items()}, **MALFORMED}
    for name, header in headers.items():
        if len(header) < 250:
            write("proxy", f"written-{name}", b"\0\x06" + header + CLIENT_HELLO)


def main():
    """Make the corpus."""
    write_proxy_headers()
    for name, session in WRITTEN.items():
        for config in (0, 1 + len(name) % (len(CONFIGS) - 1)):
            write("session", f"written-{name}-{config}", bytes((config,)) + session)
    for name, fields in UPGRADES.items():
        octets = HEAD_OF_UPGRADE % fields + BODIES[name]
        write("upgrade", f"written-{name}", octets)
        write("opening", f"written-{name}", b"\2\x03" + octets)
    with tempfile.TemporaryDirectory() as folder:
        record(Path(folder))
    total = sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file())
    print(f"{total} octets in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
