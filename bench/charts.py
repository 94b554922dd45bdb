"""Charts of a run: a bar for each server, as SVG that follows the reader's light or dark scheme."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from bench.report import figure
from bench.results import Metric, Results, WorkloadInfo
from bench.servers import BUILT_IN, FLOOR, OTHER, OURS

WIDTH, MARGIN = 760, 16
NAME_WIDTH, VALUE_WIDTH = 216, 120
ROW, BAR, HEAD = 26, 16, 84
BARS_LEFT = MARGIN + NAME_WIDTH
BARS_WIDTH = WIDTH - MARGIN - BARS_LEFT - VALUE_WIDTH
CLASSES = {OURS: "ours", BUILT_IN: "built-in", OTHER: "other", FLOOR: "floor"}

STYLE = """
svg { --page: #ffffff; --text: #1f2328; --faint: #59636e; --grid: #d1d9e0;
      --ours: #0969da; --built-in: #bc4c00; --other: #818b98; --floor: #d1d9e0; }
@media (prefers-color-scheme: dark) {
  svg { --page: #0d1117; --text: #f0f6fc; --faint: #9198a1; --grid: #3d444d;
        --ours: #4493f8; --built-in: #db6d28; --other: #656c76; --floor: #3d444d; }
}
text { font: 13px system-ui, sans-serif; fill: var(--text); }
.title { font-size: 16px; font-weight: 600; }
.faint { font-size: 12px; fill: var(--faint); }
.name { text-anchor: end; }
.page { fill: var(--page); }
.grid { stroke: var(--grid); stroke-width: 1; }
.range { stroke: var(--text); stroke-width: 1.5; opacity: 0.6; }
.ours { fill: var(--ours); }
.built-in { fill: var(--built-in); }
.other { fill: var(--other); }
.floor { fill: var(--floor); }
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
    """Return the chart of a workload's first metric, the best server on top; None where nothing was measured."""
    metric = workload.metrics[0]
    bars = sorted(_bars(results, workload, metric), key=lambda bar: bar.median, reverse=metric.higher_is_better)
    if not bars:
        return None
    height = HEAD + ROW * len(bars) + MARGIN
    better = "more" if metric.higher_is_better else "less"
    caption = f"{metric.unit}, {better} is better; {results.machine['processor']}, {results.machine['date']}"
    scale = BARS_WIDTH / (max(bar.high for bar in bars) or 1)
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label={quoteattr(workload.title)}>',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>',
        _text(MARGIN, 30, workload.title, "title"),
        _text(MARGIN, 50, caption, "faint"),
        *_legend([family for family in CLASSES if any(bar.family == family for bar in bars)]),
        *_grid(max(bar.high for bar in bars), scale, height),
        *(part for row, bar in enumerate(bars) for part in _row(bar, HEAD + ROW * row, scale, metric)),
        "</svg>",
        "",
    ])  # fmt: skip


def _bars(results: Results, workload: WorkloadInfo, metric: Metric) -> Iterator[Bar]:
    for server in results.servers:
        figures = results.figures(server.name, workload.name, metric.name).values()
        median = results.median(server.name, workload.name, metric.name)
        if median is not None:
            yield Bar(server.title, server.family, median, min(figures), max(figures))


def _legend(families: Sequence[str]) -> Iterator[str]:
    left = MARGIN
    for family in families:
        yield f'<rect class="{CLASSES[family]}" x="{left}" y="61" width="10" height="10" rx="2"/>'
        yield _text(left + 15, 70, family, "faint")
        left += 40 + 7 * len(family)


def _grid(highest: float, scale: float, height: int) -> Iterator[str]:
    """Return vertical lines at round figures."""
    step = 10 ** math.floor(math.log10(highest)) if highest > 0 else 1.0
    if highest / step < 3:
        step /= 2
    for number in range(int(highest / step) + 1):
        x = BARS_LEFT + number * step * scale
        yield f'<line class="grid" x1="{x:.1f}" y1="{HEAD - 4}" x2="{x:.1f}" y2="{height - MARGIN + 4}"/>'


def _row(bar: Bar, top: int, scale: float, metric: Metric) -> Iterator[str]:
    middle = top + ROW / 2
    yield _text(BARS_LEFT - 8, middle + 4.5, bar.title, "name")
    yield (
        f'<rect class="{CLASSES[bar.family]}" x="{BARS_LEFT}" y="{middle - BAR / 2}" '
        f'width="{max(1.0, bar.median * scale):.1f}" height="{BAR}" rx="2"/>'
    )
    low, high = BARS_LEFT + bar.low * scale, BARS_LEFT + bar.high * scale
    if high - low >= 1:
        yield f'<line class="range" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>'
    yield _text(high + 8, middle + 4.5, figure(bar.median, metric), "value")


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
