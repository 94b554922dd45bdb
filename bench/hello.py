"""The application of the benchmarks."""

import time


def app(environ, start_response):
    """Answer "Hello world!"; half a second later for /sleep."""
    if environ["PATH_INFO"] == "/sleep":
        time.sleep(0.5)
    body = b"Hello world!"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
