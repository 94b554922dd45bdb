"""The order of attempts: what is tried, and what the outcome of each means for the next."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from typing import Any

from gunicorn_h2.protocol.errors import code_name
from gunicorn_h2.protocol.text import printable

from . import judge
from .conversation import Outcome, converse
from .exchange import Answer, Http1Exchange, Http2Exchange, Response
from .report import SUMMARIES, Report, Verdict, ok, problem, warning
from .target import Target
from .wire import PROTOCOLS, Address, Wire, connect, make_context, pinned_context, resolve

__all__ = ["Diagnosis", "Options"]


@dataclass(frozen=True)
class Options:
    """How to connect."""

    cacert: str | None = None
    """A file of trusted certificates; None: those of the system."""

    insecure: bool = False
    """Whether a wrong certificate is only a warning."""

    timeout: float = 10.0
    """Seconds for each connection, and for the resolution of the name."""

    connect_to: tuple[str, int] | None = None
    """Another host and port to connect to; the request and TLS still name the URL's."""


class Diagnosis:
    """The diagnosis of one URL."""

    def __init__(self, target: Target, url: str, options: Options) -> None:
        """`url` is what the report is headed by."""
        self.report = Report(url)
        self._target = target
        self._options = options
        self._address: Address | None = None
        self._first: Wire | None = None

    def run(self) -> Report:
        """Make all attempts; return the report."""
        try:
            self._first = self._connect_first()
        except OSError as error:
            self._no_connection(judge.connect_error(error))
            return self.report
        try:
            if self._target.scheme == "https":
                self._diagnose_https()
            else:
                self._diagnose_http()
        except OSError as error:
            # One connection came about and a later one did not.
            self._no_connection(judge.connect_error(error))
        return self.report

    # -- connecting

    def _connect_first(self) -> Wire:
        """Resolve the name, and find an address that can be connected to. Raises `OSError`."""
        host, port = self._options.connect_to or (self._target.host, self._target.port)
        addresses = resolve(host, port, self._options.timeout)
        last: OSError = OSError(f"{host} has no address")
        for address in addresses:
            started = time.monotonic()
            try:
                wire = connect(address, self._options.timeout, self._options.timeout / len(addresses))
            except OSError as error:
                last = error
                if len(addresses) > 1:
                    self.report.add(warning("connection", f"{address}: {judge.connect_error(error)}"))
                continue
            spent = (time.monotonic() - started) * 1000
            self.report.add(ok("connection", f"connected to {address} in {spent:.1f} ms"))
            self.report.facts["address"] = str(address)
            self._address = address
            return wire
        raise last

    def _connect(self) -> Wire:
        """The next connection to the address that was found. Raises `OSError`."""
        wire, self._first = self._first, None
        if wire is not None:
            return wire
        assert self._address is not None
        return connect(self._address, self._options.timeout)

    def _no_connection(self, text: str) -> None:
        self.report.add(problem("connection", text))
        self.report.verdict = Verdict.NO_CONNECTION

    # -- https

    def _diagnose_https(self) -> None:
        try:
            wire, secured = self._handshake()
        except OSError as error:
            self.report.add(problem("TLS", judge.tls_error(error, self._target.host)))
            if judge.may_be_cleartext(error):
                self._look_for_cleartext()
            return
        with wire:
            chosen = secured.selected_alpn_protocol()
            self._report_tls(secured, chosen)
            place = len(self.report.findings)
            verdict = self._get_http2(wire) if chosen == "h2" else self._get_http1(wire)
        # The first connection is closed now: a worker may serve one at a time.
        alone = chosen if chosen == "h2" else self._offer_h2_alone()
        self.report.findings.insert(place, judge.alpn(chosen, alone))
        self.report.verdict = verdict
        if self.report.facts["certificate"] != "valid" and not self._options.insecure:
            self.report.verdict = Verdict.NO_CONNECTION
            works = SUMMARIES[verdict].rstrip(".")
            self.report.summary = f"Clients refuse the certificate. Without verification: {works}."

    def _get_http2(self, wire: Wire) -> Verdict:
        exchange = Http2Exchange(self._target.request)
        exchange.start()
        return self._report_http2(exchange, converse(wire, exchange), "h2")

    def _get_http1(self, wire: Wire) -> Verdict:
        exchange = Http1Exchange(self._target.request)
        exchange.start()
        return self._report_http1(exchange, converse(wire, exchange))

    def _handshake(self) -> tuple[Wire, ssl.SSLSocket]:
        """Do the handshake with verification; if the certificate is wrong, again without. Raises `OSError`."""
        context = make_context(PROTOCOLS, self._options.cacert, verify=True)
        wire = self._connect()
        try:
            secured = wire.start_tls(context, self._target.host)
        except ssl.SSLCertVerificationError as error:
            wire.close()
            return self._handshake_untrusted(error)
        except OSError:
            wire.close()
            raise
        certificate: dict[str, Any] = secured.getpeercert() or {}
        self.report.add(judge.trusted_certificate(certificate, self._target.host, time.time()))
        self.report.facts["certificate"] = "valid"
        return wire, secured

    def _handshake_untrusted(self, error: ssl.SSLCertVerificationError) -> tuple[Wire, ssl.SSLSocket]:
        """Go on without trust, so that what else is wrong is found as well."""
        unverified = make_context(PROTOCOLS, None, verify=False)
        wire, secured = self._start_tls(unverified)
        with wire:
            der = secured.getpeercert(binary_form=True) or b""
        try:
            # Python decodes a certificate only if it has verified it.
            wire, secured = self._start_tls(pinned_context(PROTOCOLS, der))
            certificate: dict[str, Any] = secured.getpeercert() or {}
        except OSError:
            wire, secured = self._start_tls(unverified)
            certificate = {}
        self.report.facts["certificate"] = judge.certificate_fault(error.verify_code)
        self.report.add(
            judge.untrusted_certificate(
                error.verify_code, error.verify_message, certificate, self._target.host, self._options.insecure
            )
        )
        return wire, secured

    def _start_tls(self, context: ssl.SSLContext) -> tuple[Wire, ssl.SSLSocket]:
        wire = self._connect()
        try:
            return wire, wire.start_tls(context, self._target.host)
        except OSError:
            wire.close()
            raise

    def _report_tls(self, secured: ssl.SSLSocket, chosen: str | None) -> None:
        suite = (secured.cipher() or ("unknown",))[0]
        version = secured.version() or "unknown"
        self.report.facts.update(tls_version=version, cipher=suite, alpn=chosen)
        self.report.add(judge.cipher(version, suite))

    def _offer_h2_alone(self) -> str | None:
        """What the server chooses if a client has h2 alone; None for nothing."""
        try:
            wire, secured = self._start_tls(make_context(("h2",), None, verify=False))
        except OSError:
            return None
        with wire:
            return secured.selected_alpn_protocol()

    def _look_for_cleartext(self) -> None:
        """Find out whether a port that does not speak TLS speaks HTTP."""
        exchange = Http1Exchange(self._target.request)
        exchange.start()
        self._converse(exchange)
        if exchange.response is not None:
            self.report.facts["port"] = "http"
            self.report.add(problem("port", f"it speaks HTTP without TLS: try {printable(self._target.other())}"))

    # -- http

    def _diagnose_http(self) -> None:
        """Try HTTP/2 by prior knowledge, then by an upgrade, then HTTP/1.1."""
        exchange = Http2Exchange(self._target.request)
        exchange.start()
        outcome = self._converse(exchange)
        if exchange.answer is Answer.HTTP2:
            self.report.add(ok("h2c", "the server speaks HTTP/2 by prior knowledge"))
            self.report.verdict = self._report_http2(exchange, outcome, "h2c")
            return
        self.report.add(problem("h2c", judge.no_preface(exchange.answer, exchange.first_octets, outcome.failure)))
        if exchange.answer is Answer.TLS and self._speaks_tls():
            return
        if not outcome.timed_out and self._try_upgrade():
            return
        self._try_cleartext_http1()

    def _try_upgrade(self) -> bool:
        """Ask for HTTP/2 by HTTP/1.1 (RFC 7540 section 3.2); return whether the server agreed."""
        exchange, upgraded = Http1Exchange(self._target.request), Http2Exchange(self._target.request)
        exchange.start(upgraded.start_upgrade())
        with self._connect() as wire:
            outcome = converse(wire, exchange)
            if exchange.response is None or exchange.response.status != 101:
                failure = exchange.error or outcome.failure
                self.report.add(problem("upgrade", judge.no_upgrade(exchange.response, failure)))
                return False
            self.report.add(ok("upgrade", "the server changes to HTTP/2 by Upgrade: h2c"))
            if exchange.rest:
                upgraded.receive_data(exchange.rest)
            outcome = converse(wire, upgraded)
        self.report.verdict = self._report_http2(upgraded, outcome, "h2c-upgrade")
        return True

    def _try_cleartext_http1(self) -> None:
        exchange = Http1Exchange(self._target.request)
        exchange.start()
        outcome = self._converse(exchange)
        response = exchange.response
        # Many servers answer 400 to HTTP on their TLS port.
        if (response is None or response.status == 400) and not outcome.timed_out and self._speaks_tls():
            return
        self.report.verdict = self._report_http1(exchange, outcome)

    def _speaks_tls(self) -> bool:
        """Whether the port speaks TLS, which ends the diagnosis."""
        try:
            wire, _ = self._start_tls(make_context(PROTOCOLS, None, verify=False))
        except OSError:
            return False
        wire.close()
        self.report.facts["port"] = "https"
        self.report.add(problem("port", f"it speaks TLS: try {printable(self._target.other())}"))
        self.report.verdict = Verdict.NO_CONNECTION
        return True

    # -- exchanges

    def _converse(self, exchange: Http1Exchange | Http2Exchange) -> Outcome:
        """Make an exchange on a connection of its own. Raises `OSError` if there is none."""
        with self._connect() as wire:
            return converse(wire, exchange)

    def _report_http2(self, exchange: Http2Exchange, outcome: Outcome, protocol: str) -> Verdict:
        """Report an exchange after both sides have agreed on HTTP/2; `protocol` is how, for scripts."""
        report, response = self.report, exchange.response
        if exchange.answer is not Answer.HTTP2:
            text = judge.no_preface(exchange.answer, exchange.first_octets, outcome.failure)
            report.add(problem("HTTP/2", f"it was agreed on, but {text}"))
            return Verdict.PROTOCOL_ERROR
        report.facts["protocol"] = protocol
        if exchange.settings is not None:
            report.facts["settings"] = judge.settings_facts(exchange.settings)
            report.add(*judge.settings(exchange.settings))
        if response is not None:
            self._report_response(response, outcome.seconds)
        if exchange.goaway is not None:
            report.facts["goaway"] = code_name(exchange.goaway.code)
            report.add(judge.goaway(exchange.goaway))
        if exchange.reset is not None:
            report.add(problem("RST_STREAM", f"{code_name(exchange.reset)}: the server reset the request"))
        failure = exchange.error or outcome.failure
        if failure is None:
            return Verdict.HTTP2
        if response is not None and exchange.error is None:
            # An event stream has no end.
            report.add(warning("response", f"its end did not come: {printable(failure)}"))
            return Verdict.HTTP2
        report.add(problem("HTTP/2", printable(failure)))
        return Verdict.PROTOCOL_ERROR

    def _report_http1(self, exchange: Http1Exchange, outcome: Outcome) -> Verdict:
        if exchange.response is None:
            failure = exchange.error or outcome.failure or ""
            octets = exchange.first_octets
            came = f": {printable(octets, 40)}" if octets else ""
            self.report.add(problem("HTTP/1.1", f"{printable(failure)}{came}"))
            return Verdict.PROTOCOL_ERROR
        self.report.facts["protocol"] = "http/1.1"
        self._report_response(exchange.response, outcome.seconds)
        return Verdict.HTTP1

    def _report_response(self, response: Response, seconds: float) -> None:
        report, target = self.report, self._target
        report.facts.update(status=response.status, seconds=round(seconds, 6))
        for name in ("server", "via"):
            value = response.field(name.encode("ascii"))
            if value is not None:
                report.facts[name] = printable(value)
        report.add(judge.response(response, seconds, target.path))
        report.add(*judge.intermediaries(response, target.scheme))
