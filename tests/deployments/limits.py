"""Going beyond the limits of a conf file: what they allow is served, and no more."""

from contextlib import ExitStack

import pytest

from tests.support.gate import Gate
from tests.support.h2client import (
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    NO_ERROR,
    PING,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    H2Client,
    raw_frame,
)

MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 3, 4, 5, 6
"""Settings, RFC 9113 section 6.5.2."""
PIECE = 4_000
"""What a field adds to the size of a list, in octets: one that is repeated still fits HPACK's table of 4096."""
STRANGER = "127.0.0.2"
"""An address that is not in Gunicorn's default of forwarded_allow_ips: connections of trusted peers are not counted."""


def check_limits(server, limits):
    """Reach and exceed those that a client meets at once; `limits` has the values by the settings' names."""
    with H2Client.connect(server) as client:
        check_settings(client, limits)
        check_streams(client, limits["http2_max_concurrent_streams"])
        check_fields(client, limits["http2_max_header_list_size"])
        status = {"off": 200, "certificate": 421}[limits["http2_check_authority"]]
        assert client.get("/hello", authority="example.net").status == status
        check_frames(client, limits["http2_max_frame_size"])
    check_window(server, limits["http2_initial_window_size"])
    check_resets(server, limits["http2_reset_budget"])
    check_pings(server, limits["http2_control_budget"])


def check_settings(client, limits):
    """Clients are told of these."""
    settings = client.wait_settings()
    client.ping()
    assert client.send_window == limits["http2_connection_window_size"]
    assert settings[MAX_CONCURRENT_STREAMS] == limits["http2_max_concurrent_streams"]
    assert settings[INITIAL_WINDOW_SIZE] == limits["http2_initial_window_size"]
    assert settings[MAX_FRAME_SIZE] == limits["http2_max_frame_size"]
    assert settings[MAX_HEADER_LIST_SIZE] == limits["http2_max_header_list_size"]


def check_streams(client, limit):
    """One more than may be open is refused."""
    streams = [client.request("POST", "/echo", end=False) for _ in range(limit)]
    assert client.get("/hello").reset == REFUSED_STREAM
    for stream in streams:
        client.send_body(stream, b"body")
    assert {client.response(stream).text for stream in streams} == {"body"}


def check_window(server, size):
    """One octet more than fits is an error."""
    with H2Client.connect(server) as client, Gate() as gate:
        client.wait_settings()
        stream = client.request("POST", gate.path("/gate-read"), end=False)
        gate.wait_inside()
        client.send_body(stream, bytes(size), end=False)
        client.ping()
        assert (client.room(stream), client.goaways) == (0, [])
        client.send_raw(client.data_frame(stream.stream_id, b"x"))
        assert client.wait_goaway()[1] == FLOW_CONTROL_ERROR


def check_fields(client, limit):
    """One octet more is answered 431."""
    for size, status in ((limit, 200), (limit + 1, 431)):
        fields = client.fields(path="/hello")
        more, rest = divmod(size - sum(len(name) + len(value) + 32 for name, value in fields), PIECE)
        # Those after the first two are alike, and so no more than an octet each on the wire.
        pieces = [PIECE + rest, *[PIECE] * (more - 1)]
        fields += [("x-fill", "0" * (piece - 32 - len("x-fill"))) for piece in pieces]
        assert client.response(client.send_fields(fields)).status == status


def check_frames(client, limit):
    """One octet more is an error of the connection."""
    client.send_raw(raw_frame(0xFA, payload=bytes(limit)))
    client.ping()
    client.send_raw(raw_frame(0xFA, payload=bytes(limit + 1)))
    assert client.wait_goaway()[1] == FRAME_SIZE_ERROR


def check_resets(server, budget):
    """Requests without a path: as many as that are reset, and then the connection ends."""
    with H2Client.connect(server) as client:
        client.wait_settings()
        client.send_raw(b"".join(client.header_frames(client.open().stream_id, [(":method", "GET")], end_stream=True)
                                 for _ in range(2 * budget)))
        assert client.wait_goaway()[1] == ENHANCE_YOUR_CALM
        resets = [stream.reset for stream in client.streams.values()].count(PROTOCOL_ERROR)
        assert resets in range(budget, 3 * budget // 2)


def check_pings(server, budget):
    """As many as that are answered, less SETTINGS and its ACK, and then the connection ends."""
    with H2Client.connect(server) as client:
        client.wait_settings()
        client.send_raw(raw_frame(PING, payload=bytes(8)) * 2 * budget)
        assert client.wait_goaway()[1] == ENHANCE_YOUR_CALM
        assert len(client.ping_acks) in range(budget - 2, 3 * budget // 2)


def check_header_timeout(server):
    """A field block that does not go on ends the connection, in less than the default of ten seconds."""
    with H2Client.connect(server) as client:
        client.wait_settings()
        client.send_raw(client.header_frames(1, client.fields(), end_headers=False))
        assert client.wait_goaway(timeout=5)[1] == ENHANCE_YOUR_CALM


def check_requests_of_a_connection(server, limit):
    """After so many GOAWAY comes, while the first of them goes on: it is not because the connection is idle."""
    with H2Client.connect(server) as client, Gate() as gate:
        first = client.request("GET", gate.path("/gate"))
        gate.wait_inside()
        for _ in range(limit - 1):
            assert client.goaways == []
            assert client.get("/hello").status == 200
        assert client.wait_goaway(timeout=5)[1] == NO_ERROR
        gate.release()
        assert client.response(first).status == 200


def check_connections_of_an_address(server, limit):
    """One more than may be open is closed."""
    with ExitStack() as stack:
        for _ in range(limit):
            client = stack.enter_context(H2Client.connect(server, source=STRANGER))
            assert client.get("/hello").status == 200
        with pytest.raises(ConnectionError):
            H2Client.connect(server, source=STRANGER)
