"""Kubernetes: the manifests by its schemas, and a pod with what connects to it: ingresses, kubelets, nodes."""

import asyncio
import ipaddress
import signal
import threading
from contextlib import closing

import pytest

from tests.support.h1client import exchange, request_bytes
from tests.support.h2client import H2Client
from tests.support.load import Load
from tests.support.node import NodeClient

from .configurations import names_of, read
from .traffic import SOME, Route, check_all

STRANGER = "127.0.0.2"
"""A node's address, which is not in the pods' network."""


@pytest.fixture(scope="module")
def manifests():
    """The objects of app.yaml by their kind; by the schemas of the newest version no field is unknown."""
    return {manifest["kind"]: manifest for manifest in read("kubernetes", "kubernetes/app.yaml")}


@pytest.fixture(scope="module")
def pod(manifests):
    """The pod's specification."""
    return manifests["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture
def start_pod(gunicorn, pod):
    """A function that starts Gunicorn as the container's command does."""
    program, *arguments = pod["containers"][0]["command"]
    assert program == "gunicorn"

    def start(name):
        return gunicorn("kubernetes/kubernetes.py", {"0.0.0.0:8000": "127.0.0.1:0", "10.0.0.0/8": "127.0.0.1"}, name,
                        arguments=arguments)

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


def probe(pod, source=None):
    """Return what a kubelet's probe gets: HTTP/1.1, a connection for each."""
    fields = [("User-Agent", "kube-probe/1.31"), ("Accept", "*/*"), ("Connection", "close")]
    request = request_bytes(pod, path="/health", headers=fields, host="10.1.2.3:8000")
    return exchange(pod, request, source=source).status


def test_kubernetes(start_pod, large):
    """Ingress and mesh by prior knowledge, kubelets by HTTP/1.1, at one port, wherever their probes come from."""
    server = start_pod("pod")
    with H2Client.connect(server) as client:
        assert client.get("/health").status == 200
        assert probe(server) == probe(server, STRANGER) == 200
        assert client.get("/health").status == 200
    check_all(Route(server, server, forwards=False), large)


class Node:
    """A Service's address on a node: a connection goes to the pod that is chosen when it is made, and stays there."""

    def __init__(self, pod):
        self.pod, self.tls, self.socket_path, self.host, self.scheme = pod, False, None, "127.0.0.1", "http"
        self.certs, self._loop = pod.certs, asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._connect, self.host, 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self.authority = f"{self.host}:{self.port}"
        self.url = f"http://{self.authority}"

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _connect(self, reader, writer):
        try:
            from_pod, to_pod = await asyncio.open_connection(self.host, self.pod.port)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(self._pass_on(reader, to_pod), self._pass_on(from_pod, writer))

    @staticmethod
    async def _pass_on(reader, writer):
        with closing(writer):
            try:
                while data := await reader.read(65_536):
                    writer.write(data)
                    await writer.drain()
            except ConnectionError:
                pass

    def __enter__(self):
        return self

    async def _close(self):
        self._server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def __exit__(self, *exc_info):
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def test_a_rolling_update(start_pod):
    """No request is lost: the new pod is ready, the old one is no endpoint any more, preStop, SIGTERM.

    One of two nodes learns of the endpoints at once. The other one still connects to the old pod, while preStop lasts.
    """
    old = start_pod("old")
    with Node(old) as prompt, Node(old) as late, Load(prompt, clients=2) as load, NodeClient(late, chains=4) as node:
        load.wait_answered(20)
        node.wait_for_more(**SOME)
        new = start_pod("new")
        assert probe(new) == 200
        prompt.pod = new
        with H2Client.connect(late) as client:
            assert client.get("/version").text.endswith(f'"pid": {old.worker_pid}}}')
        assert probe(old) == 200
        load.wait_answered(20)
        node.wait_for_more(hello=20)
        late.pod = new
        old.signal(signal.SIGTERM)
        assert old.wait_exit(20) == 0
        for client in load.clients:
            client.versions.clear()
        load.wait_answered(20)
        node.wait_for_more(**SOME)
    assert load.lost == node.seen["lost"] == []
    assert all(text.endswith(b'"pid": %d}' % new.worker_pid) for client in load.clients for text in client.versions)
