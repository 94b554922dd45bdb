"""Gunicorn itself on the public internet, with sockets of its own and of systemd's, and behind what passes TLS on."""

import json
import os
import socket
import sys
from pathlib import Path

import pytest

from tests.support.checks import shown_certificate
from tests.support.deployment import Gunicorn, adapted, free_port
from tests.support.h2client import H2Client
from tests.support.kinds import ASGI_KINDS, WSGI_KINDS
from tests.support.load import Load
from tests.support.tools import curl, require_tool, run

from .configurations import names_of
from .conftest import EXAMPLE_CERT, EXAMPLE_KEY
from .limits import (
    check_connections_of_an_address,
    check_fields,
    check_header_timeout,
    check_limits,
    check_requests_of_a_connection,
)
from .traffic import Route, check_all, check_reload, check_traffic

LIVE = "/etc/letsencrypt/live/example.org"
LISTEN = {"0.0.0.0:443": "127.0.0.1:0"}


def folder_of(certificate):
    """Return the folder that stands in the place of `LIVE`."""
    return Path(certificate.certificate).parent


@pytest.fixture
def start(gunicorn, certs):
    """A function that starts Gunicorn with an example that does not say where to listen."""
    def start(example):
        return gunicorn(example, {EXAMPLE_CERT: certs.server_cert, EXAMPLE_KEY: certs.server_key}, tls=True,
                        arguments=["app:app", "-c", example, "--bind", "127.0.0.1:0"])

    return start


def test_minimal(start, large):
    server = start("minimal.py")
    check_all(Route(server, server, forwards=False), large)


CHANGED = {
    "http2_max_concurrent_streams": 7,
    "http2_initial_window_size": 70_001,
    "http2_connection_window_size": 2_000_000,
    "http2_max_frame_size": 20_000,
    "http2_max_header_list_size": 9_000,
    "http2_header_timeout": 0.2,
    "http2_max_requests_per_connection": 60,
    "http2_check_authority": "certificate",
    "http2_reset_budget": 20,
    "http2_control_budget": 300,
    "http2_max_connections_per_ip": 2,
}
"""Other values for limits.py."""


def literal(value):
    """Return a value as limits.py writes it."""
    return f'"{value}"' if isinstance(value, str) else f"{value:_}"


def test_limits(start, large):
    """They bite as the file stands, and as its lines say once they have been changed, by a reload under load."""
    limits, server = names_of("limits.py"), start("limits.py")
    route = Route(server, server, forwards=False)
    check_traffic(route, large)
    check_limits(server, limits)
    old = server.worker_pid
    server.replacements |= {f"{name} = {literal(limits[name])}\n": f"{name} = {literal(value)}\n"
                            for name, value in CHANGED.items()}
    check_reload(route)
    server.wait_log(rf"Worker exiting \(pid: {old}\)")
    check_limits(server, limits | CHANGED)
    check_header_timeout(server)
    check_requests_of_a_connection(server, CHANGED["http2_max_requests_per_connection"])
    check_connections_of_an_address(server, CHANGED["http2_max_connections_per_ip"])


def test_tls(gunicorn, live, large):
    """The certificate is renewed meanwhile, and taken up at SIGHUP."""
    certificate = live()
    server = gunicorn("tls.py", {**LISTEN, LIVE: folder_of(certificate)}, tls=True)
    route = Route(server, server, forwards=False)
    check_traffic(route, large)
    assert shown_certificate(server) == certificate.der
    certificate.renew()
    check_reload(route)
    assert shown_certificate(server) == certificate.der


def test_several_certificates(gunicorn, live, large, tmp_path):
    """Each name is shown its own, on a connection that serves no other; that of any is renewed."""
    default, net, com = live(), live("example.net", "*.example.net"), live("example.com")
    both = tmp_path / "both.pem"
    both.write_text("".join(Path(file).read_text() for file in (com.certificate, com.key)))
    certificates = {LIVE: folder_of(default), LIVE.replace("org", "net"): folder_of(net),
                    "/etc/ssl/example.com/certificate-and-key.pem": both}
    server = gunicorn("several_certificates.py", LISTEN | certificates, tls=True)

    def assert_shown():
        shown = {"localhost": default, "example.net": net, "www.example.net": net, "example.com": com}
        assert {name: shown_certificate(server, name) for name in shown} == {
            name: certificate.der for name, certificate in shown.items()}

    route = Route(server, server, forwards=False)
    check_traffic(route, large)
    assert_shown()
    with H2Client.connect(server) as client:
        assert client.get("/hello", authority="example.net").status == 421
    net.renew()
    check_reload(route)
    assert_shown()


def test_proxy_protocol(gunicorn, haproxy, certs, large):
    """HAProxy passes TLS on as it is, and the application learns who asks."""
    replacements = {"0.0.0.0:8443": "127.0.0.1:0", "10.0.0.0/24": "127.0.0.1", EXAMPLE_CERT: certs.server_cert,
                    EXAMPLE_KEY: certs.server_key}
    worker = gunicorn("proxy_protocol.py", replacements, tls=True)
    front = haproxy(worker, worker, example="haproxy_tcp.cfg")
    check_all(Route(front, worker, forwards=False), large)
    client = "127.0.0.2"  # HAProxy itself connects from another address.
    for version in ("--http2", "--http1.1"):
        environ = json.loads(curl(front, "/environ", version, "--interface", client).stdout)
        assert (environ["REMOTE_ADDR"], environ["PROXY_PORT"]) == (client, str(front.port))


# -- systemd -----------------------------------------------------------------------------------------------------------


EXAMPLES = {"gevent": "gevent_worker.py", "asgi": "asgi.py"}
"""Those that are for another worker class than hardened.py."""


