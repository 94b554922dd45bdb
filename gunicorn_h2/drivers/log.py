"""The part of Gunicorn's logger that drivers use, and a limit on how often they do."""

from __future__ import annotations

import logging
import math
from typing import Protocol

__all__ = ["Log", "Throttle", "address_text", "host_text", "logs_debug"]


class Log(Protocol):
    """Gunicorn's logger, or one like it."""

    def debug(self, msg: str, *args: object) -> None:
        """Log at debug level."""

    def info(self, msg: str, *args: object) -> None:
        """Log at info level."""

    def warning(self, msg: str, *args: object) -> None:
        """Log a warning."""

    def error(self, msg: str, *args: object) -> None:
        """Log an error."""

    def exception(self, msg: str, *args: object) -> None:
        """Log an error with its traceback."""


def logs_debug(log: Log) -> bool:
    """Whether lines at debug level are logged; of a logger that is not like Gunicorn's, it is supposed to be so."""
    logger = getattr(log, "error_log", None)
    return logger is None or bool(logger.isEnabledFor(logging.DEBUG))


class Throttle:
    """Lets a line through now and then, whatever clients do, and counts those that are held back."""

    __slots__ = ("_held_back", "_interval", "_next_at")

    def __init__(self, interval: float) -> None:
        """`interval` is the shortest time from one line to the next, in seconds."""
        self._interval = interval
        self._next_at = -math.inf
        self._held_back = 0

    def admit(self, now: float) -> int | None:
        """Return how many were held back since the last line; None if this one is held back, too."""
        if now < self._next_at:
            self._held_back += 1
            return None
        self._next_at = now + self._interval
        held_back, self._held_back = self._held_back, 0
        return held_back


def address_text(peer: object) -> str:
    """The address of a client, and its port, as one word."""
    if not isinstance(peer, tuple):
        return "unix"
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_text(peer: object) -> str:
    """The address of a client without its port, in a sentence."""
    return str(peer[0]) if isinstance(peer, tuple) else "a Unix socket"
