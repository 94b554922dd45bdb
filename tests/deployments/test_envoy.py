"""Envoy: its configuration by its own types, and Gunicorn with a client that behaves as it does."""

import hashlib
import json

import pytest

from tests.support.h2client import H2Client, pattern, pattern_digest
from tests.support.load import Load

from .configurations import names_of, read
from .traffic import SIZE

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 2, 3, 4
"""Settings, RFC 9113 section 6.5.2."""
WINDOW = 2**28
"""The windows that Envoy opens by default, of streams and of the connection."""
SETTINGS = {HEADER_TABLE_SIZE: 4096, ENABLE_PUSH: 0, MAX_CONCURRENT_STREAMS: 2**31 - 1, INITIAL_WINDOW_SIZE: WINDOW}
FIELDS = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https"),
          ("x-request-id", "e5f5a1c6-5b5a-4f5c-9d0b-1c1d0c0a0b0a"), ("x-envoy-external-address", "203.0.113.9")]
"""What it adds to requests."""
CHECKER = ("user-agent", "Envoy/HC")


@pytest.fixture(scope="module")
def bootstrap():
    """Envoy's configuration, as read by Envoy's own types: no field is unknown, and no value of another type."""
    return read("envoy", "envoy.yaml")["static_resources"]


def test_envoys_listener(bootstrap):
    """TLS with ALPN, no limit on the length of a response, and what it repeats was not processed."""
    (chain,) = bootstrap["listeners"][0]["filter_chains"]
    assert chain["transport_socket"]["typed_config"]["common_tls_context"]["alpn_protocols"] == ["h2", "http/1.1"]
    manager = chain["filters"][0]["typed_config"]
    assert manager["use_remote_address"] is True
    (route,) = manager["route_config"]["virtual_hosts"][0]["routes"]
    assert route["route"]["cluster"] == bootstrap["clusters"][0]["name"]
    assert route["route"]["timeout"] == "0s"
    assert set(route["route"]["retry_policy"]["retry_on"].split(",")) == {"connect-failure", "refused-stream"}


def test_envoys_cluster(bootstrap):
    """HTTP/2 by prior knowledge, health checks included, within the limits of behind_proxy.py."""
    conf = names_of("behind_proxy.py")
    (cluster,) = bootstrap["clusters"]
    (options,) = cluster["typed_extension_protocol_options"].values()
    http2 = options["explicit_http_config"]["http2_protocol_options"]
    assert http2["max_concurrent_streams"] <= conf["http2_max_concurrent_streams"]
    assert int(options["common_http_protocol_options"]["idle_timeout"].rstrip("s")) < conf["keepalive"]
    assert cluster["health_checks"][0]["http_health_check"]["codec_client_type"] == "HTTP2"


@pytest.fixture
def server(behind_proxy):
    """Gunicorn with behind_proxy.py."""
    return behind_proxy()


def connect(server):
    """Connect as Envoy does; its requests do not wait for the server's SETTINGS."""
    client = H2Client.connect(server, SETTINGS)
    client.keep_frames = False
    client.grant(WINDOW - 65_535)
    return client


def check_health(client):
    """Check by HTTP and by gRPC, as `http_health_check` and `grpc_health_check` do."""
    assert client.get("/health", [CHECKER], authority="app").status == 200
    fields = [CHECKER, ("te", "trailers"), ("content-type", "application/grpc")]
    message = b"\0" + (0).to_bytes(4, "big")  # A HealthCheckRequest for the whole server is empty.
    stream = client.post("/grpc.health.v1.Health/Check", message, fields, authority="app")
    assert (stream.status, dict(stream.trailers)["grpc-status"]) == (200, "0")
    assert stream.body[5:] == b"\x08\x01"  # SERVING


def test_a_client_like_envoy(server, bootstrap):
    """Its windows, large bodies, as many streams as its limit is, keep-alive PINGs; health checks beside it."""
    (options,) = bootstrap["clusters"][0]["typed_extension_protocol_options"].values()
    limit = options["explicit_http_config"]["http2_protocol_options"]["max_concurrent_streams"]
    with connect(server) as client, connect(server) as checker:
        streams = [client.request("POST", "/echo", FIELDS, end=False) for _ in range(limit)]
        check_health(checker)
        for stream in streams:
            client.send_body(stream, b"body")
        assert {client.response(stream).text for stream in streams} == {"body"}
        assert json.loads(client.get("/environ", FIELDS).text)["wsgi.url_scheme"] == "https"
        upload = client.request("POST", "/digest", FIELDS, body=pattern(SIZE))
        assert json.loads(client.response(upload).text) == {"length": SIZE, "sha256": pattern_digest(SIZE)}
        sha256 = hashlib.sha256()
        assert client.response(client.request("GET", f"/bytes?n={SIZE}", FIELDS, sink=sha256.update)).ended
        assert sha256.hexdigest() == pattern_digest(SIZE)
        assert dict(client.get("/trailers?when=started", FIELDS).trailers)["x-checksum"] == "abc"
        client.ping()
        check_health(checker)


def test_goaway(server):
    """At a reload Envoy connects anew, and repeats what GOAWAY and REFUSED_STREAM call unprocessed: nothing is lost.

    What was under way is answered on the old connection, and the checks go on.
    """
    with connect(server) as checker, Load(server, clients=2, streams=50, settings=SETTINGS) as load:
        load.wait_answered(100)
        check_health(checker)
        server.reload()
        load.wait_answered(100)
        checker.wait_goaway()
        with connect(server) as checker:
            check_health(checker)
    assert load.lost == []
    assert load.connections >= 4
