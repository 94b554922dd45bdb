"""What an operator is told of failed TLS handshakes: real ones, between OpenSSL and OpenSSL over a socket pair."""

import datetime
import socket
import ssl
import threading

import pytest
import trustme

from gunicorn_h2.drivers.handshake_errors import Displaced, HandshakeLog, explain

from .rig import TIMEOUT, Log

FOREIGN = trustme.CA()


@pytest.fixture
def server_context(certs):
    """A server's TLS context, as strict as a worker's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certs.server_cert, certs.server_key)
    return context


@pytest.fixture
def failure(server_context):
    """A function that returns what the server's handshake raises with such a client."""

    def failure(client):
        ours, theirs = socket.socketpair()
        theirs.settimeout(TIMEOUT)
        thread = threading.Thread(target=_run, args=(client, theirs), daemon=True)
        thread.start()
        ours.settimeout(TIMEOUT)
        sock = server_context.wrap_socket(ours, server_side=True, do_handshake_on_connect=False)
        try:
            sock.do_handshake()
        except OSError as error:
            return error
        finally:
            sock.close()
            thread.join(TIMEOUT)
        raise AssertionError("the handshake did not fail")

    return failure


def _run(client, sock):
    try:
        with sock:
            client(sock)
    except OSError:
        pass


def sending(octets):
    """A client that sends octets and waits for the server to close."""

    def client(sock):
        sock.sendall(octets)
        while sock.recv(4096):
            pass

    return client


def client_of(**settings):
    """A TLS client with these attributes of its context; `ciphers` and `chain` are set by its methods."""

    def client(sock):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = settings.pop("verify_mode", ssl.CERT_NONE)
        context.set_ciphers(settings.pop("ciphers", "DEFAULT"))
        if chain := settings.pop("chain", None):
            chain.configure_cert(context)
        for name, value in settings.items():
            setattr(context, name, value)
        with context.wrap_socket(sock, server_hostname="localhost") as tls:
            # A client with TLS 1.3 has done its part before the server looks at its certificate.
            while tls.recv(4096):
                pass

    return client


TLS_12 = {"maximum_version": ssl.TLSVersion.TLSv1_2}


@pytest.mark.parametrize("octets", [
    b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.0\r\n\r\n", b"CONNECT localhost:443 HTTP/1.1\r\n\r\n"])
def test_plain_http(failure, octets):
    assert explain(failure(sending(octets))) == "the client sent plain HTTP to a TLS port; it must use https"


@pytest.mark.parametrize("octets", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0" * 100, b"EHLO localhost\r\n" * 10])
def test_what_is_no_tls(failure, octets):
    assert "is not TLS" in explain(failure(sending(octets)))


def test_a_client_that_does_not_know_the_authority(failure):
    text = explain(failure(client_of(verify_mode=ssl.CERT_REQUIRED)))
    assert text.startswith("the client does not trust the server's certificate (TLSV1_ALERT_UNKNOWN_CA); check that")


def test_a_certificate_that_has_expired(failure, server_context):
    yesterday = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    FOREIGN.issue_cert("localhost", not_after=yesterday).configure_cert(server_context)

    def client(sock):
        context = ssl.create_default_context()
        FOREIGN.configure_trust(context)
        context.wrap_socket(sock, server_hostname="localhost")

    assert "does not trust the server's certificate (SSLV3_ALERT_CERTIFICATE_EXPIRED)" in explain(failure(client))


@pytest.mark.parametrize("client", [
    {"maximum_version": ssl.TLSVersion.TLSv1_1, "minimum_version": ssl.TLSVersion.TLSv1, "ciphers": "ALL:@SECLEVEL=0"},
    {**TLS_12, "ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256:AES256-SHA"},
], ids=["version", "cipher"])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_nothing_in_common(failure, server_context, client):
    server_context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    text = explain(failure(client_of(**client)))
    assert text.startswith("client and server have no TLS version or cipher suite in common (")


def test_a_client_that_refuses_what_the_server_chose(failure, server_context):
    server_context.maximum_version = ssl.TLSVersion.TLSv1_2
    text = explain(failure(client_of(minimum_version=ssl.TLSVersion.TLSv1_3)))
    assert text.startswith("client and server have no TLS version or cipher suite in common (")


@pytest.mark.parametrize("version", [{}, TLS_12], ids=["1.3", "1.2"])
def test_a_client_without_the_certificate_it_needs(failure, server_context, certs, version):
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.load_verify_locations(certs.ca)
    assert explain(failure(client_of(**version))) == "the client showed no certificate, which cert_reqs demands"


@pytest.mark.parametrize("version", [{}, TLS_12], ids=["1.3", "1.2"])
def test_a_client_with_a_certificate_of_no_authority(failure, server_context, certs, version):
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.load_verify_locations(certs.ca)
    text = explain(failure(client_of(chain=FOREIGN.issue_cert("alice@example.org"), **version)))
    assert text.startswith("the client's certificate is not trusted (unable to get local issuer certificate); ca_certs")


def test_a_client_that_is_too_slow():
    assert explain(TimeoutError("slow")) == "the client did not finish it within http2_handshake_timeout"


def test_a_client_whose_place_was_needed():
    assert explain(Displaced("needed")) == "the client did not finish it before newcomers needed its place"


def test_what_is_not_known_is_told_in_the_words_of_openssl(failure, server_context):
    def refuse(sock, name, context):
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    server_context.sni_callback = refuse
    assert explain(failure(client_of())) == "CALLBACK_FAILED"


@pytest.mark.parametrize("octets", [b"", b"\x16\x03\x01"])
def test_a_client_that_goes_without_a_word_is_no_news(failure, octets):
    assert explain(failure(lambda sock: sock.sendall(octets))) is None


# -- the log -----------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that only a test moves."""

    now = 100.0

    def __call__(self):
        """The time."""
        return self.now


def test_one_line_a_second_says_how_many_there_were():
    log, clock = Log(), Clock()
    handshakes = HandshakeLog(log, clock)
    for _ in range(50):
        handshakes.failed(("192.0.2.1", 1234), TimeoutError())
    clock.now += 0.9
    handshakes.failed(("192.0.2.1", 1234), TimeoutError())
    clock.now += 0.1
    handshakes.failed(("192.0.2.2", 1234), TimeoutError())
    clock.now += 5
    handshakes.failed("", TimeoutError())
    text = "failed: the client did not finish it within http2_handshake_timeout"
    assert log.infos == [
        f"TLS handshake with 192.0.2.1 {text}",
        f"TLS handshake with 192.0.2.2 {text} (50 more since the last such line)",
        f"TLS handshake with a Unix socket {text}",
    ]


def test_a_client_that_goes_does_not_use_the_line_up():
    log = Log()
    handshakes = HandshakeLog(log, Clock())
    handshakes.failed(("192.0.2.1", 1234), ConnectionResetError("reset"))
    handshakes.failed(("192.0.2.1", 1234), TimeoutError())
    assert len(log.infos) == 1
