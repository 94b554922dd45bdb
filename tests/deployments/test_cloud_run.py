"""Google Cloud Run: service, image and command lines field by field, and Gunicorn with a client like its front end."""

import argparse
import json
import re
import shlex
import signal
import socket

import pytest

from tests.support.checks import prove_all_free
from tests.support.deployment import EXAMPLES
from tests.support.gate import Gate
from tests.support.h2client import H2Client
from tests.support.server import ROOT

from .configurations import names_of, read
from .traffic import Route, check_all

FRONT_END = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https"), ("via", "HTTP/2 Google"),
             ("forwarded", 'for="203.0.113.9";proto=https'), ("x-cloud-trace-context", "105445aa7843bc8b/1;o=1")]
"""What Cloud Run's front end adds to requests."""


def dockerfile():
    """Return the instructions of the Dockerfile with their arguments."""
    text = re.sub(r"\\\n", " ", (EXAMPLES / "cloud_run" / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


@pytest.fixture(scope="module")
def revision():
    """The revision that service.yaml describes, in which no key is unknown."""
    (service,) = read("cloud-run", "cloud_run/service.yaml")
    return service["spec"]["template"]["spec"]


@pytest.fixture
def container(gunicorn):
    """Gunicorn as the image runs it: what is copied, the command, the port from the environment."""
    instructions = dict(dockerfile())
    program, *arguments = json.loads(instructions["CMD"])
    *files, target = instructions["COPY"].split()
    assert (program, sorted(files), target) == ("gunicorn", ["app.py", "cloud_run.py"], "./")
    return gunicorn("cloud_run/cloud_run.py", {"0.0.0.0": "127.0.0.1"}, "srv", arguments=arguments, env={"PORT": "0"})


def test_cloud_run(container, revision, large):
    """The life of an instance: probe, prior knowledge at the port that PORT names, bodies beyond 32 MiB, the end."""
    check_startup_probe(container)
    check_front_end(container, revision["containerConcurrency"])
    check_all(Route(container, container, forwards=False, http1=False), large)
    check_end(container)


def check_startup_probe(container):
    """By TCP: it connects and closes, and leaves nothing in the log."""
    mark = container.log_mark()
    for _ in range(3):
        socket.create_connection(("127.0.0.1", container.port), timeout=10).close()
    with H2Client.connect(container) as client:
        assert client.get("/health").status == 200
    end = container.wait_log("GET /health").line_number
    assert end == mark


def check_front_end(container, concurrency):
    """One connection carries the requests of many clients, as many at a time as the service allows, for any host."""
    prove_all_free(container, concurrency)
    with H2Client.connect(container) as client:
        for host in ("app-xyz.a.run.app", "www.example.org"):
            environ = json.loads(client.get("/environ", FRONT_END, authority=host).text)
            assert environ["wsgi.url_scheme"] == "https"
            assert environ["HTTP_HOST"] == host
            assert environ["HTTP_X_FORWARDED_FOR"] == "203.0.113.9"


def check_end(container):
    """SIGTERM: what is under way is answered, well within ten seconds."""
    with Gate() as gate, H2Client.connect(container) as client:
        slow = client.request("GET", gate.path("/gate"))
        gate.wait_inside()
        container.signal(signal.SIGTERM)
        client.wait_goaway()
        gate.release()
        assert client.response(slow).status == 200
        client.wait_closed()
    assert container.wait_exit(10) == 0


def test_the_service(revision):
    """It agrees with the conf file and the image."""
    conf = names_of("cloud_run/cloud_run.py")
    (container,) = revision["containers"]
    assert container["ports"] == [{"name": "h2c", "containerPort": 8080}]
    assert container["startupProbe"]["tcpSocket"] == {"port": 8080}
    assert revision["containerConcurrency"] <= conf["threads"]
    assert revision["containerConcurrency"] <= conf.get("http2_max_concurrent_streams", 100)
    assert conf["graceful_timeout"] < 10
    assert conf["bind"] == "0.0.0.0:8080"


def test_no_mistake_in_the_service_is_unnoticed():
    """Whichever key is misspelt: what the example is checked by refuses it."""
    assert read("cloud-run-mistakes", "cloud_run/service.yaml") == []


def test_the_dockerfile():
    """Known instructions, no root, and no shell between SIGTERM and Gunicorn."""
    instructions = dockerfile()
    assert [name for name, _ in instructions] == ["FROM", "ENV", "WORKDIR", "RUN", "COPY", "USER", "CMD"]
    arguments = dict(instructions)
    assert re.fullmatch(r"python:3\.\d+-slim", arguments["FROM"])
    assert arguments["ENV"] == "PYTHONUNBUFFERED=1"
    assert shlex.split(arguments["RUN"]) == ["pip", "install", "--no-cache-dir", "gunicorn-h2"]
    assert isinstance(json.loads(arguments["CMD"]), list)
    assert arguments["USER"] != "root"


def gcloud():
    """Return a parser for those of gcloud's commands and flags that there is any use for."""
    parser = argparse.ArgumentParser("gcloud", allow_abbrev=False)
    run = parser.add_subparsers(required=True).add_parser("run", allow_abbrev=False).add_subparsers(required=True)
    deploy = run.add_parser("deploy", allow_abbrev=False)
    deploy.add_argument("service")
    deploy.add_argument("--use-http2", action="store_true", required=True)
    for name in ("source", "image", "region", "port", "concurrency", "timeout", "cpu", "memory"):
        deploy.add_argument(f"--{name}")
    replace = run.add_parser("services", allow_abbrev=False).add_subparsers(required=True).add_parser("replace")
    replace.add_argument("file")
    return parser


def test_the_command_lines():
    """Of the examples' comments, and of the documentation: no flag is unknown, and HTTP/2 is asked for."""
    files = [*(EXAMPLES / "cloud_run").glob("*.*"), EXAMPLES / "cloud_run" / "Dockerfile", *ROOT.glob("docs/*.md")]
    lines = [line for file in files for line in re.findall(r"(?m)^(?:# +)?gcloud (.*)$", file.read_text())]
    assert len(lines) >= 4
    for line in lines:
        arguments = gcloud().parse_args(shlex.split(line, comments=True))
        assert getattr(arguments, "file", "service.yaml") == "service.yaml"
