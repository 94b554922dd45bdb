"""`gunicorn-h2 check`: what a configuration means for HTTP/2, and where each of its values came from.

It reads the configuration exactly as a start does and goes as far as one can without binding an address: the worker
class is imported, its `check_config` called, and the certificate loaded. The application is not loaded.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Iterator
from typing import Any

from gunicorn import sock as gunicorn_sock

from gunicorn_h2.workers.base import Http2Worker
from gunicorn_h2.workers.conf import conf_location, conf_names
from gunicorn_h2.workers.settings import TABLE, Settings, SettingSpec, load_settings
from gunicorn_h2.workers.tls import make_context

__all__ = ["Sources", "describe_listeners", "report"]

GUNICORN_SETTINGS = {
    "workers": "processes",
    "threads": "requests at a time in each (ThreadWorker, gthread)",
    "worker_connections": "connections of each",
    "max_requests": "requests after which a worker is replaced; 0: never",
    "timeout": "seconds without progress after which a stream is given up",
    "keepalive": "seconds after which an idle connection is closed",
    "graceful_timeout": "seconds that a stopping worker gives its requests",
    "limit_request_fields": "fields of a request",
    "forwarded_allow_ips": "peers that may speak HTTP/2 without TLS",
    "certfile": "TLS",
    "keyfile": "TLS",
    "ciphers": "TLS 1.2 cipher suites",
}
"""Gunicorn's own settings that decide what HTTP/2 connections may do."""
VARIABLES = {"workers": "WEB_CONCURRENCY", "forwarded_allow_ips": "FORWARDED_ALLOW_IPS"}
"""The environment variables that change the default of a setting."""
DEVELOPMENT = "development certificate, made at each start"


class Sources:
    """Where the values of a configuration came from, in Gunicorn's order of precedence."""

    def __init__(self, cfg: Any) -> None:
        """Parse the command line and GUNICORN_CMD_ARGS again: `cfg` has only their results."""
        parser = cfg.parser()
        self._command_line = vars(parser.parse_args())
        self._environment = vars(parser.parse_args(cfg.get_cmd_args_from_env()))
        self._conf = conf_names(cfg)
        self._conf_location = conf_location(cfg)

    def of(self, name: str) -> str:
        """Name the source of a setting's value."""
        if self._command_line.get(name) is not None:
            return "command line"
        if self._environment.get(name) is not None:
            return "GUNICORN_CMD_ARGS"
        # An empty http_protocols means the default.
        if name in self._conf and (name != "http_protocols" or self._conf[name]):
            return self._conf_location
        variable = VARIABLES.get(name, "")
        return f"environment variable {variable}" if variable in os.environ else "default"


def report(cfg: Any, app_uri: str, development: bool) -> str:
    """Describe a loaded configuration in plain text.

    `development` says that `cfg` has been given a development certificate. Raises `RuntimeError` for what would stop
    the start: a worker class that cannot be imported, a wrong setting, TLS files that cannot be used.
    """
    sources = Sources(cfg)
    worker_class = cfg.worker_class
    warnings = _check_worker(worker_class, cfg)
    settings = load_settings(cfg) if issubclass(worker_class, Http2Worker) else None
    _check_tls(cfg, settings)
    lines = [
        f"worker class  {_name(worker_class)}  ({sources.of('worker_class')})",
        f"application   {app_uri or 'none given'}  (not loaded)",
        "",
        *describe_listeners(cfg, settings),
    ]
    if settings is None:
        lines += ["", "This worker class is not one of gunicorn_h2's, which takes no part."]
    else:
        lines += ["", "HTTP/2 settings", *_table(_http2_rows(cfg, sources))]
        lines += ["", "Gunicorn's own settings that HTTP/2 uses", *_table(_gunicorn_rows(cfg, sources, development))]
    lines += [""] * bool(warnings) + [f"Warning: {text}" for text in warnings]
    return "\n".join(lines)


def describe_listeners(cfg: Any, settings: Settings | None) -> list[str]:
    """Say for each address which HTTP versions it serves, and to whom; `settings` is None for another's worker."""
    scheme = "https" if cfg.is_ssl else "http"
    lines = []
    for address in cfg.address:
        is_unix = not isinstance(address, tuple)
        name = f"unix:{address}" if is_unix else f"{scheme}://{_join(address)}"
        if settings is None:
            lines.append(f"{name}: as Gunicorn's documentation says of this worker class")
        else:
            lines.append(f"{name}: {_served(cfg, settings, is_unix)}")
    return lines


