"""Check a running server of app.py: python check.py [--insecure] [https://localhost:8443]

It speaks HTTP/2 by the h2 library, which gunicorn_h2 brings along, and needs nothing else.
"""

import argparse
import hashlib
import re
import socket
import ssl
import sys
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events

TIMEOUT = 10


class Answer:
    """What came back."""

    def __init__(self):
        self.hints, self.fields, self.trailers, self.body = [], {}, {}, b""


def connect(url, cafile, insecure):
    """Open a connection that speaks HTTP/2: by ALPN under TLS, by prior knowledge without."""
    sock = socket.create_connection((url.hostname, url.port or 443), timeout=TIMEOUT)
    if url.scheme != "https":
        return sock
    context = ssl.create_default_context(cafile=cafile)
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    sock = context.wrap_socket(sock, server_hostname=url.hostname)
    if sock.selected_alpn_protocol() != "h2":
        raise SystemExit("the server does not speak HTTP/2")
    return sock


def fetch(sock, url):
    """Ask for the page, with a priority by both schemes; return all that comes back."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    request = [(":method", "GET"), (":scheme", url.scheme), (":authority", url.netloc), (":path", "/"),
               ("priority", "u=1, i")]
    connection.send_headers(1, request, end_stream=True, priority_weight=201, priority_depends_on=0)
    answer, ended = Answer(), False
    while not ended:
        sock.sendall(connection.data_to_send())
        data = sock.recv(65_536)
        if not data:
            raise SystemExit("the server closed the connection")
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.InformationalResponseReceived):
                answer.hints.append(dict(event.headers))
            elif isinstance(event, h2.events.ResponseReceived):
                answer.fields = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                answer.body += event.data
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.TrailersReceived):
                answer.trailers = dict(event.headers)
            elif isinstance(event, h2.events.StreamReset):
                raise SystemExit(f"the server reset the stream: {event.error_code}")
            ended = ended or isinstance(event, h2.events.StreamEnded)
    connection.close_connection()
    sock.sendall(connection.data_to_send())
    return answer


def findings(answer):
    """Yield what was to be seen, and whether it was."""
    cells = dict(re.findall(r"<tr><td>(.*?)<td>(.*)", answer.body.decode()))
    hint = answer.hints[0] if answer.hints else {}
    yield "one early hint came first", len(answer.hints) == 1 and hint.get(":status") == "103"
    yield "it names the style sheet", hint.get("link", "").startswith("</style.css>; rel=preload")
    yield "the response is a page", answer.fields.get(":status") == "200" and len(cells) == 6
    yield "it came by HTTP/2", cells.get("Protocol") == "HTTP/2.0"
    yield "the weight was 201", cells.get("Weight (RFC 7540)") == "201"
    yield "the urgency was 1, and incremental", (
        cells.get("Urgency (RFC 9218)"), cells.get("Incremental (RFC 9218)")) == ("1", "True")
    digest = hashlib.sha256(answer.body).hexdigest()
    yield "the trailer has the page's checksum", answer.trailers.get("x-content-sha256") == digest


def main():
    """Check, and say what was found."""
    parser = argparse.ArgumentParser(description="Check early hints, priorities and trailers of a running server.")
    parser.add_argument("url", nargs="?", default="https://localhost:8443")
    parser.add_argument("--cacert", help="the authority to trust")
    parser.add_argument("--insecure", action="store_true", help="trust anyone")
    options = parser.parse_args()
    url = urlsplit(options.url)
    with connect(url, options.cacert, options.insecure) as sock:
        answer = fetch(sock, url)
    good = True
    for what, seen in findings(answer):
        print("ok  " if seen else "FAIL", what)
        good = good and seen
    sys.exit(not good)


if __name__ == "__main__":
    main()
