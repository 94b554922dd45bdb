"""What the doctor says of what it has seen: without sockets."""

import errno
import json
import socket
import ssl

import pytest

from gunicorn_h2.doctor import judge
from gunicorn_h2.doctor.exchange import Answer, Goaway, Response
from gunicorn_h2.doctor.report import Level, Report, Verdict, info
from gunicorn_h2.protocol import frames
from gunicorn_h2.protocol.text import printable

CERTIFICATE = {
    "issuer": ((("organizationName", "An Authority"),), (("commonName", "The \x1b[2J CA"),)),
    "notBefore": "Jan  1 00:00:00 2026 GMT",
    "notAfter": "Jul  1 00:00:00 2026 GMT",
    "subjectAltName": tuple(("DNS", f"{number}.example.org") for number in range(7)),
}


def http(version="HTTP/1.1", status=200, **fields):
    """A response with the given fields."""
    return Response(status, [(name.encode(), value.encode("latin-1")) for name, value in fields.items()], version)


def tls_failure(reason, kind=ssl.SSLError):
    """The exception for an alert or error of OpenSSL."""
    error = kind(1, f"[SSL: {reason}] text")
    error.reason = reason
    return error


# -- what may be printed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "shown"), [
    ("plain text~", "plain text~"),
    ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
    (b"\x00\r\n\x7f\x9b", "\\x00\\r\\n\\x7f\\x9b"),
    ("\u202eabc\u2028", "\\u202eabc\\u2028"),
    ("grün", "gr\\xfcn"),
    ("a" * 200, "a" * 200),
    (b"a" * 201, "a" * 200 + "..."),
    (12, "12"),
])
def test_printable(text, shown):
    assert printable(text) == shown


def test_nothing_from_the_peer_reaches_the_terminal_as_it_is():
    evil = "\x1b[31m\u202e\r\n\x9b"
    got = http(server=evil.encode().decode("latin-1"), via=evil.encode().decode("latin-1"))
    certificate = {"issuer": ((("commonName", evil),),), "notAfter": evil, "notBefore": evil,
                   "subjectAltName": (("DNS", evil),)}
    findings = [
        *judge.intermediaries(got, "http"),
        judge.response(got, 0.1, evil),
        judge.goaway(Goaway(1, 0, evil.encode())),
        judge.alpn(evil, None),
        judge.cipher(evil, evil),
        *(judge.untrusted_certificate(code, evil, certificate, evil, False) for code in range(80)),
    ]
    texts = [finding.topic + finding.text for finding in findings]
    texts += [judge.no_preface(answer, evil.encode(), evil) for answer in Answer]
    texts += [judge.tls_error(tls_failure(evil), evil), judge.no_upgrade(None, evil)]
    assert [text for text in texts if not (text.isascii() and text.isprintable())] == []


# -- connecting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "words"), [
    (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "cannot be resolved (Name or service not known)"),
    (ConnectionRefusedError(errno.ECONNREFUSED, ""), "nothing listens on this port"),
    (TimeoutError("timed out"), "no answer in time"),
    (ConnectionResetError(errno.ECONNRESET, ""), "reset by the server"),
    (OSError(errno.EHOSTUNREACH, ""), "no route to this host"),
    (OSError(errno.EADDRNOTAVAIL, "Cannot assign"), "Cannot assign"),
])
def test_connect_errors(error, words):
    assert words in judge.connect_error(error)


