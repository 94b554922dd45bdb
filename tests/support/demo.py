"""Running the demo as a user does: by `make demo`, in a browser that reaches nothing but this machine."""

import ssl
import sys
from pathlib import Path

import httpx

from tests.support.chromium import chromium, trusting
from tests.support.server import BOOT_TIMEOUT, ROOT, Server
from tests.support.tools import require_tool

FOLDER = ROOT / "examples" / "demo"
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost"


class Demo(Server):
    """`make demo` on a port that is free, in the Python that runs the tests: its environment counts as made."""

    def __init__(self, directory):
        super().__init__(directory, None, None, tls=False)
        self.tls = True

    def write_conf(self, *_, **__):
        """It has a conf file of its own. Make what it takes for its environment."""
        environment = self.directory / "venv"
        environment.mkdir()
        (environment / "bin").symlink_to(Path(sys.executable).parent)
        (environment / "demo").touch()

    @property
    def command(self):
        """The command line."""
        return [require_tool("make"), "--no-print-directory", "demo", f"VENV={self.directory / 'venv'}", "PORT=0"]

    def start(self):
        """Start it and return once its worker answers."""
        self.launch()
        try:
            self.port = int(self.wait_log(r"Listening at: https://127.0.0.1:(\d+)", timeout=BOOT_TIMEOUT)[1])
            with httpx.Client(verify=False, timeout=BOOT_TIMEOUT) as client:
                assert client.get(f"{self.page}connection").json()["protocol"] == "HTTP/1.1"
        except BaseException:
            self.kill()
            raise
        return self

    @property
    def page(self):
        """The URL of the page."""
        return f"https://localhost:{self.port}/"

    @property
    def certificate(self):
        """The certificate of both sides, PEM."""
        return ssl.get_server_certificate(("localhost", self.port))

    def browse(self, profile, *flags):
        """A browser that trusts the certificate, and finds no other machine."""
        return chromium(profile, OFFLINE, trusting(self.certificate), *flags)
