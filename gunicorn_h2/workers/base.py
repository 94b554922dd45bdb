"""What all workers of this package share: settings, start-up, trusted cleartext peers, the request count."""

from __future__ import annotations

import gc
import select
import socket
import ssl
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gunicorn import util
from gunicorn.errors import HaltServer

from gunicorn_h2.apps.request import Proxies, ProxySenders, TrustedPeers, peer_ip
from gunicorn_h2.drivers.admission import Admission
from gunicorn_h2.drivers.base import Driver
from gunicorn_h2.drivers.certificates import Certificates
from gunicorn_h2.drivers.negotiation import ProxyProtocol, Terms
from gunicorn_h2.protocol.opening import Cleartext
from gunicorn_h2.protocol.proxy_header import ProxyVersions
from gunicorn_h2.protocol.upgrade_reader import RequestLimits

from .renewal import Renewal
from .reports import Reporter, take_slot
from .settings import (
    Settings,
    SettingsError,
    keylog_warning,
    load_settings,
    never_http2_reason,
    startup_line,
    trace_warning,
)
from .tls import Keylog, certificate_files, make_context, make_wrapper

if TYPE_CHECKING:
    from gunicorn_h2.drivers.trace_file import TraceFile

__all__ = ["PREFACE_EXPECTED", "Http2Worker", "tells_address"]

PREFACE_EXPECTED = "HTTP/2 connection preface expected"
"""The body of the 400 for a client that speaks HTTP/1 where only HTTP/2 is served."""
_MAX_REQUEST_LINE = _MAX_FIELD_SIZE = 8190
_MAX_FIELDS = 32_768
# Collections of the middle generation, each of 7 000 objects, before a full one. CPython has 10 up to 3.13, which are
# 1 500 connections; each full collection looks at all that are open, for 20 ms and more.
_USUAL_COLLECTIONS, _COLLECTIONS = 10, 50


