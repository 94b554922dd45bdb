"""gRPC on real workers, driven by grpcio: every kind of call, with TLS and by prior knowledge without."""

import json
import os
import random
import struct
import threading

import grpc
import httpx
import pytest

from tests.grpc.interop import pb
from tests.support.server import Server

from . import cases
from .cases import TIMEOUT, error_of, noted
from .conftest import KINDS, Client

CALLS = int(os.environ.get("GRPC_CALLS", "400"))
"""At random, for each way to serve; GRPC_CALLS=10000 takes some ten seconds each."""
IN_FLIGHT = 40

# Few tests of modules run what these do.
pytestmark = pytest.mark.covered


class Swarm:
    """Calls of all kinds at random, `IN_FLIGHT` at a time; some are cancelled, and some have a short deadline."""

    def __init__(self, stub, seed):
        self.stub = stub
        self.random = random.Random(seed)
        self.room = threading.Semaphore(IN_FLIGHT)
        self.wrong, self.outcomes = [], {}

    def run(self, calls):
        """Make the calls, and wait for all of them."""
        for number in range(calls):
            assert self.room.acquire(timeout=TIMEOUT)
            self.begin(number)
        for _ in range(IN_FLIGHT):
            assert self.room.acquire(timeout=TIMEOUT)

    def begin(self, number):
        """Begin a call."""
        kind = self.random.choice(("plain", "plain", "large", "upload", "deadline", "cancel", "status"))
        size = self.random.randrange(3_000)
        request = pb.Request(body=number.to_bytes(4, "big") * (size % 100), size=size)
        if kind == "large":
            request.size = 100_000 + size
        elif kind == "status":
            request.code, request.details = 5, str(number)
        elif kind in ("deadline", "cancel"):
            request.pause = 0.03
        timeout = 0.01 if kind == "deadline" else TIMEOUT
        if kind == "upload":
            call = self.stub.Upload.future(iter([request] * 3), timeout=timeout)
        else:
            call = self.stub.Unary.future(request, timeout=timeout)
        call.add_done_callback(lambda call: self.end(kind, number, request, call))
        if kind == "cancel":
            call.cancel()

    def end(self, kind, number, request, call):
        """Note what is wrong with the outcome of a call."""
        expected = {"deadline": grpc.StatusCode.DEADLINE_EXCEEDED, "cancel": grpc.StatusCode.CANCELLED,
                    "status": grpc.StatusCode.NOT_FOUND}.get(kind, grpc.StatusCode.OK)
        self.outcomes[expected] = self.outcomes.get(expected, 0) + 1
        right = call.code() is expected
        if right and kind == "status":
            right = call.details() == str(number)
        elif right and kind == "upload":
            right = call.result().received == 3 * len(request.body)
        elif right and expected is grpc.StatusCode.OK:
            answer = call.result()
            right = (len(answer.body), answer.received) == (request.size, len(request.body))
        if not right:
            self.wrong.append((kind, number, call.code(), call.details()))
        self.room.release()


def test_calls(server, setup):
    """Every case, one after another over one connection; then many calls at a time, and other requests."""
    with Client(server) as client:
        play_all(client, setup)
        swarm = Swarm(client.stub, seed=1)
        swarm.run(CALLS)
        assert swarm.wrong == []
        assert len(swarm.outcomes) == 4
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
