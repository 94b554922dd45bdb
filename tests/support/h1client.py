"""HTTP/1.1 byte for byte: what is sent is written out by the test, the answer is parsed by the standard library."""

import http.client

from tests.support.h2client import open_socket


class H1Response:
    """A parsed HTTP/1.1 response."""

    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.getheaders(), response.read()

    def header(self, name, default=None):
        """Return the value of a response field, repeated ones joined with a comma."""
        values = [value for key, value in self.headers if key.lower() == name]
        return ", ".join(values) if values else default

    @property
    def text(self):
        """The body as text."""
        return self.body.decode("utf-8")


def exchange(server, request, method="GET", source=None):
    """Send the bytes of one request on a new connection, from the address `source` if any; return the response."""
    with open_socket(server, alpn=("http/1.1",), source=source) as sock:
        sock.sendall(request)
        return read_response(sock, method)


def read_response(sock, method="GET"):
    """Read the response to a request that was sent, on a connection that may go on."""
    response = http.client.HTTPResponse(sock, method=method)
    response.begin()
    return H1Response(response)


def request_bytes(server, method="GET", path="/", headers=(), body=b"", host=None):
    """Return the bytes of a request; header values may be str (latin-1) or bytes."""
    lines = [f"{method} {path} HTTP/1.1".encode("latin-1"), b"Host: " + (host or server.authority).encode()]
    lines += [_octets(name) + b": " + _octets(value) for name, value in headers]
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _octets(value):
    return value if isinstance(value, bytes) else value.encode("latin-1")
