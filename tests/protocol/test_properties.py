"""Conversations that no one wrote: right ones arrive intact at another library's client, wrong ones end in order."""

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived as ClientData
from h2.events import (
    PingReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    SettingsAcknowledged,
    StreamEnded,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.connection import ServerConnection
from gunicorn_h2.protocol.events import (
    ConnectionTerminated,
    DataReceived,
    RequestReceived,
    StreamReset,
    TrailersReceived,
)
from gunicorn_h2.protocol.headers import ResponseHead
from gunicorn_h2.protocol.outbox import OUTPUT_LIMIT

from .effort import examples
from .peer import (
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    PREFACE,
    Peer,
    data,
    fields,
    ping,
    raw,
    rst_stream,
    window_update,
)
from .peer import settings as settings_frame

CONTROL = 200
# What a client may hear beside its responses; a reset or a GOAWAY is not among it.
BENIGN = (PingReceived, RemoteSettingsChanged, SettingsAcknowledged, WindowUpdated)

requests = st.lists(
    st.tuples(st.binary(max_size=1_000), st.booleans(), st.integers(20, 1_000)), min_size=1, max_size=6)
responses = st.lists(st.lists(st.binary(max_size=30_000), max_size=4), min_size=6, max_size=6)
cut_sizes = st.lists(st.integers(1, 400), min_size=1, max_size=30)


class Conversation:
    """The h2 library's client, our core, a wire that cuts as it likes, and an application that answers."""

    def __init__(self, config, cut_sizes, client_settings):
        self.core = ServerConnection(config, 0.0)
        self.client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.client.initiate_connection()
        self.client.update_settings(client_settings)
        self.cut_sizes, self.cuts = cut_sizes, 0
        self.bodies, self.done, self.streams = {}, set(), {}
        self.answers, self.ended = {}, set()

    def cut(self, octets, scale=1):
        """Cut octets into the sizes given, over and over."""
        while octets:
            size = self.cut_sizes[self.cuts % len(self.cut_sizes)] * scale
            self.cuts += 1
            yield octets[:size]
            octets = octets[size:]

    def exchange(self):
        """Carry octets both ways until there are no more."""
        while True:
            up = self.client.data_to_send()
            for piece in self.cut(up):
                self.core.receive_data(piece, 0.0)
                self.serve()
            down = self.core.data_to_send(0.0)
            for piece in self.cut(down, 40):
                self.hear(self.client.receive_data(piece))
            if not up and not down:
                return

    def serve(self):
        """Take events as a driver does; bodies are read at once."""
        for event in self.core.events():
            assert not isinstance(event, (StreamReset, ConnectionTerminated)), event
            if isinstance(event, RequestReceived):
                stream_id = event.stream.stream_id
                self.streams[stream_id], self.bodies[stream_id] = event.stream, event.body
                if event.end_stream:
                    self.done.add(stream_id)
            elif isinstance(event, DataReceived):
                self.bodies[event.stream.stream_id] += event.data
                self.core.acknowledge(event.stream, len(event.data), 0.0)
                if event.end_stream:
                    self.done.add(event.stream.stream_id)

    def hear(self, events):
        """Take the client's events; credit comes back at once."""
        for event in events:
            if isinstance(event, ResponseReceived):
                self.answers[event.stream_id] = b""
            elif isinstance(event, ClientData):
                self.answers[event.stream_id] += event.data
                self.client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.ended.add(event.stream_id)
            else:
                assert isinstance(event, BENIGN), event

    def send_body(self, stream_id, body, step):
        """Send a body within the windows that the client knows of."""
        while body:
            room = min(self.client.local_flow_control_window(stream_id), step, self.client.max_outbound_frame_size)
            assert room > 0, "credit did not come back"
            self.client.send_data(stream_id, body[:room])
            body = body[room:]
            self.exchange()
        self.client.end_stream(stream_id)


@given(requests, responses, cut_sizes, st.integers(20, 70_000), st.integers(0, 70_000), st.integers(0, 65_536))
@examples(15)
def test_conversations_arrive_intact(engine, requests, responses, cut_sizes, window, client_window, table):
    talk = Conversation(ConnectionConfig(engine=engine, initial_window_size=window, control_budget=100_000), cut_sizes,
                        {SettingCodes.INITIAL_WINDOW_SIZE: client_window, SettingCodes.HEADER_TABLE_SIZE: table})
    talk.exchange()
    for number, (body, has_body, step) in enumerate(requests):
        stream_id = 2 * number + 1
        talk.client.send_headers(stream_id, fields((b"x-number", b"%d" % number)), end_stream=not has_body)
        if has_body:
            talk.send_body(stream_id, body, step)
    talk.exchange()
    expected = {2 * number + 1: body if has_body else b"" for number, (body, has_body, _) in enumerate(requests)}
    assert talk.bodies == expected
    assert talk.done == set(expected)
    for number, stream_id in enumerate(expected):
        answer(talk.core, talk.streams[stream_id], responses[number])
    talk.exchange()
    for stream_id in set(expected) - talk.ended:
        talk.client.increment_flow_control_window(200_000, stream_id)
    talk.exchange()
    assert talk.answers == {2 * number + 1: b"".join(responses[number]) for number in range(len(requests))}
    assert talk.ended == set(expected)
    assert (talk.core.streams, talk.core.orphaned_calls) == ({}, 0)


def answer(core, stream, pieces):
    """Send a response in pieces, or whole where it has one."""
    if len(pieces) == 1:
        core.send_response(stream, ResponseHead(200, [(b"content-length", b"%d" % len(pieces[0]))]), pieces[0])
    else:
        core.send_headers(stream, ResponseHead(200, [(b"x-pieces", b"%d" % len(pieces))]), False)
        for piece in pieces:
            core.send_data(stream, piece, False)
        core.send_data(stream, b"", True)
    core.finish(stream, 0.0)


# -- garbage ---------------------------------------------------------------------------------------------------------


class Wild(Peer):
    """A peer whose application answers whatever comes, and which never reads more than it must."""

    def send(self, *pieces):
        """Deliver, check that what is to be sent stays bounded, answer."""
        octets = b"".join(pieces)
        self.core.receive_data(octets, self.now)
        self.check(len(octets))
        return self.collect()

    def check(self, received):
        """Output is in proportion to input: an answer is no larger than twice what asked for it, and one gathering."""
        held = self.core.data_to_send(self.now)
        assert len(held) <= 4 * received + OUTPUT_LIMIT + 16_384 + 2_000
        self.octets += held
        self._parse()
        self.events += self.core.events()

    def settle(self):
        """What an application would do with the events so far."""
        for event in self.take_events():
            if isinstance(event, RequestReceived):
                if event.end_stream:
                    self.respond(event.stream, b"answer" * 30)
            elif isinstance(event, DataReceived):
                self.core.acknowledge(event.stream, len(event.data), self.now)
                if event.end_stream:
                    self.respond(event.stream, b"thanks")
            elif isinstance(event, TrailersReceived):
                self.respond(event.stream, b"thanks")
            elif isinstance(event, StreamReset):
                self.core.finish(event.stream, self.now)
            elif isinstance(event, ConnectionTerminated):
                self.ends.append(event)
        self.take()
        self.collect()

    def finish(self):
        """Whatever was sent: the connection ended once, with a GOAWAY, or it goes on."""
        for _ in range(3):
            self.settle()
        assert len(self.ends) <= 1
        assert self.core.closed == bool(self.ends)
        self.check_deadline()
        self.wait(10_000)
        self.settle()
        assert self.core.closed or self.core.streams

    def check_deadline(self):
        """A connection that is over needs no timer, one without a stream always has one, and none is in the past."""
        deadline = self.core.next_deadline()
        if self.core.closed:
            assert deadline is None
        elif deadline is None:
            assert self.core.streams
        else:
            assert deadline >= self.now

    @classmethod
    def make(cls, engine):
        """A connection that is set up."""
        peer = cls(engine, setup=False, control_budget=CONTROL)
        peer.ends = []
        peer.setup([(INITIAL_WINDOW_SIZE, 100)])
        return peer


frame_kinds = st.integers(0, 11)
stream_ids = st.sampled_from([0, 1, 1, 1, 2, 3, 3, 5, 7, 101, 2**31 - 1, 2**31 + 1])
garbage_frames = st.builds(raw, frame_kinds, st.integers(0, 255), stream_ids, st.binary(max_size=30))
header_block = st.sampled_from([b"\x82\x87\x84\x41\x01a", b"\x82\x87\x84", b"\x83\x87\x84\x0f\x0d\x012", b"\x88",
                                b"\x82\x87\x84\x40\x01x\x01y", b"\xbe", b"\x20\x82\x87\x84", b"\x40\x01x\x01z"])
likely_frames = st.one_of(
    st.builds(lambda block, stream_id, flags: raw(1, flags, stream_id, block), header_block, stream_ids,
              st.sampled_from([0x4, 0x5, 0x5, 0x0, 0x1])),
    st.builds(lambda block, stream_id, flags: raw(9, flags, stream_id, block), header_block, stream_ids,
              st.sampled_from([0x0, 0x4])),
    st.builds(data, stream_ids, st.binary(max_size=40), st.booleans(), st.sampled_from([None, None, 0, 5])),
    st.builds(window_update, stream_ids, st.sampled_from([0, 1, 50, 100_000, 2**31 - 1])),
    st.builds(rst_stream, stream_ids, st.integers(0, 2**32 - 1)),
    st.builds(lambda pairs: settings_frame(*pairs), st.lists(st.tuples(
        st.sampled_from([HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE, INITIAL_WINDOW_SIZE, 3, 5, 9]),
        st.sampled_from([0, 1, 50, 200, 4_096, 16_384, 2**31 - 1])), max_size=3)),
    st.builds(ping, st.binary(min_size=8, max_size=8), st.booleans()),
    st.builds(ping, st.just(b"shutdown"), st.just(True)),
)


@given(st.lists(st.one_of(likely_frames, likely_frames, likely_frames, garbage_frames), max_size=40),
       st.integers(0, 40), st.booleans())
@examples(150)
def test_frames_of_any_kind_never_raise(engine, sequence, shutdown_at, settle):
    peer = Wild.make(engine)
    for number, frame in enumerate(sequence):
        if number == shutdown_at:
            peer.core.shutdown(peer.now)
        peer.send(frame)
        if settle:
            peer.settle()
    peer.finish()


@given(st.binary(max_size=300))
@examples(100)
def test_octets_of_any_kind_never_raise(engine, octets):
    peer = Wild.make(engine)
    peer.send(octets)
    peer.finish()


VALID = b"".join((
    PREFACE, settings_frame((INITIAL_WINDOW_SIZE, 70)), raw(1, 0x4, 1, b"\x83\x87\x84\x41\x01a\x0f\x0d\x014"),
    data(1, b"body", end=True, padding=3), raw(4, 1), raw(1, 0x5, 3, b"\x82\x87\x84\x40\x01x\x01y"),
    window_update(1, 500), raw(1, 0x0, 5, b"\x82\x87"), raw(9, 0x4, 5, b"\x84\xbe"), data(5, b"x"),
    raw(1, 0x5, 5, b"\x40\x01x\x01z"), ping(),
    rst_stream(3), raw(2, 0, 5, bytes(5)), window_update(0, 500)))


mutations = st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255), st.sampled_from(["set", "insert", "delete"]))


