"""What an observation means, in words: errors of connecting and of TLS, certificates, ciphers, SETTINGS, responses.

Functions of values only. Whatever a peer has sent is `printable` when it leaves here.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

from gunicorn_h2.protocol import frames
from gunicorn_h2.protocol.errors import ErrorCode, code_name
from gunicorn_h2.protocol.text import printable

from .exchange import Answer, Goaway, Response
from .report import Finding, info, ok, problem, warning

__all__ = [
    "alpn",
    "certificate_fault",
    "cipher",
    "connect_error",
    "exchange_error",
    "goaway",
    "intermediaries",
    "is_not_tls",
    "may_be_cleartext",
    "no_preface",
    "no_upgrade",
    "response",
    "settings",
    "settings_facts",
    "tls_error",
    "trusted_certificate",
    "untrusted_certificate",
]

DAY = 86_400.0
SOON = 14 * DAY
"""A certificate that expires sooner is warned of, in seconds."""
MAX_SETTINGS = 32
"""How many settings of a SETTINGS frame are shown."""

_ERRNO = {
    errno.ECONNREFUSED: "refused: nothing listens on this port (or a firewall says so)",
    errno.EHOSTUNREACH: "there is no route to this host",
    errno.ENETUNREACH: "there is no route to this network",
    errno.ECONNRESET: "reset by the server",
}

# OpenSSL's numbers of X509_verify_cert's errors.
_NOT_YET_VALID, _EXPIRED, _SELF_SIGNED, _SELF_SIGNED_IN_CHAIN, _NO_ISSUER, _NO_FIRST = 9, 10, 18, 19, 20, 21
_WRONG_NAME, _WRONG_IP = 62, 64

_VERIFY = {
    _NOT_YET_VALID: "is not valid yet: it begins on {begins}",
    _EXPIRED: "expired on {ends}",
    _SELF_SIGNED: "is self-signed, and therefore not trusted; if it should be, give it as --cacert",
    _SELF_SIGNED_IN_CHAIN: "ends in a root that is not trusted (issuer: {issuer}); "
    "if it should be, give it as --cacert",
    _NO_ISSUER: "is signed by an authority that is not known here, or the server does not send the whole chain "
    "(issuer: {issuer}); if it is a private authority, give it as --cacert",
    _NO_FIRST: "is signed by an authority that is not known here, or the server does not send the whole chain "
    "(issuer: {issuer})",
    _WRONG_NAME: "is not for {host}, but for {names}",
    _WRONG_IP: "is not for {host}, but for {names}",
}

_NOT_TLS = (
    "HTTP_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
    "UNKNOWN_PROTOCOL",
    "WRONG_VERSION_NUMBER",
)
_TOO_OLD = (
    "the server has no TLS version in common with this client, which needs TLS 1.2 or newer "
    "(as HTTP/2 does, RFC 9113 section 9.2)"
)
_REASONS = {
    "NO_APPLICATION_PROTOCOL": "the server accepts none of the protocols offered by ALPN",
    "CERTIFICATE_REQUIRED": "the server demands a certificate of the client",
    "HANDSHAKE_FAILURE": "the server finds no TLS version or cipher suite in common with this client, "
    "or demands a certificate of it",
    "PROTOCOL_VERSION": _TOO_OLD,
    "UNSUPPORTED_PROTOCOL": _TOO_OLD,
    "UNRECOGNIZED_NAME": "the server does not know the name {host}",
    "INTERNAL_ERROR": "the server has failed internally; it may have no certificate for {host}",
}
"""What the end of OpenSSL's name for an alert or an error means; what stands before it depends on the version."""

