"""Configuration: from Gunicorn's `cfg` and the conf file to one frozen `Settings`.

`TABLE` is the only description of the settings: `load_settings` reads by it, the `gunicorn-h2` command makes its
flags from it, and a test compares docs/settings.md with it.

Where a value comes from:

- Gunicorn knows the setting (its own `http2_*`, or ours once the `gunicorn-h2` command has
  registered them): `cfg` has already merged the command line, `GUNICORN_CMD_ARGS` and the conf file.
- Gunicorn does not know it: the namespace of the conf file. A `Setting` subclass imported with the
  worker would not help: it is missing from `cfg` at the first boot and present after SIGHUP.

An unknown `http2_*` name in a conf file is an error, because a misspelt limit would not apply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from gunicorn_h2.protocol.config import ConnectionConfig

from .conf import SettingsError, are_protocols_named, conf_names, refuse_unknown
from .kinds import (
    ALPN_NAMES,
    CertificateList,
    CertificatePair,
    Choice,
    CleartextMode,
    Integer,
    Kind,
    OptionalFile,
    Protocols,
    Seconds,
    Switch,
)

__all__ = [
    "TABLE",
    "SettingSpec",
    "Settings",
    "SettingsError",
    "keylog_warning",
    "load_settings",
    "never_http2_reason",
    "startup_line",
    "trace_warning",
]

DEFAULT_PROTOCOLS = ("h2", "h1")
ENGINES = ("auto", "h2", "fast")
AUTHORITY_CHECKS = ("off", "certificate")
MAX_31 = 2**31 - 1
MAX_32 = 2**32 - 1
MAX_TOTAL = 2**40
# What Gunicorn's parser makes of a limit_request_fields of 0.
MAX_FIELDS = 32_768


@dataclass(frozen=True)
class SettingSpec:
    """One row of the settings table."""

    name: str
    """The name in a conf file; the flag is the same with dashes."""

    field: str
    """The field of `ConnectionConfig` or of `Settings` that holds it."""

    kind: Kind
    default: object
    unit: str
    """The unit of a number; "" for words."""

    doc: str
    """One line on what it does."""

    others: str
    """The defaults of other servers."""

    @property
    def flag(self) -> str:
        """The command-line flag."""
        return "--" + self.name.replace("_", "-")

    def allowed(self) -> str:
        """Say which values are allowed, with their unit."""
        return self.kind.allowed() + (f" ({self.unit})" if self.unit else "")

    def parse(self, value: object) -> Any:
        """Return `value` in the setting's own type. Raises `SettingsError`."""
        try:
            return self.kind.parse(value)
        except (TypeError, ValueError):
            raise SettingsError(f"{self.name} = {value!r}: must be {self.allowed()}") from None


