"""nginx, HAProxy and Caddy with their examples: traffic of all kinds, and reloads under load."""

import re

import pytest

from tests.support.deployment import Gunicorn
from tests.support.h2client import H2Client
from tests.support.kinds import ASGI_KINDS, WSGI_KINDS
from tests.support.tools import run

from .traffic import Route, check_all, check_reload, check_small_traffic, check_traffic

OTHERS = [name for name in (*WSGI_KINDS, *ASGI_KINDS) if name != "thread"]
"""Worker classes in the place of the examples' ThreadWorker."""


@pytest.fixture
def unix_socket(running, folder, certs):
    """A function that starts Gunicorn with unix_socket.py."""
    def start(**options):
        path = folder("unix-socket")
        server = Gunicorn(path, certs, "unix_socket.py", {}, env={"RUNTIME_DIRECTORY": str(path)}, **options)
        server.socket_path = str(path / "app.sock")
        return running(server)

    return start


def nginx_routes(front, worker, **options):
    """Return the ways through nginx, over HTTP/1.1 and over HTTP/2."""
    return (Route(front, worker, protocol="HTTP/1.1", duplex=False, **options),
            Route(front, worker, prefix="/stream", request_trailers=None))


def check_connections(front):
    """nginx does not use a connection for both protocols."""
    with H2Client.connect(front) as client:
        for path in ("/hello", "/stream/hello") * 10:
            assert client.get(path).status == 200
            assert client.post(path, b"body").status == 200


def check_redirect(front):
    """What http:// leads to."""
    answer = run("curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code} %{redirect_url}",
                 f"http://localhost:{front.http_port}/path")
    status, target = answer.stdout.split()
    assert status in ("301", "302", "308")
    assert re.fullmatch(r"https://localhost(:\d+)?/path", target)


def test_nginx(unix_socket, nginx, large):
    worker = unix_socket()
    front = nginx(worker)
    routes = nginx_routes(front, worker)
    for route in routes:
        check_traffic(route, large)
    check_connections(front)
    check_reload(*routes)
    check_redirect(front)


def test_haproxy_and_caddy(behind_proxy, haproxy, caddy, large):
    """Both before one Gunicorn, whose conf file is for either."""
    worker = behind_proxy()
    routes = Route(haproxy(worker, worker), worker), Route(caddy(worker), worker, request_trailers=False)
    for route in routes:
        check_traffic(route, large)
        check_redirect(route.front)
    check_reload(*routes)


def test_haproxy_with_tls_behind(behind_proxy_tls, haproxy, large):
    worker = behind_proxy_tls()
    check_all(Route(haproxy(worker, worker), worker), large)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_worker_classes(kind, unix_socket, behind_proxy, nginx, haproxy, caddy, large):
    """Behind each of the proxies. Only nginx, over HTTP/1.1 and over HTTP/2, has large bodies and a reload for them.

    ThreadWorker has shown what HAProxy and Caddy do with these, and the worker classes' own examples what they do.
    """
    worker, on_socket = behind_proxy(kind=kind), unix_socket(kind=kind)
    for route in (Route(haproxy(worker, worker), worker), Route(caddy(worker), worker, request_trailers=False)):
        check_small_traffic(route)
    # Over HTTP/1.1, Gunicorn tells ASGI applications by `receive` alone.
    routes = nginx_routes(nginx(on_socket), on_socket, tells=kind not in ASGI_KINDS)
    for route in routes:
        check_traffic(route, large)
    check_connections(routes[0].front)
    check_reload(*routes)
