"""nginx, HAProxy and Caddy with their examples: all kinds of traffic, and reloads under load."""

import re

import pytest

from tests.support.deployment import Gunicorn
from tests.support.h2client import H2Client
from tests.support.tools import run

from .traffic import Route, check_reload, check_traffic


@pytest.fixture
def unix_socket(running, folder, certs):
    """Gunicorn with unix_socket.py."""
    path = folder("gunicorn")
    server = Gunicorn(path, certs, "unix_socket.py", {"workers = 2": "workers = 1"}, workers=1,
                      env={"RUNTIME_DIRECTORY": str(path)})
    server.socket_path = str(path / "app.sock")
    return running(server)


def check_all(route, folder):
    """All kinds of traffic, a reload under load, and what http:// leads to."""
    check_traffic(route, folder)
    check_reload(route)
    answer = run("curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code} %{redirect_url}",
                 f"http://localhost:{route.front.http_port}/path")
    status, target = answer.stdout.split()
    assert status in ("301", "302", "308")
    assert re.fullmatch(r"https://localhost(:\d+)?/path", target)


def test_nginx(unix_socket, nginx, tmp_path):
    route = Route(nginx(unix_socket), unix_socket, protocol="HTTP/1.1", duplex=False)
    check_all(route, tmp_path)


def test_nginx_by_http2(unix_socket, nginx, tmp_path):
    route = Route(nginx(unix_socket), unix_socket, prefix="/stream", request_trailers=None)
    check_all(route, tmp_path)


def test_nginx_by_both(unix_socket, nginx):
    """Connections that were used for one protocol are not used for the other."""
    proxy = nginx(unix_socket)
    with H2Client.connect(proxy) as client:
        for path in ("/hello", "/stream/hello") * 10:
            assert client.get(path).status == 200
            assert client.post(path, b"body").status == 200


def test_haproxy(behind_proxy, haproxy, tmp_path):
    worker = behind_proxy()
    route = Route(haproxy(worker, worker), worker)
    check_all(route, tmp_path)


def test_haproxy_with_tls_behind(running, folder, certs, haproxy, tmp_path):
    replacements = {"0.0.0.0:8443": "127.0.0.1:0", "10.0.0.10": "127.0.0.1", "workers = 2": "workers = 1",
                    "/etc/ssl/internal/app.pem": certs.server_cert, "/etc/ssl/internal/app.key": certs.server_key}
    worker = running(Gunicorn(folder("gunicorn"), certs, "behind_proxy_tls.py", replacements, workers=1, tls=True))
    route = Route(haproxy(worker, worker, tls=True), worker)
    check_all(route, tmp_path)


def test_caddy(behind_proxy, caddy, tmp_path):
    worker = behind_proxy()
    route = Route(caddy(worker), worker, request_trailers=False)
    check_all(route, tmp_path)
