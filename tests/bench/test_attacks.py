"""What `bench.attacks` measures is what it says: honest traffic goes on, hostile traffic ends."""

import itertools
import math

import pytest

from bench import attacks
from gunicorn_h2.protocol.config import ConnectionConfig

CHEAP = {"evictions"}
"""What costs less by octet than small requests, and is free."""


@pytest.fixture(params=["fast", "h2"])
def config(request):
    """The default limits, on each engine."""
    return ConnectionConfig(engine=request.param)


def serve(make, config, pieces):
    """Feed the first pieces of what a client sends, and return the cost."""
    cost = attacks.Cost()
    attacks.serve_one(itertools.chain(itertools.islice(make(), pieces), [b""]), config, cost, math.inf)
    return cost


@pytest.mark.parametrize("name", [*attacks.HONEST, *CHEAP])
def test_honest_traffic_goes_on(config, name):
    cost = serve({**attacks.HONEST, **attacks.HOSTILE}[name], config, 300)
    assert (cost.connections, cost.end) == (0, "goes on")
    assert cost.octets > 10_000


@pytest.mark.parametrize("name", sorted(attacks.HOSTILE.keys() - CHEAP))
def test_hostile_traffic_ends(config, name):
    cost = serve(attacks.HOSTILE[name], config, 20_000)
    assert cost.connections == 1
    assert cost.end.startswith("ENHANCE_YOUR_CALM: ")
    assert cost.octets < 400_000


def test_a_measurement_knows_its_frames():
    cost = attacks.measure(attacks.HOSTILE["PING"], ConnectionConfig(), 0.02)
    assert cost.frames == pytest.approx(cost.octets / 17, rel=0.01)
    assert cost.connections >= 1
    assert cost.by_kib > 0 < cost.longest_read <= cost.seconds


def test_the_table_has_a_line_for_each_kind_that_is_asked_for(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["attacks", "--seconds", "0.001", "PING*", "hello"])
    attacks.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line[:32].strip() for line in lines] == ["traffic", "hello", "PING", "PING ACK"]
