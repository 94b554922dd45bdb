"""The servers that are compared: a table of command lines.

Each server has one worker process, serves TLS with ALPN h2, and keeps its own defaults, but for what would spoil a
measurement: limits on the requests or the age of a connection, on the number of connections, and on bodies.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

WSGI, ASGI = "wsgi", "asgi"
GRPC_WSGI, GRPC_ASGI = "gRPC over WSGI", "gRPC over ASGI"
STATUS_WSGI, STATUS_ASGI = "WSGI with the status", "ASGI with the status"
OURS, BUILT_IN, OTHER, FLOOR = "gunicorn_h2", "Gunicorn's built-in", "others", "floor"

APPS = {
    ("plain", WSGI): "bench.apps.wsgi:app",
    ("plain", ASGI): "bench.apps.asgi:app",
    ("plain", STATUS_WSGI): "bench.apps.status:app",
    ("plain", STATUS_ASGI): "bench.apps.status:asgi_app",
    ("flask", WSGI): "bench.apps.flask_app:app",
    ("flask", STATUS_WSGI): "bench.apps.flask_app:with_status",
    ("calls", WSGI): "bench.callcount:app",
    ("calls", ASGI): "bench.callcount:asgi_app",
    ("times", WSGI): "bench.layertimes:app",
    ("grpc", GRPC_WSGI): "bench.apps.grpc_services:app",
    ("grpc", GRPC_ASGI): "bench.apps.grpc_services:asgi_app",
}
"""What a workload's application is for each interface."""


@dataclass(frozen=True)
class Server:
    """One row of the table.

    `commands` are started in turn, each a command line with {placeholders}; the last listens on {port}, others may use
    {inner_port}. `files` are written into the server's folder {folder} first; placeholders stand there as well. `only`
    has the patterns of the workloads that it can serve. `requests_a_connection` is how many a server allows where no
    setting can lift the limit: h2load makes no more. `source` is a folder to import gunicorn_h2 from instead of this
    tree, of which `revision` says what it is.
    """

    name: str
    title: str
    family: str
    interface: str
    commands: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)
    only: str = "*"
    requests_a_connection: int | None = None
    source: str = ""
    revision: str = ""

    @property
    def base(self) -> str:
        """The name without its revision."""
        return self.name.partition("@")[0]

    def at(self, revision: str, source: str) -> Server:
        """Return this server, of another revision of the package."""
        return replace(
            self,
            name=f"{self.name}@{revision}",
            title=f"{self.title} @ {revision}",
            source=source,
            revision=revision,
        )


GUNICORN = (
    "{python} -m gunicorn {app} -c {folder}/conf.py --bind 127.0.0.1:{port} --certfile {cert} --keyfile {key}"
    " --log-level warning --keep-alive 75 --worker-connections 20000 --backlog 8192 --graceful-timeout 1"
)
GUNICORN_H1 = (
    "{python} -m gunicorn {app} -c {folder}/conf.py --bind 127.0.0.1:{inner_port} -k gthread --threads 16"
    " --log-level warning --keep-alive 75 --worker-connections 20000 --backlog 8192 --graceful-timeout 1"
)
GUNICORN_CONF = "control_socket_disable = True\n"
HOOKS_CONF = """
statsd_host = "127.0.0.1:8125"


def pre_request(worker, req):
    req.started_by_hook = worker.pid


def post_request(worker, req, environ, resp):
    assert req.started_by_hook == worker.pid and resp.status_code == 200
"""
SILENT_CONF = """
from gunicorn_h2.workers.reports import Reporter


def _say_nothing(*arguments):
    pass


Reporter.report = _say_nothing
"""
HYPERCORN_CONF = """
bind = "127.0.0.1:{port}"
certfile = "{cert}"
keyfile = "{key}"
workers = 1
worker_class = "uvloop"
alpn_protocols = ["h2"]
backlog = 8192
keep_alive_timeout = 75
keep_alive_max_requests = 10**12
wsgi_max_body_size = 2**40
graceful_timeout = 1
"""
GRANIAN = (
    "{python} -m granian {app} --host 127.0.0.1 --port {port} --http 2 --workers 1 --no-log"
    " --ssl-certificate {cert} --ssl-keyfile {key} --backlog 16384"
)
UVICORN = (
    "{python} -m uvicorn {app} --host 127.0.0.1 --port {port} --http zttp --http2 --loop uvloop --no-access-log"
    " --ssl-certfile {cert} --ssl-keyfile {key} --log-level warning --timeout-keep-alive 75 --backlog 8192"
    " --timeout-graceful-shutdown 1"
)
NGINX = "nginx -e {folder}/error.log -c {folder}/nginx.conf"
NGINX_FILES = """\
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
"""
"""What nginx writes, in one folder; for its block `http`."""
NGINX_CONF = """
daemon off;
worker_processes 1;
user {user};
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 16384; }}
http {{
""" + NGINX_FILES + """\
    client_max_body_size 0;
    keepalive_requests 1000000000;
    keepalive_time 24h;
    upstream gunicorn {{
        server 127.0.0.1:{inner_port};
        keepalive 16;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} ssl http2 backlog=8192;
        ssl_certificate {cert};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{
            proxy_pass http://gunicorn;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"""


def _ours(name: str, title: str, worker: str, conf: str = "", flags: str = "", interface: str = WSGI) -> Server:
    command = f"{GUNICORN} -k gunicorn_h2.{worker} {flags}"
    return Server(name, title, OURS, interface, (command,), {"conf.py": GUNICORN_CONF + conf})


