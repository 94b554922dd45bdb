"""Cloud Run, Kubernetes and Envoy: their configurations by schema, and Gunicorn with clients that behave as theirs."""

import hashlib
import ipaddress
import json
import os
import re
import shlex
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.support.deployment import EXAMPLES, Gunicorn
from tests.support.gate import Gate
from tests.support.h2client import H2Client, pattern, pattern_digest
from tests.support.load import Load
from tests.support.tools import missing, run

from .traffic import SIZE, Route, check_traffic

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 2, 3, 4
"""Settings, RFC 9113 section 6.5.2."""
SCHEMAS = Path(sys.prefix) / "schemas"
"""Packages with types and schemas (see the Makefile), apart from others whose modules have the same names."""


def read(kind, name):
    """Return what an example holds, checked by `schemas.py`."""
    if not SCHEMAS.exists():
        missing("the packages with schemas are not installed; run make thorough")
    script = Path(__file__).with_name("schemas.py")
    env = {**os.environ, "PYTHONPATH": str(SCHEMAS)}
    return json.loads(run(sys.executable, script, kind, EXAMPLES / name, env=env).stdout)


def names_of(name):
    """Return what a conf file sets."""
    names = {}
    exec((EXAMPLES / name).read_text(encoding="utf-8"), names)
    return names


# -- Google Cloud Run --------------------------------------------------------------------------------------------------

FRONT_END = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https"), ("via", "HTTP/2 Google"),
             ("forwarded", 'for="203.0.113.9";proto=https'), ("x-cloud-trace-context", "105445aa7843bc8b/1;o=1")]
"""What Cloud Run's front end adds to requests."""


