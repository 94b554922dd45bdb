"""TLS: negotiation, versions, ciphers, client certificates and what the application learns of them."""

import json
import socket
import ssl

import pytest

from tests.support.checks import prove_all_free
from tests.support.h2client import H2Client, open_socket, open_tcp
from tests.support.tools import curl

compat = pytest.mark.compat


def environ(client):
    """Return the environ the application sees on a connection."""
    return json.loads(client.get("/environ").body)


def alpn(server, offered):
    """Return what the server chooses from an ALPN offer."""
    with open_socket(server, alpn=offered) as sock:
        return sock.selected_alpn_protocol()


@compat
@pytest.mark.parametrize(("offered", "chosen"), [
    (("h2", "http/1.1"), "h2"), (("http/1.1", "h2"), "h2"), (("h2",), "h2"), (("http/1.1",), "http/1.1"), ((), None),
])
def test_alpn(wsgi_tls, offered, chosen):
    assert alpn(wsgi_tls, offered) == chosen


@pytest.mark.parametrize(("setting", "offered", "chosen"), [
    ("h1,h2", ("h2", "http/1.1"), "http/1.1"),
    ("h2,h1", ("http/1.1", "h2"), "h2"),
    ("h1", ("h2", "http/1.1"), "http/1.1"),
])
def test_http_protocols_order_the_offer(boot, setting, offered, chosen):
    server = boot("wsgi", threads=2, http_protocols=setting)
    assert alpn(server, offered) in (chosen, None if setting == "h1" else chosen)


def test_http1_is_served_beside_h2_alone(boot):
    """What ALPN offers is no list of what is served."""
    server = boot("wsgi", threads=2, http_protocols="h2")
    assert alpn(server, ("http/1.1",)) is None
    assert curl(server, "/hello", "--http1.1").stdout == "Hello, world!\n"


@compat
def test_tls_details_in_the_environ(wsgi_tls):
    with H2Client.connect(wsgi_tls) as client:
        details = environ(client)
        name, version, _ = client.sock.cipher()
    assert details["HTTPS"] == "on"
    assert details["wsgi.url_scheme"] == "https"
    assert details["SSL_PROTOCOL"] == version == "TLSv1.3"
    assert details["SSL_CIPHER"] == name
    assert not [key for key in details if key.startswith("SSL_CLIENT_") and key != "SSL_CLIENT_VERIFY"]


def test_no_tls_details_over_cleartext(shared):
    with H2Client.connect(shared("wsgi", tls=False, threads=4)) as client:
        details = environ(client)
    assert details["wsgi.url_scheme"] == "http"
    assert not [key for key in details if key.startswith(("SSL_", "HTTPS"))]


def test_tls_12(wsgi_tls):
    """TLS 1.2 with a cipher that RFC 9113 section 9.2.2 permits."""
    context = wsgi_tls.certs.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with context.wrap_socket(open_tcp(wsgi_tls), server_hostname="localhost") as sock:
        client = H2Client(sock, wsgi_tls.authority)
        client.send_preface()
        details = environ(client)
    assert details["SSL_PROTOCOL"] == "TLSv1.2"
    assert "ECDHE" in details["SSL_CIPHER"]