class Http2Worker:
    """The mixin of every worker class; list it before Gunicorn's worker class."""

    alive: bool
    cfg: Any
    log: Any
    max_requests: int
    nr: int
    sockets: Sequence[Any]
    settings: Settings

    trace: TraceFile | None = None
    """The file of `http2_trace`."""

    http1_connections = 0
    """Connections so far that do not speak HTTP/2."""
    http2_requests = 0
    """Requests so far that applications have been called for; `nr` counts those of HTTP/1, too."""
    _reporter: Reporter
    _terms: Terms | None = None
    _keylog: Keylog | None = None
    _renewal: Renewal | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            self.settings = load_settings(self.cfg)
        except SettingsError as error:
            # At a reload, Gunicorn's master does not call `check_config` again.
            self.log.error("%s", error)
            raise HaltServer(str(error), 1) from error
        if self.websocket_obstacle() is not None:
            connection = replace(self.settings.connection, websocket=False)
            self.settings = replace(self.settings, connection=connection)
        self._trusted = TrustedPeers(self.cfg)
        self.admission = Admission(
            self.log,
            self.cfg.worker_connections,
            self.settings.max_connections_per_ip,
            is_exempt=Proxies(self.cfg).__contains__,
            increment=getattr(self.log, "increment", None),
        )
        self.certificates = Certificates(self.log)
        """What the worker's TLS contexts present."""
        self._board, self._slot = take_slot(self)

    @property
    def cfg_protocol(self) -> str:
        """Gunicorn's `protocol` setting; "http" in versions without it."""
        return str(getattr(self.cfg, "protocol", "http"))

    @property
    def reads_proxy_headers(self) -> bool:
        """Whether connections may begin with a PROXY header, by Gunicorn's settings."""
        return self.cfg.proxy_protocol != "off" and self.cfg_protocol == "http"

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Refuse a wrong setting, and log what was chosen; Gunicorn's master calls this once. Raises SettingsError."""
        gunicorns = getattr(super(), "check_config", None)
        if gunicorns is not None:
            gunicorns(cfg, log)
        settings = load_settings(cfg)
        log.info(startup_line(settings, cfg, cls.capacity(cfg)))
        for warning in (never_http2_reason(settings, cfg), keylog_warning(settings), trace_warning(settings)):
            if warning:
                log.warning(warning)
        obstacle = cls.websocket_obstacle()
        if settings.websocket == "on" and obstacle is not None:
            log.warning("http2_websocket is on, but there are no WebSockets: %s", obstacle)

    @classmethod
    def websocket_obstacle(cls) -> str | None:
        """Say why workers of this class cannot serve WebSockets over HTTP/2; None if they can."""
        return None

    @classmethod
    def capacity(cls, cfg: Any) -> str:
        """Say how much a worker serves at a time, for the start-up line."""
        return f"{cfg.worker_connections} connections"

    @property
    def open_connections(self) -> int:
        """The connections that are open, of both protocols."""
        raise NotImplementedError

    def init_process(self) -> None:
        """Run the worker in its process; return when it ends."""
        self._reporter = Reporter(self, self._board, self._slot)
        try:
            super().init_process()  # type: ignore[misc]
        finally:
            self._reporter.close()

    def report(self, driver: Driver[Any, Any], late: float = 0.0) -> None:
        """Have logged, counted and published what there is to tell; to be called about once a second.

        The caller acts for all connections; it is `late` by so many seconds because its thread was busy.
        """
        self.admission.closings.report()
        self._reporter.report(driver, late)

    def make_terms(self) -> None:
        """Prepare negotiation; called in the worker's process, while it may still read certificates and keys."""
        settings = self.settings
        if settings.trace is not None:
            # Imported here: it needs a header codec that is not loaded otherwise.
            from gunicorn_h2.drivers.trace_file import TraceFile

            self.trace = TraceFile(settings.trace, self.log)
            self.log.warning(trace_warning(settings))
        if self.cfg.is_ssl:
            files = certificate_files(self.cfg, settings.certificates)
            self._renewal = Renewal(files, self._load_certificates, settings.certificate_reload, self.log)
            if settings.keylog is not None:
                self._keylog = Keylog(settings.keylog, self.log)
                # In each worker, since a reload may have turned it on.
                self.log.warning(keylog_warning(settings))
            context = self._load_certificates()
            if settings.check_authority == "certificate":
                self.certificates.names(context)
        elif "h2" in settings.protocols and self.cfg_protocol == "http" and settings.cleartext != "off":
            upgrade = None if settings.cleartext == "prior-knowledge" else _request_limits(self.cfg)
            cleartext = Cleartext(settings.cleartext != "upgrade", upgrade)
            self._terms = Terms(None, cleartext, settings.handshake_timeout, None, self._proxy_protocol())
        if "http2_cleartext" in self.cfg.settings:
            # The terms decide. Gunicorn's HTTP/1 would look for an upgrade in each request that it is given, and serve
            # HTTP/2 by its own code. This is the worker's copy: the master keeps the setting.
            self.cfg.set("http2_cleartext", "off")

    def _load_certificates(self) -> ssl.SSLContext:
        """Have new connections negotiate with a new TLS context; those that there are keep theirs.

        Raises what `make_context` does.
        """
        settings = self.settings
        context = make_context(self.cfg, settings.protocols, settings.certificates, self._keylog)
        wrap = make_wrapper(context, self.cfg)
        certificates = self.certificates if settings.check_authority == "certificate" else None
        self._terms = Terms(wrap, None, settings.handshake_timeout, certificates, self._proxy_protocol())
        return context

    def check_certificates(self) -> None:
        """Take up certificates that have changed; call it about once a second, in one thread."""
        if self._renewal is not None:
            self._renewal.check()

    def _proxy_protocol(self) -> ProxyProtocol | None:
        """How to read PROXY headers, by Gunicorn's settings; None if they are off."""
        if not self.reads_proxy_headers:
            return None
        mode = self.cfg.proxy_protocol
        versions = ProxyVersions(v1=mode in ("v1", "auto"), v2=mode in ("v2", "auto"))
        return ProxyProtocol(versions, ProxySenders(self.cfg).__contains__, self.admission.admits)

    def begin_serving(self) -> None:
        """Prepare the process when the application is loaded, and nothing of a connection is there yet.

        What there is now stays. If the garbage collector looked at it again and again, each of its full collections
        would keep all clients waiting for the longer, by tens of milliseconds with a large application. And
        they are made rarer, unless the application or the conf file has set the thresholds.
        """
        if not self.cfg.preload_app:
            # It would write to, and so copy, what the worker shares with the master.
            gc.collect()
        gc.freeze()
        thresholds = gc.get_threshold()
        if thresholds[2] == _USUAL_COLLECTIONS:
            gc.set_threshold(*thresholds[:2], _COLLECTIONS)
        if self._renewal is not None:
            self._renewal.begin()

    def make_room(self, driver: Driver[Any, Any], connections: int) -> bool:
        """With so many connections open, have some end that serve nobody; return whether no more can be accepted.

        Then call it again now and then: connections become idle without notice. Some places are kept free for
        newcomers, unless there are so few that each counts: the last ones only make room for those who wait.
        """
        excess, full = self.admission.excess(connections), connections >= self.admission.max_connections
        if not excess and full and self.has_newcomers():
            excess = 1
        if excess:
            driver.make_room(excess)
        return full

    def has_newcomers(self) -> bool:
        """Whether connections wait in the backlog of a listening socket."""
        return bool(select.select(self.sockets, (), (), 0)[0])

    def terms(self, peer: Any) -> Terms | None:
        """How to negotiate the protocol of a new connection; None if it can only be HTTP/1.

        Without TLS, a peer that is not trusted can only speak HTTP/1 (the rule of Gunicorn 26.2 and newer).
        """
        terms = self._terms
        return terms if terms is None or terms.wrap is not None or peer in self._trusted else None

    def must_refuse_http1(self, peer: Any) -> bool:
        """Whether a connection that does not speak HTTP/2 must be refused."""
        terms = self.terms(peer)
        return terms is not None and terms.wrap is None and not terms.may_be_http1

    def refuse_http1(self, sock: socket.socket, peer: Any, data: bytes) -> None:
        """Answer 400 and close: with prior knowledge only, HTTP/1 is a mistake of the deployment.

        A client that has sent nothing at all, no `data`, is no mistake: a health check by TCP.
        """
        if data:
            self.warn_of_http1(peer)
            try:
                util.write_error(sock, 400, "Bad Request", PREFACE_EXPECTED)
            except OSError as error:
                self.log.debug("Failed to send error message: %s", error)
        util.close(sock)

    def warn_of_http1(self, peer: Any) -> None:
        """Log that a connection that must speak HTTP/2 does not."""
        self.log.warning(
            "Invalid request from ip=%s: no HTTP/2 connection preface; if it is a health check by HTTP/1.1, "
            "set http2_cleartext = 'both'",
            peer_ip(peer),
        )

    def count_request(self) -> None:
        """Count a request, and retire the worker after `max_requests`."""
        self.http2_requests += 1
        self.nr = requests = self.nr + 1
        if requests >= self.max_requests and self.alive:
            self.retire()

    def retire(self) -> None:
        """Have the worker stop gracefully; the arbiter starts another one."""
        self.log.info("Autorestarting worker after current request.")
        self.alive = False


def tells_address(information: dict[str, Any] | None) -> bool:
    """Whether what Gunicorn's parser has read from a PROXY header tells the client's address; None: there was none."""
    return information is not None and information.get("client_addr") is not None


def _request_limits(cfg: Any) -> RequestLimits:
    """Gunicorn's limits on a request head; for a limit of 0, the maximum that Gunicorn then applies."""
    return RequestLimits(
        cfg.limit_request_line or _MAX_REQUEST_LINE,
        cfg.limit_request_fields or _MAX_FIELDS,
        cfg.limit_request_field_size or _MAX_FIELD_SIZE,
    )
