"""Run the benchmark; see `python -m bench --help`."""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import charts, machine, processes, report
from bench.measuring import Effort
from bench.progress import Progress
from bench.results import Results
from bench.revisions import at_revisions, exported
from bench.runner import Plan, Runner
from bench.servers import OURS, SERVERS, Server, choose, split
from bench.workloads import WORKLOADS

OUR_NAMES = ",".join(server.name for server in SERVERS if server.family == OURS)
REFERENCES = "granian-wsgi,granian-asgi,builtin-gthread"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return the exit status: 1 where requests to one of our workers failed."""
    options = parse(arguments)
    if options.list:
        print_tables()
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    raise_descriptor_limit()
    try:
        results = run(options)
    except KeyboardInterrupt:
        return 130
    ours = {server.name for server in results.servers if server.family == OURS}
    return int(any(failed for server, _, failed, _, _ in results.failures() if server in ours))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Compare HTTP/2 servers side by side.")
    parser.add_argument("--servers", default="", metavar="PATTERNS", help="e.g. 'thread*,granian-wsgi' (default: all)")
    parser.add_argument("--workloads", default="*", metavar="PATTERNS", help="e.g. 'hello*,browser' (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each server at each workload (default: 3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a turn, about (default: 3)")
    parser.add_argument("--requests", type=int, help="requests of a turn, instead of --seconds")
    parser.add_argument("--reference", default="", metavar="NAMES",
                        help=f"servers that the others are compared with (default: {REFERENCES})")  # fmt: skip
    parser.add_argument("--compare", nargs=2, default=[], metavar=("A", "B"),
                        help="measure our workers at two revisions, B against A; . is the working tree")  # fmt: skip
    parser.add_argument("--server-core", type=int, default=0, help="core for the servers (default: 0)")
    parser.add_argument("--client-core", type=int, default=1, help="core for the client (default: 1)")
    parser.add_argument("--output", type=Path, default=Path("build/bench"), metavar="FOLDER",
                        help="where results.json, report.md and the charts go (default: build/bench)")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list servers and workloads, and end")
    options = parser.parse_args(arguments)
    options.servers = options.servers or (OUR_NAMES if options.compare else "*")
    options.reference = options.reference or (f"@{options.compare[0]}" if options.compare else REFERENCES)
    return options


def run(options: argparse.Namespace) -> Results:
    """Measure and write the report."""
    try:
        servers = choose([server.name for server in SERVERS], options.servers)
        workloads = choose([workload.name for workload in WORKLOADS], options.workloads)
        with exported(options.compare) as sources:
            return measure(options, at_revisions([s for s in SERVERS if s.name in servers], sources), workloads)
    except ValueError as error:
        raise SystemExit(f"bench: {error}") from None


def measure(options: argparse.Namespace, servers: Sequence[Server], workloads: Sequence[str]) -> Results:
    """Measure servers under workloads and write the report, even where the run is cut short."""
    server_core, client_core = cores(options)
    plan = Plan(
        servers=servers,
        workloads=[workload for workload in WORKLOADS if workload.name in workloads],
        effort=Effort(options.seconds, options.requests),
        rounds=options.rounds,
        server_core=server_core,
    )
    results = Results(machine.describe(), describe_options(options, server_core, client_core), [], [])
    progress = Progress(plan.steps(), sys.stderr)
    for hog in processes.busy_strangers():
        results.remarks.append(f"Before the start {hog}.")
        progress.say(f"warning: {hog}; figures will suffer")
    try:
        with processes.on_core(client_core):
            Runner(plan, results, progress).run()
    except BaseException as error:
        results.remarks.append(f"The run was cut short: {type(error).__name__} {error}")
        raise
    finally:
        progress.close()
        write(results, options.output)
    return results


def cores(options: argparse.Namespace) -> tuple[int | None, int | None]:
    """Return the cores for servers and client; None for both where the machine does not have them."""
    available = os.sched_getaffinity(0)
    if {options.server_core, options.client_core} <= available:
        return options.server_core, options.client_core
    print(f"warning: nothing is pinned, for only cores {sorted(available)} are available", file=sys.stderr)
    return None, None


def describe_options(
    options: argparse.Namespace, server_core: int | None, client_core: int | None
) -> dict[str, object]:
    """Return what the report says about how the figures were taken."""
    amount = f"{options.requests} requests" if options.requests else f"{options.seconds:g} seconds"
    return {
        "rounds": options.rounds,
        "amount": amount,
        "references": split(options.reference),
        "server_core": server_core,
        "client_core": client_core,
    }


def write(results: Results, folder: Path) -> None:
    """Write the results in every form, and say where."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(results.to_json())
    text = report.markdown(results)
    (folder / "report.md").write_text(text)
    for workload in results.workloads:
        if svg := charts.chart(results, workload):
            (folder / f"{workload.name}.svg").write_text(svg)
    print(text)
    print(f"written to {folder}", file=sys.stderr)


def print_tables() -> None:
    """List servers and workloads."""
    for server in SERVERS:
        print(f"{server.name:18} {server.title}")
    print()
    for workload in WORKLOADS:
        print(f"{workload.name:18} {workload.title}")


def raise_descriptor_limit() -> None:
    """Allow as many descriptors as the system does, here and in the servers."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
