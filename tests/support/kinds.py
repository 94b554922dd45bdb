"""The worker classes that this Gunicorn has, for tests that go over all of them whatever ``--worker`` says."""

import importlib.util

import pytest

from tests.support.server import Server, WorkerKind

WSGI_KINDS = {"thread": WorkerKind("gunicorn_h2.ThreadWorker"), "gevent": WorkerKind("gunicorn_h2.GeventWorker")}
if importlib.util.find_spec("gunicorn.workers.geventlet"):
    WSGI_KINDS["eventlet"] = WorkerKind("gunicorn_h2.EventletWorker")

ASGI_KINDS = {"asgi": WorkerKind("gunicorn_h2.ASGIWorker")}

# The asgi worker's loop is uvloop where that is installed.
KINDS = {**WSGI_KINDS, **ASGI_KINDS, "asyncio": ASGI_KINDS["asgi"]}


def kind_param(name, *marks):
    """A parameter for a test on one of KINDS; those for eventlet, which only Gunicorn 25 has, are for `make compat`."""
    return pytest.param(name, marks=(*marks, pytest.mark.compat) if name == "eventlet" else marks)


def make_server(name, folder, certs, app, **settings):
    """A server of one of KINDS, not started; `app` has {} in the place of "wsgi" or "asgi"."""
    if name == "asyncio":
        settings["asgi_loop"] = "asyncio"
    return Server(folder, KINDS[name], certs, app.format("wsgi" if name in WSGI_KINDS else "asgi"), **settings)
