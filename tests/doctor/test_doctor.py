"""`gunicorn-h2 doctor` against real servers, and against listeners that are none."""

import datetime
import re
import socket
import ssl
import subprocess
import sys

import pytest

from gunicorn_h2.protocol import frames
from gunicorn_h2.protocol.errors import ErrorCode
from tests.proxies.conftest import running
from tests.support.nginx import NGINX_HEAD
from tests.support.server import ROOT

from .conftest import server_context

SETTINGS = frames.settings([])
ACK = frames.frame(frames.SETTINGS, frames.ACK, 0, b"")


def drain(sock):
    """Read until the peer closes."""
    while sock.recv(65_536):
        pass


def answering(octets):
    """What a listener does that answers anything by the same octets, and keeps the connection open."""

    def respond(sock):
        if sock.recv(65_536):
            sock.sendall(octets)
            drain(sock)

    return respond


def http1(sock):
    """Answer each request as an HTTP/1 server."""
    while sock.recv(65_536):
        sock.sendall(b"HTTP/1.1 200 OK\r\nServer: listener\r\nContent-Length: 0\r\n\r\n")


# -- servers ---------------------------------------------------------------------------------------------------------


def test_our_worker_over_tls(doctor, servers):
    server = servers(http2_max_concurrent_streams=42)
    found = doctor(f"https://localhost:{server.port}/")
    assert found.verdict == "http2"
    facts = found.facts
    assert (facts["protocol"], facts["alpn"], facts["certificate"], facts["status"]) == ("h2", "h2", "valid", 200)
    assert (facts["tls_version"], facts["server"]) == ("TLSv1.3", "gunicorn")
    assert facts["settings"]["MAX_CONCURRENT_STREAMS"] == 42
    assert "problem" not in found.text
    assert "warning" not in found.text


def test_the_command(servers, certs):
    server = servers(http2_max_concurrent_streams=42)
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn_h2.cli", "doctor", f"https://localhost:{server.port}/", "--cacert", certs.ca],
        cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"  ok +ALPN +the server chose h2 of h2, http/1.1\n", done.stdout)
    assert done.stdout.endswith("\nHTTP/2 works.\n")


def test_a_path_that_fails(doctor, servers):
    server = servers(http2_max_concurrent_streams=42)
    found = doctor(f"https://localhost:{server.port}/nosuch")
    assert (found.verdict, found.facts["status"]) == ("http2", 404)


@pytest.mark.parametrize(("cleartext", "protocol"), [("both", "h2c"), ("upgrade", "h2c-upgrade")])
def test_our_worker_without_tls(doctor, servers, cleartext, protocol):
    server = servers(tls=False, http2_cleartext=cleartext)
    found = doctor(f"http://127.0.0.1:{server.port}/")
    assert (found.verdict, found.facts["protocol"], found.facts["status"]) == ("http2", protocol, 200)


def test_gunicorns_own_worker_without_tls(doctor, servers):
    server = servers("gthread", tls=False, http2_cleartext="off")
    found = doctor(f"http://127.0.0.1:{server.port}/")
    assert (found.verdict, found.facts["protocol"], found.facts["status"]) == ("http1", "http/1.1", 200)
    assert "problem h2c: the server answered HTTP/2's preface by HTTP/1: HTTP/1.1 400" in found.text
    assert "problem upgrade: the server ignored Upgrade: h2c, and answered 200" in found.text
    assert "http2_cleartext" in found.text


def test_gunicorns_own_worker_over_tls(doctor, servers):
    # With one thread, it serves one connection at a time.
    server = servers("gthread", threads=1)
    found = doctor(f"https://localhost:{server.port}/")
    assert (found.verdict, found.facts["alpn"], found.facts["status"]) == ("http1", None, 200)
    assert "problem ALPN: the server takes no part in ALPN" in found.text
    assert "is the worker class one of gunicorn_h2's" in found.text


@pytest.mark.parametrize(("protocols", "words"), [
    ("h1", "problem ALPN: the server chose http/1.1; h2 is not offered"),
    ("h1,h2", "warning ALPN: the server has h2, but prefers http/1.1"),
])
def test_alpn_without_h2(doctor, servers, protocols, words):
    server = servers(http_protocols=protocols)
    found = doctor(f"https://localhost:{server.port}/")
    assert found.verdict == "http1"
    assert words in found.text


def test_http_on_the_https_port(doctor, servers):
    server = servers(http2_max_concurrent_streams=42)
    found = doctor(f"http://localhost:{server.port}/x")
    assert (found.verdict, found.facts["port"]) == ("no_connection", "https")
    assert f"problem port: it speaks TLS: try https://localhost:{server.port}/x" in found.text


