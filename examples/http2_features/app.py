"""Early hints, priorities and trailers in one response of a plain WSGI application.

It runs on any server. Over HTTP/2 by gunicorn_h2 the environ holds what the other features need; elsewhere they are
left out, and the page is the same.
"""

import hashlib

STYLE = b"body { font-family: sans-serif; margin: 3em } td { padding-right: 2em }\n"
PRELOAD = "</style.css>; rel=preload; as=style"


def app(environ, start_response):
    """The application."""
    if environ["PATH_INFO"] == "/":
        return page(environ, start_response)
    if environ["PATH_INFO"] == "/style.css":
        return answer(start_response, "200 OK", "text/css", STYLE)
    return answer(start_response, "404 Not Found", "text/plain", b"There are / and /style.css.\n")


def page(environ, start_response):
    """The page: a hint before it, its priority in it, a checksum behind it."""
    hint = environ.get("wsgi.early_hints")
    if hint is not None:
        # The browser fetches the style sheet while the page is still in the making.
        hint([("Link", PRELOAD)])

    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Link", PRELOAD)])
    digest = hashlib.sha256()
    for piece in render(environ):
        digest.update(piece)
        yield piece

    send_trailers = environ.get("gunicorn.http2.send_trailers")
    if send_trailers is not None:
        # Known only now that everything has been sent.
        send_trailers([("X-Content-SHA256", digest.hexdigest())])


def render(environ):
    """Yield the page, piece by piece."""
    yield b"<!doctype html><title>HTTP/2</title><link rel=stylesheet href=/style.css><table>\n"
    for label, key in (
        ("Protocol", "SERVER_PROTOCOL"),
        ("Stream", "gunicorn.http2.stream_id"),
        ("Weight (RFC 7540)", "gunicorn.http2.priority_weight"),
        ("Depends on (RFC 7540)", "gunicorn.http2.priority_depends_on"),
        ("Urgency (RFC 9218)", "gunicorn.http2.urgency"),
        ("Incremental (RFC 9218)", "gunicorn.http2.incremental"),
    ):
        yield f"<tr><td>{label}<td>{environ.get(key, 'unknown')}\n".encode()
    yield b"</table>\n"


def answer(start_response, status, content_type, body):
    """A plain answer."""
    start_response(status, [("Content-Type", content_type), ("Content-Length", str(len(body)))])
    return [body]