TABLE: tuple[SettingSpec, ...] = (
    SettingSpec(
        "http_protocols",
        "protocols",
        Protocols(),
        DEFAULT_PROTOCOLS,
        "",
        "HTTP versions offered by ALPN, the preferred one first.",
        "Gunicorn: h1",
    ),
    SettingSpec(
        "http2_cleartext",
        "cleartext",
        CleartextMode(),
        "off",
        "",
        "HTTP/2 without TLS, from peers in forwarded_allow_ips and unix sockets only.",
        "Gunicorn: off; hypercorn: always on; granian: on with --http auto",
    ),
    SettingSpec(
        "http2_engine",
        "engine",
        Choice(ENGINES),
        "auto",
        "",
        "Header codec: our own (fast, which auto means), or hpack with the h2 library as a referee (h2).",
        "hypercorn: h2; granian: hyper",
    ),
    SettingSpec(
        "http2_websocket",
        "websocket",
        Switch(),
        "auto",
        "",
        "WebSocket over HTTP/2 (RFC 8441); auto: with an ASGIWorker if the extra websocket is installed, else always.",
        "hypercorn: on; Envoy: off (allow_connect); Gunicorn, nginx: none",
    ),
    SettingSpec(
        "http2_websocket_max_message_size",
        "websocket_max_message_size",
        Integer(1, MAX_31),
        16_777_216,
        "octets",
        "Largest message of a WebSocket that an ASGIWorker accepts, decompressed; WSGI libraries have their own.",
        "uvicorn, hypercorn: 16 MiB; websockets: 1 MiB",
    ),
    SettingSpec(
        "http2_max_concurrent_streams",
        "max_concurrent_streams",
        Integer(1, MAX_31),
        100,
        "streams",
        "Streams a client may have open at once on a connection; a reset one counts until its call has returned.",
        "Gunicorn, hypercorn: 100; nginx: 128; granian: 200; Go: 250",
    ),
    SettingSpec(
        "http2_initial_window_size",
        "initial_window_size",
        # A window of 0 would never open: credit is only returned for data received.
        Integer(1, MAX_31),
        65_535,
        "octets",
        "Initial receive window of a stream: how much of a request body may be in flight or unread.",
        "Gunicorn, hypercorn: 65535; nginx: 65536; granian, Go: 1 MiB",
    ),
    SettingSpec(
        "http2_connection_window_size",
        "connection_window_size",
        Integer(65_535, MAX_31),
        1_048_576,
        "octets",
        "Initial receive window of a connection: how much of all bodies may be in flight.",
        "hypercorn: 65535; granian, Go: 1 MiB; nginx: 2 GiB",
    ),
    SettingSpec(
        "http2_max_window_size",
        "max_window_size",
        Integer(0, MAX_31),
        16_777_216,
        "octets",
        "Size up to which windows grow as applications read: a connection's, and those of its streams together.",
        "grpc-go, hyper, .NET: 16 MiB each",
    ),
    SettingSpec(
        "http2_worker_window_size",
        "worker_window_size",
        Integer(0, MAX_TOTAL),
        268_435_456,
        "octets",
        "Octets by which the stream windows of a worker may grow in total; 0: they do not grow.",
        "Linux: tcp_mem, for the windows of all TCP sockets",
    ),
    SettingSpec(
        "http2_max_frame_size",
        "max_frame_size",
        Integer(16_384, 2**24 - 1),
        16_384,
        "octets",
        "Largest frame payload accepted.",
        "Gunicorn, hypercorn, granian: 16384; Go: 1 MiB; nginx: 16777215",
    ),
    SettingSpec(
        "http2_max_header_list_size",
        "max_header_list_size",
        Integer(0, MAX_32),
        65_536,
        "octets",
        "Largest field section accepted, decoded, plus 32 octets a field; 0: no limit.",
        "Gunicorn, hypercorn: 65536; nginx: 32 KiB; Go: 1 MiB; granian: 16 MiB",
    ),
    SettingSpec(
        "http2_stream_buffer_size",
        "stream_buffer_size",
        Integer(1_024, MAX_31),
        131_072,
        "octets",
        "Response data queued for one stream before the application waits; it goes on at half of that.",
        "nginx: 64 KiB (output_buffers); granian: 400 KiB",
    ),
    SettingSpec(
        "http2_response_spool_size",
        "response_spool_size",
        Integer(0, MAX_TOTAL),
        67_108_864,
        "octets",
        "What one response may have in the temporary file for slow clients before its application waits; 0: nothing.",
        "nginx: 1 GiB (proxy_max_temp_file_size); waitress: 16 MiB (outbuf_high_watermark)",
    ),
    SettingSpec(
        "http2_worker_spool_size",
        "worker_spool_size",
        Integer(0, MAX_TOTAL),
        1_073_741_824,
        "octets",
        "Largest size of that file, which all responses of a worker share; 0: there is none.",
        "nginx: 1 GiB for each response",
    ),
    SettingSpec(
        "http2_worker_buffer_size",
        "worker_buffer_size",
        Integer(0, MAX_TOTAL),
        16_777_216,
        "octets",
        "Response data in a worker's memory; beyond half of it, what clients leave goes to that file; 0: no limit.",
        "waitress: 1 MiB (outbuf_overflow), nginx: 64 KiB (proxy_buffers), for each response",
    ),
    SettingSpec(
        "http2_min_read_rate",
        "min_read_rate",
        Integer(0, MAX_31),
        240,
        "octets a second",
        "What a client must take of the responses that wait for it, on average over timeout; 0: an octet in timeout.",
        "Kestrel: 240 (MinResponseDataRate)",
    ),
    SettingSpec(
        "http2_request_buffer_size",
        "request_buffer_size",
        Integer(0, MAX_31),
        65_535,
        "octets",
        "Body of declared length to wait for before the application is called, at most the initial window; 0: none.",
        "nginx: 16 KiB, then a file; waitress: 512 KiB, then a file; Kestrel: 1 MiB unread",
    ),
    SettingSpec(
        "http2_min_body_rate",
        "min_body_rate",
        Integer(0, MAX_31),
        240,
        "octets a second",
        "Rate at which a client must send bodies of declared length, on average over `timeout`; 0: no minimum.",
        "Kestrel: 240, after 5 seconds; Apache: 500, after 20",
    ),
    SettingSpec(
        "http2_max_waiting_threads",
        "max_waiting_threads",
        Integer(0, 1_000_000),
        256,
        "threads",
        "Threads of a ThreadWorker that wait for their clients and do not count among its threads; 0: all count.",
        "Tomcat, Jetty: 200 threads in all",
    ),
    SettingSpec(
        "http2_handshake_timeout",
        "handshake_timeout",
        Seconds(0, 3_600),
        10.0,
        "seconds",
        "Time for the TLS handshake, and again for the client's preface and first SETTINGS; 0: no limit.",
        "nginx, hypercorn: 60; Go: 10 for the preface",
    ),
    SettingSpec(
        "http2_header_timeout",
        "header_timeout",
        Seconds(0, 3_600),
        10.0,
        "seconds",
        "Time from a HEADERS frame to the end of its field block; 0: no limit.",
        "nginx: 60 (client_header_timeout); Apache: 20 to 40",
    ),
    SettingSpec(
        "http2_drain_timeout",
        "drain_timeout",
        Seconds(0.01, 60),
        1.0,
        "seconds",
        "How long a graceful shutdown waits for a moment without requests, and then for the ACK of its PING.",
        "Go: 1; Envoy: 5",
    ),
    SettingSpec(
        "http2_keepalive_interval",
        "keepalive_interval",
        Seconds(0, 31_536_000),
        7_200.0,
        "seconds",
        "Silence of a client after which it is sent a PING, to notice one that has vanished; 0: never.",
        "gRPC, Linux's TCP: 2 hours; Go, Envoy, Kestrel, hyper: off",
    ),
    SettingSpec(
        "http2_keepalive_timeout",
        "keepalive_timeout",
        Seconds(0.01, 3_600),
        20.0,
        "seconds",
        "How long a client may take to answer that PING, by whatever frame, before its connection is closed.",
        "gRPC, Kestrel, hyper: 20; Go: 15",
    ),
    SettingSpec(
        "http2_max_connection_age",
        "max_connection_age",
        Seconds(0, 31_536_000),
        3_600.0,
        "seconds",
        "Age, give or take a tenth, at which a connection is shut down gracefully; its streams may end; 0: no limit.",
        "nginx: 1 hour (keepalive_time); Envoy, gRPC: none (MAX_CONNECTION_AGE)",
    ),
    SettingSpec(
        "http2_max_requests_per_connection",
        "max_requests_per_connection",
        Integer(0, 2**30),
        0,
        "requests",
        "Requests after which a connection is shut down gracefully; 0: no limit.",
        "nginx: 1000 (keepalive_requests); Apache: 100 (MaxKeepAliveRequests); Envoy, Go: none",
    ),
    SettingSpec(
        "http2_certificate_reload",
        "certificate_reload",
        Seconds(0, 86_400),
        60.0,
        "seconds",
        "How often a worker looks whether the files of its certificates have changed, and takes them up; 0: never.",
        "gRPC: 600 (file watcher); Envoy, Traefik: watch files; nginx, HAProxy, Apache: at a reload",
    ),
    SettingSpec(
        "http2_certificates",
        "certificates",
        CertificateList(),
        (),
        "",
        "Further certificates besides certfile; a client is shown the one whose names cover its SNI.",
        "HAProxy: crt, by the names in it; nginx, Apache: by virtual host; Gunicorn: the ssl_context hook",
    ),
    SettingSpec(
        "http2_check_authority",
        "check_authority",
        Choice(AUTHORITY_CHECKS),
        "off",
        "",
        "Under TLS, answer requests for hosts that the connection's certificate does not cover with 421.",
        "Apache: by virtual host; nginx: off (421 for a host other than SNI, with client certificates)",
    ),
    SettingSpec(
        "http2_reset_budget",
        "reset_budget",
        Integer(1, 1_000_000),
        200,
        "frames",
        "Stream resets, the client's and those it provokes, in one burst; refilled within 30 seconds.",
        "nghttp2: 1000, and 33 a second",
    ),
    SettingSpec(
        "http2_control_budget",
        "control_budget",
        Integer(10, 1_000_000),
        1_000,
        "frames",
        "Frames that carry no request and no data, in one burst; refilled within 10 seconds.",
        "nghttp2: 1000 unsent answers; Envoy: 1000 unsent; Go: 10000 unsent",
    ),
    SettingSpec(
        "http2_small_data_budget",
        "small_data_budget",
        Integer(100, 10_000_000),
        10_000,
        "frames",
        "DATA frames of one octet a second; those of 16 octets and more, or at the end of a body, are free.",
        "Tomcat: frames below 1 KiB count (overheadDataThreshold); nginx: overhead up to 8 times the payload and 1 MiB",
    ),
    SettingSpec(
        "http2_max_connections_per_ip",
        "max_connections_per_ip",
        Integer(0, 1_000_000),
        0,
        "connections",
        "Open connections of an address (of IPv6, a /64) to a worker, except those of trusted proxies; 0: no limit.",
        "nginx: off (limit_conn); HAProxy: off (src_conn_cur); Tomcat, Go: none",
    ),
    SettingSpec(
        "http2_keylog",
        "keylog",
        OptionalFile(),
        None,
        "",
        "Development only: file for the secrets of all TLS connections, by which Wireshark decrypts them.",
        "curl, browsers, Python's default contexts: SSLKEYLOGFILE in the environment; nginx: none",
    ),
    SettingSpec(
        "http2_trace",
        "trace",
        OptionalFile(),
        None,
        "",
        "Development only: file for the frames of all connections, in words, with most of their header fields.",
        "nghttpd: -v; Go: GODEBUG=http2debug=2; nginx: error_log at level debug; Envoy: log level trace",
    ),
)

