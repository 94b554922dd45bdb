"""What only greenlets do: they are ended by exceptions that are no `Exception`."""

import sys

from greenlet import GreenletExit, getcurrent

from tests.apps import wsgi_app


class Deadline(BaseException):
    """As gevent's and eventlet's own `Timeout`."""


def killed(environ, start_response):
    """Wait at the gate; say so on the log if that is ended."""
    try:
        return wsgi_app.gate(environ, start_response)
    except GreenletExit:
        print("the request was killed", file=sys.stderr, flush=True)
        raise


def app(environ, start_response):
    """Find the route, else ask the other application."""
    path = environ["PATH_INFO"]
    if path == "/deadline":
        raise Deadline("a secret")
    if path == "/greenlet":
        return wsgi_app.answer_json(start_response, id(getcurrent()))
    if path == "/killed":
        return killed(environ, start_response)
    return wsgi_app.app(environ, start_response)
