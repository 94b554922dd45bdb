"""WebSocket over HTTP/2: RFC 8441, and what RFC 9113 section 8.5 says of tunnels."""

from tests.protocol.peer import settings
from tests.support.h2client import END_HEADERS, END_STREAM, HEADERS, PROTOCOL_ERROR, raw_frame

from .rules import Rules, answer, connection_error, malformed, stream_error, tolerated

rules = Rules("RFC 8441")
tunnels = Rules("RFC 9113")
GOOD = {":method": "CONNECT", ":protocol": "websocket", ":scheme": "https", ":authority": "localhost",
        ":path": "/tunnel", "sec-websocket-version": "13"}
GREETING = b"\x81\x05hello"


def with_(**changed):
    """The section of an extended CONNECT, with other values (None: without), `_` for `-`, pseudo-headers by name."""
    names = {name.lstrip(":").replace("-", "_"): name for name in GOOD}
    section = {**GOOD, **{names.get(name, name.replace("_", "-")): value for name, value in changed.items()}}
    return [(name.encode(), value.encode()) for name, value in section.items() if value is not None]


def requests(sections):
    """What sends each of these sections, and leaves its stream open."""
    return {name: lambda c, section=section: c.literal(section, end_stream=False) for name, section in sections.items()}


def opened(client):
    """Open a tunnel; return its stream, on which the greeting has come."""
    client.send_raw(client.literal(with_(), end_stream=False))
    stream = client.last
    client.wait_for(lambda: stream.received == len(GREETING) or stream.done, "the greeting")
    assert (stream.status, stream.body) == (200, GREETING)
    return stream


@rules.rule("3", "SETTINGS_ENABLE_CONNECT_PROTOCOL is announced in the first SETTINGS, and stays so")
def announced(client):
    opened(client)
    values = [frame.settings[8] for frame in client.frames if getattr(frame, "settings", None)]
    assert values == [1]


rules.table("3", connection_error(PROTOCOL_ERROR), {
    "SETTINGS_ENABLE_CONNECT_PROTOCOL of 2": lambda c: settings((8, 2)),
})
rules.table("3", tolerated, {
    "SETTINGS_ENABLE_CONNECT_PROTOCOL of a client": lambda c: settings((8, 1)),
})
rules.table("4", malformed, requests({
    ":protocol with another method": with_(method="GET"),
    "no :scheme": with_(scheme=None),
    "no :path": with_(path=None),
    "an empty :path": with_(path=""),
    "userinfo in :authority": with_(authority="a@localhost"),
    "an empty :protocol": with_(protocol=""),
    ":protocol that is no token": with_(protocol="web socket"),
}))
rules.table("4", answer(501), {
    "a protocol that the server does not have": lambda c: c.literal(with_(protocol="connect-udp")),
})
rules.table("5", malformed, requests({
    "the field upgrade": with_(upgrade="websocket"),
    "the field connection": with_(connection="upgrade"),
}))
rules.table("5", answer(400), {
    "another version of the WebSocket protocol": lambda c: c.literal(with_(sec_websocket_version="8")),
})


@rules.rule("5", "the response has none of the fields of HTTP/1.1's handshake")
def fields_of_the_response(client):
    names = {name for name, _ in opened(client).headers}
    assert not names & {"upgrade", "connection", "sec-websocket-accept", "content-length", "transfer-encoding"}


@rules.rule("5.1", "END_STREAM is the end of the connection in each direction")
def end_stream(client):
    stream = opened(client)
    client.send_raw(client.data_frame(stream.stream_id, b"", end_stream=True))
    client.response(stream)
    assert (stream.ended, stream.reset) == (True, None)
    client.assert_serves()


@rules.rule("5.1", "RST_STREAM is its reset")
def reset(client):
    client.reset(opened(client))
    client.assert_serves()


tunnels.table("8.5", stream_error(PROTOCOL_ERROR), {
    "HEADERS in a tunnel": lambda c: raw_frame(
        HEADERS, END_HEADERS | END_STREAM, opened(c).stream_id, b"\0\x03x-a\x011"),
})