SETTING_MEANINGS = {
    frames.HEADER_TABLE_SIZE: "octets it keeps to compress our header fields",
    frames.ENABLE_PUSH: "a server's must be 0",
    frames.MAX_CONCURRENT_STREAMS: "requests a client may have open at once",
    frames.INITIAL_WINDOW_SIZE: "octets of a request body it takes before it is read",
    frames.MAX_FRAME_SIZE: "octets of the largest frame it takes",
    frames.MAX_HEADER_LIST_SIZE: "octets of the largest header section it takes",
    frames.ENABLE_CONNECT_PROTOCOL: "if 1, WebSocket over HTTP/2 is possible (RFC 8441)",
    frames.NO_RFC7540_PRIORITIES: "1: it ignores the priorities of RFC 7540 (RFC 9218)",
}

_PROXIES = {
    "nginx": "nginx (HTTP/2 needs `http2 on;` or `listen ... http2` in its server block)",
    "openresty": "OpenResty (HTTP/2 needs `http2 on;` or `listen ... http2` in its server block)",
    "apache": "Apache httpd (HTTP/2 needs mod_http2 and `Protocols h2 http/1.1`)",
    "caddy": "Caddy",
    "envoy": "Envoy (HTTP/2 needs `alpn_protocols: h2` in its listener)",
    "istio-envoy": "Envoy",
    "haproxy": "HAProxy (HTTP/2 needs `alpn h2,http/1.1` on its bind line)",
    "cloudflare": "Cloudflare",
    "awselb": "an AWS load balancer",
    "cloudfront": "Amazon CloudFront",
    "google frontend": "a Google front end",
    "gws": "a Google front end",
    "varnish": "Varnish",
    "traefik": "Traefik",
}


_HINTS = {
    "https": "it looks like Gunicorn has answered: is the worker class one of gunicorn_h2's, and h2 in http_protocols? "
    "`gunicorn-h2 check` says. If a proxy ends TLS in front of it, without a word: is h2 in the proxy's ALPN?",
    "http": "it looks like Gunicorn has answered: without TLS, HTTP/2 needs http2_cleartext, and this client's address "
    "in forwarded_allow_ips; `gunicorn-h2 check` says",
}


def connect_error(error: OSError) -> str:
    """Say why there is no connection, or why it ended."""
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved ({error.strerror})"
    if isinstance(error, TimeoutError):
        return "no answer in time (a firewall may drop packets)"
    if isinstance(error, ConnectionResetError):
        return _ERRNO[errno.ECONNRESET]
    return _ERRNO.get(error.errno or 0, printable(error.strerror or error))


def is_not_tls(error: Exception) -> bool:
    """Whether a handshake failed because the peer does not speak TLS."""
    return isinstance(error, ssl.SSLError) and (error.reason or "") in _NOT_TLS


def may_be_cleartext(error: OSError) -> bool:
    """Whether a handshake failed in a way in which it fails with a server that does not speak TLS."""
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) or is_not_tls(error):
        return True
    return not isinstance(error, ssl.SSLError)


def tls_error(error: OSError, host: str) -> str:
    """Say why a TLS handshake failed, but for a certificate."""
    if isinstance(error, TimeoutError):
        return "the server did not finish the TLS handshake in time"
    if is_not_tls(error):
        return "what answers is not TLS"
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError)):
        return "the server closed the connection during the TLS handshake; it may not speak TLS"
    reason = getattr(error, "reason", None) or ""
    text = next((text for end, text in _REASONS.items() if reason.endswith(end)), "the TLS handshake failed")
    return f"{text.format(host=printable(host))} ({printable(reason or error)})"


def trusted_certificate(certificate: Mapping[str, Any], host: str, now: float) -> Finding:
    """Judge a certificate that has been verified; `now` is the time since the epoch, in seconds."""
    ends = certificate.get("notAfter", "")
    text = f"valid for {printable(host)} until {printable(ends)}, issued by {_issuer(certificate)}"
    left = _seconds(ends) - now if ends else SOON
    if left < SOON:
        return warning("certificate", f"{text}: it expires in {max(left, 0) / DAY:.1f} days")
    return ok("certificate", text)


