"""Telling a person how far a run is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import TextIO

from bench.results import Metric, Sample

BAR_WIDTH = 24


class Progress:
    """Progress of so many steps, written to `out`."""

    def __init__(self, total: int, out: TextIO) -> None:
        self._total, self._done, self._out = max(1, total), 0, out
        self._started = time.monotonic()
        self._has_bar, self._text = out.isatty(), ""

    def show(self, text: str) -> None:
        """Say what is going on now; on a terminal alone."""
        self._text = text
        self._draw()

    def step(self) -> None:
        """Count one step as done."""
        self._done += 1
        self._draw()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._out.write(f"\r\x1b[K{text}\n" if self._has_bar else f"{text}\n")
        self._out.flush()
        self._draw()

    def measured(self, sample: Sample, metrics: Sequence[Metric]) -> None:
        """Print a measurement as a line that stays."""
        figures = [
            f"{metric.name} {sample.values[metric.name]:,.{metric.digits}f} {metric.unit}"
            for metric in metrics
            if metric.name in sample.values
        ]
        trouble = [f"{sample.failed} of {sample.requests} FAILED ({sample.note})"] if sample.failed else []
        beside = [f"({sample.beside:.0%} of a core taken by others)"] if sample.beside > 0.15 else []
        line = ", ".join([*figures, *trouble]) or sample.note
        self.say(" ".join([f"{sample.workload:14} {sample.server:18} #{sample.round} {line}", *beside]))

    def close(self) -> None:
        """Take the bar away."""
        if self._has_bar:
            self._out.write("\r\x1b[K")
            self._out.flush()

    def _draw(self) -> None:
        if not self._has_bar:
            return
        share = self._done / self._total
        bar = "#" * round(share * BAR_WIDTH)
        line = f"[{bar:{BAR_WIDTH}}] {self._done}/{self._total}{self._remaining()} {self._text}"
        self._out.write("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1])
        self._out.flush()

    def _remaining(self) -> str:
        if not self._done:
            return ""
        seconds = (time.monotonic() - self._started) / self._done * (self._total - self._done)
        return f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"
