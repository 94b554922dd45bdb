"""The witnesses: nginx and HAProxy before a worker, nginx and Gunicorn's own HTTP/1 behind one."""

import socket
import subprocess
import threading
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.kinds import WSGI_KINDS
from tests.support.nginx import NGINX_HEAD
from tests.support.server import REFERENCE_WORKERS, Server, WorkerKind, stop_all
from tests.support.tools import require_tool

APPS = {"witness": "tests.apps.witness:app", "forward": "tests.apps.witness:forward"}
ASGI_APPS = {"witness": "tests.apps.wsgi_bridge:witness", "forward": "tests.apps.wsgi_bridge:forward"}
KINDS = {
    **{name: kind._replace(apps=APPS) for name, kind in WSGI_KINDS.items()},
    "asgi": REFERENCE_WORKERS["asgi"]._replace(apps=ASGI_APPS),
}
HTTP1 = WorkerKind("gthread", apps=APPS)

NGINX = NGINX_HEAD + """\
    underscores_in_headers on;
    ignore_invalid_headers off;
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header Connection "";
    grpc_set_header Host $http_host;
    upstream http1 {{ server {worker}; keepalive 4; }}
    upstream http2 {{ server {worker}; keepalive 4; }}
    upstream behind {{ server {behind}; keepalive 4; }}
    server {{ listen unix:{folder}/h2-h1 http2; location / {{ proxy_pass http://http1; }} }}
    server {{ listen unix:{folder}/h2-h2 http2; location / {{ grpc_pass grpc://http2; }} }}
    server {{ listen unix:{folder}/h1-h2; location / {{ grpc_pass grpc://http2; }} }}
    server {{ listen unix:{folder}/behind; location / {{ proxy_pass http://behind; }} }}
}}
"""
HAPROXY = """
global
    maxconn 256
defaults
    mode http
    http-reuse always
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend h1-h2
    bind fd@{h1_h2}
    default_backend http2
frontend h2-h2
    bind fd@{h2_h2} proto h2
    bind fd@{tcp} proto h2
    default_backend http2
frontend h2-h1
    bind fd@{h2_h1} proto h2
    default_backend http1
backend http1
    server worker {worker}
backend http2
    server worker {worker} proto h2
"""


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    """Every worker class."""
    return KINDS[request.param]


@pytest.fixture(scope="module")
def servers(tmp_path_factory, certs):
    """A function that starts a server without TLS, on a Unix socket."""
    started = []

    def start(kind, app, **options):
        options.setdefault("http2_cleartext", "both")
        server = Server(tmp_path_factory.mktemp("w"), kind, certs, app, tls=False, unix=True, threads=4, keepalive=30,
                        accesslog=None, **options)
        started.append(server.start())
        # A body that ends too soon, where it comes over HTTP/1.
        server.expect("StreamAborted")
        return server

    yield start
    stop_all(started)


@pytest.fixture(scope="module")
def ours(servers, kind):
    """A worker of ours with the witness."""
    return servers(kind, "witness")


@pytest.fixture(scope="module")
def http1(servers):
    """Gunicorn's own worker, which speaks HTTP/1 alone."""
    return servers(HTTP1, "witness", http2_cleartext="off")


@pytest.fixture(scope="module")
def nginx(tmp_path_factory, ours, http1):
    """A running nginx: the folder of its sockets."""
    with run_nginx(tmp_path_factory.mktemp("n"), ours, http1) as folder:
        yield folder


@pytest.fixture(scope="module")
def haproxy(tmp_path_factory, ours):
    """A running HAProxy: the folder of its sockets."""
    with run_haproxy(tmp_path_factory.mktemp("h"), ours) as folder:
        yield folder


@contextmanager
def run_nginx(folder, worker, behind):
    """Run nginx before a worker, and before one behind it; return the folder of its sockets, by what they speak."""
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, worker=f"unix:{worker.socket_path}",
                                                    behind=f"unix:{behind.socket_path}"))
    # It says so when it already listens.
    with running("nginx", "-e", "stderr", "-c", f"{folder}/nginx.conf", ready=b"event method"):
        yield folder


@contextmanager
def run_haproxy(folder, worker):
    """Run HAProxy before a worker; return the folder of its sockets, by what they speak.

    For clients that know no Unix sockets, h2-h2 has a port on the loopback interface too, which the file `port` names.
    """
    with ExitStack() as stack:
        numbers = {}
        for name in ("h1-h2", "h2-h2", "h2-h1"):
            # It inherits the sockets, which can be connected to before it runs.
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(f"{folder}/{name}")
            listener.listen(64)
            numbers[name.replace("-", "_")] = listener.fileno()
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        numbers["tcp"] = tcp.fileno()
        (folder / "port").write_text(str(tcp.getsockname()[1]))
        (folder / "haproxy.cfg").write_text(HAPROXY.format(worker=f"unix@{worker.socket_path}", **numbers))
        stack.enter_context(running("haproxy", "-db", "-f", f"{folder}/haproxy.cfg", pass_fds=tuple(numbers.values())))
        yield folder


@contextmanager
def running(name, *arguments, ready=None, **options):
    """Run a proxy for as long as the block lasts, which begins when it has said that it is ready."""
    process = subprocess.Popen([require_tool(name), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, **options)
    lines, is_ready = [], threading.Event()

    def read():
        for line in process.stderr:
            lines.append(line)
            if ready is not None and ready in line:
                is_ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert ready is None or is_ready.wait(10), b"".join(lines)
        yield
        assert process.poll() is None, b"".join(lines)
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()