def untrusted_certificate(
    code: int, message: str, certificate: Mapping[str, Any], host: str, tolerated: bool
) -> Finding:
    """Say what is wrong with a certificate.

    `code` and `message` are those of `ssl.SSLCertVerificationError`; `certificate` is decoded as by
    `SSLSocket.getpeercert`, and empty where that was not possible. `tolerated`: the user has said --insecure.
    """
    words = _VERIFY.get(code, "is not accepted: {message}").format(
        begins=printable(certificate.get("notBefore", "a later date")),
        ends=printable(certificate.get("notAfter", "an earlier date")),
        issuer=_issuer(certificate),
        names=", ".join(_names(certificate)) or "other names",
        host=printable(host),
        message=printable(message),
    )
    return (warning if tolerated else problem)("certificate", f"the server's certificate {words}")


def certificate_fault(code: int) -> str:
    """One word for scripts about what is wrong with a certificate."""
    words = {_EXPIRED: "expired", _NOT_YET_VALID: "not-yet-valid", _SELF_SIGNED: "self-signed"}
    return "wrong-name" if code in (_WRONG_NAME, _WRONG_IP) else words.get(code, "untrusted")


def cipher(version: str, suite: str) -> Finding:
    """Judge TLS version and cipher suite for HTTP/2 (RFC 9113 section 9.2); `suite` has OpenSSL's name.

    Appendix A prohibits the suites of TLS 1.2 without an ephemeral key exchange or without AEAD.
    """
    shown = f"{printable(version)}, {printable(suite)}"
    if version == "TLSv1.3":
        return ok("TLS", f"{shown}: allowed for HTTP/2")
    if version != "TLSv1.2":
        return problem("TLS", f"{shown}: HTTP/2 needs TLS 1.2 or newer (RFC 9113 section 9.2)")
    is_ephemeral = suite.startswith(("ECDHE-", "DHE-"))
    is_aead = any(mode in suite for mode in ("GCM", "CCM", "CHACHA20"))
    if is_ephemeral and is_aead:
        return ok("TLS", f"{shown}: allowed for HTTP/2")
    return problem(
        "TLS",
        f"{shown}: prohibited for HTTP/2 (RFC 9113 appendix A), clients may answer INADEQUATE_SECURITY; "
        "allow an ECDHE suite with GCM or CHACHA20, or TLS 1.3",
    )


def alpn(chosen: str | None, alone: str | None) -> Finding:
    """Judge the server's choice of `h2, http/1.1`; `alone` is what it chose when only h2 was offered."""
    if chosen == "h2":
        return ok("ALPN", "the server chose h2 of h2, http/1.1")
    if alone == "h2":
        return warning("ALPN", "the server has h2, but prefers http/1.1, which most clients offer as well")
    if chosen is None:
        return problem("ALPN", "the server takes no part in ALPN, so that clients cannot learn of HTTP/2")
    return problem("ALPN", f"the server chose {printable(chosen)}; h2 is not offered, not even to a client of h2 alone")


def settings(pairs: list[tuple[int, int]]) -> Iterator[Finding]:
    """Explain a SETTINGS frame, one finding a setting."""
    if not pairs:
        yield info("SETTINGS", "empty: every setting has its initial value (RFC 9113 section 6.5.2)")
    for identifier, value in pairs[:MAX_SETTINGS]:
        meaning = SETTING_MEANINGS.get(identifier, "not known here, and ignored by clients")
        yield info("SETTINGS", f"{frames.setting_name(identifier)} = {value}: {meaning}")
    if len(pairs) > MAX_SETTINGS:
        yield info("SETTINGS", f"and {len(pairs) - MAX_SETTINGS} more")


def settings_facts(pairs: list[tuple[int, int]]) -> dict[str, int]:
    """The settings by name, for scripts."""
    return {frames.setting_name(identifier): value for identifier, value in pairs[:MAX_SETTINGS]}


