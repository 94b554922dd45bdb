"""What a rule is: a section of an RFC, what a client sends, and what must come of it.

`Rules.table` takes rules that differ in what is sent, `Rules.rule` a function that checks for itself. Each is played on
a connection of its own, which has had a response on stream 1 unless the rule begins with the preface.
"""

from typing import NamedTuple

from hyperframe.frame import RstStreamFrame

from tests.protocol.hpack_blocks import literal
from tests.support.h2client import END_HEADERS, END_STREAM, HEADERS, PROTOCOL_ERROR, H2Client, raw_frame

ALL = []
"""Every rule, in the order of the sections."""
NARROW = {"settings": {4: 100}, "auto_window": False}
"""Options of a client whose stream windows are soon used up: `Client.pending` leaves a response unfinished."""


class Rule(NamedTuple):
    """One rule, and how it is played."""

    section: str
    name: str
    play: object
    """Called with the client; fails if the server does."""
    only: str
    """The transport it applies to, "tls" or "clear"; empty for both."""
    options: dict
    """Of `Client.connect`."""


def rules_of(section, tls):
    """The rules of a section that apply with TLS, or without."""
    return [rule for rule in ALL if rule.section == section and rule.only in ("", "tls" if tls else "clear")]


class Rules:
    """Collects the rules of one RFC."""

    def __init__(self, rfc):
        self.rfc = rfc

    def table(self, section, expect, rows, only="", **options):
        """Add rules by name: each is a function of the client that returns the octets to send, or sends for itself."""
        for name, make in rows.items():
            self._add(section, name, _sent_and_checked(make, expect), only, options)

    def rule(self, section, name, only="", **options):
        """Add a rule that is a function of the client: a decorator."""
        def add(play):
            self._add(section, name, play, only, options)
            return play
        return add

    def _add(self, section, name, play, only, options):
        ALL.append(Rule(f"{self.rfc} {section}", name, play, only, options))


def _sent_and_checked(make, expect):
    def play(client):
        octets = make(client)
        if octets is not None:
            client.send_raw(octets)
        expect(client)
    return play


class Client(H2Client):
    """A client with what the rules have in common."""

    @classmethod
    def connect(cls, server, **options):
        """See `H2Client.connect`."""
        client = super().connect(server, **options)
        client.server = server
        return client

    def play(self, rule):
        """Play a rule, after a first response unless the preface is the rule's."""
        if rule.options.get("preface", True):
            self.assert_serves()
        rule.play(self)

    @property
    def last_id(self):
        """The stream opened last."""
        return self.next_stream_id - 2

    @property
    def last(self):
        """The stream opened last, and what came back on it."""
        return self.streams[self.last_id]

    def start(self, path="/count", method="POST", headers=(), end=False, **pseudo):
        """Open a stream; return its HEADERS. `/count` reads until the request ends."""
        return self.header_frames(self.open().stream_id, self.fields(method, path, headers, **pseudo), end_stream=end)

    def pending(self):
        """Open a stream whose request is complete and whose response is not, for want of a window; see NARROW."""
        stream = self.request("GET", "/bytes?n=1000")
        self.wait_for(lambda: stream.received == self.initial_window, "the part that the window allows")
        return stream

    def answered(self):
        """Open a stream whose response is complete and whose request is not."""
        stream = self.request("POST", "/unread", end=False)
        self.wait_for(lambda: stream.ended, "the end of the response")
        return stream

    def literal(self, section, end_stream=True):
        """Open a stream with exactly these fields, encoded as literals; return its HEADERS."""
        block = b"".join(literal(0, name, value) for name, value in section)
        return self.block(block, end_stream)

    def block(self, block, end_stream=True):
        """Open a stream with a block of any octets; return its HEADERS."""
        return raw_frame(HEADERS, END_STREAM * end_stream | END_HEADERS, self.open().stream_id, block)

    def request_block(self, path="/hello"):
        """The block of a request of which nothing is indexed."""
        return b"".join(literal(0, name.encode(), value.encode()) for name, value in self.fields(path=path))

    def resets(self):
        """All RST_STREAM frames so far, as stream and code."""
        return [(frame.stream_id, frame.error_code) for frame in self.frames if isinstance(frame, RstStreamFrame)]

    def assert_serves(self):
        """The connection is in order: it has no GOAWAY, and serves a request of which nothing is indexed."""
        self.send_raw(self.block(self.request_block()))
        stream = self.response(self.last)
        assert (stream.status, stream.text, self.goaways) == (200, "Hello, world!\n", [])


# -- what must come of it ----------------------------------------------------------------------------------------------

def connection_error(code, last_id=None):
    """One GOAWAY, with a code and the last stream that was opened, then the end; no stream is reset as well."""
    def check(client):
        client.wait_closed()
        expected = client.last_id if last_id is None else last_id
        assert (client.goaways, client.resets()) == ([(expected, code)], []), client.summary()
    return check


def stream_error(code):
    """One RST_STREAM with a code on the stream opened last; the connection goes on."""
    def check(client):
        client.wait_for(lambda: client.last.reset is not None or client.goaways, "RST_STREAM")
        stream_id = client.last_id
        client.assert_serves()
        assert client.resets() == [(stream_id, code)]
    return check


def malformed(client):
    """A stream error of type PROTOCOL_ERROR, with a 400 before it (RFC 9113 sections 8.1.1 and 8.2.1)."""
    stream = client.last
    stream_error(PROTOCOL_ERROR)(client)
    assert stream.status == 400


def answer(status):
    """A complete response by the server, before the application; the connection goes on."""
    def check(client):
        stream = client.response(client.last)
        client.assert_serves()
        assert (stream.status, stream.ended, client.resets()) == (status, True, [])
    return check


def tolerated(client):
    """Nothing: no error of any kind, and the connection goes on."""
    client.assert_serves()
    assert client.resets() == []


def served(client):
    """The stream opened last has its response, of status 200, and the connection goes on."""
    stream = client.response(client.last)
    assert (stream.status, stream.reset) == (200, None), client.summary()
    tolerated(client)
