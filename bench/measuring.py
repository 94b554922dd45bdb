"""What every workload is: how much to measure, what a measurement brings, and the steps in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.results import Metric
from bench.running import RunningServer


@dataclass(frozen=True)
class Effort:
    """How much to measure: so many seconds of work, or a fixed number of requests."""

    seconds: float = 3.0
    requests: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What one measurement brought; `note` says what went wrong."""

    values: dict[str, float]
    requests: int
    failed: int = 0
    note: str = ""


@dataclass(frozen=True)
class Workload:
    """One row of the table. `app` names the application, `fresh` asks for a new process for every measurement.

    `rounds` bounds the repetitions of what takes long and hardly varies.
    """

    name: str
    title: str
    group: str
    metrics: ClassVar[tuple[Metric, ...]] = ()
    app: str = "plain"
    fresh: bool = False
    rounds: int | None = None

    def check(self, server: RunningServer) -> None:
        """See that the server answers this workload's request as it must; raise `NotAvailable` otherwise."""

    def warm_up(self, server: RunningServer, effort: Effort) -> None:
        """Bring the server to its working state, before every measurement."""

    def measure(self, server: RunningServer, effort: Effort) -> Outcome:
        """Measure once."""
        raise NotImplementedError