def goaway(seen: Goaway) -> Finding:
    """Explain a GOAWAY frame (RFC 9113 section 6.8)."""
    said = f": {printable(seen.debug_data)}" if seen.debug_data else ""
    if seen.code == ErrorCode.NO_ERROR:
        return info("GOAWAY", f"NO_ERROR: the server shuts this connection down gracefully{said}")
    return problem("GOAWAY", f"{code_name(seen.code)}: the server ended the connection{said}")


def response(got: Response, seconds: float, path: str) -> Finding:
    """Report the response to the request; `seconds` is the time until its head came."""
    read = f", {got.size} octets" if got.version == "HTTP/2" else ""
    more = "" if got.complete or got.version != "HTTP/2" else " (and more, which was not read)"
    text = f"{got.status} by {printable(got.version)} in {seconds * 1000:.1f} ms{read}{more}"
    topic = f"GET {printable(path, 40)}"
    if got.status >= 500:
        return warning(topic, f"{text}: the connection works, the application or a backend does not")
    return ok(topic, text)


def intermediaries(got: Response, scheme: str) -> Iterator[Finding]:
    """Report the Server field, and signs that a proxy stands between: what the fields show is all that can be known."""
    server, via = got.field(b"server"), got.field(b"via")
    if server is not None:
        yield info("server", printable(server))
    if via is not None:
        yield warning(
            "proxy",
            f"there is a proxy in between (Via: {printable(via)}); what is negotiated here is between it and clients, "
            "and says nothing about it and Gunicorn",
        )
    if got.version != "HTTP/2" and _product(server) == "gunicorn":
        yield info("hint", _HINTS[scheme])
    known = _PROXIES.get(_product(server))
    if known is None:
        return
    if got.version == "HTTP/2":
        yield info("proxy", f"it looks like {known.partition(' (')[0]} has answered: HTTP/2 may end there")
    else:
        yield warning("proxy", f"it looks like {known} has answered: HTTP/2 must be turned on there")


def no_preface(answer: Answer | None, octets: bytes, failure: str | None) -> str:
    """Say what came instead of HTTP/2 in answer to its preface; `failure`: why nothing more came."""
    if answer is Answer.HTTP1:
        line = octets.partition(b"\r\n")[0]
        return f"the server answered HTTP/2's preface by HTTP/1: {printable(line)}"
    if answer is Answer.TLS:
        return "the server answered HTTP/2's preface by TLS"
    if answer is Answer.OTHER or octets:
        return f"the server answered HTTP/2's preface by something else: {printable(octets, 40)}"
    return f"there was no answer to HTTP/2's preface: {failure or 'the server closed the connection'}"


def no_upgrade(got: Response | None, failure: str | None) -> str:
    """Say what came instead of a 101 in answer to Upgrade: h2c."""
    if got is not None:
        return f"the server ignored Upgrade: h2c, and answered {got.status} by {printable(got.version)}"
    return f"there was no valid answer to Upgrade: h2c: {printable(failure)}"


def exchange_error(error: OSError) -> str:
    """Say why an exchange broke off."""
    if isinstance(error, TimeoutError):
        return "nothing came in time"
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return "the server closed the connection"
    if isinstance(error, ssl.SSLError):
        return tls_error(error, "this host")
    return f"the connection broke: {connect_error(error)}"


def _product(server: bytes | None) -> str:
    return (server or b"").decode("latin-1").lower().partition("/")[0].strip()


def _issuer(certificate: Mapping[str, Any]) -> str:
    """The issuer's common name, or its organization."""
    fields = {key: value for group in certificate.get("issuer", ()) for key, value in group}
    name = fields.get("commonName") or fields.get("organizationName") or "an unnamed authority"
    return printable(name)


def _names(certificate: Mapping[str, Any]) -> list[str]:
    """Up to five names that the certificate is for."""
    names = [printable(value, 100) for _, value in certificate.get("subjectAltName", ())]
    return names if len(names) <= 5 else [*names[:5], f"{len(names) - 5} more"]


def _seconds(date: str) -> float:
    return float(ssl.cert_time_to_seconds(date))