@pytest.mark.parametrize("kind", ["thread", "gthread"])
def test_https_on_the_http_port(doctor, servers, kind):
    server = servers(kind, tls=False, http2_cleartext="both" if kind == "thread" else "off")
    found = doctor(f"https://localhost:{server.port}/x")
    assert (found.verdict, found.facts["port"]) == ("no_connection", "http")
    assert f"problem port: it speaks HTTP without TLS: try http://localhost:{server.port}/x" in found.text


NGINX = NGINX_HEAD + """\
    ssl_certificate {certs.server_cert};
    ssl_certificate_key {certs.server_key};
    server {{ listen 127.0.0.1:{http1} ssl; location / {{ return 200 hello; add_header Via "1.1 \tinner"; }} }}
    server {{ listen 127.0.0.1:{http2} ssl http2; location / {{ return 200 hello; }} }}
}}
"""


@pytest.fixture(scope="module")
def nginx(tmp_path_factory, certs):
    """A running nginx: its ports without and with HTTP/2."""
    folder = tmp_path_factory.mktemp("n")
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = [sock.getsockname()[1] for sock in (one, two)]
    text = NGINX.format(folder=folder, certs=certs, http1=ports[0], http2=ports[1])
    (folder / "nginx.conf").write_text(text)
    with running("nginx", "-e", "stderr", "-c", f"{folder}/nginx.conf", ready=b"event method"):
        yield ports


def test_nginx_without_http2(doctor, nginx):
    found = doctor(f"https://localhost:{nginx[0]}/")
    assert (found.verdict, found.facts["alpn"]) == ("http1", "http/1.1")
    assert "warning proxy: it looks like nginx (HTTP/2 needs `http2 on;`" in found.text
    assert "warning proxy: there is a proxy in between (Via: 1.1 \\tinner)" in found.text


def test_nginx_with_http2(doctor, nginx):
    found = doctor(f"https://localhost:{nginx[1]}/")
    assert (found.verdict, found.facts["protocol"]) == ("http2", "h2")
    assert "info proxy: it looks like nginx has answered: HTTP/2 may end there" in found.text


def test_http_on_the_https_port_of_nginx(doctor, nginx):
    # It answers 400 by HTTP.
    found = doctor(f"http://localhost:{nginx[0]}/")
    assert (found.verdict, found.facts["port"]) == ("no_connection", "https")


# -- no connection ---------------------------------------------------------------------------------------------------


def test_nothing_listens(doctor):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    found = doctor(f"https://127.0.0.1:{port}/")
    assert found.verdict == "no_connection"
    assert "problem connection: refused" in found.text


def test_a_name_that_does_not_exist(doctor):
    found = doctor("https://nosuch.invalid/")
    assert found.verdict == "no_connection"
    assert "the name cannot be resolved" in found.text


# -- certificates ----------------------------------------------------------------------------------------------------


def date(days):
    """A date some days from now."""
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)


def test_an_expired_certificate(doctor, listen, authority):
    end = date(-2)
    cert = authority.ca.issue_cert("localhost", not_before=date(-9), not_after=end)
    port = listen(http1, server_context(cert, alpn=("http/1.1",)))
    found = doctor(f"https://localhost:{port}/", "--cacert", authority.path, trusting=False)
    assert (found.verdict, found.facts["certificate"], found.facts["status"]) == ("no_connection", "expired", 200)
    assert f"expired on {end:%b}" in found.text
    assert found.summary == "Clients refuse the certificate. Without verification: HTTP/1.1 only: " \
                            "HTTP/2 is not negotiated."
    tolerated = doctor(f"https://localhost:{port}/", "--cacert", authority.path, "--insecure", trusting=False)
    assert (tolerated.verdict, tolerated.facts["certificate"]) == ("http1", "expired")
    assert "warning certificate: " in tolerated.text


def test_a_certificate_for_another_name(doctor, servers):
    server = servers(http2_max_concurrent_streams=42)
    found = doctor("https://example.org/", "--connect-to", f"127.0.0.1:{server.port}")
    assert (found.verdict, found.facts["certificate"]) == ("no_connection", "wrong-name")
    assert "is not for example.org, but for localhost, 127.0.0.1" in found.text
    assert (found.facts["protocol"], found.facts["status"]) == ("h2", 200)


def test_a_certificate_for_another_address(doctor, listen, authority):
    port = listen(http1, server_context(authority.ca.issue_cert("localhost"), alpn=()))
    found = doctor(f"https://127.0.0.1:{port}/", "--cacert", authority.path, trusting=False)
    assert found.facts["certificate"] == "wrong-name"
    assert "is not for 127.0.0.1, but for localhost" in found.text


def test_an_unknown_authority(doctor, servers):
    server = servers(http2_max_concurrent_streams=42)
    found = doctor(f"https://localhost:{server.port}/", trusting=False)
    assert found.facts["certificate"] == "untrusted"
    assert "(issuer: gunicorn-h2 tests)" in found.text
    assert doctor(f"https://localhost:{server.port}/", "--insecure", trusting=False).verdict == "http2"


