"""The names of the certificates that TLS contexts present: learnt by a handshake, whatever they demand."""

import datetime
import gc
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gunicorn_h2.drivers.certificates import Certificates

from .rig import Log

UNKNOWN = "The names of a certificate are not known: authorities are not checked against it"


@pytest.fixture
def context(certs):
    """A server's TLS context, whose certificate is for localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs.server_cert, certs.server_key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@pytest.fixture
def certificates():
    """A new `Certificates`, with its log."""
    log = Log()
    certificates = Certificates(log)
    certificates.log = log
    return certificates


def assert_of_localhost(names):
    """They are those of the test server's certificate."""
    assert names.covers(b"localhost:443")
    assert names.covers(b"127.0.0.1")
    assert not names.covers(b"example.org")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_names_are_asked_for_once(context, certificates, version):
    context.minimum_version = context.maximum_version = version
    names = certificates.names(context)
    assert_of_localhost(names)
    assert certificates.names(context) is names
    assert certificates.log.warnings == []


def test_a_context_that_demands_certificates_of_clients(context, certificates, certs):
    """In TLS 1.3 a client is done before the server says so."""
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certs.ca)
    assert_of_localhost(certificates.names(context))


def demand_in_tls12(context, certs):
    """Have a context demand certificates of clients before they know its own."""
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certs.ca)


def leave_to_another(context, certs):
    """Have a context leave clients without SNI to another context."""
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.load_cert_chain(certs.server_cert, certs.server_key)
    context.sni_callback = lambda sock, name, initial: setattr(sock, "context", other)


def refuse_without_sni(context, certs):
    """Have a context refuse clients without SNI."""
    context.sni_callback = lambda sock, name, initial: ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME


@pytest.mark.parametrize("change", [demand_in_tls12, leave_to_another, refuse_without_sni])
def test_a_context_that_does_not_tell(context, certificates, certs, change):
    """Its connections are not checked, which the log says once."""
    change(context, certs)
    for _ in range(2):
        assert certificates.names(context) is None
    assert certificates.log.warnings == [UNKNOWN]


def test_a_context_without_a_certificate(certificates):
    assert certificates.names(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) is None


def write_nameless(file):
    """Write a certificate with nothing but a common name, such as people made by hand, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now,
                                      now + datetime.timedelta(days=1))
    pem = serialization.Encoding.PEM
    file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem) + key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def test_a_certificate_without_names(certificates, tmp_path):
    write_nameless(tmp_path / "nameless.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "nameless.pem")
    names = certificates.names(context)
    assert not names.covers(b"localhost")
    assert certificates.log.warnings == [
        "A certificate has no subjectAltName: requests for any authority are answered 421"]


def test_contexts_that_are_gone_are_forgotten(context, certificates, certs):
    """A callback may make one for each connection."""
    for _ in range(3):
        other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        other.load_cert_chain(certs.server_cert, certs.server_key)
        certificates.names(other)
        del other
    gc.collect()
    assert len(certificates._names) == 0
