"""Gunicorn worker classes that serve an unchanged WSGI or ASGI application over HTTP/2.

    gunicorn app:app -k gunicorn_h2.ThreadWorker --certfile cert.pem --keyfile key.pem

Public names are imported on first use (PEP 562). Importing the package, or the protocol core below it, imports no
worker, and a worker imports only what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gunicorn_h2.drivers.channel import StreamAborted
    from gunicorn_h2.workers.asgi import ASGIWorker
    from gunicorn_h2.workers.geventlet import EventletWorker
    from gunicorn_h2.workers.ggevent import GeventWorker
    from gunicorn_h2.workers.thread import ThreadWorker

__all__ = ["ASGIWorker", "EventletWorker", "GeventWorker", "StreamAborted", "ThreadWorker", "__version__"]

__version__ = "0.1.1"

_HOMES = {
    "ASGIWorker": "gunicorn_h2.workers.asgi",
    "EventletWorker": "gunicorn_h2.workers.geventlet",
    "GeventWorker": "gunicorn_h2.workers.ggevent",
    "StreamAborted": "gunicorn_h2.drivers.channel",
    "ThreadWorker": "gunicorn_h2.workers.thread",
}


def __getattr__(name: str) -> object:
    """Import a public name from the module that defines it, once."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
