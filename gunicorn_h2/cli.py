"""The `gunicorn-h2` command: `gunicorn` with one of our workers as the default, `check` and `doctor`.

It differs from `gunicorn` in six things: the default worker class, a flag for every setting of
`gunicorn_h2.workers.settings.TABLE`, `http_protocols` as a list, a development certificate if none is
configured, one line instead of a traceback if the application does not exist, and --version, which tells both.

Only this module registers the settings with Gunicorn. If the worker registered them on import, they would be unknown
at the first boot, when `cfg` is made before the worker is loaded, and known after SIGHUP.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import gunicorn
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.config import KNOWN_SETTINGS, HTTPProtocols, Setting
from gunicorn.errors import AppImportError
from gunicorn.workers import SUPPORTED_WORKERS

from gunicorn_h2 import __version__
from gunicorn_h2.check import report
from gunicorn_h2.devcert import NAMES, DevelopmentCertificate
from gunicorn_h2.workers.kinds import ALPN_NAMES
from gunicorn_h2.workers.settings import DEFAULT_PROTOCOLS, TABLE, SettingSpec, load_settings

__all__ = ["CheckApplication", "Http2Application", "main", "register_settings"]

WORKER_CLASS = "gunicorn_h2.ThreadWorker"
USAGE = """%(prog)s [OPTIONS] [APP_MODULE]
       %(prog)s check [OPTIONS] [APP_MODULE]   validate the configuration, and say what it means
       %(prog)s doctor URL                     say what a server negotiates, and why not HTTP/2"""
CHECK_USAGE = """%(prog)s [OPTIONS] [APP_MODULE]

Read the configuration as a start does, without binding an address or loading the application. Print which HTTP versions
each address serves, the settings of HTTP/2, and where each value came from. Exit status: 0 if a server could start with
this configuration, 1 if a setting or a TLS file is wrong, 2 for arguments that do not exist."""
SECTION = "HTTP/2"
GUNICORN_NAMES = {alpn: name for name, alpn in ALPN_NAMES.items()}


class Http2Application(WSGIApplication):  # type: ignore[misc]
    """Gunicorn's command-line application, with our defaults."""

    app_uri: Any
    certificate: DevelopmentCertificate | None = None
    """The development certificate, kept across reloads; None until it is needed."""

    def load_default_config(self) -> None:
        """Set our default worker class, which the conf file, the environment and the command line override."""
        super().load_default_config()
        self.cfg.set("worker_class", WORKER_CLASS)
        # What --help shows. The value stays Gunicorn's default until the worker is known to be ours.
        self.cfg.settings["worker_class"].default = WORKER_CLASS
        self.cfg.settings["http_protocols"].default = ",".join(DEFAULT_PROTOCOLS)

    def load_config(self) -> None:
        """Read the configuration, at the start and on SIGHUP. Gunicorn prints an exception's message and exits."""
        super().load_config()
        if _is_gunicorns_own(self.cfg.settings["worker_class"].get()):
            self._announce(_explain_worker(self.cfg))
            return
        settings = load_settings(self.cfg)
        self.cfg.set("http_protocols", [GUNICORN_NAMES[name] for name in settings.protocols])
        if not self.cfg.is_ssl and settings.cleartext == "off" and _listens_on_tcp(self.cfg):
            self._use_development_certificate()

    def load(self) -> Any:
        """Import the application. A missing one is a wrong argument, and is reported in one line.

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
            # With these options, Gunicorn prints the traceback of any other exception.
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
        """Log a warning once there is a logger: when the master starts, or has reloaded."""
        for name in ("on_starting", "on_reload"):
            self.cfg.set(name, _announcing(self.cfg.settings[name].get(), text, and_then))


class CheckApplication(Http2Application):
    """`gunicorn-h2 check`: the configuration of `Http2Application`, which is described instead of served."""

    def init(self, parser: Any, opts: Any, args: Any) -> Any:
        """Take the arguments; an application is not needed."""
        settings = super().init(parser, opts, args)
        self.app_uri = self.app_uri or ""
        return settings

    def run(self) -> None:
        """Print what the configuration means, or what is wrong with it, as a start would."""
        app_uri = self.app_uri or self.cfg.wsgi_app or ""
        try:
            print(report(self.cfg, app_uri, self.certificate is not None))
        except RuntimeError as error:
            sys.exit(f"\nError: {error}\n")


def main() -> None:
    """Run the command; `check` and `doctor` are recognized as its first argument."""
    if not {"-v", "--version"}.isdisjoint(sys.argv[1:]):
        # Gunicorn would tell its own version alone.
        print(f"gunicorn-h2 {__version__} (gunicorn {gunicorn.__version__})")
        return
    if sys.argv[1:2] == ["doctor"]:
        # Servers need none of it, nor the h2 library, which it uses.
        from gunicorn_h2.doctor import command as doctor

        sys.exit(doctor.main(sys.argv[2:]))
    register_settings()
    if sys.argv[1:2] == ["check"]:
        # Gunicorn parses sys.argv, more than once.
        del sys.argv[1]
        CheckApplication(CHECK_USAGE, prog="gunicorn-h2 check").run()
    else:
        Http2Application(USAGE, prog="gunicorn-h2").run()


def register_settings() -> None:
    """Register every setting of the table with Gunicorn: its flag, its name in the conf file, its validator."""
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
    # Creating the class registers it: the metaclass of Setting keeps the list.
    type(Setting)(spec.name, (Setting,), attributes)


def _register_protocols() -> None:
    """Let `http_protocols` be a list as well; of two classes with one name, the later one counts."""
    text_validator = HTTPProtocols.validator

    def validate(value: Any) -> Any:
        """Join a list for Gunicorn's validator of text."""
        if isinstance(value, (list, tuple)):
            value = ",".join(map(str, value))
        return text_validator(value)

    type(Setting)("HTTPProtocols", (HTTPProtocols,), {"validator": validate, "desc": HTTPProtocols.desc})


def _announcing(hook: Callable[[Any], object], text: str, and_then: Callable[[], None]) -> Callable[[Any], None]:
    """Return a server hook that logs `text` before it calls the user's `hook`."""

    def announce(server: Any) -> None:
        """Log the warning, then call the user's hook."""
        server.log.warning("%s", text)
        and_then()
        hook(server)

    return announce


def _is_gunicorns_own(worker_class: Any) -> bool:
    """Whether a worker class, or the name of one, is Gunicorn's own; any other may be derived from ours."""
    if isinstance(worker_class, str):
        return worker_class in SUPPORTED_WORKERS or worker_class.startswith(("gunicorn.", "egg:gunicorn#"))
    return bool(worker_class.__module__.partition(".")[0] == "gunicorn")


def _explain_worker(cfg: Any) -> str:
    """Say what one of Gunicorn's own worker classes does about HTTP/2."""
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
    """Whether the application's module, or a package that contains it, could not be found."""
    module = app_uri.partition(":")[0]
    if error.name is None:
        # Raised by Gunicorn itself, for a file name in place of a module name.
        return module.endswith(".py")
    return isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")


def _listens_on_tcp(cfg: Any) -> bool:
    return any(isinstance(address, tuple) for address in cfg.address)


if __name__ == "__main__":
    main()
