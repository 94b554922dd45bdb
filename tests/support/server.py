"""Booting real Gunicorn processes and watching what they log.

A server is one Gunicorn master in a process group of its own. Its output is read by a thread, so a test waits for a
line and never for a time. Stopping a server fails the test if its log holds trouble that no one announced.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
BOOT_TIMEOUT = 20
TROUBLE = re.compile(r"Traceback \(most recent call last\)|\[CRITICAL\]|was sent SIG(KILL|SEGV|ABRT|BUS)|Fatal Python")

WSGI_APPS = {"flask": "tests.apps.flask_app:app", "wsgi": "tests.apps.wsgi_app:app"}
ASGI_APPS = {"flask": "tests.apps.wsgi_bridge:flask", "wsgi": "tests.apps.wsgi_bridge:wsgi"}


class WorkerKind(NamedTuple):
    """One way to run the tests: a worker class, the flags it needs, and the application it serves for each name."""

    worker_class: str
    flags: tuple = ()
    apps: dict = WSGI_APPS

    @property
    def has_greenlets(self):
        """Whether a request is a greenlet."""
        return self.worker_class in ("gunicorn_h2.GeventWorker", "gunicorn_h2.EventletWorker")

    @property
    def has_threads(self):
        """Whether `threads` limits the requests that run at a time."""
        return self.worker_class in ("gunicorn_h2.ThreadWorker", "gthread")


WORKERS = {
    "thread": WorkerKind("gunicorn_h2.ThreadWorker"),
    "gevent": WorkerKind("gunicorn_h2.GeventWorker"),
}

# On request only (--worker builtin): Gunicorn's own worker shows which tests the built-in HTTP/2 fails, and only
# Gunicorn 25 has an eventlet worker. ASGIWorker serves the WSGI applications over a bridge: all that tests say of the
# wire must hold there, too; what they say of WSGI itself (TLS in the environ, the codes of exceptions) does not.
REFERENCE_WORKERS = {
    "builtin": WorkerKind("gthread", ("--http-protocols", "h2,h1")),
    "eventlet": WorkerKind("gunicorn_h2.EventletWorker"),
    "asgi": WorkerKind("gunicorn_h2.ASGIWorker", ("--threads", "1"), ASGI_APPS),
}

# The prologue ties the master's life to the test run's; the epilogue logs a line once a worker can serve.
PROLOGUE = """\
import sys
if sys.platform == "linux":
    import ctypes, signal
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
"""
EPILOGUE = """
_post_worker_init = globals().get("post_worker_init")


def post_worker_init(worker):
    if _post_worker_init is not None:
        _post_worker_init(worker)
    worker.log.info("worker %s is ready", worker.pid)