@pytest.mark.parametrize("ciphers", ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE-RSA-AES128-SHA"])
def test_ciphers_that_http2_forbids(wsgi_tls, ciphers):
    """They are never used for HTTP/2: the handshake fails, or another protocol is chosen."""
    context = wsgi_tls.certs.client_context(alpn=("h2", "http/1.1"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers + ":@SECLEVEL=0")
    with open_tcp(wsgi_tls) as raw:
        try:
            with context.wrap_socket(raw, server_hostname="localhost") as sock:
                assert sock.selected_alpn_protocol() != "h2"
        except (ssl.SSLError, ConnectionError):
            pass


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_11_is_refused(wsgi_tls):
    context = wsgi_tls.certs.client_context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with open_tcp(wsgi_tls) as raw, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(raw, server_hostname="localhost")


def test_cleartext_on_the_tls_port(wsgi_tls):
    """It is answered or closed, and costs nothing."""
    with open_tcp(wsgi_tls) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            while sock.recv(4096):
                pass
        except ConnectionError:
            pass
    prove_all_free(wsgi_tls, 4)


@pytest.fixture
def asking(shared, certs):
    """A server that asks for a client certificate but does not insist."""
    return shared("wsgi", threads=2, cert_reqs=int(ssl.CERT_OPTIONAL), ca_certs=certs.ca)


@pytest.fixture
def insisting(shared, certs):
    """A server that insists on a client certificate."""
    return shared("wsgi", threads=2, cert_reqs=int(ssl.CERT_REQUIRED), ca_certs=certs.ca)


@compat
def test_client_certificate_in_the_environ(insisting):
    with H2Client.connect(insisting, client_cert=True) as client:
        details = environ(client)
    assert details["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert "CN=alice" in details["SSL_CLIENT_S_DN"]
    assert "gunicorn-h2 tests" in details["SSL_CLIENT_I_DN"]
    assert details["SSL_CLIENT_M_SERIAL"]
    assert details["SSL_CLIENT_V_START"]
    assert details["SSL_CLIENT_V_END"]
    assert ssl.PEM_cert_to_DER_cert(details["SSL_CLIENT_CERT"])


def test_no_client_certificate_where_one_is_optional(asking):
    with H2Client.connect(asking) as client:
        details = environ(client)
    assert details["SSL_CLIENT_VERIFY"] == "NONE"
    assert "SSL_CLIENT_S_DN" not in details


def test_no_client_certificate_where_one_is_needed(insisting):
    with pytest.raises((AssertionError, OSError)), H2Client.connect(insisting) as client:
        client.get("/environ")
    prove = curl(insisting, "/hello", "--http2", "--cert", insisting.certs.client_cert)
    assert prove.stdout == "Hello, world!\n"


def test_client_certificates_for_http1_on_the_same_port(insisting):
    done = curl(insisting, "/hello", "--http1.1", "--cert", insisting.certs.client_cert)
    assert done.stdout == "Hello, world!\n"


CONTEXT_HOOK = """
def ssl_context(conf, default_ssl_context_factory):
    import ssl
    context = default_ssl_context_factory()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    print("ssl_context hook called", flush=True)
    return context
"""


def test_ssl_context_hook(boot):
    """The hook makes the context, once for the worker however many connections come."""
    server = boot("wsgi", threads=2, code=CONTEXT_HOOK)
    assert alpn(server, ("h2",)) == "h2"
    assert alpn(server, ("h2", "http/1.1")) == "h2"
    for _ in range(3):
        with H2Client.connect(server) as client:
            assert environ(client)["SSL_PROTOCOL"] == "TLSv1.3"
    context = server.certs.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with open_tcp(server) as raw, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(raw, server_hostname="localhost")
    assert server.log.count("ssl_context hook called") == 1


def test_ciphers_setting(boot):
    server = boot("wsgi", threads=2, ciphers="ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384")
    context = server.certs.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with context.wrap_socket(open_tcp(server), server_hostname="localhost") as sock:
        assert sock.cipher()[0].endswith("AES256-GCM-SHA384")
        assert sock.selected_alpn_protocol() == "h2"


def test_sessions_are_resumed(wsgi_tls):
    """The context lives as long as the worker, so a client may resume its session."""
    context = wsgi_tls.certs.client_context()
    with context.wrap_socket(open_tcp(wsgi_tls), server_hostname="localhost") as sock:
        client = H2Client(sock, wsgi_tls.authority)
        client.send_preface()
        client.get("/hello")
        session = sock.session
    with context.wrap_socket(open_tcp(wsgi_tls), server_hostname="localhost", session=session) as sock:
        assert sock.session_reused


class RecordSocket:
    """A TLS client over memory buffers that counts the records of application data it receives."""

    def __init__(self, server):
        self._raw = open_tcp(server)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = server.certs.client_context().wrap_bio(self._in, self._out, server_hostname="localhost")
        self._pending = bytearray()
        self.records = 0
        self._handshake()

    def _handshake(self):
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._feed()
        self._flush()

    def _flush(self):
        if self._out.pending:
            self._raw.sendall(self._out.read())

    def _feed(self):
        data = self._raw.recv(65_536)
        self._in.write(data)
        self._pending += data
        while len(self._pending) >= 5:
            size = 5 + int.from_bytes(self._pending[3:5], "big")
            if len(self._pending) < size:
                break
            self.records += self._pending[0] == 23
            del self._pending[:size]
        return data

    def setblocking(self, flag):
        """Only here because a socket has it."""

    def fileno(self):
        """The socket's file descriptor."""
        return self._raw.fileno()

    def send(self, data):
        """Send everything."""
        count = self._tls.write(data)
        self._flush()
        return count

    def recv(self, size):
        """Return what can be decrypted, which may be nothing yet."""
        parts = []
        eof = not self._feed()
        try:
            while True:
                parts.append(self._tls.read(size))
        except ssl.SSLWantReadError:
            if not parts and not eof:
                raise
        return b"".join(parts)

    def close(self):
        """Close the socket."""
        self._raw.close()


def test_a_small_response_is_one_tls_record(wsgi_tls):
    with H2Client(RecordSocket(wsgi_tls), wsgi_tls.authority) as client:
        client.send_preface()
        client.get("/hello")
        client.ping()
        client.sock.records = 0
        client.get("/hello")
        assert client.sock.records == 1


def test_the_end_of_a_connection_is_announced(boot):
    """close_notify comes before the TCP connection is closed, so the client knows that nothing was cut off."""
    server = boot("wsgi", threads=2, keepalive=1)
    with H2Client.connect(server) as client:
        client.get("/hello")
        client.sock.suppress_ragged_eofs = False
        client.wait_closed()
        assert client.error is None


def test_the_client_closes_first(wsgi_tls):
    """A client that says close_notify, and one that just goes, leave no trace in the log."""
    with H2Client.connect(wsgi_tls) as client:
        client.get("/hello")
        client.sock.settimeout(5)
        client.sock.unwrap()
    with H2Client.connect(wsgi_tls) as client:
        client.get("/hello")
        client.sock.shutdown(socket.SHUT_RDWR)
    prove_all_free(wsgi_tls, 4)
