"""Fixtures for the tests of the applications' side: a WSGI application behind a driver with a client; an event loop."""

import asyncio

import pytest

from tests.drivers.asyncio_wire import Loop

from .wsgi_rig import QUIET, Rig


@pytest.fixture
def loop():
    """An event loop; nothing may have gone wrong in it unnoticed."""
    loop = Loop()
    asyncio.set_event_loop(loop)
    yield loop
    loop.turns()
    assert not asyncio.all_tasks(loop)
    assert not loop.errors
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def serve():
    """A function that serves an application to a client; keywords are Gunicorn's settings, or the connection's.

    At the end everything is closed, and an error in the log that the test did not expect fails it.
    """
    rigs = []

    def serve(app, peer=None, server=None, tls=None, pairs=(), cut=None, **settings):
        rigs.append(rig := Rig(app, **settings))
        options = {"peer": peer, "server": server}
        rig.connect(tls=tls, settings=pairs, cut=cut, **{name: v for name, v in options.items() if v is not None})
        return rig

    yield serve
    for rig in reversed(rigs):
        rig.close()


@pytest.fixture(params=[{}, QUIET], ids=["watched", "quiet"])
def serve_either_way(serve, request):
    """As `serve`, once with and once without anyone to tell of the request, for what is made depends on it."""
    def serve_either_way(app, **options):
        return serve(app, **{**request.param, **options})
    return serve_either_way