def dockerfile():
    """Return the instructions of the Dockerfile with their arguments."""
    text = re.sub(r"\\\n", " ", (EXAMPLES / "cloud_run" / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


@pytest.fixture
def container(running, folder, certs):
    """Gunicorn as the image runs it: what is copied, the command, the port from the environment."""
    instructions = dict(dockerfile())
    program, *arguments = json.loads(instructions["CMD"])
    *files, target = instructions["COPY"].split()
    assert (program, sorted(files), target) == ("gunicorn", ["app.py", "cloud_run.py"], "./")
    return running(Gunicorn(folder("srv"), certs, "cloud_run/cloud_run.py", {"0.0.0.0": "127.0.0.1"}, workers=1,
                            arguments=arguments, env={"PORT": "0"}))


def test_cloud_run(container, tmp_path):
    """Prior knowledge at the port that PORT names; requests and responses beyond 32 MiB; the client's own scheme."""
    route = Route(container, container, forwards=False, http1=False)
    check_traffic(route, tmp_path)
    with H2Client.connect(container) as client:
        environ = json.loads(client.get("/environ", FRONT_END, authority="app-xyz.a.run.app").text)
        assert environ["wsgi.url_scheme"] == "https"
        assert environ["HTTP_HOST"] == "app-xyz.a.run.app"
        assert environ["HTTP_X_FORWARDED_FOR"] == "203.0.113.9"


def test_cloud_runs_startup_probe(container):
    """By TCP: it connects and closes, and leaves nothing in the log."""
    mark = container.log_mark()
    for _ in range(3):
        socket.create_connection(("127.0.0.1", container.port), timeout=10).close()
    with H2Client.connect(container) as client:
        assert client.get("/health").status == 200
    container.wait_log("GET /health")
    assert "\n".join(container.log.splitlines()[mark:]).count("\n") == 0


def test_the_end_of_an_instance(container):
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


def test_the_service_of_cloud_run():
    """The fields that matter, and their agreement with the conf file and the image."""
    (service,) = read("yaml", "cloud_run/service.yaml")
    conf = names_of("cloud_run/cloud_run.py")
    assert (service["apiVersion"], service["kind"]) == ("serving.knative.dev/v1", "Service")
    revision = service["spec"]["template"]["spec"]
    assert revision.keys() <= {"containerConcurrency", "timeoutSeconds", "containers", "serviceAccountName"}
    (container,) = revision["containers"]
    assert container["ports"] == [{"name": "h2c", "containerPort": 8080}]
    assert container["startupProbe"]["tcpSocket"] == {"port": 8080}
    assert revision["containerConcurrency"] <= conf["threads"]
    assert revision["containerConcurrency"] <= conf.get("http2_max_concurrent_streams", 100)
    assert conf["graceful_timeout"] < 10
    assert conf["bind"] == "0.0.0.0:8080"


def test_the_dockerfile():
    """Known instructions, no root, and no shell between SIGTERM and Gunicorn."""
    instructions = dockerfile()
    assert [name for name, _ in instructions] == ["FROM", "ENV", "WORKDIR", "RUN", "COPY", "USER", "CMD"]
    arguments = dict(instructions)
    assert arguments["FROM"].startswith("python:3.")
    assert shlex.split(arguments["RUN"])[-1] == "gunicorn-h2"
    assert isinstance(json.loads(arguments["CMD"]), list)
    assert arguments["USER"] != "root"


# -- Kubernetes --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifests():
    """The objects of app.yaml by their kind; by the schemas of the newest version no field is unknown."""
    return {manifest["kind"]: manifest for manifest in read("kubernetes", "kubernetes/app.yaml")}


@pytest.fixture(scope="module")
def pod(manifests):
    """The pod's specification."""
    return manifests["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture
def start_pod(running, folder, certs, pod):
    """A function that starts Gunicorn as the container's command does."""
    program, *arguments = pod["containers"][0]["command"]
    assert program == "gunicorn"

    def start(name, allow="127.0.0.1"):
        replacements = {"0.0.0.0:8000": "127.0.0.1:0", "10.0.0.0/8": allow, "workers = 2": "workers = 1"}
        return running(Gunicorn(folder(name), certs, "kubernetes/kubernetes.py", replacements, workers=1,
                                arguments=arguments))

    return start


def test_the_manifests_agree(manifests, pod):
    """Ports, labels and times: of the manifests, and of the conf file."""
    conf = names_of("kubernetes/kubernetes.py")
    (port,) = manifests["Service"]["spec"]["ports"]
    (container,) = pod["containers"]
    assert port["appProtocol"] == "kubernetes.io/h2c"
    assert port["targetPort"] == container["ports"][0]["name"]
    assert conf["bind"].endswith(f":{container['ports'][0]['containerPort']}")
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert manifests["Service"]["spec"]["selector"] == labels
    assert manifests["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert before + conf["graceful_timeout"] < pod["terminationGracePeriodSeconds"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": container["ports"][0]["name"]}
    assert ipaddress.ip_network(conf["forwarded_allow_ips"]).is_private
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert conf["worker_tmp_dir"] == "/dev/shm"
    (volume,) = pod["volumes"]
    room = int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 2**30
    assert conf["workers"] * conf["http2_worker_spool_size"] < room


def probe(server, path="/health"):
    """What a kubelet's probe gets: HTTP/1.1, a connection for each."""
    request = f"GET {path} HTTP/1.1\r\nHost: 10.1.2.3:8000\r\nUser-Agent: kube-probe/1.31\r\nAccept: */*\r\n" \
              "Connection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(request.encode())
        with sock.makefile("rb") as answer:
            return int(answer.readline().split()[1])


def test_kubernetes(start_pod):
    """Ingress and mesh by prior knowledge, a kubelet by HTTP/1.1, at one port."""
    server = start_pod("pod")
    with H2Client.connect(server) as client:
        assert client.get("/health").status == 200
        assert probe(server) == 200
        assert client.get("/health").status == 200
    check_traffic(Route(server, server, forwards=False))


def test_a_node_that_is_not_trusted(start_pod):
    """Its probes come from another address than the pods': HTTP/1.1 is what it gets."""
    assert probe(start_pod("pod", allow="192.0.2.0/24")) == 200


class Balancer:
    """Where clients connect next: a pod, until told otherwise."""

    def __init__(self, pod):
        self.pod = pod

    def __getattr__(self, name):
        return getattr(self.pod, name)


def test_a_rolling_update(start_pod):
    """Under load: the new pod is ready, the old one still accepts connections for the time of preStop, then SIGTERM."""
    old = start_pod("old")
    prompt, late = Balancer(old), Balancer(old)
    with Load(prompt, clients=2) as load, Load(late, clients=2) as late_load:
        load.wait_answered(50)
        new = start_pod("new")
        assert probe(new) == 200
        prompt.pod = new
        # preStop: a proxy that has not heard of the new pod connects to the old one.
        with H2Client.connect(late) as client:
            assert client.get("/health").status == 200
        late_load.wait_answered(50)
        late.pod = new
        old.signal(signal.SIGTERM)
        assert old.wait_exit(20) == 0
        for clients in (load, late_load):
            clients.wait_answered(50)
    assert load.lost == late_load.lost == []


# -- Envoy -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bootstrap():
    """Envoy's configuration, as read by Envoy's own types: no field is unknown, and no value of another type."""
    return read("envoy", "envoy.yaml")["static_resources"]


def test_envoys_listener(bootstrap):
    """TLS with ALPN, no limit on the length of a response, and what it repeats was not processed."""
    (chain,) = bootstrap["listeners"][0]["filter_chains"]
    assert chain["transport_socket"]["typed_config"]["common_tls_context"]["alpn_protocols"] == ["h2", "http/1.1"]
    manager = chain["filters"][0]["typed_config"]
    assert manager["use_remote_address"] is True
    (route,) = manager["route_config"]["virtual_hosts"][0]["routes"]
    assert route["route"]["cluster"] == bootstrap["clusters"][0]["name"]
    assert route["route"]["timeout"] == "0s"
    assert set(route["route"]["retry_policy"]["retry_on"].split(",")) == {"connect-failure", "refused-stream"}


def test_envoys_cluster(bootstrap):
    """HTTP/2 by prior knowledge, health checks included, within the limits of behind_proxy.py."""
    conf = names_of("behind_proxy.py")
    (cluster,) = bootstrap["clusters"]
    (options,) = cluster["typed_extension_protocol_options"].values()
    http2 = options["explicit_http_config"]["http2_protocol_options"]
    assert http2["max_concurrent_streams"] <= conf["http2_max_concurrent_streams"]
    assert int(options["common_http_protocol_options"]["idle_timeout"].rstrip("s")) < conf["keepalive"]
    assert cluster["health_checks"][0]["http_health_check"]["codec_client_type"] == "HTTP2"


def test_a_client_like_envoy(behind_proxy):
    """Its SETTINGS and windows, a health check on a connection of its own, large bodies, trailers, keep-alive PINGs."""
    server = behind_proxy()
    settings = {HEADER_TABLE_SIZE: 4096, ENABLE_PUSH: 0, MAX_CONCURRENT_STREAMS: 2**31 - 1, INITIAL_WINDOW_SIZE: 2**28}
    fields = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https"),
              ("x-request-id", "e5f5a1c6-5b5a-4f5c-9d0b-1c1d0c0a0b0a"), ("x-envoy-external-address", "203.0.113.9")]
    with H2Client.connect(server, settings) as client, H2Client.connect(server, settings) as checker:
        client.keep_frames = False
        client.grant(2**28 - 65_535)
        assert checker.get("/health", [("user-agent", "Envoy/HC")]).status == 200
        assert json.loads(client.get("/environ", fields).text)["wsgi.url_scheme"] == "https"
        upload = client.request("POST", "/digest", fields, body=pattern(SIZE))
        assert json.loads(client.response(upload).text) == {"length": SIZE, "sha256": pattern_digest(SIZE)}
        sha256 = hashlib.sha256()
        assert client.response(client.request("GET", f"/bytes?n={SIZE}", fields, sink=sha256.update)).ended
        assert sha256.hexdigest() == pattern_digest(SIZE)
        assert dict(client.get("/trailers?when=started", fields).trailers)["x-checksum"] == "abc"
        client.ping()
        assert checker.get("/health", [("user-agent", "Envoy/HC")]).status == 200