_BY_NAME = {spec.name: spec for spec in TABLE}


@dataclass(frozen=True)
class Settings:
    """A worker's validated configuration."""

    protocols: tuple[str, ...] = ("h2", "http/1.1")
    """ALPN names in order of preference."""

    cleartext: str = "off"
    """HTTP/2 without TLS: off, prior-knowledge, upgrade or both."""

    handshake_timeout: float = 10.0
    """Seconds for the TLS handshake; 0: no limit."""

    certificate_reload: float = 60.0
    """Seconds between two looks at the files of certificates; 0: they are read when a worker starts."""

    certificates: tuple[CertificatePair, ...] = ()
    """Certificates besides `certfile`, chosen by SNI."""

    check_authority: str = "off"
    """What the authority of a request is checked against: off, or certificate."""

    max_connections_per_ip: int = 0
    """Connections that an address may have open to a worker; 0: no limit."""

    max_waiting_threads: int = 256
    """Threads that may wait for clients without counting among the worker's threads."""

    websocket: str = "auto"
    """Whether WebSocket over HTTP/2 was asked for: auto, on or off."""

    websocket_max_message_size: int = 16_777_216
    """Octets of a message, for ASGI."""

    keylog: str | None = None
    """The file for the secrets of TLS connections; None: they are not written."""

    trace: str | None = None
    """The file for the frames of connections; None: they are not written."""

    connection: ConnectionConfig = field(default_factory=ConnectionConfig)
    """The limits of each connection."""