@pytest.mark.parametrize(("error", "words", "cleartext"), [
    (tls_failure("WRONG_VERSION_NUMBER"), "not TLS", True),
    (tls_failure("UNEXPECTED_EOF_WHILE_READING", ssl.SSLEOFError), "closed the connection during", True),
    (ConnectionResetError(errno.ECONNRESET, ""), "closed the connection during", True),
    (TimeoutError(), "in time", True),
    (tls_failure("TLSV1_ALERT_NO_APPLICATION_PROTOCOL"), "none of the protocols offered by ALPN", False),
    (tls_failure("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "demands a certificate", False),
    (tls_failure("SSLV3_ALERT_HANDSHAKE_FAILURE"), "no TLS version or cipher suite in common", False),
    (tls_failure("TLSV1_ALERT_PROTOCOL_VERSION"), "needs TLS 1.2 or newer", False),
    (tls_failure("UNSUPPORTED_PROTOCOL"), "needs TLS 1.2 or newer", False),
    (tls_failure("TLSV1_UNRECOGNIZED_NAME"), "does not know the name example.org", False),
    (tls_failure("SOMETHING_NEW"), "the TLS handshake failed (SOMETHING_NEW)", False),
])
def test_tls_errors(error, words, cleartext):
    assert words in judge.tls_error(error, "example.org")
    assert judge.may_be_cleartext(error) is cleartext


# -- certificates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "fault", "words"), [
    (10, "expired", "expired on Jul  1 00:00:00 2026 GMT"),
    (9, "not-yet-valid", "begins on Jan  1 00:00:00 2026 GMT"),
    (18, "self-signed", "is self-signed"),
    (19, "untrusted", "ends in a root that is not trusted (issuer: The \\x1b[2J CA)"),
    (20, "untrusted", "authority that is not known here"),
    (21, "untrusted", "does not send the whole chain"),
    (62, "wrong-name", "is not for example.com, but for 0.example.org, 1.example.org, 2.example.org, 3.example.org, "
                       "4.example.org, 2 more"),
    (64, "wrong-name", "is not for example.com"),
    (26, "untrusted", "is not accepted: unsuitable purpose"),
])
def test_untrusted_certificates(code, fault, words):
    finding = judge.untrusted_certificate(code, "unsuitable purpose", CERTIFICATE, "example.com", tolerated=False)
    assert finding.level is Level.PROBLEM
    assert words in finding.text
    assert judge.certificate_fault(code) == fault


def test_a_tolerated_certificate_is_a_warning():
    finding = judge.untrusted_certificate(10, "", {}, "example.com", tolerated=True)
    assert finding.level is Level.WARNING
    assert "expired on an earlier date" in finding.text


@pytest.mark.parametrize(("days", "level"), [(100, Level.OK), (15, Level.OK), (13, Level.WARNING)])
def test_a_certificate_that_expires_soon(days, level):
    ends = ssl.cert_time_to_seconds(CERTIFICATE["notAfter"])
    assert judge.trusted_certificate(CERTIFICATE, "example.org", ends - days * 86_400).level is level


# -- TLS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "suite", "level"), [
    ("TLSv1.3", "TLS_AES_128_GCM_SHA256", Level.OK),
    ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", Level.OK),
    ("TLSv1.2", "ECDHE-ECDSA-CHACHA20-POLY1305", Level.OK),
    ("TLSv1.2", "DHE-RSA-AES256-CCM8", Level.OK),
    ("TLSv1.2", "AES128-GCM-SHA256", Level.PROBLEM),
    ("TLSv1.2", "ECDHE-RSA-AES128-SHA256", Level.PROBLEM),
    ("TLSv1.2", "ADH-AES128-GCM-SHA256", Level.PROBLEM),
    ("TLSv1.1", "ECDHE-RSA-AES128-SHA", Level.PROBLEM),
])
def test_ciphers(version, suite, level):
    assert judge.cipher(version, suite).level is level


@pytest.mark.parametrize(("chosen", "alone", "words"), [
    ("h2", "h2", "chose h2"),
    ("http/1.1", "h2", "prefers http/1.1"),
    ("http/1.1", None, "h2 is not offered"),
    (None, None, "takes no part in ALPN"),
])
def test_alpn(chosen, alone, words):
    assert words in judge.alpn(chosen, alone).text


# -- HTTP ------------------------------------------------------------------------------------------------------------


def test_settings_are_explained():
    pairs = [(frames.MAX_CONCURRENT_STREAMS, 100), (0xF00D, 1)]
    texts = [finding.text for finding in judge.settings(pairs)]
    assert texts[0].startswith("MAX_CONCURRENT_STREAMS = 100: ")
    assert texts[1].startswith("0xf00d = 1: not known")
    assert judge.settings_facts(pairs) == {"MAX_CONCURRENT_STREAMS": 100, "0xf00d": 1}


def test_settings_are_bounded():
    pairs = [(number, 0) for number in range(1000, 3000)]
    assert len(list(judge.settings(pairs))) == judge.MAX_SETTINGS + 1
    assert len(judge.settings_facts(pairs)) == judge.MAX_SETTINGS
    assert "empty" in next(judge.settings([])).text


