"""Priorities: RFC 9218, as far as the server takes part; it does not announce SETTINGS_NO_RFC7540_PRIORITIES."""

import json

from tests.protocol.peer import settings
from tests.support.h2client import raw_frame

from .rules import Rules, served, tolerated

rules = Rules("RFC 9218")
PRIORITY_UPDATE = 0x10


def priority_of(client, *values):
    """The urgency of a request with these `priority` fields, and whether it is incremental, as applications see it."""
    stream = client.get("/environ", [("priority", value) for value in values])
    environ = json.loads(stream.text)
    return environ["gunicorn.http2.urgency"], environ["gunicorn.http2.incremental"]


rules.table("2.1.1", tolerated, {
    "SETTINGS_NO_RFC7540_PRIORITIES of 1": lambda c: settings((9, 1)),
    "SETTINGS_NO_RFC7540_PRIORITIES of 0": lambda c: settings((9, 0)),
})


@rules.rule("4", "unknown parameters, and values of a wrong type or range, are ignored")
def ignored(client):
    assert priority_of(client, "u=5, i, x=?1") == (5, True)
    for value in ("u=8", "u=-1", "u=a", "u=1.5", 'u="1"', "i=1", "x", "=", "\xe9"):
        assert priority_of(client, value) == (3, False), value


@rules.rule("4.1", "the urgency is 0 to 7, and 3 without one")
def urgency(client):
    assert [priority_of(client, f"u={number}") for number in range(8)] == [(number, False) for number in range(8)]
    assert priority_of(client) == (3, False)


@rules.rule("4.2", "a response is not incremental unless the client says so")
def incremental(client):
    assert [priority_of(client, value) for value in ("i", "i=?1", "i=?0")] == [(3, True), (3, True), (3, False)]


@rules.rule("5", "several priority fields are one")
def several(client):
    assert priority_of(client, "u=1", "i") == (1, True)


rules.table("7", served, {
    "PRIORITY_UPDATE before its stream": lambda c: raw_frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x03u=0")
    + c.start("/hello", "GET", end=True),
    "PRIORITY_UPDATE and a priority field": lambda c: raw_frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x03u=0")
    + c.start("/hello", "GET", [("priority", "u=7")], end=True),
})
rules.table("7.1", tolerated, {
    "PRIORITY_UPDATE of a closed stream": lambda c: raw_frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=0"),
    "PRIORITY_UPDATE of an open stream": lambda c: c.start() + raw_frame(
        PRIORITY_UPDATE, 0, 0, c.last_id.to_bytes(4, "big") + b"u=0, i"),
})
