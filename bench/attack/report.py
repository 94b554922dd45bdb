"""The results of a run as Markdown: a table a server, and one that puts the servers side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bench.attack.attacks import ATTACKS
from bench.attack.measuring import Latency, Result
from bench.report import table

MIB = 1024 * 1024
NEVER = "never"

HEAD = (
    "attack", "quiet p50 / p99, ms", "under attack p50 / p99, ms", "newcomer p50 / worst, ms", "failed", "memory, MiB",
    "left, MiB", "core", "MB/s sent", "connections", "how they ended", "left behind", "client late p99, ms",
)  # fmt: skip


def markdown(machine: dict[str, Any], results: Sequence[Result], failures: Iterable[tuple[str, str, str]]) -> str:
    """Return the whole report. `failures` are server, attack and reason."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    parts = [
        "# Attacks",
        f"{machine['date']}, revision {machine['revision']}. {machine['processor']}, {machine['cores']} cores, "
        f"{machine['kernel']}; {machine['python']}, {machine['openssl']}; {packages}.",
        "A fresh server with one worker for each attack, over TLS. Bystanders: 100 requests a second over one "
        "connection, and five new connections a second. Memory is the highest growth during the attack, and what of it "
        "is left a moment later. Latencies among slow clients are those after two seconds, in which the application "
        "makes 800 MB of responses for them. The last column is how late the bystanders themselves were: no server's "
        "fault.",
    ]
    names = list(dict.fromkeys(result.server for result in results))
    if len(names) > 1:
        parts += ["## Side by side: p99 under attack, ms", _side_by_side(names, results)]
    for name in names:
        rows = [_row(result) for result in results if result.server == name]
        parts += [f"## {name}", table(HEAD, rows)]
    rows = [[*failure] for failure in failures]
    if rows:
        parts += ["## Not measured", table(["server", "attack", "reason"], rows)]
    return "\n\n".join(parts) + "\n"


def _side_by_side(names: Sequence[str], results: Sequence[Result]) -> str:
    found = {(result.attack, result.server): result for result in results}
    attacks = list(dict.fromkeys(result.attack for result in results))
    rows = [
        [ATTACKS[attack].title, *(_p99(found.get((attack, name))) for name in names)]
        for attack in attacks
    ]  # fmt: skip
    return table(["attack", *names], rows)


def _p99(result: Result | None) -> str:
    if result is None:
        return "-"
    answered = result.under.requests - result.under.failed
    failed = f" ({result.under.failed} failed)" if result.under.failed else ""
    return (f"{result.under.p99:.0f}" if answered else NEVER) + failed


def _row(result: Result) -> list[str]:
    quiet, under, after = result.quiet, result.under, result.after
    failed = [f"{under.failed} of {under.requests}"] if under.failed else []
    failed += [f"{under.newcomers_failed} of {under.newcomers} newcomers"] if under.newcomers_failed else []
    failed += [f"{after.failed} of {after.requests} afterwards"] if after.failed else []
    return [
        ATTACKS[result.attack].title, _pair(quiet), _pair(under),
        f"{under.newcomer_p50:.0f} / {under.newcomer_worst:.0f}", ", ".join(failed) or "0",
        f"{result.memory_growth / MIB:.0f}", f"{result.memory_left / MIB:.0f}", f"{result.cpu:.0%}",
        f"{result.rate / 1e6:.1f}", str(result.connections), counts(result.ends),
        ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in result.left.items()) or "nothing",
        f"{under.late_p99:.1f}",
    ]  # fmt: skip


def _pair(latency: Latency) -> str:
    answered = latency.requests - latency.failed
    return f"{latency.p50:.1f} / {latency.p99:.1f}" if answered else NEVER


def counts(ends: dict[str, int]) -> str:
    """Return counts by name as text, the highest first."""
    return ", ".join(f"{name} {count}" for name, count in sorted(ends.items(), key=lambda pair: -pair[1])) or "-"
