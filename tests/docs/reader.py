"""Someone who follows a page from its beginning to its end: saves the files that it shows, and types its commands.

A server that a command starts runs until the next one is started, or the page ends; clients speak to it. Everything is
typed as it stands, except addresses: a server takes a port that is free, and clients are led there. The port that a
client names must be the one that the server would have taken.
"""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from gunicorn.config import KNOWN_SETTINGS

from gunicorn_h2.workers.settings import TABLE
from tests.docs.served import CONF_PROBES, SERVED
from tests.docs.unrun import exception_for
from tests.support.pages import ROOT, Page, split
from tests.support.server import EPILOGUE, PROLOGUE, Server, stop_all
from tests.support.tools import SEARCH_PATH, require_tool, run

MODULES = {"gunicorn": "gunicorn", "gunicorn-h2": "gunicorn_h2.cli"}
"""What starts servers, by the name of its command."""
CLIENTS = {"curl", "nghttp", "python"}
"""What is run to its end; it may speak to the server."""
ENDING = {"check", "doctor", "--check-config"}
"""Words by which the commands of `MODULES` serve nothing but end."""
SETTINGS = {setting.name for setting in KNOWN_SETTINGS} | {spec.name for spec in TABLE}
DEFAULT_SERVER = "gunicorn app:app -k gunicorn_h2.ThreadWorker --certfile cert.pem --keyfile key.pem --log-level debug"
STARTS = {
    "docs/deployment.md#google-cloud-run/1": ("gunicorn app:app -c cloud_run.py", 8080),
    "docs/doctor.md#gunicorn-h2-doctor-url/1": (DEFAULT_SERVER, 8443),
    "docs/troubleshooting.md#the-client-gets-http11/1": (DEFAULT_SERVER, 443),
}
"""Servers that blocks speak to and no command of the page starts, and their ports: the image's CMD, any servers."""
FILES = {"docs/grpc.md#grpc/2": "greeter.proto"}
"""Under which names the text of a page has blocks saved that are neither conf files nor applications."""
QUICK_START = next(block.code for block in Page(ROOT / "docs" / "quickstart.md").blocks if block.language == "python")
ASGI_APP = "from bench.apps.asgi import app\n"
# Stands last in each conf file.
OVERRIDES = 'bind = "127.0.0.1:0"\nworkers = 1\ncontrol_socket_disable = True\n'
ADDRESS = re.compile(r"\b(localhost|example\.org)(?::(\d+))?(?=[/\s'\"]|$)")


class Typed(Server):
    """A server that a command has started, in the reader's folder; `named_port` is that of the page."""

    def __init__(self, directory, certs, words, named_port):
        super().__init__(directory, None, certs, env={
            "TMPDIR": str(directory), "PORT": "0", "PROMETHEUS_MULTIPROC_DIR": str(directory)})
        self.words, self.named_port = words, named_port
        # What `Server` waits for.
        self.settings = {"workers": 1}

    def write_conf(self, *_, **__):
        """Leave it to the reader."""

    @property
    def command(self):
        """The command line."""
        program, *arguments = self.words
        return [self.python, "-m", MODULES[program], *arguments]

    @property
    def working_directory(self):
        """The reader's folder."""
        return self.directory

    def start(self):
        """Start it, and learn whether it speaks TLS."""
        super().start()
        self.tls = "Listening at: https://" in self.log
        return self


