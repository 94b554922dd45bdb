"""gRPC on real workers, driven by grpcio: every kind of call, with TLS and by prior knowledge without."""

import json
import os
import random
import struct
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import grpc
import httpx
import pytest

from tests.grpc.interop import pb
from tests.support.server import Server

from . import cases
from .cases import TIMEOUT, error_of, noted
from .conftest import KINDS, SETUPS, Client

CALLS = int(os.environ.get("GRPC_CALLS", "10000"))
"""At random, in all: each way to serve has the same part of them."""
IN_FLIGHT = 40
METHODS = ("Unary", "Upload", "Download", "PingPong")
ENDS = (*["complete"] * 4, "status", "deadline", "cancelled at once", "cancelled later")
CODES = {"complete": grpc.StatusCode.OK, "status": grpc.StatusCode.NOT_FOUND,
         "deadline": grpc.StatusCode.DEADLINE_EXCEEDED, "cancelled at once": grpc.StatusCode.CANCELLED,
         "cancelled later": grpc.StatusCode.CANCELLED}
PATIENCE = 120
"""Seconds that a call of these has which is to end by itself: 40 at a time wait for each other on a busy machine."""
MOMENT = 0.02
"""Seconds after which a call is cancelled that has no response to wait for, or that a deadline leaves."""

# Few tests of modules run what these do.
pytestmark = pytest.mark.covered


class Call(NamedTuple):
    """A call to make, and how it is to end."""

    number: int
    method: str
    end: str
    size: int
    """Octets of each response."""

    @property
    def streams(self):
        """Whether there is a stream of responses."""
        return self.method in ("Download", "PingPong")

    @property
    def lasts(self):
        """Whether the call goes on until the client, or the deadline, ends it."""
        return self.end not in ("complete", "status")

    @property
    def request(self):
        """The request, or each of three."""
        if self.method == "Unary" and self.lasts:
            return pb.Request(action="hang", body=b"%d" % self.number)
        request = pb.Request(body=b"%d," % self.number * (self.size % 100), size=self.size)
        if self.method == "Download":
            request.sizes.extend((self.size, 0, 1))
            if self.lasts:
                # Responses without end, one at a time.
                request.action, request.pause = "hang", MOMENT / 2
        if self.end == "status":
            request.code, request.details = CODES["status"].value[0], str(self.number)
        return request

    @property
    def responses(self):
        """What comes of a call that goes well, as `collect` returns it; of one with a status, what comes before."""
        received = len(self.request.body)
        if self.method == "Download":
            return [(size, received) for size in (self.size, 0, 1)]
        if self.end == "status":
            return []
        return {"Unary": [(self.size, received)], "Upload": [(0, 3 * received)],
                "PingPong": [(self.size, received)] * 3}[self.method]

    def begin(self, stub, released):
        """Begin the call; a stream of requests has no end before `released` is set."""
        timeout = MOMENT if self.end == "deadline" else PATIENCE
        argument = self.request
        if self.method in ("Upload", "PingPong"):
            argument = requests([argument] * 3, released)
        method = getattr(stub, self.method)
        return (method if self.streams else method.future)(argument, timeout=timeout)

    def cancel(self, running):
        """Cancel the call: at once, after its first response, or after a moment if it has one response only."""
        if self.end == "cancelled later" and self.streams:
            assert len(next(running).body) == self.size
        elif self.end == "cancelled later":
            with pytest.raises(grpc.FutureTimeoutError):
                running.result(timeout=MOMENT)
        assert running.cancel()

    def collect(self, running):
        """Wait for the end; return the responses, as octets of the body and octets received."""
        responses = []
        try:
            for response in running if self.streams else (future.result() for future in [running]):
                responses.append((len(response.body), response.received))
        except (grpc.RpcError, grpc.FutureCancelledError):
            pass
        return responses

    def play(self, stub):
        """Make the call; fail if it does not end as it is to."""
        released = threading.Event()
        if not self.lasts:
            released.set()
        try:
            running = self.begin(stub, released)
            if self.end.startswith("cancelled"):
                self.cancel(running)
            responses = self.collect(running)
        finally:
            released.set()
        assert running.code() is CODES[self.end], f"{running.code()}: {running.details()}"
        if not self.lasts:
            assert responses == self.responses
        if self.end == "status":
            assert running.details() == str(self.number)


def requests(first, released):
    """A stream of requests, which ends when `released` is set."""
    yield from first
    released.wait(PATIENCE)


