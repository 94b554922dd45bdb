"""The server's keep-alive PINGs: peers that have vanished are noticed, those that are only silent are not."""

import pytest

from gunicorn_h2.protocol.connection import ServerConnection
from gunicorn_h2.protocol.errors import EndReason, ErrorCode
from gunicorn_h2.protocol.events import StreamReset

from .peer import PREFACE, Peer, data, ping, raw, settings, settings_ack, window_update

ALIVE = b"alive?  "
CARE = {"keepalive_interval": 60, "keepalive_timeout": 20, "idle_timeout": 100_000, "max_connection_age": 0}
NO_ERROR = ErrorCode.NO_ERROR
GRACE = 0.1


def questions(peer):
    """The payloads of the PINGs that have come since the last call."""
    return [frame.opaque_data for frame in peer.take() if frame.type == 6 and "ACK" not in frame.flags]


@pytest.fixture
def quiet(connect):
    """A connection with a request that is being served, from whose client nothing more comes."""
    peer = connect(**CARE)
    peer.request = peer.open()
    peer.take()
    return peer


def test_a_silent_client_is_asked_for_a_sign_of_life(quiet):
    quiet.wait(59)
    assert questions(quiet) == []
    quiet.wait(1)
    assert questions(quiet) == [ALIVE]


def test_a_client_that_has_vanished(quiet):
    """Its streams end, and their applications are told."""
    quiet.wait(60)
    quiet.wait(20)
    assert not quiet.core.closed
    quiet.wait(GRACE)
    assert (quiet.core.closed, quiet.core.lifecycle.end_reason) == (True, EndReason.KEEPALIVE_TIMEOUT)
    assert quiet.goaways == [(1, NO_ERROR)]
    assert quiet.terminated == NO_ERROR
    (reset,) = quiet.of(StreamReset)
    assert (reset.stream, reset.code, reset.reason) == (
        quiet.request, ErrorCode.CANCEL, EndReason.KEEPALIVE_TIMEOUT)


@pytest.mark.parametrize("sign", [ping(ALIVE, ack=True), ping(), window_update(0, 1), raw(0xBB), b"\0"],
                         ids=["ack", "ping", "window", "unknown", "a part of a frame"])
def test_whatever_a_client_sends_is_a_sign_of_life(quiet, sign):
    quiet.wait(79)
    assert questions(quiet) == [ALIVE]
    quiet.send(sign)
    quiet.take()
    quiet.wait(59)
    assert questions(quiet) == []
    quiet.wait(1)
    assert questions(quiet) == [ALIVE]
    assert not quiet.core.closed


def test_an_answer_that_has_not_been_read_in_time(quiet):
    """The server was busy or stopped: it reads what has arrived before it judges."""
    quiet.wait(60)
    quiet.now += 1_000
    quiet.core.handle_timeout(quiet.now)
    quiet.send(ping(ALIVE, ack=True))
    quiet.wait(60).assert_alive()


def test_a_client_that_talks_is_not_asked(connect):
    peer = connect(**CARE)
    upload = peer.open(end=False)
    peer.take()
    for _ in range(20):
        peer.wait(50)
        peer.send(data(upload.stream_id, b"x"))
    assert questions(peer) == []


def test_a_connection_without_streams_is_cared_for_as_well(connect):
    peer = connect(**CARE)
    peer.wait(60)
    assert questions(peer) == [ALIVE]
    peer.wait(20 + GRACE)
    assert peer.core.lifecycle.end_reason is EndReason.KEEPALIVE_TIMEOUT


def test_no_care(connect):
    peer = connect(**{**CARE, "keepalive_interval": 0})
    peer.open()
    peer.take()
    peer.wait(100_000)
    assert questions(peer) == []


def test_a_client_that_has_not_begun_is_not_asked(connect):
    """It has the time of its setup."""
    peer = connect(setup=False, setup_timeout=0, **CARE)
    peer.wait(1_000)
    assert questions(peer) == []
    peer.send(PREFACE, settings(), settings_ack())
    peer.take()
    peer.wait(60)
    assert questions(peer) == [ALIVE]


def test_answers_are_not_charged(connect):
    """The server has asked for them."""
    peer = connect(**CARE, control_budget=10)
    peer.open()
    used = peer.core.guard.used(peer.now)
    peer.wait(60)
    peer.send(ping(ALIVE, ack=True))
    assert peer.core.guard.used(peer.now) <= used


def wait_taking(peer, seconds, taken, untaken):
    """Let time pass, with so many octets taken at its end."""
    peer.now += seconds
    peer.core.handle_timeout(peer.now, taken, untaken)
    peer.collect()


def test_a_client_that_is_still_taking_a_response(quiet):
    """The PING stands behind what is on the way, which takes as long as it takes."""
    wait_taking(quiet, 60, 1_000, 50_000)
    assert questions(quiet) == [ALIVE]
    for taken in range(10_000, 51_000, 10_000):
        wait_taking(quiet, 20, taken, 51_017 - taken)
    # The last of it is taken: the time for the answer begins.
    wait_taking(quiet, 20, 51_017, 0)
    wait_taking(quiet, 20, 51_017, 0)
    assert not quiet.core.closed
    wait_taking(quiet, GRACE, 51_017, 0)
    assert quiet.core.lifecycle.end_reason is EndReason.KEEPALIVE_TIMEOUT


def test_a_client_that_takes_what_was_sent_after_the_ping(quiet):
    """It, or a proxy before it, had the PING before that."""
    wait_taking(quiet, 60, 1_000, 0)
    wait_taking(quiet, 20, 2_000, 500)
    wait_taking(quiet, GRACE, 2_100, 500)
    assert quiet.core.closed


def test_a_client_that_vanishes_while_it_takes_a_response(quiet):
    wait_taking(quiet, 60, 1_000, 50_000)
    wait_taking(quiet, 20, 2_000, 49_000)
    wait_taking(quiet, 20, 2_000, 60_000)
    assert not quiet.core.closed
    wait_taking(quiet, GRACE, 2_000, 60_000)
    assert quiet.core.closed


def test_a_client_that_vanishes_while_a_shutdown_waits_for_its_streams(quiet):
    quiet.core.shutdown(quiet.now)
    quiet.wait(1)
    quiet.send(ping(b"shutdown", ack=True))
    assert len(quiet.goaways) == 2
    quiet.take()
    quiet.wait(60)
    assert questions(quiet) == [ALIVE]
    quiet.wait(20 + GRACE)
    assert quiet.core.closed


@pytest.mark.parametrize(("jitter", "age"), [(-1.0, 90.0), (0.0, 100.0), (0.5, 105.0), (1.0, 110.0)])
def test_the_age_of_a_connection_has_a_jitter(engine, jitter, age):
    peer = Peer(engine, max_connection_age=100, idle_timeout=1_000, drain_timeout=1)
    peer.core = ServerConnection(peer.config, peer.now, jitter=jitter)
    peer.setup()
    peer.wait(age - 0.5)
    assert peer.goaways == []
    peer.wait(0.5)
    assert len(peer.goaways) == 1
