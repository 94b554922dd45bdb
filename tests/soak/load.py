"""The load: clients that are to lose nothing, clients that come and go as they like, and attacks."""

import contextlib
import random
import re
import subprocess
import sys
import threading

from tests.support.h2client import H2Client
from tests.support.load import LoadClient
from tests.support.node import NodeClient
from tests.support.tools import run

BODY = b"x" * 300_000
BULK_REQUESTS = 2_000


class Roamer(threading.Thread):
    """Does something else on each connection, and leaves when it likes, also in the middle."""

    def __init__(self, server, seed):
        super().__init__(daemon=True)
        self._server, self._random, self._enough = server, random.Random(seed), threading.Event()
        self.connections = 0

    def run(self):
        """Come and go."""
        habits = (self._upload, self._break_off, self._listen, self._reset, self._leave, self._speak_http1)
        while not self._enough.is_set():
            with contextlib.suppress(OSError, AssertionError):
                if (habit := self._random.choice(habits)) == self._speak_http1:
                    self._speak_http1()
                    continue
                with H2Client.connect(self._server) as client:
                    client.keep_frames = False
                    habit(client)
            self.connections += 1
            self._enough.wait(self._random.uniform(0, 0.05))

    def finish(self):
        """Stop after the present connection."""
        self._enough.set()
        self.join(60)

    def _upload(self, client):
        client.post("/count", BODY)

    def _break_off(self, client):
        """Leave in the middle of an upload and of a download."""
        client.request("POST", "/count", body=BODY[: self._random.randrange(len(BODY))], end=False)
        stream = client.request("GET", "/bytes?n=3000000")
        wanted = self._random.randrange(2_000_000)
        client.wait_for(lambda: stream.received > wanted or stream.done, "some of it")

    def _listen(self, client):
        """Listen to events for a while."""
        stream = client.request("GET", "/events?n=1000&s=0.01")
        wanted = self._random.randrange(300)
        client.wait_for(lambda: stream.received > wanted or stream.done, "some events")

    def _reset(self, client):
        """Cancel requests, as browsers do."""
        for _ in range(10):
            stream = client.request("GET", "/bytes?n=300000")
            client.wait_for(lambda stream=stream: stream.received or stream.done, "the beginning")
            client.reset(stream)
        client.get("/hello")

    def _leave(self, client):
        """Leave before anything has come."""
        client.request("GET", "/hello")

    def _speak_http1(self):
        run("curl", "--silent", "--cacert", self._server.certs.ca, "--http1.1", "--max-time", "20",
            self._server.url + "/hello", self._server.url + "/bytes?n=100000", check=False, text=False)


class Bulk(threading.Thread):
    """h2load, again and again: all of its requests must be answered."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self._server, self._enough = server, threading.Event()
        self.answered, self.lost = 0, []

    def run(self):
        """Run h2load and see what it says."""
        while not self._enough.wait(1):
            output = run("h2load", "-n", BULK_REQUESTS, "-c", 8, "-m", 8, self._server.url + "/hello").stdout
            good = int(re.search(r"status codes: (\d+) 2xx", output)[1])
            self.answered += good
            if good != BULK_REQUESTS:
                self.lost.append(f"h2load had {good} of {BULK_REQUESTS} answers\n{output}")

    def finish(self):
        """Stop after the present run."""
        self._enough.set()
        self.join(60)


@contextlib.contextmanager
def attacks(server, seconds):
    """Attack for as long as the block lasts."""
    command = [sys.executable, "-m", "tests.soak.attacker", str(server.port), str(seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.communicate()


class Load:
    """Everything at once. `lost` says what was lost by those who lose nothing."""

    def __init__(self, server, attack_seconds, bulk):
        self._server, self._attack_seconds = server, attack_seconds
        self._node = NodeClient(server)
        self._graceful = [LoadClient(server, path="/hello") for _ in range(2)]
        self._roamers = [Roamer(server, seed) for seed in range(3)]
        self._bulk = [Bulk(server)] if bulk else []
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(attacks(self._server, self._attack_seconds))
            stack.enter_context(self._node)
            for thread in (*self._graceful, *self._roamers, *self._bulk):
                thread.start()
                stack.callback(thread.finish)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info):
        self._stack.close()

    @property
    def lost(self):
        """What was lost, in words."""
        return [text for client in (*self._graceful, *self._bulk) for text in client.lost] + self._node.seen["lost"]

    @property
    def answered(self):
        """How many requests had to be answered, and were."""
        node = sum(self._node.seen[kind] for kind in ("hello", "upload", "events"))
        return node + sum(client.answered for client in (*self._graceful, *self._bulk))
