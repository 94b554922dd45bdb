"""Check a running server of app.py: python check.py [--cacert FILE] [https://localhost:8443]

Without TLS (http://) the client speaks HTTP/2 by prior knowledge: the server needs `http2_cleartext = "both"`.
"""

import argparse
import ssl
import sys
from urllib.parse import urlsplit
from urllib.request import urlopen

import grpc
import library_pb2
import library_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT = 10


def connect(url, cacert):
    """Open a channel."""
    if url.scheme != "https":
        return grpc.insecure_channel(url.netloc)
    roots = None
    if cacert:
        with open(cacert, "rb") as file:
            roots = file.read()
    return grpc.secure_channel(url.netloc, grpc.ssl_channel_credentials(roots))


def findings(channel):
    """Yield what was to be seen, and whether it was."""
    library = library_pb2_grpc.LibraryStub(channel)
    book = library.Find(library_pb2.Query(words="Flatland"), timeout=TIMEOUT)
    yield "a book was found", book.year == 1884
    try:
        library.Find(library_pb2.Query(words="Ulysses"), timeout=TIMEOUT)
    except grpc.RpcError as error:
        yield "a missing book was not", error.code() is grpc.StatusCode.NOT_FOUND
    titles = [book.title for book in library.Search(library_pb2.Query(words="T"), timeout=TIMEOUT)]
    yield "a search gives a stream", titles[:2] == ["Flatland", "The Time Machine"]
    new = [library_pb2.Book(title=title, year=1932) for title in ("Brave New World", "The Waves")]
    yield "a stream of books was added", library.Add(iter(new), timeout=TIMEOUT).books >= 5
    lines = [library_pb2.Line(text=text) for text in ("Hello", "Goodbye")]
    answers = [line.text for line in library.Talk(iter(lines), timeout=TIMEOUT)]
    yield "the librarian answers", answers == ["You said: Hello. Quiet, please!", "You said: Goodbye. Quiet, please!"]
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    yield "the server is healthy", health.status == health_pb2.HealthCheckResponse.SERVING


def page(url, cacert):
    """Fetch Flask's page, by HTTP/1.1."""
    context = ssl.create_default_context(cafile=cacert) if url.scheme == "https" else None
    with urlopen(url.geturl(), timeout=TIMEOUT, context=context) as response:
        return response.read().decode()


def main():
    """Check, and say what was found."""
    parser = argparse.ArgumentParser(description="Check a running server of app.py.")
    parser.add_argument("url", nargs="?", default="https://localhost:8443")
    parser.add_argument("--cacert", help="the authority to trust")
    options = parser.parse_args()
    url = urlsplit(options.url)
    good = True
    with connect(url, options.cacert) as channel:
        for what, seen in findings(channel):
            print("ok  " if seen else "FAIL", what)
            good = good and seen
    seen = "<p>The Waves, 1932\n" in page(url, options.cacert)
    print("ok  " if seen else "FAIL", "Flask's page on the same port has the new books")
    sys.exit(not (good and seen))


if __name__ == "__main__":
    main()
