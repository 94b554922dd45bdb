"""The worker classes that can run here, for tests that go over all of them whatever ``--worker`` says."""

import importlib.util

from tests.support.server import WorkerKind


def _is_here(*modules):
    return all(importlib.util.find_spec(module) for module in modules)


WSGI_KINDS = {"thread": WorkerKind("gunicorn_h2.ThreadWorker")}
if _is_here("gevent"):
    WSGI_KINDS["gevent"] = WorkerKind("gunicorn_h2.GeventWorker")
if _is_here("eventlet", "gunicorn.workers.geventlet"):
    WSGI_KINDS["eventlet"] = WorkerKind("gunicorn_h2.EventletWorker")

ASGI_KINDS = {"asgi": WorkerKind("gunicorn_h2.ASGIWorker")}
