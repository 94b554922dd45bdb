"""HAProxy before two servers, one of which goes: what is repeated, what is not, and how it comes back."""

import pytest

from tests.support.gate import Gate
from tests.support.h2client import REFUSED_STREAM, H2Client
from tests.support.load import Load
from tests.support.node import NodeClient

from .traffic import SOME

ABSENT = "Server app/app1 is DOWN"
BACK = "Server app/app1 is UP"


@pytest.fixture
def machines(behind_proxy):
    """Two servers."""
    return [behind_proxy(name) for name in ("app1", "app2")]


@pytest.fixture(params=["behind_proxy", "behind_proxy_tls"])
def start(request):
    """What starts a server, for HTTP/2 with prior knowledge, and over TLS."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def client(machines, haproxy):
    """A client of HAProxy's."""
    with H2Client.connect(haproxy(*machines)) as client:
        yield client


def test_one_is_killed_under_load(start, haproxy):
    """No GET is lost: neither when it dies, nor while it is away, nor when it comes back."""
    machines = [start(name) for name in ("app1", "app2")]
    front = haproxy(*machines)
    with Load(front) as load:
        load.wait_answered(50)
        machines[0].kill()
        load.wait_answered(50)
        front.wait_log(ABSENT, timeout=20)
        load.wait_answered(50)
        for client in load.clients:
            client.versions.clear()
        again = start("again", port=machines[0].port)
        front.wait_log(BACK, timeout=20)
        load.wait_answered(50)
    assert load.lost == []
    pids = {text.split(b'"pid": ')[1] for client in load.clients for text in client.versions}
    assert {b"%d}" % again.worker_pid, b"%d}" % machines[1].worker_pid} <= pids


def test_one_is_stopped_under_load(machines, haproxy):
    """SIGTERM: nothing is lost, slow uploads and event streams included."""
    with NodeClient(haproxy(*machines), chains=4) as node:
        node.wait_for_more(**SOME)
        machines[0].stop()
        node.wait_for_more(**SOME)
    assert node.seen["lost"] == []


def at_both(client, gate, method, path="/gate"):
    """Send a request to each of the servers, the less busy of which gets the next; return the streams."""
    streams = [client.request(method, gate.path(path)) for _ in range(2)]
    gate.wait_inside(2)
    return streams


def test_what_becomes_of_requests_under_way(client, machines):
    """A GET that waits for its response is sent to the other server. A POST is not, for the application may have acted
    already: HAProxy leaves it to the client, by 502 or REFUSED_STREAM. A response that has begun is cut off."""
    with Gate() as gate:
        gets, posts = at_both(client, gate, "GET"), at_both(client, gate, "POST")
        begun = [client.request("GET", "/bytes?n=100000000&length") for _ in range(2)]
        client.wait_for(lambda: all(stream.received for stream in begun), "both beginnings")
        machines[0].kill()
        client.wait_for(lambda: any(stream.done for stream in begun), "the end of one")
        (broken,) = [stream for stream in begun if stream.done]
        assert broken.received < 100_000_000  # By Content-Length the client can tell.
        client.wait_for(lambda: any(stream.done for stream in posts), "the end of one")
        gate.wait_inside()  # The GET is back.
        gate.release()
        assert [client.response(stream).status for stream in gets] == [200, 200]
        ends = {(client.response(stream).status, stream.reset) for stream in posts}
        assert ends in ({(200, None), (502, None)}, {(200, None), (None, REFUSED_STREAM)})


def test_posts_that_cannot_be_sent_go_elsewhere(client, machines):
    """Nobody has seen them, so that it does no harm."""
    assert client.post("/count", b"before").status == 200
    machines[0].kill()
    streams = [client.request("POST", "/count", body=b"body") for _ in range(4)]
    assert [client.response(stream).status for stream in streams] == [200] * 4