class Reader:
    """One reader of one page, with a folder that has an application and a certificate."""

    def __init__(self, directory, certs):
        self.directory, self.certs, self.server = Path(directory), certs, None
        self.conf = ""
        os.symlink(certs.server_cert, self.directory / "cert.pem")
        os.symlink(certs.server_key, self.directory / "key.pem")

    def read(self, page):
        """Do what each block of a page says."""
        if page.path.parent.parent == ROOT / "examples":
            shutil.copytree(page.path.parent, self.directory, dirs_exist_ok=True)
        else:
            self._save("app.py", QUICK_START)
        try:
            for block in page.blocks:
                try:
                    self._follow(block)
                except Exception as error:
                    raise AssertionError(f"{block}, line {block.line}: {error}") from error
        finally:
            self._stop()

    def _follow(self, block):
        if str(block) in STARTS:
            command, port = STARTS[str(block)]
            self.conf = ""
            shutil.copy(ROOT / "conf_examples" / "cloud_run" / "cloud_run.py", self.directory)
            self._serve(shlex.split(command), port)
        exception = exception_for(block)
        if exception is not None:
            exception.check(block.code, self)
        elif str(block) in FILES:
            self._save(FILES[str(block)], block.code)
        else:
            HOW_TO_FOLLOW[block.language](self, block)

    # -- what is saved -------------------------------------------------------------------------------------------------

    def _save(self, name, text):
        (self.directory / name).write_text(text, encoding="utf-8")

    def follow_python(self, block):
        """Save a conf file, check it and start Gunicorn with it; or save an application, serve it and ask it."""
        if is_conf(block):
            self.conf = self._with_certificates(block.code)
            self._run("gunicorn-h2 check app:app")
            self._serve(["gunicorn" if "worker_class" in block.code else "gunicorn-h2", "app:app"])
            if str(block) in CONF_PROBES:
                CONF_PROBES[str(block)](self.server)
        else:
            served = SERVED[str(block)]
            self._save("app.py", block.code)
            self._serve(shlex.split(served.command))
            served.probe(self.server)

    def _with_certificates(self, conf):
        """Have a conf file name certificates that exist."""
        def path(match):
            return repr(self.certs.server_key if re.search(r'["/](priv)?key\.pem', match[0]) else self._both())

        return re.sub(r'"[\w./-]+\.pem"', path, conf)

    def _both(self):
        """A file with the certificate and its key."""
        path = self.directory / "both.pem"
        path.write_text("".join(Path(name).read_text() for name in (self.certs.server_cert, self.certs.server_key)))
        return str(path)

    # -- what is typed -------------------------------------------------------------------------------------------------

    def follow_sh(self, block):
        """Type each line; what it prints is not told."""
        for line in block.lines:
            self._type(line)

    def follow_console(self, block):
        """Type each line behind a `$`; the lines below must be printed, with whatever there is for a line `…`."""
        for session in re.split(r"^\$ ", block.code, flags=re.M)[1:]:
            line, _, expected = session.partition("\n")
            printed = self._type(line)
            pattern = "".join(r"(?:.*\n)*?" if text.strip() == "…" else re.escape(text) + "\n"
                              for text in blurred(expected).splitlines())
            assert re.fullmatch(pattern, blurred(printed)), f"{line}\nprints\n{printed}"

    def _type(self, line):
        words = split(line)
        exception = exception_for(line)
        if exception is not None:
            exception.check(line, self)
        elif words[0] in MODULES and not ENDING & {*words}:
            self._serve(words)
        elif words[0] in MODULES or words[0] in CLIENTS:
            return self._run(line)
        else:
            raise AssertionError(f"there is no rule for {words[0]}")
        return ""

    def _run(self, line):
        """Run a command to its end; return what it prints, with the page's port in the place of the real one."""
        program = shlex.split(line)[0]
        if program in MODULES:
            self._save("gunicorn.conf.py", self.conf)
            line = line.replace(program, f"python -m {MODULES[program]}", 1)
        elif program != "python":
            require_tool(program)
        done = subprocess.run(["bash", "-c", ADDRESS.sub(self._address, line)], cwd=self.directory, env=self._environ(),
                              capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}\n{self.server and self.server.log_tail()}"
        if self.server is None:
            return done.stdout
        return re.sub(rf":{self.server.port}\b", f":{self.server.named_port}", done.stdout)

    def _environ(self):
        path = os.pathsep.join([str(Path(sys.executable).parent), SEARCH_PATH])
        python_path = os.pathsep.join([str(self.directory), str(ROOT)])
        return {**os.environ, "PATH": path, "PYTHONPATH": python_path, "CURL_CA_BUNDLE": self.certs.ca,
                "SSL_CERT_FILE": self.certs.ca}

    def _address(self, match):
        host, port = match.groups()
        if host == "localhost":
            assert int(port) == self.server.named_port, f"the server would listen at {self.server.named_port}"
        return f"localhost:{self.server.port}"

    # -- servers -------------------------------------------------------------------------------------------------------

    def _serve(self, words, named_port=None):
        """Start a server and make a request, which must come by HTTP/2."""
        self._stop()
        if "gunicorn_h2.ASGIWorker" in words and is_wsgi(self.directory / "app.py"):
            self._save("app.py", ASGI_APP)
        bind = re.search(r"--bind (\S+)", " ".join(words)) or re.search(r'^bind = "(.*)"', self.conf, re.M)
        named_port = named_port or (int(bind[1].rpartition(":")[2]) if bind else 8000)
        words = [re.sub(r"^localhost:\d+$", "localhost:0", word) for word in words]
        name = words[words.index("-c") + 1] if "-c" in words else "gunicorn.conf.py"
        conf = self.conf if name == "gunicorn.conf.py" else (self.directory / name).read_text()
        self._save(name, "\n".join([PROLOGUE, conf, OVERRIDES, EPILOGUE]))
        self.server = Typed(self.directory, self.certs, words, named_port).start()
        authority = re.search(r"Clients can trust it by (\S+)", self.server.log)
        if authority is not None:
            # As the page of the gRPC example calls it.
            shutil.copy(authority[1], self.directory / "ca.pem")
        protocol = ["--http2"] if self.server.tls else ["--http2-prior-knowledge"]
        done = run("curl", "--silent", "--show-error", "--insecure", *protocol, "--output", "/dev/null",
                   "--write-out", "%{http_version}", self.server.url)
        assert done.stdout == "2", f"{shlex.join(words)}: HTTP/{done.stdout}\n{self.server.log_tail()}"

    def _stop(self):
        """End the server and look for trouble in its log."""
        server, self.server = self.server, None
        if server is not None:
            stop_all([server])

    # -- what is printed -----------------------------------------------------------------------------------------------

    def follow_log(self, block):
        """Find the lines in the server's log; see `unrun` for those of servers that something has happened to."""
        for line in block.lines:
            self.server.wait_log(re.escape(line))

    def follow_haproxy(self, block):
        """Have HAProxy check it."""
        self._save("haproxy.cfg", block.code)
        run("haproxy", "-c", "-f", self.directory / "haproxy.cfg")

    def follow_trace(self, block):
        """Trace a request like the one in the page; its lines must come in this order, among others."""
        trace = self.directory / "trace.log"
        trace.unlink(missing_ok=True)
        self.conf = f"http2_trace = {str(trace)!r}\n"
        self._serve(shlex.split(DEFAULT_SERVER))
        cookie = "c=".ljust(int(re.search(r"cookie: \((\d+) octets\)", block.code)[1]), "c")
        query = "q" * int(re.search(r"\?\((\d+) octets\)", block.code)[1])
        self._run(f"curl --silent --cookie {cookie} https://example.org/search?{query}")
        self._stop()
        pattern = ".*".join(re.escape(blurred(line)) + "\n" for line in block.lines)
        assert re.search(pattern, blurred(trace.read_text()), re.S), trace.read_text()


