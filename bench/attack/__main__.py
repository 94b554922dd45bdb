"""Run the attacks; see `python -m bench.attack --help`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench import machine, processes
from bench.__main__ import cores, raise_descriptor_limit
from bench.attack import report
from bench.attack.attacks import ATTACKS
from bench.attack.measuring import AttackError, Result, measure
from bench.attack.servers import OURS_UNDER_ATTACK, UNDER_ATTACK
from bench.progress import Progress
from bench.running import NotAvailable, certificate
from bench.servers import choose

OUR_NAMES = ",".join(server.name for server in OURS_UNDER_ATTACK)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out what the command line asks for; return 1 where something could not be measured."""
    options = parse(arguments)
    if options.list:
        for name, attack in ATTACKS.items():
            print(f"{name:20} {attack.title}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    raise_descriptor_limit()
    run = Run(options)
    try:
        run.attack_all()
    except KeyboardInterrupt:
        return 130
    finally:
        run.write(options.output)
    return int(bool(run.failures))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.attack", description="Attack servers beside bystanders.")
    parser.add_argument("--servers", default=OUR_NAMES, metavar="PATTERNS",
                        help=f"e.g. 'thread,granian-wsgi' (default: {OUR_NAMES})")  # fmt: skip
    parser.add_argument("--attacks", default="*", metavar="PATTERNS", help="e.g. 'ping*,idle' (default: all)")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of an attack (default: 6)")
    parser.add_argument("--server-core", type=int, default=0, help="core for the server (default: 0)")
    parser.add_argument("--client-core", type=int, default=1, help="core for attacker and bystanders (default: 1)")
    parser.add_argument("--output", type=Path, default=Path("build/attack"), metavar="FOLDER",
                        help="where results.json and report.md go (default: build/attack)")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the attacks, and end")
    return parser.parse_args(arguments)


class Run:
    """All attacks asked for, on all servers asked for."""

    def __init__(self, options: argparse.Namespace) -> None:
        try:
            servers = choose([server.name for server in UNDER_ATTACK], options.servers)
            self.attacks = [ATTACKS[name] for name in choose(list(ATTACKS), options.attacks)]
        except ValueError as error:
            raise SystemExit(f"attack: {error}") from None
        self.servers = [server for server in UNDER_ATTACK if server.name in servers]
        self.seconds, self.cores = options.seconds, cores(options)
        self.results: list[Result] = []
        self.failures: list[tuple[str, str, str]] = []
        self.machine = machine.describe()

    def attack_all(self) -> None:
        """Measure every attack on every server, servers side by side."""
        progress = Progress(len(self.attacks) * len(self.servers), sys.stderr)
        for hog in processes.busy_strangers():
            progress.say(f"warning: {hog}; figures will suffer")
        with certificate() as files:
            for attack in self.attacks:
                for server in self.servers:
                    progress.show(f"{attack.name}: {server.name}")
                    try:
                        result = measure(server, attack, self.seconds, files, self.cores)
                    except (NotAvailable, AttackError) as error:
                        self.failures.append((server.name, attack.name, str(error)))
                        progress.say(f"{attack.name:20} {server.name:16} is not measured: {error}")
                    else:
                        self.results.append(result)
                        progress.say(line(result))
                    progress.step()
        progress.close()

    def write(self, folder: Path) -> None:
        """Write what there is as JSON and Markdown."""
        folder.mkdir(parents=True, exist_ok=True)
        text = report.markdown(self.machine, self.results, self.failures)
        results = {"machine": self.machine, "results": [asdict(result) for result in self.results],
                   "failures": self.failures}  # fmt: skip
        (folder / "results.json").write_text(json.dumps(results, indent=1))
        (folder / "report.md").write_text(text)
        print(text)
        print(f"written to {folder}", file=sys.stderr)


def line(result: Result) -> str:
    """Return a result as a line."""
    quiet, under = result.quiet, result.under
    return (
        f"{result.attack:20} {result.server:16} p50 {quiet.p50:.1f} -> {under.p50:.1f}, p99 {quiet.p99:.1f} -> "
        f"{under.p99:.1f} ms, {under.failed} of {under.requests} failed, newcomers {under.newcomer_p50:.0f} ms, "
        f"{result.memory_growth / report.MIB:+.0f} MiB, core {result.cpu:.0%}, {result.rate / 1e6:.1f} MB/s, "
        f"{report.counts(result.ends)}, late {under.late_p99:.1f} ms"
    )


if __name__ == "__main__":
    sys.exit(main())
