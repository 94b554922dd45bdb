"""Certificates in Let's Encrypt's layout that are renewed while a server runs, on every worker class."""

import http.client
import os
from contextlib import ExitStack

import pytest

from tests.support.certs import LiveCertificate
from tests.support.checks import shown_certificate as shown
from tests.support.h1client import request_bytes
from tests.support.h2client import H2Client, open_socket, open_tcp
from tests.support.kinds import KINDS, kind_param, make_server

QUICK = "thread"
NEW = "Certificates have changed: new connections get those in "
BROKEN = "Certificates have changed, but cannot be loaded"


PARAMS = {name: kind_param(name, *(() if name == QUICK else (pytest.mark.thorough,))) for name in KINDS}


@pytest.fixture(params=[param for name, param in PARAMS.items() if name != "eventlet"])
def start(request, certs, tmp_path, tmp_path_factory):
    """A function that starts a server of each worker class with a certificate, and others for SNI."""
    with ExitStack() as stack:
        def start(**options):
            live = LiveCertificate(tmp_path, certs.authority)
            server = make_server(request.param, tmp_path_factory.mktemp("server"), certs, "tests.apps.{}_app:app",
                                 keepalive=60, loglevel="debug", certfile=live.certificate, keyfile=live.key, **options)
            stack.callback(server.stop)
            server.live = live
            return server.start()

        yield start


def shown_over_http1(server):
    """The same over HTTP/1."""
    with open_socket(server, alpn=("http/1.1",)) as sock:
        sock.sendall(request_bytes(server, path="/hello"))
        response = http.client.HTTPResponse(sock)
        response.begin()
        assert response.status == 200
        return sock.getpeercert(binary_form=True)


@pytest.mark.parametrize("start", PARAMS.values(), indirect=True)
def test_a_renewed_certificate_is_taken_up(start):
    """In two steps, and nobody who has a connection notices."""
    server = start(http2_certificate_reload=0.2)
    old, live = server.live.der, server.live
    assert shown(server) == shown_over_http1(server) == old
    with H2Client.connect(server) as client:
        assert client.get("/hello").status == 200
        mark = server.log_mark()
        live.issue()
        live.link("privkey")
        server.wait_log(r"Certificates have changed, but cannot be loaded yet: ", after=mark)
        assert shown(server) == old
        live.link("fullchain")
        server.wait_log(NEW, after=mark)
        assert live.der != old
        assert shown(server) == shown_over_http1(server) == live.der
        assert client.get("/hello").status == 200
    assert len(server.worker_pids) == 1
    assert "[ERROR]" not in server.log


def test_a_renewal_goes_on_without_a_keylog_that_is_lost(start, tmp_path):
    """As for a worker that has dropped its privileges and may not open root's file again."""
    keylog = tmp_path / "keys.log"
    server = start(http2_certificate_reload=0.2, http2_keylog=str(keylog))
    keylog.unlink()
    keylog.mkdir()
    for _ in range(2):
        mark, renewed = server.log_mark(), server.live.renew()
        server.wait_log(NEW, after=mark)
        assert shown(server) == renewed
    assert server.log.count("Secrets of new connections are not written any more") == 1


def test_a_renewed_certificate_is_taken_up_at_sighup(start):
    server = start(http2_certificate_reload=0)
    old, renewed = server.live.der, server.live.renew()
    assert shown(server) == old
    server.reload()
    assert shown(server) == shown_over_http1(server) == renewed


@pytest.mark.thorough
def test_a_broken_certificate_is_not_taken_up(start):
    """The old one stays, one error is logged, and when it is mended all is well."""
    server = start(http2_certificate_reload=0.2)
    old = server.live.der
    with open(server.live.key, "w") as file:
        file.write("no key")
    mark = server.wait_log(BROKEN + ": .*PEM").line_number + 1
    for _ in range(3):
        assert shown(server) == old
    server.live.renew()
    server.wait_log(NEW, after=mark)
    assert shown(server) == server.live.der
    assert server.log.count("[ERROR]") == 1


@pytest.mark.thorough
def test_certificates_for_several_names(start, certs, tmp_path):
    """They are renewed as well, and decide which authorities are served."""
    other, wild = (LiveCertificate(tmp_path, certs.authority, *names)
                   for names in (("example.net", "www.example.net"), ("*.example.com",)))
    server = start(http2_certificate_reload=0.2, http2_check_authority="certificate",
                   http2_certificates=[(other.certificate, other.key), f"{wild.certificate}:{wild.key}"])

    def all_shown():
        names = ("localhost", "example.net", "www.example.net", "a.example.com")
        for name in names:
            with H2Client(certs.client_context().wrap_socket(open_tcp(server), server_hostname=name)) as client:
                client.send_preface()
                statuses = [client.response(client.request("GET", "/hello", authority=host)).status for host in names]
                yield client.sock.getpeercert(binary_form=True), statuses

    for _ in range(2):
        of_other = (other.der, [421, 200, 200, 421])
        assert list(all_shown()) == [
            (server.live.der, [200, 421, 421, 421]), of_other, of_other, (wild.der, [421, 421, 421, 200])]
        mark = server.log_mark()
        wild.renew()
        server.wait_log(NEW, after=mark)


@pytest.mark.thorough
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop its privileges")
def test_a_worker_that_has_dropped_its_privileges(start):
    """It may not read the key, which only root can; SIGHUP helps, for new workers begin as root."""
    # All modules are imported before: Python's own may be in a folder of root's.
    server = start(http2_certificate_reload=0.2, user="nobody", group="nogroup", preload_app=True,
                   http2_websocket="off")
    server.wait_log(r"http2_certificate_reload is off, because this worker may not read .*\.pem \(Permission denied\): "
                    "a renewed certificate is taken up at SIGHUP")
    old, renewed = server.live.der, server.live.renew()
    assert shown(server) == old
    server.reload()
    assert shown(server) == renewed
