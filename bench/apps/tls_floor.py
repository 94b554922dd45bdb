"""A server that ends TLS and does nothing else: what OpenSSL, through Python's ssl module, costs a connection.

    python -m bench.apps.tls_floor PORT CERT KEY

It answers every application octet with one octet, so that a client can tell that its handshake is complete.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import sys


def main() -> None:
    """Serve until killed."""
    port, cert, key = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2"])
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=8192)
    listener.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for selected, _ in selector.select():
            if selected.fileobj is listener:
                accept(listener, context, selector)
            else:
                advance(selected.fileobj, selector)


def accept(listener: socket.socket, context: ssl.SSLContext, selector: selectors.BaseSelector) -> None:
    """Take a new connection."""
    raw, _ = listener.accept()
    raw.setblocking(False)
    connection = context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
    selector.register(connection, selectors.EVENT_READ)


def advance(connection: ssl.SSLSocket, selector: selectors.BaseSelector) -> None:
    """Go on with a connection whose client has sent something."""
    try:
        if connection.version() is None:
            connection.do_handshake()
        data = connection.recv(16384)
        if data:
            connection.send(b"." * len(data))
            return
    except ssl.SSLWantReadError:
        return
    except OSError:
        pass
    selector.unregister(connection)
    connection.close()


if __name__ == "__main__":
    main()
