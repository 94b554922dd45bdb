"""The `gunicorn-h2` command: `gunicorn` with a worker of ours chosen already.

It differs from `gunicorn` in five things: the default worker class, a flag for every setting of
`gunicorn_h2.workers.settings.TABLE`, `http_protocols` as a list, a development certificate where
none is configured, and one line instead of a traceback where there is no such application.

The settings are registered with Gunicorn here and nowhere else. Registered on import of the
worker they would be unknown at the first boot, when `cfg` exists before the worker is loaded, and
known after SIGHUP.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.config import KNOWN_SETTINGS, HTTPProtocols, Setting
from gunicorn.errors import AppImportError
from gunicorn.workers import SUPPORTED_WORKERS

from gunicorn_h2.devcert import NAMES, DevelopmentCertificate
from gunicorn_h2.workers.settings import ALPN_NAMES, DEFAULT_PROTOCOLS, TABLE, SettingSpec, load_settings

__all__ = ["Http2Application", "main", "register_settings"]

WORKER_CLASS = "gunicorn_h2.ThreadWorker"
SECTION = "HTTP/2"
GUNICORN_NAMES = {alpn: name for name, alpn in ALPN_NAMES.items()}


class Http2Application(WSGIApplication):  # type: ignore[misc]
    """Gunicorn's command-line application, with our defaults."""

    certificate: DevelopmentCertificate | None = None
    """The development certificate, kept over reloads once it was needed."""

    def load_default_config(self) -> None:
        """Start from our worker class; a conf file, the environment and the command line override it."""
        super().load_default_config()
        self.cfg.set("worker_class", WORKER_CLASS)
        # What --help shows; the value stays Gunicorn's own until we know that the worker is ours.
        self.cfg.settings["worker_class"].default = WORKER_CLASS
        self.cfg.settings["http_protocols"].default = ",".join(DEFAULT_PROTOCOLS)

    def load_config(self) -> None:
        """Read the configuration, at the start and on SIGHUP. An exception ends the start with its message."""
        super().load_config()
        if _is_gunicorns_own(self.cfg.settings["worker_class"].get()):
            self._announce(_explain_worker(self.cfg))
            return
        settings = load_settings(self.cfg)
        self.cfg.set("http_protocols", [GUNICORN_NAMES[name] for name in settings.protocols])
        if not self.cfg.is_ssl and settings.cleartext == "off" and _listens_on_tcp(self.cfg):
            self._use_development_certificate()

    def load(self) -> Any:
        """Import the application. One that is not there is reported in one line, for it is an argument that is wrong.

        An error within the application's own modules keeps its traceback.
        """
        try:
            return super().load()
        except ImportError as error:
            if self.cfg.paste or not _is_missing(self.app_uri, error):
                raise
            message = f"cannot load the application {self.app_uri!r} from {self.cfg.chdir}: {error}"
        except AppImportError as error:
            message = f"cannot load the application {self.app_uri!r}: {error}"
        if self.cfg.check_config or self.cfg.print_config:
            # Gunicorn prints the traceback of any other exception.
            sys.exit(f"Error: {message}")
        raise AppImportError(message)

    def _use_development_certificate(self) -> None:
        certificate = self.certificate or DevelopmentCertificate(self.cfg.uid, self.cfg.gid)
        self.certificate = certificate
        self.cfg.set("certfile", certificate.certfile)
        self.cfg.set("keyfile", certificate.keyfile)
        self._announce(
            f"Using a development certificate for {', '.join(NAMES)}, made on the spot because none is configured "
            f"(certfile, keyfile). Do not use it in production. Clients can trust it by {certificate.authority}",
            certificate.adopt,
        )

    def _announce(self, text: str, and_then: Callable[[], None] = lambda: None) -> None:
        """Log a warning as soon as there is a logger: when the master starts, or has reloaded."""
        for name in ("on_starting", "on_reload"):
            self.cfg.set(name, _announcing(self.cfg.settings[name].get(), text, and_then))


def main() -> None:
    """Run the command."""
    register_settings()
    Http2Application("%(prog)s [OPTIONS] [APP_MODULE]", prog="gunicorn-h2").run()


def register_settings() -> None:
    """Make Gunicorn know every setting of the table: its flag, its place in the conf file, its check."""
    known = {setting.name for setting in KNOWN_SETTINGS}
    for spec in TABLE:
        if spec.name not in known:
            _register(spec)
    _register_protocols()


def _register(spec: SettingSpec) -> None:
    attributes = {
        "name": spec.name,
        "section": SECTION,
        "cli": [spec.flag],
        "meta": spec.kind.metavar,
        "validator": spec.parse,
        "default": spec.default,
        "desc": f"{spec.doc}\n\nMust be {spec.allowed()}.",
    }
    # Making the class is registering it: Setting's metaclass keeps the list.
    type(Setting)(spec.name, (Setting,), attributes)


def _register_protocols() -> None:
    """Let `http_protocols` be a list as well; the later class of a name replaces the earlier one."""
    text_validator = HTTPProtocols.validator

    def validate(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            value = ",".join(map(str, value))
        return text_validator(value)

    type(Setting)("HTTPProtocols", (HTTPProtocols,), {"validator": validate, "desc": HTTPProtocols.desc})


def _announcing(hook: Callable[[Any], object], text: str, and_then: Callable[[], None]) -> Callable[[Any], None]:
    """Return a server hook that logs `text` before it calls the user's `hook`."""

    def announce(server: Any) -> None:
        server.log.warning("%s", text)
        and_then()
        hook(server)

    return announce


def _is_gunicorns_own(worker_class: Any) -> bool:
    """Tell whether a worker class, or the name of one, is Gunicorn's; any other may be derived from ours."""
    if isinstance(worker_class, str):
        return worker_class in SUPPORTED_WORKERS or worker_class.startswith(("gunicorn.", "egg:gunicorn#"))
    return bool(worker_class.__module__.partition(".")[0] == "gunicorn")


def _explain_worker(cfg: Any) -> str:
    """Say what to expect of one of Gunicorn's own worker classes."""
    name = cfg.worker_class_str
    if name == "sync":
        return (
            "The sync worker cannot do HTTP/2: it serves one HTTP/1.1 request after another, as Gunicorn does. "
            f"For HTTP/2 leave -k out, or use -k {WORKER_CLASS}"
        )
    return (
        f"The {name} worker is Gunicorn's own, and so is its HTTP/2, if it has one: gunicorn_h2 takes no part. "
        f"For ours leave -k out, or use -k {WORKER_CLASS}"
    )


def _is_missing(app_uri: str, error: ImportError) -> bool:
    """Tell whether the application's module is what could not be found, or a package that it is in."""
    module = app_uri.partition(":")[0]
    if error.name is None:
        # Gunicorn's own: a file's name was given for the module's.
        return module.endswith(".py")
    return isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")


def _listens_on_tcp(cfg: Any) -> bool:
    return any(isinstance(address, tuple) for address in cfg.address)


if __name__ == "__main__":
    main()
