"""Mixed load on each worker class in turn: memory, descriptors and requests are counted.

A server with two workers is under load from clients that lose nothing (ours, Node's, h2load), from clients that come
and go, and under all attacks of `make attack` in turn. First nothing changes: after the first minute memory must stay
within five in a hundred. Then it is left in peace, and must hold no more descriptors than before.
Then workers are replaced all the time, by reloads, signals and `max_requests`, and no request may be lost.
"""

import argparse
import contextlib
import itertools
import json
import os
import signal
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.attack.measuring import Resources
from bench.processes import resident_octets
from tests.soak.load import Load
from tests.support.certs import Certs
from tests.support.h2client import H2Client
from tests.support.kinds import KINDS as CLASSES
from tests.support.server import Server

APPS = {"thread": "tests.soak.app:wsgi", "gevent": "tests.soak.app:wsgi", "asgi": "tests.soak.app:asgi"}
STEADY_SHARE = 0.65
WARM_SECONDS, WARM_SHARE = 60.0, 0.25
WINDOW_SHARE = 0.2
"""Of the steady time, at its beginning and at its end: what memory is compared by, the median of each."""
GROWTH_LIMIT, SHORT_GROWTH_LIMIT = 0.05, 0.5
"""Of memory after the first minute; of a run too short for that, which cannot tell growth from warming up."""
ATTACK_SECONDS = 0.4
"""For each attack, so that all of them have been there several times in the first minute."""
SAMPLE_SECONDS = 0.5
CHANGE_SECONDS = 2.0
CURVE_POINTS = 20
VISIT_SECONDS = 20.0
"""How long until each worker has answered, where the kernel chooses which."""
IDLE_SECONDS = 20.0
"""How long a server may take to be done with what its clients have left it."""
MIB = 1024 * 1024


class Soak:
    """The soak of one worker class. `failures` has what was wrong, in words."""

    def __init__(self, name, folder, seconds):
        self.name, self.seconds, self.failures = name, seconds, []
        self.server = Server(folder, CLASSES[name], Certs(folder), APPS[name], workers=2, threads=32, accesslog=None,
                             keepalive=5, graceful_timeout=20, timeout=60, http2_drain_timeout=1, loglevel="info")
        # What clients that go leave in the log.
        self.server.expect("StreamAborted")

    def run(self):
        """Run all of it; return whether everything was as it must be."""
        self.server.start()
        try:
            self._visit_all()
            before = self._held()
            self._steady(self.seconds * STEADY_SHARE)
            self._check_held(before)
            self._changing(self.seconds * (1 - STEADY_SHARE))
            self._visit()
            self.server.wait_settled()
        finally:
            with self._noting("the log"):
                self.server.stop(40)
        return not self.failures

    @contextlib.contextmanager
    def _noting(self, what):
        """Note an error as a failure, and go on."""
        try:
            yield
        except AssertionError as error:
            self._fail(f"{what}: {str(error)[-2000:]}")

    def _say(self, text):
        print(f"{self.name:8} {text}", flush=True)

    def _fail(self, text):
        self.failures.append(text)
        self._say(f"FAILED: {text}")

    def _visit(self):
        """See that the server answers."""
        with H2Client.connect(self.server) as client:
            assert client.get("/hello").status == 200

    def _visit_all(self):
        """Have each worker answer: one that is ready may still have descriptors to open before it serves."""
        end, seen = time.monotonic() + VISIT_SECONDS, set()
        while seen != set(self.server.worker_pids):
            assert time.monotonic() < end, f"of {self.server.worker_pids} only {seen} have answered"
            with H2Client.connect(self.server) as client:
                seen.add(json.loads(client.get("/version").body)["pid"])

    def _held(self):
        return Resources.of(self.server.worker_pids)

    def _steady(self, seconds):
        """Nothing changes but the load: what memory it takes after a while is enough for it."""
        warm = min(WARM_SECONDS, seconds * WARM_SHARE)
        samples, started = [], time.monotonic()
        with Load(self.server, ATTACK_SECONDS, bulk=True) as load:
            while (elapsed := time.monotonic() - started) < seconds:
                samples.append((elapsed, resident_octets(self.server.worker_pids)))
                time.sleep(SAMPLE_SECONDS)
        window = (seconds - warm) * WINDOW_SHARE
        first = statistics.median(octets for at, octets in samples if warm <= at < warm + window)
        last = statistics.median(octets for at, octets in samples if at >= seconds - window)
        text = f"memory of both workers {first / MIB:.1f} MiB after {warm:.0f} s, {last / MIB:.1f} MiB at the end"
        self._say(f"{text}; {load.answered} requests answered")
        curve = samples[:: max(1, len(samples) // CURVE_POINTS)]
        self._say("memory, MiB: " + ", ".join(f"{octets / MIB:.0f} at {at:.0f} s" for at, octets in curve))
        if last > first * (1 + (GROWTH_LIMIT if warm == WARM_SECONDS else SHORT_GROWTH_LIMIT)):
            self._fail(text)
        self._check_lost(load)

    def _check_lost(self, load):
        if load.lost:
            self._fail(f"{len(load.lost)} requests lost, the first: {load.lost[0]}")

    def _check_held(self, before):
        """Left in peace, the workers hold what they held in the beginning; a pool may keep its threads."""
        end = time.monotonic() + IDLE_SECONDS
        while (held := self._held()).descriptors > before.descriptors and time.monotonic() < end:
            time.sleep(SAMPLE_SECONDS)
        self._say(f"descriptors {before.descriptors} before, {held.descriptors} after; "
                  f"threads {before.threads}, {held.threads}")  # fmt: skip
        if held.descriptors > before.descriptors or held.deleted_octets > before.deleted_octets:
            self._fail(f"held before: {before}; after: {held}")

    def _changing(self, seconds):
        """Workers are replaced all the time."""
        changes = itertools.cycle([self._reload, self._more, self._fewer, self._reload, self._retire])
        started, count = time.monotonic(), 0
        with Load(self.server, ATTACK_SECONDS, bulk=False) as load, self._noting("a change"):
            while time.monotonic() - started < seconds:
                next(changes)()
                count += 1
                time.sleep(CHANGE_SECONDS)
        self._say(f"{count} changes of workers, {load.answered} requests answered, {len(load.lost)} lost")
        self._check_lost(load)

    def _reload(self):
        self.server.reload(max_requests=0)

    def _more(self):
        mark = self.server.log_mark()
        self.server.signal(signal.SIGTTIN)
        self.server.wait_log("is ready", after=mark, timeout=30)

    def _fewer(self):
        mark = self.server.log_mark()
        self.server.signal(signal.SIGTTOU)
        self.server.wait_log("Worker exiting", after=mark, timeout=60)

    def _retire(self):
        """Workers end after so many requests, for a while."""
        self.server.reload(max_requests=500, max_requests_jitter=200)
        self.server.wait_log("Autorestarting worker", after=self.server.log_mark(), timeout=30)


def main():
    """Soak every worker class asked for; exit with 1 where something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--worker", action="append", choices=sorted(APPS), help="may be repeated (default: all)")
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("SOAK_SECONDS", 1800)),
                        help="for all of them together (default: SOAK_SECONDS, or 1800)")  # fmt: skip
    options = parser.parse_args()
    names = options.worker or list(APPS)
    failed = []
    for name in names:
        with TemporaryDirectory(prefix="soak-") as folder:
            soak = Soak(name, Path(folder), options.seconds / len(names))
            if not soak.run():
                failed.append(name)
    print("failed: " + ", ".join(failed) if failed else "all is well")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
