"""What a peer has sent, in a form that is safe to show."""

from __future__ import annotations

__all__ = ["MAX_TEXT", "printable"]

MAX_TEXT = 200
"""How much of a peer's text is shown, in characters."""


def printable(text: object, limit: int = MAX_TEXT) -> str:
    """Text from a peer as visible ASCII of at most about `limit` characters: a terminal obeys no part of it."""
    if isinstance(text, (bytes, bytearray)):
        text = bytes(text[: limit + 1]).decode("latin-1")
    whole = str(text)
    shown = "".join(char if " " <= char <= "~" else _escape(char) for char in whole[:limit])
    return shown if len(whole) <= limit else f"{shown}..."


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii") if char != "\x7f" else "\\x7f"
