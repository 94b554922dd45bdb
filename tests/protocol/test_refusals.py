"""Requests that the core answers itself: for authorities that a certificate does not cover, and with a Date."""

import ssl

import pytest
import trustme

from gunicorn_h2.protocol.authority import CertificateNames
from gunicorn_h2.protocol.events import RequestReceived, RequestRefused

from .peer import fields

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"


def certificate(*names):
    """The names of a new certificate that is valid for these."""
    pem = trustme.CA().issue_cert(*names, common_name="common.example").cert_chain_pems[0].bytes()
    return CertificateNames(ssl.PEM_cert_to_DER_cert(pem.decode()))


@pytest.fixture(scope="module")
def names():
    """Those of a certificate with names of all kinds."""
    return certificate("Example.org", "*.example.net", "192.0.2.1", "2001:db8::1", "a.b.example",
                       "*.xn--bcher-kva.example")


COVERED = [
    b"example.org", b"EXAMPLE.ORG", b"example.org:8443", b"example.org.", b"example.org.:443", b"www.example.net",
    b"a-1.EXAMPLE.net:443", b"192.0.2.1", b"192.0.2.1:8443", b"[2001:db8::1]", b"[2001:DB8:0::1]:8443", b"a.b.example",
    b"x.xn--bcher-kva.example", b"",
]
NOT_COVERED = [
    b"example.com", b"www.example.org", b"xexample.org", b"example.org.evil.com", b"example.net", b"a.b.example.net",
    b".example.net.", b"*.example", b"b.example", b"192.0.2.2", b"192.0.2.1.", b"1.192.0.2", b"[2001:db8::2]",
    b"2001:db8::1", b"[2001:db8::1]x", b"[192.0.2.1]", b"[", b"[]", b"[::g]", b"common.example", b"ex%61mple.org",
    b"example.org..", b"\xff.example", b"256.0.0.1", b".",
]


@pytest.mark.parametrize("authority", COVERED)
def test_authorities_that_are_covered(names, authority):
    assert names.covers(authority)


@pytest.mark.parametrize("authority", NOT_COVERED)
def test_authorities_that_are_not_covered(names, authority):
    assert not names.covers(authority)


def test_many_names():
    """The length of the list takes more than one octet, and so does that of a name."""
    long = ".".join(["a" * 60] * 3) + ".example"
    names = certificate(*(f"host{number}.example" for number in range(300)), long)
    assert names
    assert names.covers(b"host299.example")
    assert names.covers(long.encode())
    assert not names.covers(b"host300.example")


def test_a_wildcard_stands_for_one_whole_label():
    """Where it stands for a part of one, or is not the first, it counts for nothing (RFC 9525 section 6.3)."""
    names = CertificateNames(with_names(b"w*.example.org", b"*", b"a.*.example.org", b"*x.example.org"))
    for authority in (b"www.example.org", b"org", b"a.b.example.org", b"ax.example.org", b"w*.example.com"):
        assert not names.covers(authority)


def element(tag, *contents):
    """An element in DER."""
    content = b"".join(contents)
    length = len(content)
    assert length < 0x80
    return bytes([tag, length]) + content


def with_names(*dns_names):
    """What is needed of a certificate that has these names, which no one would issue."""
    extensions = []
    if dns_names:
        names = element(0x30, *(element(0x82, name) for name in dns_names))
        extensions = [element(0x30, element(0x06, b"\x55\x1d\x11"), element(0x04, names))]
    basic = element(0x30, element(0x06, b"\x55\x1d\x13"), element(0x01, b"\xff"), element(0x04, element(0x30)))
    return element(0x30, element(0x30, element(0x02, b"\1"), element(0xA3, element(0x30, basic, *extensions))))


def test_a_certificate_without_names():
    """The common name is none (RFC 9525 section 2)."""
    names = CertificateNames(with_names())
    assert not names
    assert not names.covers(b"common.example")
    assert names.covers(b"")


# -- answers -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def peer(connect, names):
    """A connection whose certificate has these names, and whose driver has a clock."""
    peer = connect()
    peer.core.refusals.names = names
    peer.core.refusals.date = lambda: DATE
    return peer


def test_a_misdirected_request(peer):
    """It is answered, again and again; the connection goes on."""
    for _ in range(3):
        assert peer.open(authority=b"example.com") is None
        answer = peer.answers[max(peer.answers)]
        assert (answer.status, answer.ended, answer.reset) == (421, True, None)
    assert [(refusal.status, refusal.reason) for refusal in peer.of(RequestRefused)] == [
        (421, "the certificate does not cover the authority")] * 3
    assert peer.open(authority=b"example.org") is not None
    peer.assert_alive()


def test_a_misdirected_request_with_a_body(peer):
    """The client is told to stop."""
    peer.open(authority=b"example.com", method=b"POST", end=False)
    assert peer.answers[1].status == 421
    peer.wait(1)
    assert peer.answers[1].reset == 0


def test_what_is_known_of_a_request_says_nothing_of_another_authority(peer):
    """Requests that differ in one field only are looked up in caches."""
    for path in (b"/1", b"/2"):
        for authority in (b"example.org", b"example.com", b"www.example.net"):
            peer.open(authority=authority, path=path)
    assert [request.stream.head.authority for request in peer.of(RequestReceived)] == [
        b"example.org", b"www.example.net"] * 2


def test_a_host_field_is_an_authority(peer):
    peer.open((b"host", b"example.com"), authority=None)
    assert peer.answers[1].status == 421


def test_without_a_check_any_authority_will_do(connect):
    assert connect().open(authority=b"example.com") is not None


@pytest.mark.parametrize(("section", "status"), [
    (fields(authority=b"example.com"), 421),
    (fields(authority=b"example.org", scheme=b"ftp"), 400),
    (fields(authority=b"example.org:1", method=b"CONNECT", path=None, scheme=None), 501),
    (fields(*[(b"x", b"")] * 101, authority=b"example.org"), 431),
    (fields((b"x-upper\n", b""), authority=b"example.org"), 400),
])
def test_answers_have_a_date(peer, section, status):
    peer.send(peer.headers(1, section))
    assert peer.answers[1].status == status
    assert dict(peer.answers[1].head) == {
        b":status": b"%d" % status, b"content-length": b"0", b"date": DATE}


def test_without_a_clock_answers_have_no_date(connect):
    peer = connect()
    peer.open(scheme=b"ftp")
    assert b"date" not in dict(peer.answers[1].head)
