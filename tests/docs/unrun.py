"""What of the documentation is not run, why, and by which rule it is checked instead.

`COMMANDS` names commands by their first words, `BLOCKS` whole blocks. A rule gets the text and the reader, whose server
may be running.
"""

import ast
import configparser
import errno
import importlib
import inspect
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import NamedTuple

import grpc
import yaml
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from bench.servers import SERVERS, choose
from bench.workloads import WORKLOADS
from gunicorn_h2.status import StatusMiddleware
from gunicorn_h2.status.metrics import METRICS
from tests.support.pages import ROOT, split

CLOUD_RUN = ROOT / "conf_examples" / "cloud_run"


class Unrun(NamedTuple):
    """The reason why something is not run, and what is checked instead."""

    reason: str
    check: Callable


def exception_for(text):
    """Return the exception for a block or a command line, or None."""
    exception = BLOCKS.get(str(text))
    if exception is None and isinstance(text, str):
        exception = next((found for words, found in COMMANDS.items() if f"{text} ".startswith(f"{words} ")), None)
    return exception


# -- commands ----------------------------------------------------------------------------------------------------------


def check_pip(line, reader):
    """Our extras exist, and the names of other packages are those of packages that the tests use."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    requirements = split(line)[2:]
    if requirements[0] == "-r":
        requirements = (reader.directory / requirements[1]).read_text().split("\n")
    for requirement in filter(None, requirements):
        name, _, extras = re.match(r"([\w-]+)(\[([\w,]+)\])?", requirement).groups()
        if name == "gunicorn-h2":
            assert set(extras.split(",") if extras else ()) <= parser["options.extras_require"].keys(), requirement
        else:
            assert version(name)


def check_make(line, _):
    """Make knows how; the arguments of a benchmark are what its parser takes, and name servers and workloads."""
    words = split(line)
    environ = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, env=environ, capture_output=True, text=True,
                          timeout=30)
    assert done.returncode == 0, done.stderr
    for module, arguments in re.findall(r"python -m (bench\S*)(.*)", done.stdout):
        if module == "bench":
            module = "bench.__main__"
        elif module == "bench.attack":
            module = "bench.attack.__main__"
        options = importlib.import_module(module).parse(shlex.split(arguments))
        if module == "bench.__main__":
            choose([server.name for server in SERVERS], options.servers)
            choose([workload.name for workload in WORKLOADS], options.workloads)


def check_gcloud(line, _):
    """The folder has what the command sends there: an image's description, or a service that asks for HTTP/2."""
    words = split(line)
    if words[2] == "deploy":
        assert {"--source", "--use-http2"} <= {*words}
        assert (CLOUD_RUN / "Dockerfile").exists()
    else:
        assert words[2:4] == ["services", "replace"]
        service = yaml.safe_load((CLOUD_RUN / words[4]).read_text())
        (container,) = service["spec"]["template"]["spec"]["containers"]
        assert container["ports"] == [{"name": "h2c", "containerPort": 8080}]


def check_certbot(line, _):
    """The hook reloads a unit of ours, and to reload means SIGHUP."""
    words = split(line)
    *command, unit = shlex.split(words[words.index("--deploy-hook") + 1])
    assert command == ["systemctl", "reload"]
    text = (ROOT / "conf_examples" / "systemd" / f"{unit}.service").read_text()
    assert re.search(r"^ExecReload=.*\bHUP\b", text, re.M)


def check_compose(line, reader):
    """The service whose exit status counts is there, and runs a script that is there."""
    words = split(line)
    services = yaml.safe_load((reader.directory / "compose.yaml").read_text())["services"]
    _, script, *_ = services[words[words.index("--exit-code-from") + 1]]["command"]
    assert (reader.directory / script).exists()


def check_grpcurl(line, reader):
    """Do the same with grpcio: learn from reflection what there is, and call it with the JSON."""
    words = split(line)
    credentials = grpc.ssl_channel_credentials((reader.directory / words[words.index("-cacert") + 1]).read_bytes())
    with grpc.secure_channel(f"localhost:{reader.server.port}", credentials) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        if words[-1] == "list":
            assert "library.Library" in database.get_services()
            return
        service, _, name = words[-1].rpartition("/")
        method = DescriptorPool(database).FindServiceByName(service).methods_by_name[name]
        request = json_format.ParseDict(json.loads(words[words.index("-d") + 1]), GetMessageClass(method.input_type)())
        call = channel.unary_unary(f"/{words[-1]}", None, GetMessageClass(method.output_type).FromString)
        assert call(request.SerializeToString(), timeout=10).ListFields()


