"""Fixtures that run the examples: Gunicorn with its conf files, and the proxies in front of it."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.certs import LiveCertificate
from tests.support.deployment import Gunicorn, Program, free_port
from tests.support.h2client import pattern
from tests.support.server import stop_all

from .traffic import SIZE

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


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    """A file of `SIZE`, for uploads."""
    path = tmp_path_factory.mktemp("large") / "large"
    with open(path, "wb") as file:
        file.writelines(pattern(SIZE))
    return path


@pytest.fixture
def live(tmp_path, certs):
    """A function that issues a certificate for names (none: localhost), in files as Let's Encrypt's client has them."""
    return lambda *names: LiveCertificate(tmp_path, certs.authority, *names)


@pytest.fixture
def gunicorn(running, folder, certs):
    """A function that starts Gunicorn with an example."""
    def start(example, replacements, name="gunicorn", **options):
        return running(Gunicorn(folder(name), certs, example, replacements, **options))

    return start


@pytest.fixture
def behind_proxy(gunicorn):
    """A function that starts Gunicorn with behind_proxy.py."""
    def start(name="gunicorn", port=0, **options):
        return gunicorn("behind_proxy.py", {"127.0.0.1:8000": f"127.0.0.1:{port}"}, name, **options)

    return start


@pytest.fixture
def behind_proxy_tls(gunicorn, certs):
    """A function that starts Gunicorn with behind_proxy_tls.py."""
    def start(name="gunicorn", port=0, **options):
        replacements = {"0.0.0.0:8443": f"127.0.0.1:{port}", "10.0.0.10": "127.0.0.1",
                        "/etc/ssl/internal/app.pem": certs.server_cert, "/etc/ssl/internal/app.key": certs.server_key}
        return gunicorn("behind_proxy_tls.py", replacements, name, tls=True, **options)

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
        def start(*workers, example="haproxy.cfg"):
            path, tls = folder("haproxy"), workers[0].tls
            public, redirecting = (stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2))
            ports = [sock.getsockname()[1] for sock in (public, redirecting)]
            pem = path / "haproxy.pem"
            pem.write_text("".join(Path(name).read_text() for name in (certs.server_cert, certs.server_key)))
            # A failed check is repeated at once. `inter` stays: it is also how long a check may take.
            replacements = {"maxconn 4000": "maxconn 200", ":443": f"fd@{public.fileno()}",
                            "inter 2s": "inter 2s fastinter 100ms downinter 100ms"}
            if example == "haproxy.cfg":
                replacements |= {":80\n": f"fd@{redirecting.fileno()}\n", "/etc/haproxy/example.org.pem": pem}
                if tls:
                    replacements |= {"    server app": "    #", "    #server app": "    server app",
                                     "    #default-server": "    default-server", "/etc/ssl/internal/ca.pem": certs.ca,
                                     "verifyhost app.internal": "verifyhost localhost"}
            for number, worker in enumerate(workers, 11):
                replacements[f"10.0.0.{number}:{8443 if tls else 8000}"] = f"127.0.0.1:{worker.port}"
            return running(Program(path, certs, "haproxy", example, replacements, ("-db", "-f", "{conf}"), *ports,
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
