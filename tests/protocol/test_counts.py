"""What connections count for the worker's statistics: octets, resets and GOAWAYs, each exactly once."""

import pytest

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.connection import ServerConnection
from gunicorn_h2.protocol.counts import Counts, code_label
from gunicorn_h2.protocol.errors import ErrorCode

from .peer import PREFACE, fields, goaway, ping, rst_stream, settings, settings_ack


def test_octets_are_those_on_the_wire(connect):
    peer = connect(setup=False)
    setup = PREFACE + settings() + settings_ack()
    request = peer.headers(1, fields())
    peer.send(setup, request, ping())
    assert peer.counts.octets_received == len(setup) + len(request) + len(ping())
    for event in peer.take_events():
        peer.respond(event.stream, b"x" * 1000)
    assert peer.counts.octets_sent == len(peer.written) > 1000


def test_data_that_waits_for_a_window_counts_when_it_is_sent(connect):
    peer = connect()
    stream = peer.open()
    before = peer.counts.octets_sent
    peer.respond(stream, bytes(100_000))
    assert 65_535 < peer.counts.octets_sent - before < 70_000


@pytest.mark.parametrize("code", ErrorCode)
def test_resets_of_the_client_by_code(connect, code):
    peer = connect()
    stream = peer.open()
    peer.send(rst_stream(stream.stream_id, code))
    assert peer.counts.resets_received == {code.name.lower(): 1}
    assert not peer.counts.resets_sent


def test_codes_that_a_client_makes_up_have_one_name(connect):
    """A hostile client must not fill the memory with names."""
    peer = connect()
    for code in (0xE, 0xDEAD, 2**32 - 1):
        peer.send(rst_stream(peer.open().stream_id, code))
    assert peer.counts.resets_received == {"unknown": 3}
    peer.send(goaway(code=77))
    assert peer.counts.goaways_received == {"unknown": 1}


def test_resets_of_the_server_by_code(connect):
    peer = connect(max_concurrent_streams=2)
    first, second = peer.open(), peer.open()
    peer.open()
    peer.core.reset(first, ErrorCode.INTERNAL_ERROR)
    peer.core.reset(second, ErrorCode.CANCEL)
    assert peer.collect().counts.resets_sent == {"refused_stream": 1, "internal_error": 1, "cancel": 1}


def test_an_error_on_a_closed_stream_counts_as_well(connect):
    """A WINDOW_UPDATE of 0 on a stream whose request is not over: the stream is reset, once."""
    peer = connect()
    stream = peer.open(end=False)
    peer.send(b"\0\0\4\x08\0" + stream.stream_id.to_bytes(4, "big") + bytes(4))
    assert peer.counts.resets_sent == {"protocol_error": 1} == {"protocol_error": len(peer.resets)}


def test_a_graceful_shutdown_has_two_goaways(connect):
    peer = connect()
    peer.core.shutdown(peer.now)
    peer.wait(10)
    assert peer.counts.goaways_sent == {"no_error": len(peer.goaways)} == {"no_error": 2}


def test_an_error_has_one(connect):
    peer = connect()
    peer.send(ping(b"short"))
    assert peer.counts.goaways_sent == {"frame_size_error": 1}


def test_connections_of_a_worker_count_together(engine):
    counts = Counts()
    for _ in range(3):
        core = ServerConnection(ConnectionConfig(engine=engine), 0.0, counts=counts)
        core.receive_data(PREFACE + settings() + goaway(), 0.0)
        core.receive_data(b"", 0.0)
    assert counts.goaways_received == {"no_error": 3}
    assert counts.octets_received == 3 * len(PREFACE + settings() + goaway())


def test_names():
    assert code_label(0xB) == code_label(ErrorCode.ENHANCE_YOUR_CALM) == "enhance_your_calm"
    assert code_label(0x100) == "unknown"
