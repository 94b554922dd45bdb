"""The table of worker classes in docs/workers.md, row by row: by dotted path and by entry point, each serves HTTP/2."""

import importlib.util

import pytest

from tests.support.command import Command, fetch

HAS_EVENTLET = importlib.util.find_spec("gunicorn.workers.geventlet") is not None
ROWS = {
    "ThreadWorker": ("gthread", "tests.apps.wsgi_app:app"),
    "GeventWorker": ("gevent", "tests.apps.wsgi_app:app"),
    "EventletWorker": ("eventlet", "tests.apps.wsgi_app:app"),
    "ASGIWorker": ("asgi", "bench.apps.asgi:app"),
}


@pytest.fixture(params=[row for row in ROWS if row != "EventletWorker" or HAS_EVENTLET])
def row(request):
    """A row that can be served with this Gunicorn; tests/e2e/test_green.py has the error where one cannot."""
    return request.param


@pytest.mark.compat
@pytest.mark.parametrize("by_entry_point", [False, True], ids=["dotted", "egg"])
def test_a_row(row, by_entry_point, certs, tmp_path):
    entry_point, app = ROWS[row]
    name = f"egg:gunicorn-h2#{entry_point}" if by_entry_point else f"gunicorn_h2.{row}"
    tls = ("--certfile", certs.server_cert, "--keyfile", certs.server_key)
    server = Command(tmp_path, certs, "-k", name, *tls, module="gunicorn", app=app)
    server.start()
    try:
        response = fetch(server)
        assert (response.status_code, response.http_version) == (200, "HTTP/2")
    finally:
        server.stop()
