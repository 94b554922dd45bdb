"""The applications of the soak: those of the tests, and those of the benchmarks for the paths that attacks ask for."""

from bench.apps import asgi as bench_asgi
from bench.apps import wsgi as bench_wsgi
from bench.apps.content import FIXED, FRESH
from tests.apps import wsgi_app, wsgi_bridge

PATHS = (FIXED.keys() | FRESH.keys()) - {"/hello"}


def belongs_to_bench(method, path, query):
    """Whether the benchmarks' application has the path."""
    return path in PATHS or (method == "POST" and path == "/") or (path == "/events" and not query)


def wsgi(environ, start_response):
    """The WSGI application."""
    bench = belongs_to_bench(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"])
    return (bench_wsgi.app if bench else wsgi_app.app)(environ, start_response)


async def asgi(scope, receive, send):
    """The ASGI application."""
    bench = scope["type"] != "http" or belongs_to_bench(scope["method"], scope["path"], scope["query_string"])
    await (bench_asgi.app if bench else wsgi_bridge.wsgi)(scope, receive, send)
