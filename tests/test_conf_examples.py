"""Every conf file in conf_examples/ boots as it is and serves HTTP/2; what stands beside them is well-formed.

`tests/deployments` has the rest: each one with the program that it is for.
"""

from pathlib import Path

import pytest

from gunicorn_h2.workers.settings import TABLE
from tests.support.command import Command, fetch
from tests.support.deployment import EXAMPLES as FOLDER
from tests.support.deployment import adapted
from tests.support.tools import run

EXAMPLES = sorted(FOLDER.rglob("*.py"))


def names_of(path):
    """Return what a conf file defines."""
    names = {}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    return names


def options_for(example, certs):
    """Return the arguments that replace what only the real machine has: its certificate, its address."""
    names = names_of(example)
    # One worker: another may still be booting when the first has answered, and Gunicorn then loses the signal to stop.
    options = ["-c", str(example), "--workers", "1"]
    if "certfile" in names:
        options += ["--certfile", certs.server_cert, "--keyfile", certs.server_key]
    if "PORT" not in example.read_text() and not str(names.get("bind", "")).startswith("unix:"):
        options += ["--bind", "127.0.0.1:0"]
    if "http2_cleartext" in names and names.get("forwarded_allow_ips", "*") != "*":
        options += ["--forwarded-allow-ips", "127.0.0.1"]
    return options


def with_certificates(example, certs, folder):
    """Return an example, or a copy of it in which the certificates exist that no argument can replace."""
    text = example.read_text(encoding="utf-8")
    both = folder / "both.pem"
    both.write_text("".join(Path(name).read_text() for name in (certs.server_cert, certs.server_key)))
    for entry in names_of(example).get("http2_certificates", []):
        certificate, key = entry if isinstance(entry, tuple) else (entry, entry)
        text = text.replace(certificate, str(both)).replace(key, str(both))
    copy = folder / example.name
    copy.write_text(text, encoding="utf-8")
    return copy


@pytest.mark.compat
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_serves_http2(example, certs, tmp_path):
    example = with_certificates(example, certs, tmp_path)
    env = {"PORT": "0", "RUNTIME_DIRECTORY": str(tmp_path), "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    asgi = names_of(example)["worker_class"] == "gunicorn_h2.ASGIWorker"
    app = "bench.apps.asgi:app" if asgi else "tests.apps.wsgi_app:app"
    server = Command(tmp_path, certs, *options_for(example, certs), module="gunicorn", env=env, app=app)
    server.ready = "Booting worker"  # the request waits for the rest
    server.start()
    try:
        uds = None if server.port else str(tmp_path / "app.sock")
        assert fetch(server, uds=uds).status_code == 200
        assert "[WARNING]" not in server.log
    finally:
        server.stop()


def test_the_limits_are_the_defaults():
    names = names_of(next(path for path in EXAMPLES if path.stem == "limits"))
    for spec in TABLE:
        assert spec.parse(names[spec.name]) == spec.default, spec.name


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_says_how_to_use_it(example):
    assert f"-c {example.name}" in names_of(example)["__doc__"].replace('", "', " ")


def test_nginx_takes_its_configuration(certs, tmp_path):
    replacements = {
        "events {": f"pid {tmp_path}/pid;\nevents {{",
        "listen 80;": f"listen unix:{tmp_path}/80;", "listen 443 ": f"listen unix:{tmp_path}/443 ",
        "/etc/ssl/example.org/fullchain.pem": certs.server_cert, "/etc/ssl/example.org/privkey.pem": certs.server_key,
    }
    conf = tmp_path / "nginx.conf"
    conf.write_text(adapted("nginx.conf", replacements))
    run("nginx", "-t", "-e", "stderr", "-c", conf)


@pytest.mark.parametrize("example", ["haproxy.cfg", "haproxy_tcp.cfg"])
def test_haproxy_takes_its_configuration(example, certs, tmp_path):
    pem = tmp_path / "haproxy.pem"
    pem.write_text("".join(Path(name).read_text() for name in (certs.server_cert, certs.server_key)))
    conf = tmp_path / example
    conf.write_text(adapted(example, {}).replace("/etc/haproxy/example.org.pem", str(pem)))
    run("haproxy", "-c", "-f", conf)


def test_caddy_takes_its_configuration(tmp_path):
    """As it is, formatted as Caddy does."""
    env = {"HOME": str(tmp_path)}
    run("caddy", "adapt", "--config", FOLDER / "Caddyfile", env=env)
    assert run("caddy", "fmt", FOLDER / "Caddyfile", env=env).stdout == adapted("Caddyfile", {})
