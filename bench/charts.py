"""Charts of a run: a bar for each server, as SVG that follows the reader's light or dark scheme."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from bench.report import figure
from bench.results import Metric, Results, WorkloadInfo
from bench.servers import BUILT_IN, OTHER, OURS

WIDTH, MARGIN = 760, 16
VALUE_WIDTH, LETTER_WIDTH = 120, 7
ROW, BAR, HEAD = 26, 16, 84
CLASSES = {OURS: "ours", BUILT_IN: "built-in", OTHER: "other"}

STYLE = """
svg { --page: #ffffff; --text: #1f2328; --faint: #59636e;
      --ours: #0969da; --built-in: #bc4c00; --other: #818b98; }
@media (prefers-color-scheme: dark) {
  svg { --page: #0d1117; --text: #f0f6fc; --faint: #9198a1;
        --ours: #4493f8; --built-in: #db6d28; --other: #656c76; }
}
text { font: 13px system-ui, sans-serif; fill: var(--text); }
.title { font-size: 16px; font-weight: 600; }
.faint { font-size: 12px; fill: var(--faint); }
.name { text-anchor: end; }
.page { fill: var(--page); }
.range { stroke: var(--text); stroke-width: 1.5; opacity: 0.6; }
.ours { fill: var(--ours); }
.built-in { fill: var(--built-in); }
.other { fill: var(--other); }
"""


@dataclass(frozen=True)
class Bar:
    """One server: its median, and the lowest and the highest of its figures."""

    title: str
    family: str
    median: float
    low: float
    high: float


def chart(results: Results, workload: WorkloadInfo) -> str | None:
    """Return the chart of a workload's first metric, the best server on top; None where nothing was measured.

    The floor is left out: beside it one would see little of the servers.
    """
    metric = workload.metrics[0]
    bars = sorted(_bars(results, workload, metric), key=lambda bar: bar.median, reverse=metric.higher_is_better)
    if not bars:
        return None
    height = HEAD + ROW * len(bars) + MARGIN
    better = "more" if metric.higher_is_better else "less"
    caption = f"{metric.unit}, {better} is better; {results.machine['processor']}, {results.machine['date']}"
    left = MARGIN + LETTER_WIDTH * max(len(bar.title) for bar in bars)
    scale = (WIDTH - MARGIN - VALUE_WIDTH - left) / (max(bar.high for bar in bars) or 1)
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label={quoteattr(workload.title)}>',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>',
        _text(MARGIN, 30, workload.title, "title"),
        _text(MARGIN, 50, caption, "faint"),
        *_legend([family for family in CLASSES if any(bar.family == family for bar in bars)]),
        *(part for row, bar in enumerate(bars) for part in _row(bar, left, HEAD + ROW * row, scale, metric)),
        "</svg>",
        "",
    ])  # fmt: skip


def _bars(results: Results, workload: WorkloadInfo, metric: Metric) -> Iterator[Bar]:
    for server in results.servers:
        figures = results.figures(server.name, workload.name, metric.name).values()
        median = results.median(server.name, workload.name, metric.name)
        if median is not None and server.family in CLASSES:
            yield Bar(server.title, server.family, median, min(figures), max(figures))


def _legend(families: Sequence[str]) -> Iterator[str]:
    left = MARGIN
    for family in families:
        yield f'<rect class="{CLASSES[family]}" x="{left}" y="61" width="10" height="10" rx="2"/>'
        yield _text(left + 15, 70, family, "faint")
        left += 40 + 7 * len(family)


def _row(bar: Bar, left: int, top: int, scale: float, metric: Metric) -> Iterator[str]:
    middle = top + ROW / 2
    yield _text(left - 8, middle + 4.5, bar.title, "name")
    yield (
        f'<rect class="{CLASSES[bar.family]}" x="{left}" y="{middle - BAR / 2}" '
        f'width="{max(1.0, bar.median * scale):.1f}" height="{BAR}" rx="2"/>'
    )
    low, high = left + bar.low * scale, left + bar.high * scale
    if high - low >= 1:
        yield f'<line class="range" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>'
    yield _text(high + 8, middle + 4.5, figure(bar.median, metric), "value")


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
