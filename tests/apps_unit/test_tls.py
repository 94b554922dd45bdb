"""TLS in the environ: names as RFC 4514 writes them, the client's certificate."""

import socket
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.apps import tls
from gunicorn_h2.drivers.transport import TlsSession

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


