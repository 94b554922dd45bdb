"""The attacks of `make attack`, for a moment each: how each of them ends, and that another client is served."""

import json
import threading
from dataclasses import replace

import pytest

from bench.apps.content import HELLO
from bench.attack import report
from bench.attack.__main__ import main
from bench.attack.assault import Assault
from bench.attack.attacks import ATTACKS
from bench.attack.bystander import RATE
from bench.attack.link import NO_HANDSHAKE, REFUSED, STAYED
from bench.attack.measuring import Latency, Result, measure
from bench.attack.servers import OURS_UNDER_ATTACK, with_threads
from bench.client import Connection
from bench.running import free_port, serve

MOMENT, LONG_ENOUGH = 0.25, 5.0
FEW = 40
"""Connections of an attack that has many; more than threads."""
ALONE = {"slow-clients"}
"""What takes a server of its own."""


@pytest.fixture(scope="module", params=OURS_UNDER_ATTACK, ids=lambda server: server.name)
def victim(request, bench_certificate):
    """A worker with the default limits."""
    with serve(with_threads(request.param, 16), "plain", bench_certificate, core=None) as running:
        yield running


class Bystander(threading.Thread):
    """Makes one request after another, on a connection that is older than the attack."""

    def __init__(self, port):
        super().__init__()
        self._connection, self._enough = Connection(port), threading.Event()
        self.bodies, self.error = [], None

    def run(self):
        """Ask until the attack is over, and once more."""
        try:
            while not self._enough.is_set():
                self.bodies.append(bytes(self._connection.fetch("/hello").body))
            self.bodies.append(bytes(self._connection.fetch("/hello").body))
        except Exception as error:
            self.error = error

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._enough.set()
        self.join()
        self._connection.close()


def attack_briefly(attack, port):
    """Attack for a moment, or until each connection has ended once; return the tally."""
    small = replace(attack, connections=min(attack.connections, FEW), rate=min(attack.rate, 200.0))
    with Bystander(port) as bystander:
        tally = Assault(small, port).run(MOMENT if STAYED in attack.ends else LONG_ENOUGH, small.connections)
    assert bystander.error is None
    assert set(bystander.bodies) == {HELLO}
    return tally


def check(attack, tally):
    """Every end is one of those that the attack may come to; a flood comes to it before its time is over."""
    assert set(tally.ends) <= attack.ends | {STAYED}, tally
    assert tally.ends.keys() & attack.ends, tally
    assert tally.connections == tally.ends.total()


@pytest.mark.timeout(180)
def test_how_each_attack_ends(victim):
    """The bystander is served throughout, and a newcomer after each attack."""
    failures = {}
    for name in ATTACKS.keys() - ALONE:
        try:
            check(ATTACKS[name], attack_briefly(ATTACKS[name], victim.port))
            with Connection(victim.port) as newcomer:
                assert newcomer.fetch("/hello").status == 200
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {error}"
    assert failures == {}
    assert "Traceback" not in (victim.folder / "log").read_text()


@pytest.mark.alone
@pytest.mark.timeout(120)
@pytest.mark.parametrize("server", OURS_UNDER_ATTACK, ids=lambda server: server.name)
def test_slow_clients(server, bench_certificate):
    """600 slow requests and four threads: others are served, in little memory, and nothing is left of it.

    The bound on memory leaves room for what malloc keeps while other tests share the cores: alone it is 40 to 60 MiB.
    """
    attack = ATTACKS["slow-clients"]
    result = measure(server, attack, 4.0, bench_certificate, (None, None))
    assert (result.under.newcomers_failed, result.after.failed) == (0, 0)
    # Of those of the first moments it may have had to leave out some, because too many waited.
    assert result.under.failed < RATE * attack.settle
    assert result.under.p50 < 10 * result.quiet.p99
    assert (result.ends, result.left) == ({STAYED: 240}, {})
    assert result.memory_growth < 96 * report.MIB


def test_the_command(tmp_path, capsys):
    """The whole of it for one attack: the processes, the phases, the reports."""
    assert main(["--servers", "thread", "--attacks", "ping", "--seconds", "0.5", "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "results.json").read_text())
    (result,) = found["results"]
    assert (result["server"], result["attack"], found["failures"]) == ("thread", "ping", [])
    assert "tracebacks" not in result["left"]
    # An address whose connections are ended again and again is refused.
    assert set(result["ends"]) <= {"ENHANCE_YOUR_CALM", STAYED, REFUSED, NO_HANDSHAKE}
    assert "ENHANCE_YOUR_CALM" in result["ends"]
    for phase in ("quiet", "under", "after"):
        assert result[phase]["requests"] > 0 == result[phase]["failed"]
        assert 0 < result[phase]["p50"] <= result[phase]["p99"] <= result[phase]["worst"]
    assert result["under"]["newcomers"] >= 1
    assert result["rate"] > 0 < result["cpu"]
    text = (tmp_path / "report.md").read_text()
    assert "| PING | " in text
    assert text in capsys.readouterr().out


def result(server, under_p99, failed=0, **changes):
    """A result with a p99 under attack."""
    quiet = Latency(0.3, 0.5, 1.0, 300, 0, 2.0, 3.0, 15, 0, 0.1)
    under = replace(quiet, p99=under_p99, failed=failed)
    return replace(Result(server=server, attack="ping", seconds=3.0, quiet=quiet, under=under, after=quiet,
                          memory_growth=2 * 1024**2, memory_left=0, cpu=0.5, rate=4e6, connections=4, responses=0,
                          resets={}, ends={"stayed": 1, "closed": 3}, left={}), **changes)  # fmt: skip


def test_the_report_puts_servers_side_by_side():
    machine = {"packages": {"h2": "4"}, "date": "today", "revision": "abc", "processor": "one", "cores": 2,
               "kernel": "Linux", "python": "CPython", "openssl": "OpenSSL"}  # fmt: skip
    results = [result("ours", 1.4), result("theirs", 900.0, 20, left={"descriptors": 7}),
               result("dead", 0.0, 300, attack="idle")]  # fmt: skip
    text = report.markdown(machine, results, [("theirs", "idle", "did not start")])
    assert "| PING | 1 | 900 (20 failed) | - |" in text
    assert "| 1 500 idle connections at once | - | - | never (300 failed) |" in text
    assert "| PING | 0.3 / 0.5 | 0.3 / 1.4 | 2 / 3 | 0 | 2 | 0 | 50% | 4.0 | 4 | closed 3, stayed 1 | nothing | 0.1 |" \
        in text
    assert "| 20 of 300 |" in text
    assert "| 7 descriptors |" in text
    assert "| theirs | idle | did not start |" in text


def test_a_server_that_is_not_there_refuses_every_connection():
    tally = Assault(ATTACKS["ping"], free_port()).run(5, 8)
    assert (set(tally.ends), tally.octets) == ({REFUSED}, 0)


def test_unknown_attacks_are_named():
    with pytest.raises(SystemExit, match="'pings' fits none of tiny-fields"):
        main(["--attacks", "pings"])
