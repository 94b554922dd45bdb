"""Priorities: RFC 9218. The server tells applications of them; it does not announce SETTINGS_NO_RFC7540_PRIORITIES."""

import json

from tests.protocol.peer import settings
from tests.support.h2client import (
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE_ERROR,
    HEADERS,
    PRIORITY_FLAG,
    PROTOCOL_ERROR,
    raw_frame,
)

from .rules import Rules, connection_error, served, tolerated

rules = Rules("RFC 9218")
PRIORITY_UPDATE = 0x10


def update(target, value=b"u=0", stream_id=0):
    """A PRIORITY_UPDATE frame."""
    return raw_frame(PRIORITY_UPDATE, 0, stream_id, target.to_bytes(4, "big") + value)


def priority_of(client, *values):
    """The urgency of a request with these `priority` fields, and whether it is incremental, as applications see it."""
    stream = client.get("/environ", [("priority", value) for value in values])
    environ = json.loads(stream.text)
    return environ["gunicorn.http2.urgency"], environ["gunicorn.http2.incremental"]


rules.table("2.1", connection_error(PROTOCOL_ERROR), {
    "SETTINGS_NO_RFC7540_PRIORITIES of 2": lambda c: settings((9, 2)),
    "SETTINGS_NO_RFC7540_PRIORITIES of 2^32-1": lambda c: settings((9, 2**32 - 1)),
})


def weight_of(client):
    """The weight of a request that has one in its HEADERS, as applications see it."""
    stream = client.open()
    client.send_raw(raw_frame(HEADERS, END_STREAM | END_HEADERS | PRIORITY_FLAG, stream.stream_id,
                              b"\0\0\0\0\x63" + client.request_block("/environ")))
    return json.loads(client.response(stream).text)["gunicorn.http2.priority_weight"]


@rules.rule("2.1", "priorities of RFC 7540 are ignored if the client has said that it sends none", settings={9: 1})
def ignored_dependencies(client):
    assert weight_of(client) == 16


@rules.rule("2.1", "priorities of RFC 7540 are not ignored otherwise", settings={9: 0})
def dependencies(client):
    assert weight_of(client) == 100


rules.table("2.1", tolerated, {
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


@rules.rule("7", "PRIORITY_UPDATE before a stream overrides its priority field")
def update_overrides(client):
    ids = [client.next_stream_id + 2 * number for number in range(2)]
    client.send_raw(update(ids[0], b"u=7") + update(ids[1], b"u=0") + update(ids[0], b"u=1, i"))
    assert [priority_of(client, "u=5") for _ in range(3)] == [(1, True), (0, False), (5, False)]


rules.table("7", served, {
    "PRIORITY_UPDATE before its stream": lambda c: raw_frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x03u=0")
    + c.start("/hello", "GET", end=True),
    "PRIORITY_UPDATE and a priority field": lambda c: raw_frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x03u=0")
    + c.start("/hello", "GET", [("priority", "u=7")], end=True),
})
rules.table("7.1", connection_error(PROTOCOL_ERROR), {
    "PRIORITY_UPDATE on an open stream": lambda c: c.start() + update(c.last_id, stream_id=c.last_id),
    "PRIORITY_UPDATE on a closed stream": lambda c: update(3, stream_id=1),
    "PRIORITY_UPDATE on an idle stream": lambda c: update(3, stream_id=3),
    "PRIORITY_UPDATE of stream 0": lambda c: update(0),
    "PRIORITY_UPDATE of a stream that is not promised": lambda c: update(2),
    "PRIORITY_UPDATE of more idle streams than may be open": lambda c: b"".join(update(3 + 2 * n) for n in range(11)),
    "PRIORITY_UPDATE of an idle stream beside as many open ones as may be": lambda c: b"".join(
        c.start() for _ in range(10)) + update(c.last_id + 2),
})
rules.table("7.1", connection_error(FRAME_SIZE_ERROR), {
    "PRIORITY_UPDATE of 3 octets": lambda c: raw_frame(PRIORITY_UPDATE, 0, 0, bytes(3)),
})
rules.table("7.1", tolerated, {
    "PRIORITY_UPDATE of as many idle streams as may be open": lambda c: b"".join(
        update(3 + 2 * n) for n in range(10)) * 2,
    "PRIORITY_UPDATE with a value that is malformed": lambda c: update(3, b"u=9, =\xff"),
    "the reserved bit of the stream that is prioritized": lambda c: raw_frame(
        PRIORITY_UPDATE, 0xFF, 0, b"\x80\0\0\x01u=0"),
    "PRIORITY_UPDATE of a closed stream": lambda c: raw_frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=0"),
    "PRIORITY_UPDATE of an open stream": lambda c: c.start() + raw_frame(
        PRIORITY_UPDATE, 0, 0, c.last_id.to_bytes(4, "big") + b"u=0, i"),
})