"""
# For a conf file: the master may outlive its parent, which a successor's is (see `hand_over`).
OUTLIVES = "ctypes.CDLL(None).prctl(1, 0)"


class Server:
    """A running Gunicorn master with its workers, its address and its log."""

    python = sys.executable
    pass_fds = ()
    """File descriptors that the process inherits."""

    def __init__(self, directory, kind, certs, app="wsgi", tls=True, unix=False, flags=(), env=None, code="",
                 **settings):
        self.directory, self.kind, self.certs = Path(directory), kind, certs
        self.app, self.tls = app, tls
        self.socket_path = str(self.directory / "g.sock") if unix else None
        self.settings = {**self._default_settings(), **settings}
        self.code = code
        self.flags, self.env = tuple(flags), dict(env or {})
        self.expected, self.host, self.port = [], "127.0.0.1", None
        self._lines, self._checked, self._eof = [], 0, False
        self._news = threading.Condition()
        self._process, self._asked_to_go, self._successor = None, False, None

    # -- configuration ---------------------------------------------------------------------------------------------

    def _default_settings(self):
        settings = {
            "bind": f"unix:{self.socket_path}" if self.socket_path else "127.0.0.1:0",
            "workers": 1,
            "threads": 8,
            "accesslog": "-",
            "access_log_format": "ACCESS %(h)s %(r)s %(s)s",
            "graceful_timeout": 10,
            "http2_drain_timeout": 0.3,
            "control_socket_disable": True,
        }
        if self.tls:
            settings.update(certfile=self.certs.server_cert, keyfile=self.certs.server_key)
        else:
            settings["http2_cleartext"] = "both"
        return settings

    def write_conf(self, code=None, **settings):
        """Write the conf file; called again before a reload, with the settings that are to change."""
        self.settings.update(settings)
        self.code = self.code if code is None else code
        lines = [f"{name} = {value!r}" for name, value in self.settings.items()]
        text = "\n".join([PROLOGUE, *lines, self.code, EPILOGUE])
        (self.directory / "gunicorn.conf.py").write_text(text, encoding="utf-8")

    @property
    def command(self):
        """The command line that starts the server."""
        return [self.python, "-m", "gunicorn", "-k", self.kind.worker_class, *self.kind.flags, "-c",
                str(self.directory / "gunicorn.conf.py"), *self.flags, self.kind.apps.get(self.app, self.app)]

    @property
    def working_directory(self):
        """Where the master is started; applications can be imported from there."""
        return ROOT

    @property
    def environ(self):
        """The environment variables of the master."""
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environ = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **self.env}
        # Greenlets are measured only where there are any. A test run has many threads that come and go, and each of
        # them would have a state of greenlet's, freed in a pending call, in which CPython 3.11 may trace for ever.
        has_greenlets = self.kind is not None and self.kind.has_greenlets
        if has_greenlets and environ.pop("COVERAGE_PROCESS_CONFIG", None):
            environ["COVERAGE_PROCESS_START"] = str(ROOT / "setup.cfg")
        return environ

    # -- life ------------------------------------------------------------------------------------------------------

    def launch(self):
        """Start the master without waiting for anything."""
        self.write_conf()
        self._process = subprocess.Popen(self.command, cwd=self.working_directory, env=self.environ,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                         start_new_session=True, pass_fds=self.pass_fds)
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        return self

    def start(self):
        """Start the master and return once every worker can serve."""
        self.launch()
        try:
            address = self.wait_log(r"Listening at: (\S+)", timeout=BOOT_TIMEOUT)[1]
            if not self.socket_path:
                self.host, port = re.match(r"https?://(\[[^]]+\]|[^:,]+):(\d+)", address).groups()
                self.host, self.port = self.host.strip("[]"), int(port)
            self._wait_ready(0)
        except BaseException:
            self.kill()
            raise
        return self

    def ask_to_go(self):
        """Ask the server to go, once."""
        if not self._asked_to_go and self.running:
            self._asked_to_go = True
            self.signal(signal.SIGTERM)

    def stop(self, timeout=20):
        """Ask the server to go, see that it does, and look for trouble in its log."""
        try:
            self.ask_to_go()
            if self.running:
                self.wait_exit(timeout)
        finally:
            self.kill()
        self.check_log()

    @property
    def launched(self):
        """Whether it has been started at all."""
        return self._process is not None

    def kill(self):
        """Kill the whole process group, whatever state it is in."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._reader.join(timeout=5)
        self._process.stdout.close()

    def wait_exit(self, timeout=20):
        """Wait until the master is gone, and its log complete; return its exit status (None for a successor's)."""
        if self._successor is not None:
            with self._news:
                assert self._news.wait_for(lambda: self._eof, timeout), f"still running\n{self.log_tail()}"
            return None
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s\n{self.log_tail()}") from None
        with self._news:
            self._news.wait_for(lambda: self._eof, 5)
        return status

    @property
    def running(self):
        """Whether the master process lives."""
        return self._process.poll() is None if self._successor is None else not self._eof

    @property
    def has_ended(self):
        """Whether every process is gone that writes to the log."""
        return self._eof

    def signal(self, number):
        """Send a signal to the master."""
        os.kill(self.pid, number)

    def reload(self, code=None, **settings):
        """Change the conf file, send SIGHUP and return once the new workers can serve."""
        self.write_conf(code, **settings)
        mark = self.log_mark()
        self.signal(signal.SIGHUP)
        self._wait_ready(mark)

    def hand_over(self):
        """Have another master take over (SIGUSR2), and return once the old one has gone; needs `OUTLIVES`."""
        mark = self.log_mark()
        self.signal(signal.SIGUSR2)
        self._wait_ready(mark)
        successor = int(self.wait_log(r"\[(\d+)\] \[INFO\] Starting gunicorn", after=mark)[1])
        self.signal(signal.SIGTERM)
        self._process.wait(20)
        self._successor = successor

    def wait_settled(self):
        """Wait until no worker is booting: it would miss the signal to stop, and the master then waits for long."""
        for pid in re.findall(r"Booting worker with pid: (\d+)", self.log):
            self.wait_log(rf"worker {pid} is ready")
        # The master replaces a worker that restarts when it has ended, which may be still to come. Over HTTP/1, one may
        # say so more than once.
        self._wait_ready(0, len(set(re.findall(r"\[(\d+)\] \[INFO\] Autorestarting worker", self.log))))

    def _wait_ready(self, mark, replaced=0):
        """Wait until all workers, and as many as were `replaced`, have logged that they can serve, after a mark."""
        for _ in range(self.settings["workers"] + replaced):
            mark = self.wait_log(r"worker \d+ is ready", after=mark, timeout=BOOT_TIMEOUT).line_number + 1

    # -- the log ---------------------------------------------------------------------------------------------------

    def _read_log(self):
        for line in self._process.stdout:
            with self._news:
                self._lines.append(line.decode("utf-8", "backslashreplace").rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._eof = True
            self._news.notify_all()

    @property
    def log(self):
        """Everything the server has printed so far."""
        return "\n".join(self._lines)

    def log_mark(self):
        """Return a place in the log: now."""
        return len(self._lines)

    def log_tail(self, lines=40):
        """Return the last lines of the log, for messages."""
        return "\n".join(self._lines[-lines:])

    def wait_log(self, pattern, after=0, timeout=10):
        """Wait for a line that matches ``pattern``, at or after the mark ``after``; return the match."""
        regex, deadline = re.compile(pattern), time.monotonic() + timeout
        with self._news:
            seen = after
            while True:
                for number in range(seen, len(self._lines)):
                    match = regex.search(self._lines[number])
                    if match:
                        return LogMatch(match, number)
                seen = max(seen, len(self._lines))
                left = deadline - time.monotonic()
                if self._eof or left <= 0:
                    raise AssertionError(f"no {pattern!r} in the log:\n{self.log_tail()}")
                self._news.wait(left)

    def has_log(self, text, timeout):
        """Wait for a line with the text; return whether there is one."""
        with self._news:
            return self._news.wait_for(lambda: any(text in line for line in self._lines), timeout)

    def expect(self, *patterns):
        """Announce trouble: a traceback or line that matches one of the patterns is no failure."""
        self.expected.extend(patterns)

    def check_log(self):
        """Fail if the log holds trouble that was not announced; each line is looked at once."""
        lines = self._lines[self._checked:]
        self._checked += len(lines)
        bad = [text for text in _trouble(lines) if not any(re.search(p, text) for p in self.expected)]
        assert not bad, "trouble in the server's log:\n" + "\n".join(bad)

    # -- where it is -----------------------------------------------------------------------------------------------

    @property
    def authority(self):
        """What a client puts in ``:authority`` or ``Host``."""
        return "localhost" if self.socket_path else f"localhost:{self.port}"

    @property
    def scheme(self):
        """The scheme of its URLs."""
        return "https" if self.tls else "http"

    @property
    def url(self):
        """The address as a URL without a path."""
        host = "localhost" if self.socket_path else f"127.0.0.1:{self.port}"
        return f"{self.scheme}://{host}"

    @property
    def curl_options(self):
        """The options curl needs to reach the server."""
        unix = ["--unix-socket", self.socket_path] if self.socket_path else []
        return [*unix, "--cacert", self.certs.ca]

    # -- the processes ---------------------------------------------------------------------------------------------

    @property
    def pid(self):
        """The master's process id."""
        return self._successor or self._process.pid

    @property
    def worker_pids(self):
        """The process ids of the workers that live, oldest first."""
        booted = re.findall(r"Booting worker with pid: (\d+)", self.log)
        gone = set(re.findall(r"Worker exiting \(pid: (\d+)\)", self.log))
        return [int(pid) for pid in booted if pid not in gone and _alive(int(pid))]

    @property
    def worker_pid(self):
        """The process id of the only worker."""
        (pid,) = self.worker_pids
        return pid

    def rss(self):
        """Resident memory of the only worker, in bytes."""
        return _memory(self.worker_pid, "VmRSS")

    def reset_peak(self):
        """Forget the worker's highest resident memory, and return the present one."""
        Path(f"/proc/{self.worker_pid}/clear_refs").write_text("5")
        return self.rss()

    def peak_rss(self):
        """The highest resident memory of the only worker since ``reset_peak``, in bytes."""
        return _memory(self.worker_pid, "VmHWM")


def stop_all(servers):
    """Stop servers, which go side by side; fail with what is wrong with any of them."""
    servers, errors = [server for server in servers if server.launched], []
    for server in servers:
        server.ask_to_go()
    for server in servers:
        try:
            server.stop()
        except AssertionError as error:
            errors.append(str(error))
    assert not errors, "\n".join(errors)


class LogMatch:
    """A match in the log, with the number of its line."""

    def __init__(self, match, line_number):
        self._match, self.line_number = match, line_number

    def __getitem__(self, group):
        return self._match[group]


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _memory(pid, field):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no {field}")


def _trouble(lines):
    """Yield each troubling line, a traceback with everything up to its last line."""
    numbers = iter(range(len(lines)))
    for number in numbers:
        if not TROUBLE.search(lines[number]):
            continue
        block = [lines[number]]
        while "Traceback" in block[0]:
            number = next(numbers, None)
            if number is None:
                break
            block.append(lines[number])
            if not lines[number].startswith((" ", "\t")):
                break
        yield "\n".join(block)