def test_a_self_signed_certificate(doctor, listen, authority):
    key = authority.directory / "ca.key"
    authority.ca.private_key_pem.write_to_path(key)
    port = listen(http1, server_context(authority.path, key, alpn=()))
    found = doctor(f"https://localhost:{port}/", trusting=False)
    assert found.facts["certificate"] == "self-signed"
    assert "is self-signed" in found.text


# -- TLS -------------------------------------------------------------------------------------------------------------


def test_a_cipher_suite_that_http2_prohibits(doctor, listen, certs):
    context = server_context(certs.server_cert, certs.server_key, alpn=("http/1.1",))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256")
    found = doctor(f"https://localhost:{listen(http1, context)}/")
    assert found.facts["tls_version"] == "TLSv1.2"
    assert "prohibited for HTTP/2 (RFC 9113 appendix A)" in found.text


def test_a_server_that_demands_a_certificate(doctor, listen, certs):
    context = server_context(certs.server_cert, certs.server_key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certs.ca)
    found = doctor(f"https://localhost:{listen(drain, context)}/")
    assert found.verdict == "protocol_error"
    assert "demands a certificate of the client" in found.text


def test_h2_by_alpn_and_http1_behind_it(doctor, listen, certs):
    found = doctor(f"https://localhost:{listen(http1, server_context(certs.server_cert, certs.server_key))}/")
    assert found.verdict == "protocol_error"
    assert "problem HTTP/2: it was agreed on, but the server answered HTTP/2's preface by HTTP/1" in found.text


# -- what is no server -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_listener_that_says_nothing(doctor, listen, scheme):
    found = doctor(f"{scheme}://127.0.0.1:{listen(drain)}/", "--timeout", "0.2")
    assert found.verdict == ("protocol_error" if scheme == "http" else "no_connection")
    assert "in time" in found.text


@pytest.mark.parametrize("octets", [b"SSH-2.0-x\x1b[2J\r\n", b"\0" * 100, b"220 mail ESMTP\r\n"])
def test_a_listener_that_says_something_else(doctor, listen, octets):
    found = doctor(f"http://127.0.0.1:{listen(answering(octets))}/")
    assert found.verdict == "protocol_error"
    assert "by something else: " in found.text
    assert found.text.replace("\n", "").isprintable()


def test_a_listener_that_closes(doctor, listen):
    found = doctor(f"http://127.0.0.1:{listen(lambda sock: sock.recv(1))}/")
    assert found.verdict == "protocol_error"
    assert "closed the connection" in found.text or "reset by the server" in found.text


def test_a_listener_that_sends_without_end(doctor, listen):
    def flood(sock):
        while True:
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

    found = doctor(f"http://127.0.0.1:{listen(flood)}/")
    assert found.verdict == "protocol_error"
    assert "no response in" in found.text


@pytest.mark.parametrize(("frame", "words"), [
    (frames.goaway(0, ErrorCode.ENHANCE_YOUR_CALM), "problem GOAWAY: ENHANCE_YOUR_CALM"),
    (frames.rst_stream(1, ErrorCode.REFUSED_STREAM), "problem RST_STREAM: REFUSED_STREAM"),
    (frames.frame(frames.HEADERS, 4, 1, b"\x80"), "problem HTTP/2: ProtocolError"),
])
def test_http2_that_ends_in_an_error(doctor, listen, frame, words):
    def respond(sock):
        sock.recv(65_536)
        sock.sendall(SETTINGS)
        # The request follows the settings.
        sock.recv(65_536)
        sock.sendall(ACK + frame)
        drain(sock)

    found = doctor(f"http://127.0.0.1:{listen(respond)}/")
    assert found.verdict == "protocol_error"
    assert words in found.text


def test_an_upgrade_to_something_else(doctor, listen):
    def respond(sock):
        if b"Upgrade: h2c" in sock.recv(65_536):
            sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\nno frames at all")
            drain(sock)

    found = doctor(f"http://127.0.0.1:{listen(respond)}/")
    assert found.verdict == "protocol_error"
    assert "it was agreed on, but the server answered HTTP/2's preface by something else" in found.text


def test_a_response_without_end_is_http2_nevertheless(doctor, listen):
    def respond(sock):
        sock.recv(65_536)
        sock.sendall(SETTINGS)
        sock.recv(65_536)
        sock.sendall(ACK + frames.frame(frames.HEADERS, 4, 1, b"\x88"))
        drain(sock)

    found = doctor(f"http://127.0.0.1:{listen(respond)}/", "--timeout", "0.3")
    assert (found.verdict, found.facts["status"]) == ("http2", 200)
    assert "warning response: its end did not come: nothing came in time" in found.text
