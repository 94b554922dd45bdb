"""The least that HTTP/2 over TLS costs in Python: no application, no header is decoded, nothing is checked.

    python -m bench.apps.floor PORT CERT KEY

Every request gets the same response, and a connection keeps next to nothing beside what OpenSSL takes for it. What a
real server costs beyond this row is what it does for the application and against hostile clients.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import sys

from bench.apps.content import HELLO
from bench.client import ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame

READ_SIZE = 64 * 1024
STATUS_200 = b"\x88"
"""Entry 8 of HPACK's static table."""


class Connection:
    """One client. What is kept of it is the beginning of a frame that has not come whole."""

    __slots__ = ("socket", "rest")

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.socket, self.rest = sock, b""

    def advance(self) -> None:
        """Go on with the handshake or answer what has come. Raises `OSError` at the end of the connection."""
        if self.socket.version() is None:
            self.socket.do_handshake()
            self.socket.send(frame(SETTINGS, 0, 0))
        while data := self.socket.recv(READ_SIZE):
            if answer := self._answer(self.rest + data.removeprefix(PREFACE)):
                self.socket.send(answer)
        raise ConnectionError

    def _answer(self, data: bytes) -> bytes:
        answers: list[bytes] = []
        position = 0
        while len(data) - position >= 9:
            end = position + 9 + int.from_bytes(data[position : position + 3], "big")
            if end > len(data):
                break
            if data[position + 3] == HEADERS:
                stream_id = int.from_bytes(data[position + 5 : position + 9], "big")
                answers += frame(HEADERS, END_HEADERS, stream_id, STATUS_200), frame(DATA, END_STREAM, stream_id, HELLO)
            elif data[position + 3] == SETTINGS and not data[position + 4] & ACK:
                answers.append(frame(SETTINGS, ACK, 0))
            position = end
        self.rest = data[position:]
        return b"".join(answers)


def main() -> None:
    """Serve until killed."""
    port, cert, key = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2"])
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=8192)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for selected, _ in selector.select():
            if selected.data is None:
                accept(listener, context, selector)
            else:
                advance(selected.data, selector)


def accept(listener: socket.socket, context: ssl.SSLContext, selector: selectors.BaseSelector) -> None:
    """Take a new connection."""
    raw, _ = listener.accept()
    raw.setblocking(False)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    secure = context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
    selector.register(secure, selectors.EVENT_READ, Connection(secure))


def advance(connection: Connection, selector: selectors.BaseSelector) -> None:
    """Let a connection go on whose client has sent something."""
    try:
        connection.advance()
    except ssl.SSLWantReadError:
        pass
    except OSError:
        selector.unregister(connection.socket)
        connection.socket.close()


if __name__ == "__main__":
    main()
