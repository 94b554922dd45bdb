"""The part of Gunicorn's logger that drivers use."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Log"]


class Log(Protocol):
    """Gunicorn's logger, or one like it."""

    def debug(self, msg: str, *args: object) -> None:
        """Log at debug level."""

    def info(self, msg: str, *args: object) -> None:
        """Log at info level."""

    def warning(self, msg: str, *args: object) -> None:
        """Log a warning."""

    def exception(self, msg: str, *args: object) -> None:
        """Log an error with its traceback."""