class Swarm:
    """Calls of all four kinds at random, `IN_FLIGHT` at a time.

    Half of them go well. An eighth of them each ends with a status, by a deadline, by being cancelled at once, and by
    being cancelled later: after the first response of a stream, or after a moment. What a deadline or the client is to
    end goes on by itself, so that each call has one right outcome.
    """

    def __init__(self, stub, seed):
        self.stub, self.random = stub, random.Random(seed)
        self.wrong, self.played = [], Counter()

    def run(self, count):
        """Make so many calls, and wait for all of them."""
        calls = [self.choose(number) for number in range(count)]
        self.played = Counter((call.method, call.end) for call in calls)
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            self.wrong = [wrong for wrong in pool.map(self.play, calls) if wrong]

    def choose(self, number):
        """A call at random."""
        method, end, size = self.random.choice(METHODS), self.random.choice(ENDS), self.random.randrange(3_000)
        is_large = self.random.random() < 0.1
        return Call(number, method, end, size + 100_000 * is_large)

    def play(self, call):
        """Make a call; return what is wrong with its outcome, if anything is."""
        try:
            call.play(self.stub)
        except Exception as error:
            return f"{call}: {type(error).__name__}: {error}"
        return None


@pytest.mark.timeout(300)
def test_calls(server, setup):
    """Every case, one after another over one connection; then many calls at a time, and other requests."""
    with Client(server) as client:
        play_all(client, setup)
        swarm = Swarm(client.stub, seed=1)
        swarm.run(CALLS // len(SETUPS))
        assert swarm.wrong == []
        assert len(swarm.played) == len(METHODS) * len(set(ENDS))
    with httpx.Client(verify=server.certs.client_context(alpn=()), http1=False, http2=True) as http:
        assert http.get(server.url).text == "a page\n"
        refused = http.post(server.url, content=b"", headers={"content-type": "application/grpc-web+proto"})
        assert refused.status_code == 415
        assert http.get(server.url, headers={"content-type": "application/grpc"}).status_code == 405
        check_the_deadline_of_the_server(server, http)


RETRIES = {"grpc.service_config": json.dumps({"methodConfig": [{
    "name": [{"service": "gunicorn_h2.tests.Interop", "method": "Nothing"}],
    "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.2s", "maxBackoff": "1s", "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"]}}]})}


def test_a_cancelled_call_that_goes_on_has_the_place_of_another(certs, tmp_path):
    """A new one is refused, for which grpcio has the status UNAVAILABLE; with a retry policy it tries again."""
    kind, app = KINDS["thread"]
    server = Server(tmp_path, kind, certs, app, tls=False, http2_max_concurrent_streams=1).start()
    try:
        own_connection = {"grpc.use_local_subchannel_pool": 1}
        with Client(server, arguments=RETRIES) as client, Client(server, arguments=own_connection) as other:
            stubborn = client.stub.Unary.future(pb.Request(action="noted", body=b"began release"), timeout=TIMEOUT)
            noted(other, "awaited began release")
            stubborn.cancel()
            error_of(lambda: client.stub.Unary(pb.Request(), timeout=TIMEOUT), grpc.StatusCode.UNAVAILABLE)
            patient = client.stub.Nothing.future(pb.Empty(), timeout=TIMEOUT)
            release = pb.Request(action="hang", body=b"release")
            error_of(lambda: other.stub.Unary(release, timeout=0.1), grpc.StatusCode.DEADLINE_EXCEEDED)
            assert patient.result() == pb.Empty()
    finally:
        server.stop()


def check_the_deadline_of_the_server(server, http):
    """A client that does not end the call itself is told when its time is over."""
    message = pb.Request(action="hang", body=b"patient").SerializeToString()
    response = http.post(f"{server.url}/gunicorn_h2.tests.Interop/Unary",
                         content=struct.pack(">BL", 0, len(message)) + message,
                         headers={"content-type": "application/grpc", "te": "trailers", "grpc-timeout": "50m"})
    assert (response.headers["grpc-status"], response.content) == ("4", b"")


def play_all(client, setup):
    """Play every case, and fail with all that are wrong."""
    failures = {}
    for name, play in vars(cases).items():
        if name.startswith("case_"):
            try:
                play(client, setup)
            except Exception as error:
                failures[name] = error
    if failures:
        text = "\n".join(f"{name}: {type(error).__name__}: {error}" for name, error in failures.items())
        raise AssertionError(text) from next(iter(failures.values()))
