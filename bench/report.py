"""The report of a run, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from bench.results import Metric, Results, WorkloadInfo

DASH = "-"
DISTURBED_CORES = 0.15
"""Share of a core taken by others from which on a measurement counts as disturbed."""

Row = Sequence[str]


def markdown(results: Results) -> str:
    """Return the whole report."""
    parts = [
        "# Benchmark",
        _circumstances(results),
        *_remarks(results),
        *_summaries(results),
        *_failures(results),
        *_details(results),
    ]
    return "\n\n".join(parts) + "\n"


def _circumstances(results: Results) -> str:
    machine, options = results.machine, results.options
    packages = ", ".join(f"{name} {version}" for name, version in machine.get("packages", {}).items())
    tools = ", ".join(f"{name} {machine[name]}" for name in ("h2load", "nginx") if machine.get(name))
    return "\n".join([
        f"{machine['date']}, revision {machine['revision']}. {machine['processor']}, {machine['cores']} cores, "
        f"{machine['kernel']}; {machine['python']}, {machine['openssl']}; {packages}; {tools}.",
        "",
        f"One worker process on core {options['server_core']}, the client on core {options['client_core']}, TLS. "
        f"Medians of {options['rounds']} rounds, in each of which every server had its turn of {options['amount']}.",
    ])  # fmt: skip


def _remarks(results: Results) -> list[str]:
    remarks = [*results.remarks]
    disturbed = sum(sample.beside > DISTURBED_CORES for sample in results.samples)
    if disturbed:
        remarks.append(
            f"During {disturbed} of {len(results.samples)} measurements other processes took more than "
            f"{DISTURBED_CORES:.0%} of a core."
        )
    remarks += [f"{server.name} is not available: {server.reason}" for server in results.servers if server.reason]
    absent = {server.name for server in results.servers if server.reason}
    remarks += [
        f"{server} is not available for {workload}: {reason}"
        for server, workload, reason in results.unavailable
        if server not in absent
    ]
    return ["\n".join(f"- {remark}" for remark in dict.fromkeys(remarks))] if remarks else []


def _summaries(results: Results) -> list[str]:
    """Return a table a group of workloads: the headline figure of each, and its ratio to the first reference."""
    parts = []
    reference = next(iter(results.references()), None)
    for group in dict.fromkeys(workload.group for workload in results.workloads):
        workloads = [workload for workload in results.workloads if workload.group == group]
        head = ["server", *(f"{workload.name}, {unit(workload.metrics[0])}" for workload in workloads)]
        rows = [[title, *cells] for title, cells in _summary_rows(results, workloads, reference)]
        note = f" In brackets: the ratio to {reference}." if reference else ""
        parts += [f"## {group}", "; ".join(f"{w.name}: {w.title}" for w in workloads) + "." + note, table(head, rows)]
    return parts


def _summary_rows(
    results: Results, workloads: Sequence[WorkloadInfo], reference: str | None
) -> Iterable[tuple[str, list[str]]]:
    for server in results.servers:
        cells = []
        for workload in workloads:
            metric = workload.metrics[0]
            cell = figure(results.median(server.name, workload.name, metric.name), metric)
            ratio = reference and results.ratio(server.name, reference, workload.name, metric.name)
            cells.append(f"{cell} ({ratio:.2f})" if ratio else cell)
        if any(cell != DASH for cell in cells):
            yield server.title, cells


def _failures(results: Results) -> list[str]:
    rows = [
        [server, workload, f"{failed} of {total}", note.replace("|", "/")]
        for server, workload, failed, total, note in results.failures()
    ]
    return ["## Failures", table(["server", "workload", "failed", "what was seen"], rows)] if rows else []


def _details(results: Results) -> list[str]:
    """Return a table a workload: every metric with its range, and the ratios to every reference."""
    parts = [
        "## Details",
        "Median (lowest to highest). ↓: less is better. Ratios are the median of the rounds: of the first figure, and "
        "of the processor time.",
    ]
    references = results.references()
    for workload in results.workloads:
        head = [
            "server",
            *(f"{metric.name}, {unit(metric)}" for metric in workload.metrics),
            *(f"to {reference}" for reference in references),
        ]
        rows = [
            [server.name, *(_range(results, server.name, workload, metric) for metric in workload.metrics),
             *(_ratio_range(results, server.name, reference, workload) for reference in references)]
            for server in results.servers
            if any(sample.values for sample in results.of(server.name, workload.name))
        ]  # fmt: skip
        if rows:
            picture = f"![{workload.title}]({workload.name}.svg)"
            parts += [f"### {workload.name}: {workload.title}", table(head, rows), picture]
    return parts


def unit(metric: Metric) -> str:
    """Return a metric's unit, with an arrow where less is better."""
    return metric.unit if metric.higher_is_better else f"{metric.unit} ↓"


def figure(value: float | None, metric: Metric) -> str:
    """Return a figure as text."""
    return DASH if value is None else f"{value:,.{metric.digits}f}".replace(",", "\u202f")


def _range(results: Results, server: str, workload: WorkloadInfo, metric: Metric) -> str:
    figures = results.figures(server, workload.name, metric.name).values()
    median = figure(results.median(server, workload.name, metric.name), metric)
    if len(figures) < 2:
        return median
    return f"{median} ({figure(min(figures), metric)} to {figure(max(figures), metric)})"


def _ratio_range(results: Results, server: str, reference: str, workload: WorkloadInfo) -> str:
    """Return the ratio of the first figure, and of the processor time where it was taken."""
    ratios = results.ratios(server, reference, workload.name, workload.metrics[0].name)
    if not ratios:
        return DASH
    text = _ratio(statistics.median(ratios))
    if len(ratios) > 1:
        text += f" ({min(ratios):.2f} to {max(ratios):.2f})"
    cpu = results.ratio(server, reference, workload.name, "cpu")
    return text if cpu is None or workload.metrics[0].name == "cpu" else f"{text}, cpu {_ratio(cpu)}"


def _ratio(value: float) -> str:
    """Return a ratio with two decimals, or with three where it is that of two servers that are nearly the same."""
    return f"{value:.3f}" if value != 1.0 and 0.95 < value < 1.05 else f"{value:.2f}"


def table(head: Row, rows: Iterable[Row]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