@given(st.lists(mutations, max_size=4), st.integers(0, 500))
@examples(300)
def test_mutations_of_a_valid_conversation_never_raise(engine, mutations, cut_at):
    octets = bytearray(VALID)
    for position, value, how in mutations:
        position %= len(octets)
        if how == "set":
            octets[position] = value
        elif how == "insert":
            octets.insert(position, value)
        else:
            del octets[position]
    peer = Wild(engine, setup=False, control_budget=CONTROL)
    peer.ends = []
    peer.send(bytes(octets[:cut_at]))
    peer.settle()
    peer.send(bytes(octets[cut_at:]))
    peer.finish()


def test_the_valid_conversation_is_valid(engine):
    peer = Peer(engine, setup=False)
    peer.send(VALID)
    assert (peer.goaways, peer.refused, peer.resets) == ([], [], [])
    assert len(peer.of(RequestReceived)) == 3


def test_another_librarys_client_hears_no_wrong_frame_after_a_reset(engine):
    """What crossed a reset on the wire is no error to a client either."""
    talk = Conversation(ConnectionConfig(engine=engine), [1_000], {})
    talk.exchange()
    talk.client.send_headers(1, fields(), end_stream=True)
    talk.exchange()
    answer(talk.core, talk.streams[1], [bytes(50_000), b"x"])
    talk.client.reset_stream(1)
    with pytest.raises(ProtocolError):
        talk.client.send_data(1, b"x")
    for piece in talk.cut(talk.core.data_to_send(0.0)):
        talk.client.receive_data(piece)
    talk.core.receive_data(talk.client.data_to_send(), 0.0)
    assert not talk.core.closed