def load_settings(cfg: Any) -> Settings:
    """Read the settings from `cfg`, a Gunicorn `Config`, and from its conf file.

    Raises `SettingsError` for a wrong value and for an unknown `http2_*` name.
    """
    names = conf_names(cfg)
    refuse_unknown(names, [name for name in {**cfg.settings, **_BY_NAME} if name.startswith("http2_")])
    values = {spec.field: spec.parse(_raw_value(spec, cfg, names)) for spec in TABLE}
    if values["certificates"] and not cfg.is_ssl:
        raise SettingsError("http2_certificates needs certfile, the certificate for clients that name no other")
    numbers = values.keys() - {"engine", "websocket"}
    limits = {f.name: values[f.name] for f in fields(ConnectionConfig) if f.name in numbers}
    return Settings(
        protocols=tuple(ALPN_NAMES[name] for name in values["protocols"]),
        cleartext=values["cleartext"],
        handshake_timeout=values["handshake_timeout"],
        certificate_reload=values["certificate_reload"],
        certificates=values["certificates"],
        check_authority=values["check_authority"],
        max_connections_per_ip=values["max_connections_per_ip"],
        max_waiting_threads=values["max_waiting_threads"],
        websocket=values["websocket"],
        websocket_max_message_size=values["websocket_max_message_size"],
        keylog=values["keylog"],
        trace=values["trace"],
        connection=ConnectionConfig(
            engine="h2" if values["engine"] == "h2" else "fast",
            websocket=values["websocket"] != "off",
            setup_timeout=values["handshake_timeout"],
            idle_timeout=float(cfg.keepalive),
            stream_timeout=float(cfg.timeout),
            max_header_fields=cfg.limit_request_fields or MAX_FIELDS,
            **limits,
        ),
    )


