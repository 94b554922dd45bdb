"""Gunicorn itself on the public internet: hardened.py, and the sockets of systemd."""

import json
import os
import socket
import sys

import pytest

from tests.support.deployment import APP, ASGI_APP, Gunicorn, adapted, free_port
from tests.support.h2client import H2Client
from tests.support.kinds import WSGI_KINDS
from tests.support.load import Load
from tests.support.tools import curl, require_tool, run

from .traffic import Route, check_reload, check_traffic

LIVE = "/etc/letsencrypt/live/example.org"
WORKERS = {name: kind.worker_class for name, kind in WSGI_KINDS.items()} | {"asgi": "gunicorn_h2.ASGIWorker"}


@pytest.fixture
def live(folder, certs):
    """A folder as Let's Encrypt's client leaves it: links to the newest files."""
    root = folder("letsencrypt")
    for path in (root / "archive", root / "live"):
        path.mkdir()
    for name, file in (("fullchain", certs.server_cert), ("privkey", certs.server_key)):
        target = root / "archive" / f"{name}1.pem"
        with open(file, "rb") as pem:
            target.write_bytes(pem.read())
        (root / "live" / f"{name}.pem").symlink_to(f"../archive/{name}1.pem")
    return root / "live"


@pytest.fixture
def hardened(live):
    """What replaces literals of hardened.py, with one worker."""
    return {"0.0.0.0:443": "127.0.0.1:0", LIVE: live, "multiprocessing.cpu_count()": "1"}


def test_hardened(running, folder, certs, hardened, tmp_path):
    server = running(Gunicorn(folder("gunicorn"), certs, "hardened.py", hardened, workers=1, tls=True))
    route = Route(server, server, forwards=False)
    check_traffic(route, tmp_path)
    check_reload(route)
    # No one is believed, and the certificate is for other names.
    environ = json.loads(curl(server, "/environ", "--header", "X-Forwarded-Proto: http").stdout)
    assert environ["wsgi.url_scheme"] == "https"
    assert curl(server, "/", "--header", "Host: example.com", "--write-out", "%{http_code}").stdout.endswith("421")
    assert run("curl", "--tls-max", "1.2", "--cacert", certs.ca, server.url, check=False).returncode != 0


# -- systemd -----------------------------------------------------------------------------------------------------------


class Activated(Gunicorn):
    """Gunicorn started by systemd-socket-activate, which listens where `address` says, at the first connection."""

    def __init__(self, *arguments, address, worker_class=None, **options):
        super().__init__(*arguments, **options)
        self.address = address
        self.flags = ("-k", worker_class) if worker_class else ()

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


@pytest.mark.parametrize("worker_class", WORKERS.values(), ids=WORKERS)
def test_systemds_socket(running, folder, certs, hardened, worker_class):
    """On each worker class, in the place of `bind`; a reload keeps it."""
    del hardened["0.0.0.0:443"]
    port = free_port()
    server = Activated(folder("gunicorn"), certs, "hardened.py", hardened, workers=1, tls=True,
                       app=ASGI_APP if "ASGI" in worker_class else APP, address=f"127.0.0.1:{port}",
                       worker_class=worker_class)
    server.port = port
    running(server)
    # `asgi` passes on no trailers of requests.
    route = Route(server, server, forwards=False, request_trailers=None)
    check_traffic(route)
    check_reload(route)


def test_systemds_unix_socket(running, folder, certs):
    """The other socket of app.socket, with the conf file for a proxy on the same machine."""
    path = folder("gunicorn")
    server = Activated(path, certs, "unix_socket.py", {}, env={"RUNTIME_DIRECTORY": str(path / "none")},
                       address=path / "app.sock")
    server.socket_path = str(path / "app.sock")
    running(server)
    assert curl(server, "/health", "--http1.1").stdout == "ok\n"
    server.stop()
    assert os.path.exists(server.socket_path)  # It is systemd's.


class Restarted(Gunicorn):
    """Gunicorn with a socket that somebody else keeps open, as systemd does for app.service."""

    def __init__(self, *arguments, listener, notify, **options):
        super().__init__(*arguments, **options)
        self.pass_fds = (listener.fileno(),)
        self.env["NOTIFY_SOCKET"] = str(notify)

    @property
    def command(self):
        """The command line: the socket becomes descriptor 3."""
        script = f'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3<&{self.pass_fds[0]}'
        return [require_tool("bash"), "-c", script, "bash", *super().command]


def test_a_restart_loses_nothing(running, folder, certs, hardened):
    """While Gunicorn is away, connections wait in the socket. It says when it is ready."""
    del hardened["0.0.0.0:443"]
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, \
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notify = folder("systemd") / "notify"
        notified.bind(str(notify))
        notified.settimeout(20)

        def start(name):
            server = Restarted(folder(name), certs, "hardened.py", hardened, workers=1, tls=True, listener=listener,
                               notify=notify)
            running(server)
            assert b"READY=1" in notified.recv(4096)
            return server

        first = start("first")
        with Load(first) as load:
            load.wait_answered(20)
            first.stop()
            start("second")
            load.wait_answered(20)
        assert load.lost == []


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