HOW_TO_FOLLOW = {"sh": Reader.follow_sh, "console": Reader.follow_console, "python": Reader.follow_python,
                 "log": Reader.follow_log, "haproxy": Reader.follow_haproxy, "trace": Reader.follow_trace}


def is_conf(block):
    """Whether a block is Python that defines settings, and nothing else."""
    return block.language == "python" and all(
        name in SETTINGS for node in ast.parse(block.code).body for name in names_defined(node))


def names_defined(node):
    """The names that a statement defines, imports aside; None for a statement that does something else."""
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [getattr(target, "id", None) for target in node.targets]
    return [] if isinstance(node, ast.Import | ast.ImportFrom) else [None]


def is_wsgi(path):
    """Whether a file has an application for WSGI."""
    return "start_response" in path.read_text()


def blurred(text):
    """Return text without what differs from run to run: durations, dates, a certificate's issuer, ids of a trace."""
    text = re.sub(r"\d+(\.\d+)? ms\b", "N ms", text)
    text = re.sub(r"[A-Z][a-z]{2} +\d+ [\d:]{8} \d{4} GMT", "DATE", text)
    text = re.sub(r"issued by .*", "issued by SOMEONE", text)
    return re.sub(r"(?m)^\d+\.\d+ \d+\.\d+ |length=\d+", "N ", text)
