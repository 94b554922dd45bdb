"""TLS in the environ: names as RFC 4514 writes them, the client's certificate."""

import select
import socket
import ssl
import threading
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.apps import tls
from gunicorn_h2.apps.scope import ScopeTemplate, websocket_scope
from gunicorn_h2.drivers.certificates import Certificates
from gunicorn_h2.drivers.transport import TlsSession, Transport
from gunicorn_h2.protocol.headers import parse_request
from gunicorn_h2.protocol.stream import OPEN, Stream
from tests.drivers.rig import Log

TIMEOUT = 10


def name(**attributes):
    """A name as `getpeercert` gives it, the most general part first."""
    return tuple(((kind, value),) for kind, value in attributes.items())


@pytest.mark.parametrize(("given_name", "written"), [
    ((), ""),
    (name(countryName="DE", organizationName="Acme", commonName="alice"), "CN=alice,O=Acme,C=DE"),
    (name(stateOrProvinceName="S", localityName="L", streetAddress="A", domainComponent="org", userId="u"),
     "UID=u,DC=org,STREET=A,L=L,ST=S"),
    (((("commonName", "a"), ("emailAddress", "a@example.org")),), "CN=a+emailAddress=a@example.org"),
    (name(serialNumber="12"), "serialNumber=12"),
    (name(commonName='a,b+c"d\\e<f>g;h'), 'CN=a\\,b\\+c\\"d\\\\e\\<f\\>g\\;h'),
    (name(commonName=" both ends "), "CN=\\ both ends\\ "),
    (name(commonName=" "), "CN=\\ "),
    (name(commonName="#1"), "CN=\\#1"),
    (name(commonName="a#b c"), "CN=a#b c"),
    (name(commonName="a\0b"), "CN=a\\00b"),
    (name(commonName="Zoë"), "CN=Zoë"),
    (name(commonName=""), "CN="),
])
def test_names_are_written_as_rfc_4514_says(given_name, written):
    assert tls._distinguished_name(given_name) == written


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12))
def test_a_value_is_read_by_another_library_as_it_was(value):
    written = tls._distinguished_name(name(commonName=value))
    parsed = x509.Name.from_rfc4514_string(written)
    assert parsed.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == value


def environ_of(certs, client_cert, verify=ssl.CERT_OPTIONAL):
    """The environ's part of a connection whose client shows a certificate or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs.server_cert, certs.server_key)
    context.load_verify_locations(certs.ca)
    context.verify_mode = verify
    ours, theirs = socket.socketpair()

    def connect():
        with certs.client_context(client_cert=client_cert).wrap_socket(theirs, server_hostname="localhost") as sock:
            sock.recv(1)

    thread = threading.Thread(target=connect)
    thread.start()
    with context.wrap_socket(ours, server_side=True) as sock:
        environ = tls.tls_environ(TlsSession.of(sock))
        sock.sendall(b"!")
    thread.join(TIMEOUT)
    return environ


def test_a_client_without_a_certificate(certs):
    environ = environ_of(certs, False)
    assert environ == {"HTTPS": "on", "SSL_PROTOCOL": "TLSv1.3", "SSL_CIPHER": environ["SSL_CIPHER"],
                       "SSL_CLIENT_VERIFY": "NONE"}
    assert environ["SSL_CIPHER"].startswith("TLS_")


def test_a_client_with_a_certificate(certs):
    environ = environ_of(certs, True)
    assert environ["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert environ["SSL_CLIENT_S_DN"].startswith("CN=alice,")
    assert "O=gunicorn-h2 tests" in environ["SSL_CLIENT_I_DN"]
    certificate = x509.load_pem_x509_certificate(environ["SSL_CLIENT_CERT"].encode())
    assert int(environ["SSL_CLIENT_M_SERIAL"], 16) == certificate.serial_number
    assert environ["SSL_CLIENT_M_VERSION"] == "3"
    assert environ["SSL_CLIENT_V_START"].endswith("GMT")
    assert environ["SSL_CLIENT_V_END"].endswith("GMT")
    assert all(isinstance(value, str) for value in environ.values())


def test_a_certificate_that_was_not_asked_for_is_none(certs):
    assert environ_of(certs, True, ssl.CERT_NONE)["SSL_CLIENT_VERIFY"] == "NONE"




# -- ASGI's extension --------------------------------------------------------------------------------------------------


def server_context(certs, verify=ssl.CERT_OPTIONAL, **attributes):
    """A server's TLS context that asks for certificates of clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs.server_cert, certs.server_key)
    context.load_verify_locations(certs.ca)
    context.verify_mode = verify
    for name, value in attributes.items():
        setattr(context, name, value)
    return context