@pytest.fixture
def hardened(live):
    """What replaces literals of hardened.py."""
    return {LIVE: folder_of(live())}


class Activated(Gunicorn):
    """Gunicorn started by systemd-socket-activate, which listens where `address` says, at the first connection."""

    def __init__(self, *arguments, address, **options):
        super().__init__(*arguments, **options)
        self.address = address

    @property
    def command(self):
        """The command line; what it does not name of the environment is kept from Gunicorn."""
        names = [f"--setenv={name}" for name in self.environ]
        return [require_tool("systemd-socket-activate"), f"--listen={self.address}", *names, *super().command]

    def start(self):
        """Start both: the first connection waits for Gunicorn."""
        self.launch()
        try:
            self.wait_log("Listening on")
            with H2Client.connect(self, timeout=20) as client:
                assert client.get("/health").status == 200
            self._wait_ready(0)
        except BaseException:
            self.kill()
            raise
        return self


@pytest.mark.parametrize("kind", [*WSGI_KINDS, *ASGI_KINDS])
def test_systemds_socket(running, folder, certs, hardened, large, kind):
    """On each worker class with the example for it, in the place of `bind`; a reload keeps it."""
    port = free_port()
    example = EXAMPLES.get(kind, "hardened.py")
    if example != "hardened.py":
        hardened = {EXAMPLE_CERT: certs.server_cert, EXAMPLE_KEY: certs.server_key}
    server = Activated(folder("gunicorn"), certs, example, hardened, tls=True, kind=kind, address=f"127.0.0.1:{port}")
    server.port = port
    running(server)
    check_all(Route(server, server, forwards=False), large)
    if example == "hardened.py":
        check_hardened(server)


def check_hardened(server):
    """No one is believed, the certificate is for other names, TLS 1.3 is spoken alone, and limits are narrow."""
    environ = json.loads(curl(server, "/environ", "--header", "X-Forwarded-Proto: http").stdout)
    assert environ["wsgi.url_scheme"] == "https"
    assert curl(server, "/", "--header", "Host: example.com", "--write-out", "%{http_code}").stdout.endswith("421")
    assert run("curl", "--tls-max", "1.2", "--cacert", server.certs.ca, server.url, check=False).returncode != 0
    limits = names_of("hardened.py")
    with H2Client.connect(server) as client:
        check_fields(client, limits["http2_max_header_list_size"])
    check_connections_of_an_address(server, limits["http2_max_connections_per_ip"])


def test_systemds_unix_socket(running, folder, certs, large):
    """The other socket of app.socket, with the conf file for a proxy on the same machine; a reload keeps it."""
    path = folder("gunicorn")
    server = Activated(path, certs, "unix_socket.py", {}, env={"RUNTIME_DIRECTORY": str(path / "none")},
                       address=path / "app.sock")
    server.socket_path = str(path / "app.sock")
    running(server)
    check_all(Route(server, server, forwards=False), large)
    server.stop()
    assert os.path.exists(server.socket_path)  # It is systemd's.


class Restarted(Gunicorn):
    """Gunicorn with a socket that somebody else keeps open, as systemd does for app.service."""

    def __init__(self, *arguments, listener, notify, **options):
        super().__init__(*arguments, **options)
        self.pass_fds = (listener.fileno(),)
        if listener.family == socket.AF_UNIX:
            self.socket_path = listener.getsockname()
        self.env["NOTIFY_SOCKET"] = str(notify)

    @property
    def command(self):
        """The command line: the socket becomes descriptor 3."""
        script = f'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3<&{self.pass_fds[0]}'
        return [require_tool("bash"), "-c", script, "bash", *super().command]


@pytest.fixture(params=["tcp", "unix"])
def listener(request, folder):
    """Either socket of app.socket."""
    if request.param == "tcp":
        sock = socket.create_server(("127.0.0.1", 0), backlog=128)
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(folder("run") / "app.sock"))
        sock.listen(128)
    with sock:
        yield sock


def test_a_restart_loses_nothing(running, folder, certs, hardened, listener):
    """While Gunicorn is away, connections wait in the socket. It says when it is ready."""
    tls = listener.family != socket.AF_UNIX
    example, replacements = ("hardened.py", hardened) if tls else ("unix_socket.py", {})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notify = folder("systemd") / "notify"
        notified.bind(str(notify))
        notified.settimeout(20)

        def start(name):
            server = Restarted(folder(name), certs, example, replacements, tls=tls, listener=listener, notify=notify)
            running(server)
            assert b"READY=1" in notified.recv(4096)
            return server

        first = start("first")
        with Load(first) as load:
            load.wait_answered(20)
            first.stop()
            second = start("second")
            load.wait_answered(20)
        assert load.lost == []
        # Those of the load may all have waited.
        with H2Client.connect(second) as client:
            assert client.get("/hello").status == 200


@pytest.fixture
def unit(tmp_path):
    """The service, with a program that exists in the place of Gunicorn's."""
    (tmp_path / "app.socket").write_text(adapted("systemd/app.socket", {}))
    path = tmp_path / "app.service"
    path.write_text(adapted("systemd/app.service", {"/srv/app/venv/bin/gunicorn": sys.executable}))
    return path


def test_systemd_takes_the_units(unit):
    """Neither an unknown directive nor a missing unit."""
    done = run("systemd-analyze", "verify", "--man=no", unit, unit.with_name("app.socket"))
    assert done.stderr == ""


def test_the_service_is_not_exposed(unit):
    """By systemd's own account, where 0 is nothing and 10 is everything."""
    run("systemd-analyze", "security", "--offline=true", "--threshold=20", unit)
