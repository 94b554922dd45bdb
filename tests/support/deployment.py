"""Running the files of conf_examples/ as they are, except for what every machine has of its own.

Addresses, certificates and names are replaced as text: each literal that the example documents by what the test has.
"""

import random
import re
import socket
import sys
from pathlib import Path

from tests.support.kinds import ASGI_KINDS, KINDS
from tests.support.server import EPILOGUE, PROLOGUE, ROOT, Server
from tests.support.tools import require_tool

EXAMPLES = ROOT / "conf_examples"
APP = "from tests.apps.deployed import app\n"
"""The module `app` that the examples' commands name."""
ASGI_APP = "from tests.apps.deployed import asgi as app\n"


def adapted(name, replacements):
    """Return the text of an example with literals replaced; each of them must be there."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    for old, new in replacements.items():
        assert old in text, f"conf_examples/{name} has no {old!r}"
        text = text.replace(old, str(new))
    return text


def free_port():
    """Return a port to listen on, below those that the kernel gives out itself."""
    while True:
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", random.randrange(10_000, 30_000)))
            except OSError:
                continue
            return sock.getsockname()[1]


class Gunicorn(Server):
    """Gunicorn in a folder with a conf file of conf_examples/ and a module `app`, as the file says to start it.

    It has one worker, unless told otherwise, so that what the application records is in one place.
    """

    def __init__(self, directory, certs, example, replacements, workers=1, tls=False, arguments=None, env=None,
                 kind="thread"):
        super().__init__(directory, None, certs, tls=tls, env=env)
        self.example, self.replacements = example, replacements
        worker_class = KINDS[kind].worker_class
        if f'"{worker_class}"' not in adapted(example, {}):
            self.flags = ("-k", worker_class)
        self.conf_name = Path(example).name
        self.arguments = arguments or ["app:app", "-c", self.conf_name]
        # What `Server` waits for.
        self.settings = {"workers": workers}
        (self.directory / "app.py").write_text(ASGI_APP if kind in ASGI_KINDS else APP, encoding="utf-8")

    def write_conf(self, *_, **__):
        """Write the conf file."""
        text = re.sub(r"(?m)^workers = .*", f"workers = {self.settings['workers']}",
                      adapted(self.example, self.replacements))
        # The tests have no home directory for it, either.
        lines = [PROLOGUE, text, *["control_socket_disable = True"] * ("control_socket_disable" not in text), EPILOGUE]
        (self.directory / self.conf_name).write_text("\n".join(lines), encoding="utf-8")

    @property
    def command(self):
        """The command line."""
        return [sys.executable, "-m", "gunicorn", *self.arguments, *self.flags]

    @property
    def working_directory(self):
        """Where `app` is."""
        return self.directory


class Program(Server):
    """Another program with its file of conf_examples/: it listens at `port` with TLS, and at `http_port` without."""

    def __init__(self, directory, certs, name, example, replacements, arguments, port, http_port, ready=None,
                 listeners=(), env=None):
        super().__init__(directory, None, certs, env=env)
        self.name, self.example, self.replacements = name, example, replacements
        self.port, self.http_port, self.ready = port, http_port, ready
        self.listeners, self.pass_fds = listeners, [sock.fileno() for sock in listeners]
        self.arguments = [argument.format(conf=self.directory / example, folder=self.directory)
                          for argument in arguments]

    def write_conf(self, *_, **__):
        """Write the configuration."""
        (self.directory / self.example).write_text(adapted(self.example, self.replacements), encoding="utf-8")

    @property
    def command(self):
        """The command line."""
        return [require_tool(self.name), *self.arguments]

    def start(self):
        """Start it and return once it can be connected to: at once where it inherits its sockets."""
        self.launch()
        for sock in self.listeners:
            # With the process, its sockets go.
            sock.close()
        try:
            if self.ready is not None:
                self.wait_log(self.ready, timeout=20)
        except BaseException:
            self.kill()
            raise
        return self