COMMANDS = {
    "pip install": Unrun("it needs the package index; test_packaging.py and test_extras.py install", check_pip),
    "make": Unrun("it makes environments, and takes minutes to hours; CI runs it", check_make),
    "gcloud run": Unrun("it needs an account", check_gcloud),
    "certbot renew": Unrun("it needs a domain", check_certbot),
    "docker compose": Unrun("it needs a container runtime, and images from the network", check_compose),
    "grpcurl": Unrun("Debian has no package of it", check_grpcurl),
}


# -- blocks ------------------------------------------------------------------------------------------------------------


def check_layers(code, _):
    """Folders and classes that the drawing names are there."""
    text = "\n".join(path.read_text() for path in (ROOT / "gunicorn_h2").rglob("*.py"))
    for name in re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", code):
        assert f"\nclass {name}" in text, name
    for folder in re.findall(r"(\w+)/  ", code):
        assert (ROOT / "gunicorn_h2" / folder).is_dir(), folder


def check_scrape(code, _):
    """It is YAML, has fields of a scrape configuration, and the path is the one that the middleware has."""
    (job,) = yaml.safe_load(code)["scrape_configs"]
    assert job.keys() == {"job_name", "scheme", "metrics_path", "static_configs"}
    assert job["metrics_path"] == inspect.signature(StatusMiddleware).parameters["path"].default + "/metrics"
    assert all(re.fullmatch(r"[\w.]+:\d+", target) for config in job["static_configs"] for target in config["targets"])


def check_alerts(code, _):
    """It is YAML, has fields of alerting rules, and the expressions name metrics that there are."""
    kinds = {f"gunicorn_h2_{metric.name}": metric.kind for metric in METRICS}
    for group in yaml.safe_load(code)["groups"]:
        assert group.keys() == {"name", "rules"}
        for rule in group["rules"]:
            assert rule.keys() == {"alert", "expr"}
            (name,) = re.findall(r"\bgunicorn_h2_\w+", rule["expr"])
            assert name in kinds or kinds[name.removesuffix("_bucket")] == "histogram", name


def check_log(code, _):
    """Each line is one that the package's format strings make."""
    for line in filter(None, code.splitlines()):
        assert is_logged(line), line


def is_logged(text):
    """Whether a format of the package makes the text, and other formats what it inserts if that is a phrase."""
    return any(match and all(is_data(part) or is_logged(part) for part in match.groups())
               for match in (pattern.fullmatch(text) for pattern in formats()))


def is_data(text):
    """Whether a part of a line is no phrase of ours: items with commas, pairs with `=`, an error of the system."""
    if text in {os.strerror(number) for number in errno.errorcode} or all("=" in word for word in text.split()):
        return True
    return all(len(item.split()) < 3 for item in text.split(", "))


@cache
def formats():
    """The strings of the package that are phrases, as patterns: what they insert are groups."""
    patterns = []
    for path in (ROOT / "gunicorn_h2").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            pieces = pieces_of(node)
            if pieces and len("".join(pieces).split()) >= 2:
                patterns.append(re.compile("(.*?)".join(map(re.escape, pieces))))
    return patterns


def pieces_of(node):
    """The constant pieces of a string, between which something is inserted; None for other nodes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.split(r"%[\d.]*[sdrf]|\{\w*\}", node.value)
    if isinstance(node, ast.JoinedStr):
        text = "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
        return text.split("\0")
    return None


LOG_LINE = Unrun("what it tells of has not happened to the reader's server; the tests named in docs/security.md "
                      "make it happen", check_log)
BLOCKS = {
    "docs/architecture.md#architecture/1": Unrun("a drawing", check_layers),
    "docs/security.md#how-the-limits-work/1": LOG_LINE,
    "docs/security.md#how-the-limits-work/2": LOG_LINE,
    "docs/security.md#how-the-limits-work/3": LOG_LINE,
    "docs/status.md#prometheus/1": Unrun("Prometheus is not among the tests' programs", check_scrape),
    "docs/status.md#prometheus/3": Unrun("Prometheus is not among the tests' programs", check_alerts),
    "docs/troubleshooting.md#400-http2-connection-preface-expected/1": LOG_LINE,
    "docs/troubleshooting.md#http-on-the-https-port-https-on-the-http-port/1": LOG_LINE,
    "docs/troubleshooting.md#http-on-the-https-port-https-on-the-http-port/2": LOG_LINE,
    "docs/troubleshooting.md#connections-close/1": LOG_LINE,
    "docs/troubleshooting.md#downloads-stop-or-fill-the-disk/1": LOG_LINE,
}
