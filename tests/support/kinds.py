"""The worker classes that this Gunicorn has, for tests that go over all of them whatever ``--worker`` says."""

import importlib.util

from tests.support.server import WorkerKind

WSGI_KINDS = {"thread": WorkerKind("gunicorn_h2.ThreadWorker"), "gevent": WorkerKind("gunicorn_h2.GeventWorker")}
if importlib.util.find_spec("gunicorn.workers.geventlet"):
    WSGI_KINDS["eventlet"] = WorkerKind("gunicorn_h2.EventletWorker")

ASGI_KINDS = {"asgi": WorkerKind("gunicorn_h2.ASGIWorker")}