def keylog_warning(settings: Settings) -> str | None:
    """Warn of `http2_keylog`; None if it is not set."""
    if settings.keylog is None:
        return None
    return (
        f"http2_keylog IS ON: the secrets of every TLS connection are written to {settings.keylog}. Whoever reads that "
        "file can decrypt them, passwords and cookies included. It is for development only: never in production"
    )


def trace_warning(settings: Settings) -> str | None:
    """Warn of `http2_trace`; None if it is not set."""
    if settings.trace is None:
        return None
    return (
        f"http2_trace IS ON: the frames of every HTTP/2 connection are written to {settings.trace}, with paths and "
        "header fields; of queries, and of fields that are named like credentials, only the length. It is for "
        "development only: the file grows without limit, and everything takes longer"
    )


def startup_line(settings: Settings, cfg: Any, capacity: str) -> str:
    """Say in one line what was chosen; `capacity` is the worker's part of the line."""
    if never_http2_reason(settings, cfg):
        choice = "HTTP/1.1 only"
    elif cfg.is_ssl:
        choice = "ALPN " + ", ".join(settings.protocols)
    else:
        choice = f"cleartext HTTP/2 ({settings.cleartext}) from {_trusted_peers(cfg)}"
    streams = settings.connection.max_concurrent_streams
    return f"gunicorn_h2: {choice}; engine {settings.connection.engine}; {streams} streams a connection; {capacity}"


def never_http2_reason(settings: Settings, cfg: Any) -> str | None:
    """Say why no client can ever get HTTP/2 with this configuration; None if one can."""
    if cfg.settings["protocol"].get() != "http":
        return f"HTTP/2 can never be negotiated: protocol is {cfg.protocol!r}, not 'http'"
    if "h2" not in settings.protocols:
        return "HTTP/2 can never be negotiated: http_protocols does not name h2"
    if cfg.is_ssl:
        return None
    if settings.cleartext == "off":
        return (
            "HTTP/2 can never be negotiated: there is no certificate (certfile, keyfile) and http2_cleartext is off; "
            "behind a proxy that ends TLS, set http2_cleartext = 'prior-knowledge'"
        )
    if not _trusted_peers(cfg):
        return "HTTP/2 can never be negotiated: http2_cleartext is for trusted peers, and forwarded_allow_ips is empty"
    return None


def _raw_value(spec: SettingSpec, cfg: Any, names: Mapping[str, object]) -> object:
    """Return a setting's value as it was given, or its default."""
    if spec.name == "http_protocols" and not are_protocols_named(cfg, names):
        return spec.default
    if spec.name in cfg.settings:
        return cfg.settings[spec.name].get()
    return names.get(spec.name, spec.default)


def _trusted_peers(cfg: Any) -> str:
    """Name the peers that may speak HTTP/2 without TLS; "" if there are none."""
    has_unix_socket = any(isinstance(address, str) for address in cfg.address)
    peers = ["unix sockets"] if has_unix_socket else []
    return ", ".join([*cfg.forwarded_allow_ips, *peers])
