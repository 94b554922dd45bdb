"""Uploads that have credit and are silent: a PING passes the client's turn at reading on."""

import pytest

from gunicorn_h2.protocol.stall import PING_PAYLOAD

from .peer import data, ping

ACK = ping(PING_PAYLOAD, ack=True)
# Two looks, five milliseconds apart: the first one sees the data that came before.
SILENCE = 0.0101


@pytest.fixture
def open_uploads(connect):
    """A function that makes a connection with uploads, each with a piece of its body sent and read."""

    def open_uploads(count=2, octets=40_000, **config):
        peer = connect(**config)
        streams = [peer.open(method=b"POST", end=False) for _ in range(count)]
        for stream in streams:
            upload(peer, stream, octets)
        peer.take()
        return peer, streams

    return open_uploads


def upload(peer, stream, octets, end=False):
    """Send data, and have the application take it."""
    for position in range(0, octets, 16_000):
        piece = bytes(min(16_000, octets - position))
        peer.send(data(stream.stream_id, piece, end and position + 16_000 >= octets))
    peer.core.acknowledge(stream, octets)
    peer.collect()


def probes(peer):
    """How many PINGs for silent uploads have come since the last `take`."""
    return peer.pings.count((False, PING_PAYLOAD))


def answer_probes(peer):
    """Answer every PING, a moment later each, until there is none; return how many there were."""
    count = 0
    while probes(peer):
        peer.take()
        count += 1
        peer.now += 0.001
        peer.send(ACK)
    return count


def test_silent_uploads_are_probed(open_uploads):
    peer, _ = open_uploads()
    peer.wait(0.02)
    assert probes(peer) >= 1
    peer.assert_alive()


def test_an_answer_without_data_brings_the_next_one_until_every_task_has_had_its_turn(open_uploads):
    peer, _ = open_uploads(5)
    peer.wait(SILENCE)
    assert 5 <= answer_probes(peer) <= 15
    peer.take()
    peer.wait(1)
    assert probes(peer) == 0


def test_data_begins_it_anew(open_uploads):
    peer, (first, _) = open_uploads()
    peer.wait(SILENCE)
    turns = answer_probes(peer)
    upload(peer, first, 16_000)
    peer.take()
    peer.wait(SILENCE)
    assert probes(peer) >= 1
    assert turns == answer_probes(peer)


def test_an_answer_that_comes_after_data_brings_none(open_uploads):
    peer, (first, _) = open_uploads()
    peer.wait(SILENCE)
    assert probes(peer) == 1
    peer.take()
    peer.now += 0.001
    peer.send(data(first.stream_id, b"more"), ACK)
    assert probes(peer) == 0


def test_uploads_that_flow_are_not_probed(open_uploads):
    peer, (first, second) = open_uploads()
    for _ in range(100):
        peer.now += 0.004
        peer.core.handle_timeout(peer.now)
        upload(peer, first, 1_000)
        upload(peer, second, 1_000)
    assert probes(peer) == 0


def test_only_some_are_under_way_at_a_time(open_uploads):
    """On a long way the next one does not wait for the answer, nor do they pile up."""
    peer, _ = open_uploads(50)
    peer.wait(0.02)
    assert 2 <= probes(peer) <= 4
    peer.wait(1)
    assert probes(peer) == 8
    peer.take()
    peer.send(ACK * 8)
    assert probes(peer) == 1, "answers that come together are one turn of the client's"


@pytest.mark.parametrize("octets", [100, 40_000])
def test_a_client_that_does_not_answer_is_left_alone(open_uploads, octets):
    peer, (first, _) = open_uploads(octets=octets)
    for _ in range(20):
        peer.wait(10)
        upload(peer, first, 10)
    assert peer.written.count(PING_PAYLOAD) == 8
    assert peer.core.next_deadline() > peer.now
    peer.assert_alive()


def test_streams_of_small_messages_are_seldom_probed(open_uploads):
    peer, (first, _) = open_uploads(octets=100)
    for _ in range(1_000):
        upload(peer, first, 10)
        peer.wait(0.05)
        while probes(peer):
            peer.take()
            peer.send(ACK)
    assert peer.written.count(PING_PAYLOAD) <= 250


def test_a_connection_of_one_stream_at_a_time_is_not_probed(connect):
    peer = connect()
    for _ in range(3):
        stream = peer.open(method=b"POST", end=False)
        upload(peer, stream, 60_000)
        peer.wait(0.1)
        upload(peer, stream, 60_000, end=True)
        peer.respond(stream, b"thanks")
    assert probes(peer) == 0


def test_the_last_of_several_uploads_is_probed(open_uploads):
    """A task whose response is there already may have been the one that read the credit."""
    peer, (first, second) = open_uploads()
    upload(peer, first, 1_000, end=True)
    peer.respond(first, b"thanks")
    peer.take()
    peer.wait(0.02)
    assert probes(peer) >= 1
    upload(peer, second, 1_000, end=True)


@pytest.mark.parametrize("end", ["complete", "answered", "reset"])
def test_uploads_that_have_ended_are_not_waited_for(open_uploads, end):
    peer, streams = open_uploads()
    for stream in streams:
        if end == "complete":
            upload(peer, stream, 10, end=True)
        elif end == "answered":
            peer.respond(stream, b"enough")
        else:
            peer.core.reset(stream, 8)
    peer.collect().take()
    peer.wait(0.05)
    assert probes(peer) == 0


def test_uploads_without_credit_are_not_probed(connect):
    """Their applications have not read; the client may not send, stalled or not."""
    peer = connect(initial_window_size=20_000)
    for _ in range(2):
        stream = peer.open(method=b"POST", end=False)
        peer.send(data(stream.stream_id, bytes(10_000)), data(stream.stream_id, bytes(10_000)))
    peer.take()
    peer.wait(1)
    assert probes(peer) == 0


def test_behind_a_goaway_nothing_is_probed(open_uploads):
    """There are clients that take every frame behind one for an error."""
    peer, _ = open_uploads()
    peer.core.shutdown(peer.now)
    peer.wait(peer.config.drain_timeout)
    peer.send(ping(b"shutdown", ack=True))
    peer.take()
    for stream in peer.core.streams.values():
        upload(peer, stream, 1_000)
    peer.wait(1)
    assert probes(peer) == 0


def test_answers_that_were_asked_for_are_not_held_against_the_client(open_uploads):
    peer, (first, _) = open_uploads(control_budget=10)
    for _ in range(50):
        peer.wait(SILENCE)
        answer_probes(peer)
        upload(peer, first, 2_000)
        peer.take()
    peer.assert_alive()


def test_answers_that_no_one_asked_for_are(open_uploads):
    peer, _ = open_uploads(control_budget=10)
    for _ in range(30):
        peer.send(ACK)
    assert peer.core.closed