def _served(cfg: Any, settings: Settings, is_unix: bool) -> str:
    """Say what one address serves, by the rules of `Http2Worker.make_terms` and `terms`."""
    protocol = cfg.settings["protocol"].get() if "protocol" in cfg.settings else "http"
    if protocol != "http":
        return f"{protocol}, never HTTP/2"
    if cfg.is_ssl:
        offered = ", ".join(settings.protocols)
        if "h2" not in settings.protocols:
            return f"HTTP/1.1 only, by TLS (ALPN {offered})"
        return f"HTTP/2 by TLS (ALPN {offered}); clients that do not choose h2 get HTTP/1.1"
    peers = "every peer" if is_unix or "*" in cfg.forwarded_allow_ips else ", ".join(cfg.forwarded_allow_ips)
    if "h2" not in settings.protocols or settings.cleartext == "off" or not peers:
        return "HTTP/1.1 only, without TLS"
    others = "" if peers == "every peer" else "; other peers get HTTP/1.1"
    if settings.cleartext == "prior-knowledge":
        return f"HTTP/2 without TLS, by prior knowledge, from {peers}, which get no HTTP/1.1{others}"
    ways = "by Upgrade: h2c" if settings.cleartext == "upgrade" else "by prior knowledge or Upgrade: h2c"
    return f"HTTP/2 without TLS, {ways}, and HTTP/1.1, from {peers}{others}"


def _check_worker(worker_class: Any, cfg: Any) -> list[str]:
    """Have the worker class check the configuration, as Gunicorn's master does; return its warnings."""
    warnings: list[str] = []
    check = getattr(worker_class, "check_config", None)
    if check is not None:
        log = logging.Logger("gunicorn_h2.check", logging.WARNING)
        log.addHandler(_Collector(warnings))
        check(cfg, log)
    return warnings


class _Collector(logging.Handler):
    """Keeps the messages that are logged."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self._messages.append(record.getMessage())


def _check_tls(cfg: Any, settings: Settings | None) -> None:
    """Make the TLS context that a worker would make. Raises `RuntimeError`, which names the files."""
    if not cfg.is_ssl:
        return
    try:
        if settings is None:
            gunicorn_sock.ssl_context(cfg)
        else:
            make_context(cfg, settings.protocols, settings.certificates)
    except (OSError, ValueError, ssl.SSLError) as error:
        raise RuntimeError(
            f"TLS cannot be set up with certfile = {cfg.certfile!r}, keyfile = {cfg.keyfile!r}, "
            f"ca_certs = {cfg.ca_certs!r}, ciphers = {cfg.ciphers!r}: {error}"
        ) from error


def _http2_rows(cfg: Any, sources: Sources) -> Iterator[tuple[str, str, str]]:
    for spec in TABLE:
        yield spec.name, _value(spec, cfg), sources.of(spec.name)


def _value(spec: SettingSpec, cfg: Any) -> str:
    value = spec.parse(cfg.settings[spec.name].get())
    if isinstance(value, tuple):
        text = ", ".join(map(str, value)) or "none"
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{text} {spec.unit}".rstrip()


def _gunicorn_rows(cfg: Any, sources: Sources, development: bool) -> Iterator[tuple[str, str, str]]:
    for name, meaning in GUNICORN_SETTINGS.items():
        value = cfg.settings[name].get()
        source = sources.of(name)
        if development and name in ("certfile", "keyfile"):
            value, source = "temporary", DEVELOPMENT
        text = ", ".join(value) if isinstance(value, (list, tuple)) else "" if value is None else str(value)
        yield name, text or "none", f"{source}; {meaning}"


def _table(rows: Iterator[tuple[str, str, str]]) -> list[str]:
    found = list(rows)
    names, values = (max(len(row[column]) for row in found) for column in (0, 1))
    return [f"  {name:{names}}  {value:{values}}  {source}" for name, value, source in found]


def _name(worker_class: type) -> str:
    return f"{worker_class.__module__}.{worker_class.__qualname__}"


def _join(address: tuple[Any, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
