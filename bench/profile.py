"""Where the time and the calls of a request go, layer by layer, in a real worker under load.

    python -m bench.profile [--servers 'thread-*'] [--requests 4000] [--functions 15]

For each server three processes are measured in turn under the same load: an untouched one, whose processor time a
request is the truth; one that times its layers, for the shares; and one that counts its calls, which has no noise.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bench import callcount, h2load
from bench.callcount import Calls
from bench.client import Connection
from bench.layers import LAYERS
from bench.running import Certificate, NotAvailable, RunningServer, certificate, serve
from bench.servers import BUILT_IN, OURS, SERVERS, WSGI, Server, choose

TRUE_COST_FACTOR = 5
"""How many more requests the untouched process serves: its clock ticks are coarse."""


@dataclass(frozen=True)
class Profile:
    """What a request costs: microseconds of processor time, the layers' shares of it, and its calls."""

    server: str
    microseconds: float
    shares: dict[str, float]
    calls: Calls


def main(arguments: Sequence[str] | None = None) -> int:
    """Profile the servers asked for; return the exit status."""
    options = parse(arguments)
    gunicorns = [server for server in SERVERS if server.family in (OURS, BUILT_IN) and server.interface == WSGI]
    servers = {server.name: server for server in gunicorns}
    try:
        names = choose(list(servers), options.servers)
    except ValueError as error:
        raise SystemExit(f"profile: {error}") from None
    status = 0
    with certificate() as files:
        for name in names:
            try:
                print(render(profile(servers[name], files, options), options.functions))
            except (NotAvailable, h2load.H2LoadError) as error:
                print(f"{name} is not available: {error}\n", file=sys.stderr)
                status = 1
    return status


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description="Profile a request, layer by layer.")
    parser.add_argument("--servers", default="thread-fast,thread-h2", metavar="PATTERNS",
                        help="WSGI servers on Gunicorn (default: thread-fast,thread-h2)")  # fmt: skip
    parser.add_argument("--requests", type=int, default=4000, help="requests to profile (default: 4000)")
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--functions", type=int, default=15, help="how many of the busiest functions to list")
    parser.add_argument("--server-core", type=int, default=0)
    return parser.parse_args(arguments)


def profile(server: Server, files: Certificate, options: argparse.Namespace) -> Profile:
    """Measure a server in the three ways. Raises `NotAvailable` or `H2LoadError`."""
    calls = callcount.measure(server, files, options.requests, options.connections, options.streams)
    with serve(callcount.hooked(server, "bench.layertimes"), "times", files, options.server_core) as running:
        _load(running, options.requests // 2, options)
        before = _times(running)
        _load(running, options.requests, options)
        after = _times(running)
    spent = {layer: max(0.0, after[layer] - before.get(layer, 0.0)) for layer in after}
    total = sum(spent.values())
    return Profile(
        server.name, _true_cost(server, files, options), {layer: time / total for layer, time in spent.items()}, calls
    )


def _true_cost(server: Server, files: Certificate, options: argparse.Namespace) -> float:
    """Return the microseconds of processor time that a request costs an untouched server."""
    requests: int = options.requests * TRUE_COST_FACTOR
    with serve(server, "plain", files, options.server_core) as running:
        _load(running, requests // 4, options)
        before = running.cpu_seconds()
        _load(running, requests, options)
        seconds = running.cpu_seconds() - before
    return seconds / requests * 1e6


def _load(running: RunningServer, requests: int, options: argparse.Namespace) -> None:
    load = ["-n", str(requests), "-c", str(options.connections), "-m", str(options.streams)]
    result = h2load.run([*load, running.url("/hello")])
    if result.failed:
        raise h2load.H2LoadError(f"{result.failed} of {result.total} requests failed: {result.trouble}")


def _times(running: RunningServer) -> dict[str, float]:
    with Connection(running.port) as connection:
        times: dict[str, float] = json.loads(bytes(connection.fetch("/times").body))
        return times


def render(profile: Profile, functions: int) -> str:
    """Return a profile as text: a table of layers, then the busiest functions."""
    calls = profile.calls.by_layer()
    lines = [
        f"## {profile.server}: {profile.microseconds:.1f} us of processor time a request, "
        f"{profile.calls.python:.0f} Python and {profile.calls.c:.0f} C calls",
        "",
        "| layer | us | share | Python calls | C calls |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for layer in LAYERS:
        share, (python, c) = profile.shares.get(layer, 0.0), calls.get(layer, (0.0, 0.0))
        if share >= 0.001 or python + c >= 0.1:
            lines.append(f"| {layer} | {share * profile.microseconds:.1f} | {share:.0%} | {python:.1f} | {c:.1f} |")
    lines += ["", "| busiest functions | module | Python calls | C calls |", "| --- | --- | ---: | ---: |"]
    for each in profile.calls.functions[:functions]:
        lines.append(f"| {each.name} | {each.module} | {each.python:.1f} | {each.c:.1f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
