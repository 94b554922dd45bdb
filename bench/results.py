"""The figures of a run: every sample as it was measured, and the medians and ratios drawn from them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One figure that a workload yields. `digits` is how many decimals are worth printing."""

    name: str
    unit: str
    higher_is_better: bool = True
    digits: int = 0


@dataclass(frozen=True)
class Sample:
    """One measurement of one server. `failed` of `requests` did not bring what they should.

    `beside` is the processor time that others took meanwhile, in cores; `note` says what went wrong.
    """

    server: str
    workload: str
    round: int
    values: dict[str, float]
    requests: int = 0
    failed: int = 0
    beside: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class ServerInfo:
    """A server of the run. `reason` says why it could not be measured, if so."""

    name: str
    title: str
    family: str
    interface: str
    reason: str = ""


@dataclass(frozen=True)
class WorkloadInfo:
    """A workload of the run; its first metric is the one that summaries show."""

    name: str
    title: str
    group: str
    metrics: tuple[Metric, ...]


@dataclass
class Results:
    """A run: its circumstances, what took part, and every sample."""

    machine: dict[str, Any]
    options: dict[str, Any]
    servers: list[ServerInfo]
    workloads: list[WorkloadInfo]
    samples: list[Sample] = field(default_factory=list)
    unavailable: list[tuple[str, str, str]] = field(default_factory=list)
    """Server, workload and reason, where a server did not serve."""
    remarks: list[str] = field(default_factory=list)

    def of(self, server: str, workload: str) -> list[Sample]:
        """Return the samples of a server under a workload, by round."""
        return [sample for sample in self.samples if (sample.server, sample.workload) == (server, workload)]

    def figures(self, server: str, workload: str, metric: str) -> dict[int, float]:
        """Return a metric's value in each round that has one."""
        samples = self.of(server, workload)
        return {sample.round: sample.values[metric] for sample in samples if metric in sample.values}

    def median(self, server: str, workload: str, metric: str) -> float | None:
        """Return the median of a metric; None where it was never measured."""
        figures = self.figures(server, workload, metric)
        return statistics.median(figures.values()) if figures else None

    def ratios(self, server: str, reference: str, workload: str, metric: str) -> list[float]:
        """Return the ratio to a reference in each round in which both were measured.

        A reference that begins with "@" is the same server at that revision.
        """
        ours = self.figures(server, workload, metric)
        theirs = self.figures(self.reference_of(server, reference), workload, metric)
        return [ours[number] / theirs[number] for number in sorted(ours) if theirs.get(number)]

    def ratio(self, server: str, reference: str, workload: str, metric: str) -> float | None:
        """Return the median of the ratios of the rounds; None where there is none."""
        ratios = self.ratios(server, reference, workload, metric)
        return statistics.median(ratios) if ratios else None

    @staticmethod
    def reference_of(server: str, reference: str) -> str:
        """Return the name of the server that another is compared with."""
        return server.partition("@")[0] + reference if reference.startswith("@") else reference

    def references(self) -> list[str]:
        """Return those of the references asked for that have been measured."""
        measured = {sample.server for sample in self.samples}
        return [
            reference
            for reference in self.options.get("references", [])
            if any(name == reference or name.endswith(reference) for name in measured)
        ]

    def failures(self) -> Iterator[tuple[str, str, int, int, str]]:
        """Yield server, workload, failed and all requests, and a note, wherever something failed."""
        for workload in self.workloads:
            for server in self.servers:
                samples = self.of(server.name, workload.name)
                failed = sum(sample.failed for sample in samples)
                notes = [sample.note for sample in samples if sample.note]
                if failed or notes:
                    total = sum(sample.requests for sample in samples)
                    yield server.name, workload.name, failed, total, notes[0] if notes else ""

    def to_json(self) -> str:
        """Return everything as JSON; `from_json` reads it back."""
        return json.dumps({**asdict(self), "medians": self._medians()}, indent=1)

    def _medians(self) -> dict[str, dict[str, dict[str, float]]]:
        table: dict[str, dict[str, dict[str, float]]] = {}
        for workload in self.workloads:
            for server in self.servers:
                for metric in workload.metrics:
                    median = self.median(server.name, workload.name, metric.name)
                    if median is not None:
                        table.setdefault(workload.name, {}).setdefault(server.name, {})[metric.name] = median
        return table

    @classmethod
    def from_json(cls, text: str) -> Results:
        """Read what `to_json` has written."""
        data = json.loads(text)
        return cls(
            machine=data["machine"],
            options=data["options"],
            servers=[ServerInfo(**row) for row in data["servers"]],
            workloads=[
                WorkloadInfo(**{**row, "metrics": tuple(Metric(**metric) for metric in row["metrics"])})
                for row in data["workloads"]
            ],
            samples=[Sample(**row) for row in data["samples"]],
            unavailable=[(server, workload, reason) for server, workload, reason in data["unavailable"]],
            remarks=data["remarks"],
        )