def _status(name: str, worker: str, conf: str, flags: str = "", interface: str = WSGI) -> tuple[Server, ...]:
    """A worker class that reports nothing, and one that serves its status, whose page is open.

    They differ by less than a hundredth, so that a single workload with many rounds says more than many workloads.
    """
    title, served = f"{worker}, status", STATUS_WSGI if interface == WSGI else STATUS_ASGI
    silent = _ours(f"{name}-silent", f"{title} without reports", worker, conf + SILENT_CONF, flags, interface)
    watched = _ours(f"{name}-status", f"{title} and its page", worker, conf, flags, served)
    watched = replace(watched, commands=("{python} -m bench.apps.status {port}", *watched.commands))
    return tuple(replace(server, only="hello-10x10,flask") for server in (silent, watched))


def _built_in(name: str, worker: str, flags: str = "", interface: str = WSGI) -> Server:
    command = f"{GUNICORN} --http-protocols h2,h1 -k {worker} {flags}"
    return Server(name, f"Gunicorn {worker}", BUILT_IN, interface, (command,), {"conf.py": GUNICORN_CONF})


def _engine(name: str) -> str:
    return f'http2_engine = "{name}"\n'


_THREADS = "--threads 16"
_UVLOOP = 'asgi_loop = "uvloop"\n'
_ACCESS_LOG = 'accesslog = "{folder}/access.log"\n'

SERVERS = (
    _ours("thread-fast", "ThreadWorker, fast", "ThreadWorker", _engine("fast"), _THREADS),
    _ours("thread-h2", "ThreadWorker, h2", "ThreadWorker", _engine("h2"), _THREADS),
    _ours("gevent-fast", "GeventWorker, fast", "GeventWorker", _engine("fast")),
    _ours("gevent-h2", "GeventWorker, h2", "GeventWorker", _engine("h2")),
    _ours("asgi-fast", "ASGIWorker, fast", "ASGIWorker", _engine("fast") + _UVLOOP, interface=ASGI),
    _ours("asgi-h2", "ASGIWorker, h2", "ASGIWorker", _engine("h2") + _UVLOOP, interface=ASGI),
    _ours("thread-log", "ThreadWorker, access log", "ThreadWorker", _ACCESS_LOG, _THREADS),
    _ours("thread-hooks", "ThreadWorker, hooks and statsd", "ThreadWorker", HOOKS_CONF, _THREADS),
    *_status("thread", "ThreadWorker", _engine("fast"), _THREADS),
    *_status("gevent", "GeventWorker", _engine("fast")),
    *_status("asgi", "ASGIWorker", _engine("fast") + _UVLOOP, interface=ASGI),
    _built_in("builtin-gthread", "gthread", _THREADS),
    _built_in("builtin-gevent", "gevent"),
    _built_in("builtin-asgi", "asgi", interface=ASGI),
    Server("granian-wsgi", "granian, WSGI", OTHER, WSGI,
           (GRANIAN + " --interface wsgi --blocking-threads 512",)),
    Server("granian-asgi", "granian, ASGI", OTHER, ASGI,
           (GRANIAN + " --interface asgi --loop uvloop",)),
    Server("hypercorn-wsgi", "hypercorn, WSGI", OTHER, WSGI,
           ("{python} -m hypercorn -c file:{folder}/conf.py wsgi:{app}",), {"conf.py": HYPERCORN_CONF}),
    Server("hypercorn-asgi", "hypercorn, ASGI", OTHER, ASGI,
           ("{python} -m hypercorn -c file:{folder}/conf.py asgi:{app}",), {"conf.py": HYPERCORN_CONF}),
    Server("uvicorn", "uvicorn", OTHER, ASGI, (UVICORN,), requests_a_connection=4000),
    Server("nginx", "nginx, Gunicorn gthread behind", OTHER, WSGI,
           (GUNICORN_H1, NGINX), {"conf.py": GUNICORN_CONF, "nginx.conf": NGINX_CONF}),
    _ours("grpc-thread", "ThreadWorker, gRPC", "ThreadWorker", flags=_THREADS, interface=GRPC_WSGI),
    _ours("grpc-gevent", "GeventWorker, gRPC", "GeventWorker", interface=GRPC_WSGI),
    _ours("grpc-asgi", "ASGIWorker, gRPC", "ASGIWorker", _UVLOOP, interface=GRPC_ASGI),
    Server("grpcio", "grpcio, 16 threads", OTHER, GRPC_WSGI,
           ("{python} -m bench.apps.grpc_services threads {port} {cert} {key}",)),
    Server("grpcio-aio", "grpcio, asyncio", OTHER, GRPC_ASGI,
           ("{python} -m bench.apps.grpc_services aio {port} {cert} {key}",)),
    Server("floor", "the floor: TLS and canned frames", FLOOR, WSGI,
           ("{python} -m bench.apps.floor {port} {cert} {key}",),
           only="hello*,browser,rate*,handshakes,idle*,start"),
)  # fmt: skip
"""Every server. Its name says what it is; `--servers` takes patterns of names."""


def choose(names: list[str], patterns: str) -> list[str]:
    """Return those of `names`, in order, that fit one of the comma-separated patterns.

    Raises `ValueError` for a pattern that fits nothing.
    """
    for pattern in split(patterns):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"{pattern!r} fits none of {', '.join(names)}")
    return [name for name in names if fits(name, patterns)]


def fits(name: str, patterns: str) -> bool:
    """Tell whether a name fits one of the comma-separated patterns."""
    return any(fnmatchcase(name, pattern) for pattern in split(patterns))


def split(names: str) -> list[str]:
    """Return the parts of a comma-separated list."""
    return [name.strip() for name in names.split(",") if name.strip()]
