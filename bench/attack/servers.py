"""The servers under attack: ours with the limits that they have by default, and others as `bench.servers` starts them.

What the benchmarks lift is back in place here: the age of idle connections, and their number.
"""

from __future__ import annotations

from dataclasses import replace

from bench.servers import ASGI, GUNICORN_CONF, OURS, SERVERS, WSGI, Server

GUNICORN = (
    "{python} -m gunicorn {app} -c {folder}/conf.py --bind 127.0.0.1:{port} --certfile {cert} --keyfile {key}"
    " --log-level warning --graceful-timeout 1 --threads {threads}"
)


def _gunicorn(name: str, title: str, worker: str, interface: str = WSGI, family: str = OURS) -> Server:
    return Server(name, title, family, interface, (f"{GUNICORN} -k {worker}",), {"conf.py": GUNICORN_CONF})


OURS_UNDER_ATTACK = (
    _gunicorn("thread", "ThreadWorker", "gunicorn_h2.ThreadWorker"),
    _gunicorn("gevent", "GeventWorker", "gunicorn_h2.GeventWorker"),
    _gunicorn("asgi", "ASGIWorker", "gunicorn_h2.ASGIWorker", ASGI),
)
UNDER_ATTACK = (*OURS_UNDER_ATTACK, *(server for server in SERVERS if server.family != OURS and server.name != "floor"))
"""Every server. `--servers` takes patterns of names."""


def with_threads(server: Server, threads: int) -> Server:
    """Return a server with so many threads, where it has such a choice."""
    return replace(server, commands=tuple(command.replace("{threads}", str(threads)) for command in server.commands))
