"""What the doctor has found: findings in words, facts for scripts, and one verdict."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any

from gunicorn_h2.protocol.text import printable

__all__ = ["SUMMARIES", "Finding", "Level", "Report", "Verdict", "info", "ok", "problem", "warning"]


class Verdict(IntEnum):
    """The result; the values are exit statuses."""

    HTTP2 = 0
    HTTP1 = 1
    NO_CONNECTION = 2
    PROTOCOL_ERROR = 3
    USAGE = 4


SUMMARIES = {
    Verdict.HTTP2: "HTTP/2 works.",
    Verdict.HTTP1: "HTTP/1.1 only: HTTP/2 is not negotiated.",
    Verdict.NO_CONNECTION: "No connection, or TLS has failed.",
    Verdict.PROTOCOL_ERROR: "There is a connection, but no valid HTTP response.",
}


class Level(str, Enum):
    """How much a finding matters."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was found out."""

    level: Level
    topic: str
    """A word or two: the step that found it."""

    text: str
    """A sentence; whatever the peer has sent in it is `printable`."""


def ok(topic: str, text: str) -> Finding:
    """A step that went as it should."""
    return Finding(Level.OK, topic, text)


def info(topic: str, text: str) -> Finding:
    """Something worth knowing."""
    return Finding(Level.INFO, topic, text)


def warning(topic: str, text: str) -> Finding:
    """Something that works, and should not stay as it is."""
    return Finding(Level.WARNING, topic, text)


def problem(topic: str, text: str) -> Finding:
    """Something that does not work."""
    return Finding(Level.PROBLEM, topic, text)


@dataclass
class Report:
    """All findings about one URL, in order."""

    url: str
    verdict: Verdict = Verdict.NO_CONNECTION
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """Values for scripts, such as `alpn`, `tls_version`, `settings`, `status`; JSON types only."""

    summary: str = ""
    """The last line; "" for what the verdict means."""

    def add(self, *findings: Finding) -> None:
        """Add findings."""
        self.findings += findings

    def as_text(self) -> str:
        """The report for people: a line for each finding, and the verdict."""
        width = max((len(finding.topic) for finding in self.findings), default=0)
        lines = [f"  {finding.level.value:7}  {finding.topic:{width}}  {finding.text}" for finding in self.findings]
        return "\n".join([printable(self.url, 2_000), "", *lines, "", self.summary or SUMMARIES[self.verdict]])

    def as_json(self) -> str:
        """The report for scripts: one JSON object."""
        findings = [{"level": f.level.value, "topic": f.topic, "text": f.text} for f in self.findings]
        return json.dumps(
            {
                "url": self.url,
                "verdict": self.verdict.name.lower(),
                "exit_status": int(self.verdict),
                "summary": self.summary or SUMMARIES[self.verdict],
                "facts": self.facts,
                "findings": findings,
            },
            indent=2,
        )
