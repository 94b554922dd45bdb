"""The layers that a request passes, told by the modules that code stands in."""

from __future__ import annotations

from types import ModuleType
from typing import Any

TLS, SYSTEM, HANDOVER, OTHER = "TLS", "system calls", "hand-over between threads", "standard library"

BY_MODULE = {
    "ssl": TLS,
    "asyncio.sslproto": TLS,
    "gevent.ssl": TLS,
    "gevent._ssl3": TLS,
    "gunicorn_h2.protocol": "core",
    "gunicorn_h2.protocol.reader": "framing",
    "gunicorn_h2.protocol.frames": "framing",
    "gunicorn_h2.protocol.outbox": "framing",
    "gunicorn_h2.protocol.codec": "HPACK",
    "gunicorn_h2.protocol.codec_fast": "HPACK",
    "gunicorn_h2.protocol.codec_hpack": "HPACK",
    "gunicorn_h2.protocol.huffman": "HPACK",
    "hpack": "HPACK",
    "gunicorn_h2.protocol.h2_engine": "h2 library",
    "gunicorn_h2.protocol.referee": "h2 library",
    "h2": "h2 library",
    "hyperframe": "h2 library",
    "gunicorn_h2.drivers": "driver",
    "gunicorn_h2.apps": "WSGI and ASGI",
    "gunicorn_h2.workers": "worker",
    "gunicorn_h2": "worker",
    "bench": "application",
    "gunicorn": "Gunicorn",
    "gevent": "event loop",
    "greenlet": "event loop",
    "asyncio": "event loop",
    "uvloop": "event loop",
    "threading": HANDOVER,
    "queue": HANDOVER,
    "concurrent.futures": HANDOVER,
}
"""A package stands for all of its modules that have no row of their own."""

OF_C = {
    "_ssl": TLS,
    "_socket": SYSTEM,
    "select": SYSTEM,
    "posix": SYSTEM,
    "_queue": HANDOVER,
    "_thread": HANDOVER,
}
"""C functions belong to the layer of the code that calls them, but for those of these modules, which may wait."""

BY_MODULE.update(OF_C)
LAYERS = (*dict.fromkeys(BY_MODULE.values()), OTHER)


def layer_of(module: str) -> str:
    """Return the layer of a function by the name of its module."""
    while module:
        if module in BY_MODULE:
            return BY_MODULE[module]
        module = module.rpartition(".")[0]
    return OTHER


def waiting_module(function: Any) -> str | None:
    """Return the module of a C function that may wait; None for all others."""
    if function.__qualname__.startswith("greenlet."):
        return "greenlet"
    owner: Any = getattr(function, "__self__", None)
    modules = [owner.__name__] if isinstance(owner, ModuleType) else [base.__module__ for base in type(owner).__mro__]
    return next((module for module in modules if module in OF_C), None)
