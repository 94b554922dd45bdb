"""The `priority` field (RFC 9218): the order in which a client wants its responses.

The field is a Dictionary of RFC 8941. A malformed one is ignored as a whole, and so is a single member of the
wrong type or out of range; the defaults apply instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

__all__ = ["UNSTATED", "Priority", "merge_priority", "parse_priority", "request_priority"]

# RFC 8941 section 3, bottom up. No two alternatives begin alike, so matching takes linear time.
_KEY = r"[a-z*][a-z0-9_\-.*]*"
_NUMBER = r"-?(?:[0-9]{1,12}\.[0-9]{1,3}|[0-9]{1,15})(?![0-9.])"
_STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
_TOKEN = r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*"
_OCTETS = r":[A-Za-z0-9+/=]*:"
_BOOLEAN = r"\?[01]"
_BARE = f"(?:{_NUMBER}|{_STRING}|{_TOKEN}|{_OCTETS}|{_BOOLEAN})"
_PARAMETERS = f"(?:;[ ]*{_KEY}(?:={_BARE})?)*"
_INNER_LIST = rf"\([ ]*(?:{_BARE}{_PARAMETERS}(?:[ ]+{_BARE}{_PARAMETERS})*)?[ ]*\)"
_member = re.compile(rf"({_KEY})(?:=({_BARE}|{_INNER_LIST}))?{_PARAMETERS}").match
_separator = re.compile(r"[ \t]*,[ \t]*").match
_urgency = re.compile("[0-7]").fullmatch

_MAX_REMEMBERED_SIZE = 64


class Priority(NamedTuple):
    """The urgency of a response, and whether it is of use in parts (RFC 9218 section 4)."""

    urgency: int = 3
    """0, the most urgent, to 7."""
    incremental: bool = False
    """Whether the client can process the response piece by piece."""


UNSTATED = Priority()
"""That of a request without a `priority` field, which can be told from one that states the defaults."""


def request_priority(fields: Sequence[tuple[bytes, bytes]]) -> Priority:
    """The priority in a request's fields; the values of repeated `priority` fields are joined."""
    values = [value for name, value in fields if name == b"priority"]
    if not values:
        return UNSTATED
    return parse_priority(values[0] if len(values) == 1 else b", ".join(values))


def parse_priority(value: bytes) -> Priority:
    """The priority in a field value. Never raises."""
    return (_remembered if len(value) <= _MAX_REMEMBERED_SIZE else _parse)(value)


def merge_priority(priority: Priority, value: bytes) -> Priority:
    """The priority of a response whose own `priority` field has this value (section 8): what it says comes first."""
    # Octets beyond ASCII are malformed anywhere; latin-1 decodes them to characters that are, too.
    members = _dictionary(value.decode("latin-1").strip(" "))
    urgency, incremental = members.get("u") or "", members.get("i", "")
    return Priority(
        int(urgency) if _urgency(urgency) else priority.urgency,
        incremental in ("?1", None) if incremental in ("?0", "?1", None) else priority.incremental,
    )


def _parse(value: bytes) -> Priority:
    return merge_priority(UNSTATED, value)


_remembered = lru_cache(maxsize=256)(_parse)


def _dictionary(text: str) -> dict[str, str | None]:
    """The members as text, None for those without a value; empty where the dictionary is malformed."""
    members: dict[str, str | None] = {}
    position = 0
    while True:
        member = _member(text, position)
        if member is None:
            return {}
        members[member[1]] = member[2]
        if member.end() == len(text):
            return members
        separator = _separator(text, member.end())
        if separator is None:
            return {}
        position = separator.end()
