"""Several certificates: which one a client is shown, by its SNI."""

import socket
import ssl
import threading
from pathlib import Path

import pytest
from gunicorn.config import Config

from gunicorn_h2.drivers.certificates import Certificates
from gunicorn_h2.workers.kinds import CertificatePair
from gunicorn_h2.workers.tls import Keylog, certificate_files, make_context, make_wrapper
from tests.drivers.rig import Log
from tests.drivers.test_certificates import write_nameless
from tests.support.certs import LiveCertificate

pytestmark = pytest.mark.compat


@pytest.fixture
def live(certs, tmp_path):
    """A function that issues a certificate for names."""
    return lambda *names: LiveCertificate(tmp_path, certs.authority, *names)


def configured(default, **settings):
    """Gunicorn's configuration with a certificate."""
    cfg = Config()
    for name, value in {"certfile": default.certificate, "keyfile": default.key, **settings}.items():
        cfg.set(name, value)
    return cfg


def context_of(default, *others, **settings):
    """A worker's context, and the configuration that it is made of."""
    cfg = configured(default, **settings)
    pairs = [CertificatePair(other.certificate, other.key) for other in others]
    return make_context(cfg, ("h2", "http/1.1"), pairs), cfg


def handshake(context, cfg, name, alpn=("h2",)):
    """Shake hands; return the certificate that the client was shown, the protocol, and the server's context."""
    near, far = socket.socketpair()
    server = make_wrapper(context, cfg)(near)
    thread = threading.Thread(target=server.do_handshake)
    thread.start()
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname, client_context.verify_mode = False, ssl.CERT_NONE
    client_context.set_alpn_protocols(list(alpn))
    with client_context.wrap_socket(far, server_hostname=name) as client, server:
        thread.join()
        return client.getpeercert(binary_form=True), client.selected_alpn_protocol(), server.context


def test_each_client_gets_the_certificate_for_its_name(live):
    default = live("example.org", "*.example.org")
    exact = live("www.example.org", "example.net")
    wild = live("*.example.net", "*.www.example.org")
    late = live("late.example", "*.example.net", "example.org")
    context, cfg = context_of(default, exact, wild, late)
    shown = {
        "example.org": default, "a.example.org": default, "www.example.org": exact, "WWW.Example.org": exact,
        "example.net": exact, "a.example.net": wild, "a.www.example.org": wild, "late.example": late,
        "a.b.example.net": default, "unknown.example": default, "net": default, None: default,
    }
    for name, certificate in shown.items():
        assert handshake(context, cfg, name)[:2] == (certificate.der, "h2"), name


@pytest.mark.parametrize("alpn", ["h2", "http/1.1"])
def test_the_protocol_is_negotiated_for_each(live, alpn):
    context, cfg = context_of(live("example.org"), live("example.net"))
    assert handshake(context, cfg, "example.net", [alpn])[1] == alpn


def test_the_authorities_that_are_served_are_those_of_the_certificate_that_was_shown(live):
    context, cfg = context_of(live("example.org"), live("*.example.net"))
    certificates = Certificates(Log())
    for name, covered, other in (("example.org", b"example.org", b"a.example.net"),
                                 ("a.example.net", b"b.example.net", b"example.org")):
        names = certificates.names(handshake(context, cfg, name)[2])
        assert names.covers(covered)
        assert not names.covers(other)


def test_the_hook_is_called_for_each(live):
    """With a configuration that has its files; what it changes counts for the client that is shown the certificate."""
    seen = []

    def hook(conf, make):
        seen.append((conf.certfile, conf.keyfile, conf.ciphers))
        context = make()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context

    default, other = live("example.org"), live("example.net")
    context, cfg = context_of(default, other, ssl_context=hook, ciphers="ECDHE+AESGCM")
    assert seen == [(default.certificate, default.key, "ECDHE+AESGCM"), (other.certificate, other.key, "ECDHE+AESGCM")]
    made = handshake(context, cfg, "example.net")
    assert made[0] == other.der
    assert made[2].maximum_version == ssl.TLSVersion.TLSv1_2


def test_the_hooks_own_choice_is_asked_for_other_names(live, certs):
    chosen = live("chosen.example")

    def hook(conf, make):
        context, other = make(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        other.load_cert_chain(chosen.certificate, chosen.key)

        def choose(sock, name, initial):
            asked.append(name)
            if name == "chosen.example":
                sock.context = other

        context.sni_callback = choose
        return context

    asked, default, other = [], live("example.org"), live("example.net")
    context, cfg = context_of(default, other, ssl_context=hook)
    for name, certificate in (("example.org", default), ("example.net", other), ("chosen.example", chosen),
                              ("unknown.example", default), (None, default)):
        assert handshake(context, cfg, name)[0] == certificate.der
    assert asked == ["chosen.example", "unknown.example", None]


def test_a_file_with_both(live, tmp_path):
    default, other = live("example.org"), live("example.net")
    both = tmp_path / "both.pem"
    both.write_text("".join(Path(file).read_text() for file in (other.key, other.certificate)))
    cfg = configured(default)
    pairs = [CertificatePair(str(both), None)]
    assert handshake(make_context(cfg, ("h2",), pairs), cfg, "example.net")[0] == other.der
    assert certificate_files(cfg, pairs) == [default.certificate, default.key, str(both)]


def test_the_secrets_of_all_connections_go_to_one_file(live, tmp_path):
    cfg, keylog = configured(live("example.org")), tmp_path / "keys"
    other = live("example.net")
    context = make_context(cfg, ("h2",), [CertificatePair(other.certificate, other.key)], Keylog(str(keylog), Log()))
    for count, name in enumerate(("example.org", "example.net"), 1):
        handshake(context, cfg, name)
        assert keylog.read_text().count("SERVER_TRAFFIC_SECRET_0 ") == count


def test_certificates_that_no_client_could_ask_for(live, tmp_path):
    cfg, nameless, empty = configured(live("example.org")), tmp_path / "nameless.pem", tmp_path / "empty.pem"
    write_nameless(nameless)
    empty.touch()
    with pytest.raises(ValueError, match=r"nameless\.pem has no DNS name in its subjectAltName"):
        make_context(cfg, ("h2",), [CertificatePair(str(nameless), None)])
    with pytest.raises(ValueError, match=r"empty\.pem has no certificate in PEM"):
        make_context(cfg, ("h2",), [CertificatePair(str(empty), None)])


def test_a_context_that_has_been_replaced_is_freed(live):
    """Without waiting for the garbage collector, which does not look at what a worker has begun with."""
    other = live("example.net")
    context, _ = context_of(live("example.org"), other)
    names = Certificates(Log())._names
    names[context] = None
    del context
    assert not names
