"""Fixtures that run the examples: Gunicorn with its conf files, and the proxies in front of it."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.deployment import Gunicorn, Program, free_port
from tests.support.server import stop_all

EXAMPLE_CERT = "/etc/ssl/example.org/fullchain.pem"
EXAMPLE_KEY = "/etc/ssl/example.org/privkey.pem"


def pytest_collection_modifyitems(items):
    """Several programs share the machine's processors, and each is a part of the way."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(150))


@pytest.fixture
def running():
    """A function that starts a server and returns it; the last one is stopped first, and each log examined."""
    servers = []

    def start(server):
        servers.append(server)
        return server.start()

    yield start
    for server in reversed(servers):
        stop_all([server])


@pytest.fixture
def folder(tmp_path):
    """A function that makes a folder."""
    def make(name):
        path = tmp_path / name
        path.mkdir()
        return path

    return make


@pytest.fixture
def behind_proxy(running, folder, certs):
    """A function that starts Gunicorn with behind_proxy.py, one worker, so that its records are in one place."""
    def start(name="gunicorn", port=0, **options):
        replacements = {"127.0.0.1:8000": f"127.0.0.1:{port}", "workers = 2": "workers = 1"}
        return running(Gunicorn(folder(name), certs, "behind_proxy.py", replacements, workers=1, **options))

    return start


@pytest.fixture
def nginx(running, folder, certs):
    """A function that starts nginx before Gunicorn."""
    def start(worker):
        port, http_port, path = free_port(), free_port(), folder("nginx")
        replacements = {
            "events {": f"pid {path}/pid;\ndaemon off;\nmaster_process off;\nerror_log stderr notice;\nevents {{",
            "http {": "http {\naccess_log off;\n" + "".join(
                f"{name}_temp_path {path}/{name};\n"
                for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")),
            "listen 80;": f"listen 127.0.0.1:{http_port};", "listen 443 ": f"listen 127.0.0.1:{port} ",
            EXAMPLE_CERT: certs.server_cert, EXAMPLE_KEY: certs.server_key,
            "unix:/run/app/app.sock": f"unix:{worker.socket_path}", r"app\.v1\.Greeter": r"tests\.Service",
        }
        return running(Program(path, certs, "nginx", "nginx.conf", replacements, ("-e", "stderr", "-c", "{conf}"),
                               port, http_port, ready="event method"))

    return start


@pytest.fixture
def haproxy(running, folder, certs):
    """A function that starts HAProxy before two servers; it inherits its sockets, which can be connected to at once."""
    with ExitStack() as stack:
        def start(*workers, tls=False, **more):
            path = folder("haproxy")
            public, redirecting = (stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2))
            ports = [sock.getsockname()[1] for sock in (public, redirecting)]
            pem = path / "haproxy.pem"
            pem.write_text("".join(Path(name).read_text() for name in (certs.server_cert, certs.server_key)))
            replacements = {
                "maxconn 4000": "maxconn 200", ":443": f"fd@{public.fileno()}",
                ":80\n": f"fd@{redirecting.fileno()}\n", "/etc/haproxy/example.org.pem": pem, **more,
            }
            if tls:
                replacements |= {"    server app": "    #", "    #server app": "    server app",
                                 "    #default-server": "    default-server", "/etc/ssl/internal/ca.pem": certs.ca,
                                 "verifyhost app.internal": "verifyhost localhost"}
            for number, worker in enumerate(workers, 11):
                replacements[f"10.0.0.{number}:{8443 if tls else 8000}"] = f"127.0.0.1:{worker.port}"
            return running(Program(path, certs, "haproxy", "haproxy.cfg", replacements, ("-db", "-f", "{conf}"), *ports,
                                   listeners=(public, redirecting)))

        yield start


@pytest.fixture
def caddy(running, folder, certs):
    """A function that starts Caddy before Gunicorn."""
    def start(worker):
        port, http_port, path = free_port(), free_port(), folder("caddy")
        replacements = {
            "example.org {": f"{{\n\tadmin off\n\thttp_port {http_port}\n}}\n\n"
                             f"https://localhost:{port}, https://127.0.0.1:{port} {{",
            EXAMPLE_CERT: certs.server_cert, EXAMPLE_KEY: certs.server_key,
            "127.0.0.1:8000": f"127.0.0.1:{worker.port}",
        }
        env = {"XDG_DATA_HOME": str(path), "XDG_CONFIG_HOME": str(path)}
        return running(Program(path, certs, "caddy", "Caddyfile", replacements, ("run", "--config", "{conf}"), port,
                               http_port, ready="serving initial configuration", env=env))

    return start