@pytest.mark.parametrize(("code", "words", "level"), [
    (0, "NO_ERROR: the server shuts", Level.INFO),
    (0xB, "ENHANCE_YOUR_CALM", Level.PROBLEM),
    (0x99, "0x99", Level.PROBLEM),
])
def test_goaway(code, words, level):
    finding = judge.goaway(Goaway(code, 1, b"debug\x1b"))
    assert words in finding.text
    assert "debug\\x1b" in finding.text
    assert finding.level is level


def test_a_response_of_the_application():
    assert judge.response(http(status=404), 0.0123, "/x").text == "404 by HTTP/1.1 in 12.3 ms"
    assert judge.response(http(status=502), 0, "/").level is Level.WARNING
    unfinished = Response(200, [], "HTTP/2", size=12)
    assert judge.response(unfinished, 0, "/").text.endswith("12 octets (and more, which was not read)")


@pytest.mark.parametrize(("got", "words"), [
    (http(server="nginx/1.25"), "it looks like nginx (HTTP/2 needs `http2 on;`"),
    (http("HTTP/2", server="nginx"), "it looks like nginx has answered: HTTP/2 may end there"),
    (http(server="Apache/2.4 (Debian)"), "it looks like Apache httpd"),
    (http(server="gunicorn"), "http_protocols?"),
    (http(via="1.1 varnish"), "there is a proxy in between (Via: 1.1 varnish)"),
])
def test_signs_of_a_proxy(got, words):
    assert any(words in finding.text for finding in judge.intermediaries(got, "https"))


def test_no_signs_of_a_proxy():
    assert list(judge.intermediaries(http(), "https")) == []
    assert [finding.topic for finding in judge.intermediaries(http("HTTP/2", server="gunicorn"), "http")] == ["server"]
    assert [finding.topic for finding in judge.intermediaries(http(server="my nginx-like"), "http")] == ["server"]


@pytest.mark.parametrize(("answer", "octets", "words"), [
    (Answer.HTTP1, b"HTTP/1.1 400 Bad\r\nx: y", "by HTTP/1: HTTP/1.1 400 Bad"),
    (Answer.TLS, b"\x15\x03", "by TLS"),
    (Answer.OTHER, b"SSH-2.0\r\n", "by something else: SSH-2.0\\r\\n"),
    (None, b"SSH", "by something else: SSH"),
    (None, b"", "no answer to HTTP/2's preface: nothing came in time"),
])
def test_answers_that_are_not_http2(answer, octets, words):
    assert words in judge.no_preface(answer, octets, "nothing came in time")


def test_upgrades_that_did_not_happen():
    assert "answered 200 by HTTP/1.1" in judge.no_upgrade(http(), None)
    assert "closed" in judge.no_upgrade(None, "the server closed")


@pytest.mark.parametrize(("error", "words"), [
    (TimeoutError(), "nothing came in time"),
    (tls_failure("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "demands a certificate of the client"),
    (tls_failure("UNEXPECTED_EOF_WHILE_READING", ssl.SSLEOFError), "the server closed the connection"),
    (ConnectionResetError(), "the connection broke"),
])
def test_exchanges_that_broke_off(error, words):
    assert words in judge.exchange_error(error)


# -- the report ------------------------------------------------------------------------------------------------------


def test_a_report_as_text_and_json():
    report = Report("https://example.org/", Verdict.HTTP1, facts={"status": 200})
    report.add(info("server", "x"), info("GET /", "y"))
    assert report.as_text() == ("https://example.org/\n\n  info     server  x\n  info     GET /   y\n\n"
                                "HTTP/1.1 only: HTTP/2 is not negotiated.")
    decoded = json.loads(report.as_json())
    assert (decoded["verdict"], decoded["exit_status"], decoded["facts"]) == ("http1", 1, {"status": 200})
    assert decoded["findings"][0] == {"level": "info", "topic": "server", "text": "x"}
    report.summary = "Another."
    assert report.as_text().endswith("\n\nAnother.")
    assert json.loads(report.as_json())["summary"] == "Another."