def extension_of(server, client, extension=None, session=None):
    """The extension for a connection between two contexts, and the client's session."""
    ours, theirs = socket.socketpair()
    sessions = []

    def connect():
        with client.wrap_socket(theirs, server_hostname="localhost", session=session) as sock:
            # The server's ticket comes with its first octets.
            sock.recv(1)
            assert sock.session_reused == (session is not None)
            sessions.append(sock.session)

    thread = threading.Thread(target=connect)
    thread.start()
    transport = Transport(ours, lambda sock: server.wrap_socket(sock, server_side=True, do_handshake_on_connect=False))
    while not transport.handshake():
        select.select([transport], [], [], TIMEOUT)
    made = (extension or tls.TlsExtension(Certificates(Log()))).make(transport)
    transport.send(b"!")
    thread.join(TIMEOUT)
    transport.close()
    return made, sessions[0]


def pems(path):
    """The certificates in a file, as `ssl` writes them."""
    return [ssl.DER_cert_to_PEM_cert(certificate.public_bytes(serialization.Encoding.DER))
            for certificate in x509.load_pem_x509_certificates(Path(path).read_bytes())]


def test_the_extension_for_a_client_without_a_certificate(certs):
    client = certs.client_context()
    made, _ = extension_of(server_context(certs), client)
    assert made == {"server_cert": pems(certs.server_cert)[0], "client_cert_chain": (), "client_cert_name": None,
                    "client_cert_error": None, "tls_version": 0x0304, "cipher_suite": 0x1302}


def test_the_extension_for_a_client_with_a_certificate(certs):
    made, _ = extension_of(server_context(certs), certs.client_context(client_cert=True))
    own, *behind = made["client_cert_chain"]
    assert own == pems(certs.client_cert)[0]
    # OpenSSL sends the authority's as well where the client knows it.
    assert behind == pems(certs.ca)
    certificate = x509.load_pem_x509_certificate(own.encode())
    assert x509.Name.from_rfc4514_string(made["client_cert_name"]) == certificate.subject
    assert made["client_cert_error"] is None


def test_the_chain_that_the_client_has_sent(certs, tmp_path):
    authority = trustme.CA()
    intermediate = authority.create_child_ca()
    chain, root = tmp_path / "chain.pem", tmp_path / "root.pem"
    intermediate.issue_cert("bob@example.org").private_key_and_cert_chain_pem.write_to_path(chain)
    authority.cert_pem.write_to_path(root)
    server, client = server_context(certs), certs.client_context()
    server.load_verify_locations(root)
    client.load_cert_chain(chain)
    made, _ = extension_of(server, client)
    assert list(made["client_cert_chain"]) == pems(chain)
    assert len(made["client_cert_chain"]) == 2


def test_a_session_that_is_resumed(certs):
    server, client = server_context(certs), certs.client_context(client_cert=True)
    first, session = extension_of(server, client)
    again, _ = extension_of(server, client, session=session)
    assert again == {**first, "client_cert_chain": first["client_cert_chain"][:1]}


def test_tls_1_2(certs):
    client = certs.client_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256")
    made, _ = extension_of(server_context(certs), client)
    assert made["tls_version"] == 0x0303
    assert made["cipher_suite"] in (0xC02B, 0xC02F)


def test_the_servers_certificate_is_that_of_the_context_which_the_client_chose(certs, tmp_path):
    """By SNI; it is asked for once for each context."""
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority = trustme.CA()
    authority.issue_cert("localhost").configure_cert(other)
    server, client = server_context(certs), ssl.create_default_context()
    server.sni_callback = lambda sock, name, context: setattr(sock, "context", other)
    authority.configure_trust(client)
    extension = tls.TlsExtension(Certificates(Log()))
    made = [extension_of(server, client, extension)[0] for _ in range(2)]
    assert made[0] == made[1]
    assert made[0]["server_cert"] not in (None, pems(certs.server_cert)[0])


def test_a_servers_certificate_that_cannot_be_told(certs):
    server = server_context(certs, ssl.CERT_REQUIRED, maximum_version=ssl.TLSVersion.TLSv1_2)
    made, _ = extension_of(server, certs.client_context(client_cert=True))
    assert made["server_cert"] is None
    assert made["client_cert_chain"]


def test_there_is_no_extension_without_tls():
    ours, theirs = socket.socketpair()
    with theirs:
        transport = Transport(ours)
        assert tls.TlsExtension(Certificates(Log())).make(transport) is None
        transport.close()


def test_each_scope_has_the_extension_for_itself():
    head = parse_request([(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"https"),
                          (b":authority", b"example.org"), (b":path", b"/")])
    template = ScopeTemplate({"method": "GET", "scheme": "https"}, {"tls_version": 0x0304}, [], head)
    stream = Stream(1, head, OPEN, 0, 0)
    scopes = [template.make(stream, {}), template.make(stream, {}), websocket_scope(template, stream, {})]
    assert scopes[2]["extensions"] == {"websocket.http.response": {}, "tls": {"tls_version": 0x0304}}
    scopes[0]["extensions"]["tls"].clear()
    assert [scope["extensions"]["tls"] for scope in scopes[1:]] == [{"tls_version": 0x0304}] * 2
