"""Starting a server of the table, checking that it is the one that answers, and ending it."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import processes
from bench.apps.content import HELLO
from bench.client import CALL_FIELDS, EMPTY_CALL, ClientError, Connection, ProtocolError
from bench.servers import APPS, Server

ROOT = Path(__file__).resolve().parent.parent
BOOT_SECONDS = 20.0
POLL_SECONDS = 0.002
STOP_SECONDS = 3.0
REASON_LENGTH = 200
FOREIGN_SETTINGS = ("GUNICORN_", "GRANIAN_", "UVICORN_", "HYPERCORN_", "WEB_", "FORWARDED_", "PYTHON")
"""Variables that configure servers: those of the caller would spoil the comparison."""


class NotAvailable(Exception):
    """A server does not start or does not answer as it must. The text is the reason, if possible from its log."""


@dataclass
class Certificate:
    """The files of the certificate that all servers use."""

    cert: str
    key: str


@dataclass
class RunningServer:
    """A server that answers. `boot_seconds` passed between its start and its first good response."""

    server: Server
    port: int
    folder: Path
    boot_seconds: float
    roots: list[int]
    memory: dict[tuple[str, str], float] = field(default_factory=dict)
    """What workloads remember about this process between rounds, by their name and a word."""

    @property
    def name(self) -> str:
        """The server's name in the table."""
        return self.server.name

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return f"https://127.0.0.1:{self.port}{path}"

    def cpu_seconds(self) -> float:
        """Processor time of all its processes so far, in seconds."""
        return processes.cpu_seconds(self.roots)

    def resident_octets(self) -> int:
        """Resident memory of all its processes."""
        return processes.resident_octets(self.roots)


@contextmanager
def certificate() -> Iterator[Certificate]:
    """Make a certificate for localhost, for as long as the block lasts."""
    import trustme

    with TemporaryDirectory(prefix="bench-") as folder:
        leaf = trustme.CA().issue_cert("localhost", "127.0.0.1")
        files = Certificate(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
        leaf.cert_chain_pems[0].write_to_path(files.cert)
        leaf.private_key_pem.write_to_path(files.key)
        yield files


@contextmanager
def serve(server: Server, app: str, files: Certificate, core: int | None) -> Iterator[RunningServer]:
    """Run a server on a core until the block ends. Raises `NotAvailable` where it does not serve."""
    with TemporaryDirectory(prefix=f"bench-{server.name}-".replace("/", "_")) as folder:
        started: list[subprocess.Popen[bytes]] = []
        try:
            yield _start(server, app, files, core, Path(folder), started)
        finally:
            _stop(started)


def _start(
    server: Server, app: str, files: Certificate, core: int | None, folder: Path, started: list[subprocess.Popen[bytes]]
) -> RunningServer:
    place = {
        "python": sys.executable, "app": APPS[app, server.interface], "folder": str(folder),
        "cert": files.cert, "key": files.key, "port": str(free_port()), "inner_port": str(free_port()),
        "user": getpass.getuser(),
    }  # fmt: skip
    for name, text in server.files.items():
        (folder / name).write_text(text.format(**place))
    port, begun = int(place["port"]), time.monotonic()
    for command in server.commands:
        with processes.on_core(core):
            started.append(_spawn([word.format(**place) for word in shlex.split(command)], server, folder))
    boot_seconds = _wait_serving(_probe_call if app == "grpc" else _probe, port, started, folder, begun)
    roots = [process.pid for process in started]
    if not processes.listens(roots, port):
        raise NotAvailable(f"another process answers on port {port}")
    return RunningServer(server, port, folder, boot_seconds, roots)


def free_port() -> int:
    """Return a port that no one listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _spawn(command: list[str], server: Server, folder: Path) -> subprocess.Popen[bytes]:
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    program = shutil.which(command[0], path=search)
    if program is None:
        raise NotAvailable(f"{command[0]} is not installed")
    path = os.pathsep.join(filter(None, [server.source, str(ROOT)]))
    env = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_SETTINGS)}
    # A session of its own, so that Ctrl-C reaches only us; and an end with ours, however that comes.
    wrapper = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [*wrapper, program, *command[1:]], cwd=folder, env={**env, "PYTHONPATH": path}, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def _wait_serving(
    probe: Callable[[int], None], port: int, started: list[subprocess.Popen[bytes]], folder: Path, begun: float
) -> float:
    """Ask until the server answers; return the seconds since `begun`."""
    while True:
        ended = any(process.poll() is not None for process in started)
        try:
            probe(port)
            return time.monotonic() - begun
        except ProtocolError as error:
            raise NotAvailable(str(error)) from None
        except ClientError as error:
            if ended or time.monotonic() - begun > BOOT_SECONDS:
                raise NotAvailable(_reason(folder) or str(error)) from None
        time.sleep(POLL_SECONDS)


def _probe(port: int) -> None:
    """Make one request; raise `ClientError` where its response is not what it must be."""
    with Connection(port) as connection:
        response = connection.fetch("/hello")
    if response.status != 200 or bytes(response.body) != HELLO:
        raise ClientError(f"/hello is answered {response.status} {bytes(response.body[:40])!r}")


def _probe_call(port: int) -> None:
    """Make one call of gRPC to a method that no server has; raise `ClientError` where it is not answered."""
    with Connection(port) as connection:
        response = connection.fetch("/", "POST", EMPTY_CALL, CALL_FIELDS)
    if response.status != 200:
        raise ClientError(f"a call is answered {response.status}")


def _reason(folder: Path) -> str:
    """Return the line of the log that says most about a server that did not start."""
    log = folder / "log"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()] if log.exists() else []
    telling = [line for line in lines if re.search(r"\w*(Error|Exception|Failure)\b.*:|\berror\b|not available", line)]
    return (telling or lines or [""])[-1][:REASON_LENGTH]


def _stop(started: list[subprocess.Popen[bytes]]) -> None:
    """End the servers, the front one first, with all their processes."""
    for process in reversed(started):
        _signal(process, signal.SIGTERM)
    for process in reversed(started):
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _signal(process, signal.SIGKILL)
            process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the process group of a server; it may be gone."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass
