"""The reason with which a connection ends that has made no error: in its last event, and in its lifecycle."""

import pytest

from gunicorn_h2.protocol.errors import EndReason, ErrorCode
from gunicorn_h2.protocol.events import ConnectionTerminated

from .peer import goaway, ping

SHUTDOWN = ping(b"shutdown", ack=True)


def use_up(peer):
    """Make the only request that there may be."""
    peer.respond(peer.open())
    peer.send(SHUTDOWN)


def shut_down(peer):
    """Have the server leave, with a stream open."""
    stream = peer.open()
    peer.core.shutdown(peer.now)
    peer.respond(stream)
    peer.send(SHUTDOWN)


def leave_when_told(peer):
    """The client closes its side once it has been told to go."""
    peer.core.shutdown(peer.now)
    peer.collect().core.receive_eof()


def grow_old(peer):
    """The age of the connection is reached, then it is shut down."""
    peer.wait(100)
    peer.core.shutdown(peer.now)
    peer.send(SHUTDOWN)


ENDS = {
    "idle": ({"idle_timeout": 5}, lambda peer: peer.wait(5), EndReason.IDLE),
    "one request": ({"idle_timeout": 0}, lambda peer: peer.respond(peer.open()), EndReason.IDLE),
    "age": ({"max_connection_age": 100, "idle_timeout": 1_000}, grow_old, EndReason.MAX_AGE),
    "requests": ({"max_requests_per_connection": 1}, use_up, EndReason.MAX_REQUESTS),
    "shutdown": ({}, shut_down, EndReason.SHUTDOWN),
    "shutdown, and the client leaves": ({}, leave_when_told, EndReason.SHUTDOWN),
    "silence": ({"keepalive_interval": 5, "keepalive_timeout": 5, "idle_timeout": 1_000},
                lambda peer: peer.wait(20), EndReason.KEEPALIVE_TIMEOUT),
    "the client's GOAWAY": ({}, lambda peer: peer.send(goaway(code=2)), EndReason.GOAWAY),
    "a driver's GOAWAY": ({}, lambda peer: peer.core.fail(ErrorCode.NO_ERROR, EndReason.MADE_ROOM),
                          EndReason.MADE_ROOM),
    "a driver's end": ({}, lambda peer: peer.core.receive_eof(EndReason.WRITE_TIMEOUT), EndReason.WRITE_TIMEOUT),
}


@pytest.mark.parametrize("name", ENDS)
def test_ends_without_an_error(connect, name):
    config, end, reason = ENDS[name]
    peer = connect(**config)
    assert peer.core.lifecycle.end_reason is None
    end(peer)
    assert peer.collect().events[-1] == ConnectionTerminated(ErrorCode.NO_ERROR, reason)
    assert peer.core.lifecycle.end_reason is reason


@pytest.mark.parametrize("begin", [lambda peer: None, lambda peer: peer.core.shutdown(peer.now),
                                   lambda peer: peer.send(goaway())], ids=["open", "told to go", "going"])
def test_a_client_that_leaves_a_stream_open_has_ended_the_connection_itself(connect, begin):
    peer = connect()
    peer.open()
    begin(peer)
    peer.core.receive_eof()
    assert peer.collect().events[-1] == ConnectionTerminated(ErrorCode.NO_ERROR, "")


def test_a_client_that_just_closes_its_side(peer):
    peer.core.receive_eof()
    assert peer.collect().events[-1] == ConnectionTerminated(ErrorCode.NO_ERROR, "")
    assert peer.core.lifecycle.end_reason is None
