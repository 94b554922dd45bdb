"""The types of the settings' values."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

__all__ = [
    "ALPN_NAMES",
    "CertificatePair",
    "CertificateList",
    "Choice",
    "CleartextMode",
    "Integer",
    "Kind",
    "OptionalFile",
    "Protocols",
    "Seconds",
    "Switch",
]

ALPN_NAMES = {"h1": "http/1.1", "h2": "h2"}
"""ALPN's names of the HTTP versions, by Gunicorn's."""
CLEARTEXT_MODES = ("off", "prior-knowledge", "upgrade", "both")


class Kind(Protocol):
    """The type of a setting's value."""

    @property
    def metavar(self) -> str:
        """The placeholder for the value in the command's help."""

    def parse(self, value: object) -> Any:
        """Return the value in its own type. Raises `ValueError` or `TypeError` if it is not allowed."""

    def allowed(self) -> str:
        """Say which values are allowed, to follow "must be"."""


@dataclass(frozen=True)
class Integer:
    """An integer in a range; text in Python's notation is accepted, as Gunicorn does."""

    low: int
    high: int
    metavar = "INT"

    def parse(self, value: object) -> int:
        """Return the integer; booleans and fractions are refused."""
        number = int(value.strip(), 0) if isinstance(value, str) else value
        if isinstance(number, bool) or not isinstance(number, int) or not self.low <= number <= self.high:
            raise ValueError(value)
        return number

    def allowed(self) -> str:
        """Name the range."""
        return f"an integer from {self.low} to {self.high}"


@dataclass(frozen=True)
class Seconds:
    """A time in seconds: a finite number in a range, or text with one."""

    low: float
    high: float
    metavar = "SECONDS"

    def parse(self, value: object) -> float:
        """Return the time in seconds."""
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise TypeError(value)
        number = float(value)
        if not math.isfinite(number) or not self.low <= number <= self.high:
            raise ValueError(value)
        return number

    def allowed(self) -> str:
        """Name the range."""
        return f"a number from {self.low:.15g} to {self.high:.15g}"


@dataclass(frozen=True)
class Choice:
    """One of a few words, in any case."""

    words: tuple[str, ...]
    metavar = "STRING"

    def parse(self, value: object) -> str:
        """Return the word."""
        word = value.lower().strip() if isinstance(value, str) else ""
        if word not in self.words:
            raise ValueError(value)
        return word

    def allowed(self) -> str:
        """List the words."""
        return "one of " + ", ".join(self.words)


@dataclass(frozen=True)
class CleartextMode(Choice):
    """Gunicorn's rule for `http2_cleartext`: None is off, True is prior knowledge."""

    words: tuple[str, ...] = CLEARTEXT_MODES

    def parse(self, value: object) -> str:
        """Return the mode."""
        if value is None or isinstance(value, bool):
            return "prior-knowledge" if value else "off"
        return super().parse(value)


@dataclass(frozen=True)
class Switch(Choice):
    """On, off, or whatever is best."""

    words: tuple[str, ...] = ("auto", "on", "off")

    def parse(self, value: object) -> str:
        """Return the word; a boolean stands for on or off."""
        if isinstance(value, bool):
            return "on" if value else "off"
        return super().parse(value)


@dataclass(frozen=True)
class Protocols:
    """The HTTP versions in order of preference, as a list or as text with commas."""

    metavar = "STRING"

    def parse(self, value: object) -> tuple[str, ...]:
        """Return Gunicorn's names of the versions."""
        if isinstance(value, str):
            value = value.split(",")
        if not isinstance(value, (list, tuple)):
            raise TypeError(value)
        names = tuple(str(name).strip().lower() for name in value)
        if not names or len(set(names)) != len(names) or not ALPN_NAMES.keys() >= set(names):
            raise ValueError(value)
        return names

    def allowed(self) -> str:
        """List the names."""
        return f"a list of {' and '.join(ALPN_NAMES)}, each at most once, the preferred one first"


class CertificatePair(NamedTuple):
    """The PEM files of a certificate, with its chain, and of its key."""

    certificate: str
    key: str | None
    """None if the key is in the certificate's file."""

    def __str__(self) -> str:
        return ":".join(filter(None, self))


@dataclass(frozen=True)
class CertificateList:
    """A list of certificates: pairs of files, or text with a colon between them; with commas, text of all."""

    metavar = "CERT:KEY,..."

    def parse(self, value: object) -> tuple[CertificatePair, ...]:
        """Return the pairs; no value is none."""
        if value is None:
            return ()
        if isinstance(value, str):
            value = [item for item in value.split(",") if item.strip()]
        if not isinstance(value, (list, tuple)):
            raise TypeError(value)
        return tuple(self._pair(item) for item in value)

    @staticmethod
    def _pair(item: object) -> CertificatePair:
        files = item.strip().split(":") if isinstance(item, str) else item
        if not isinstance(files, (list, tuple)) or not 1 <= len(files) <= 2:
            raise ValueError(item)
        certificate, key = (*files, None)[:2]
        for file in (certificate, certificate if key is None else key):
            if not isinstance(file, str) or not os.path.isfile(file):
                raise ValueError(file)
        return CertificatePair(certificate, key)

    def allowed(self) -> str:
        """Say what it must be."""
        return "a list of (certificate, key): PEM files that exist, or one file with both"


@dataclass(frozen=True)
class OptionalFile:
    """The absolute path of a file to write, which need not exist, or None."""

    metavar = "FILE"

    def parse(self, value: object) -> str | None:
        """Return the path; an empty one is None."""
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise TypeError(value)
        is_file = os.path.isabs(value) and "\0" not in value and not os.path.isdir(value)
        if not is_file or not os.path.isdir(os.path.dirname(value)):
            raise ValueError(value)
        return value

    def allowed(self) -> str:
        """Say what it must be."""
        return "the absolute path of a file in a directory that exists, or None"
