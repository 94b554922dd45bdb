"""The middlewares of OpenTelemetry and of Sentry, unchanged: they see each request, and take nothing from it."""

import json
import time

import pytest

from tests.support.h2client import H2Client
from tests.support.kinds import KINDS, make_server

TIMEOUT = 20


@pytest.fixture(params=[kind for kind in KINDS if kind not in ("eventlet", "asyncio")])
def server(request, tmp_path, certs):
    """An instrumented application on each worker class."""
    server = make_server(request.param, tmp_path, certs, "tests.apps.instrumented:{}")
    yield server.start()
    server.expect("DeliberateError")
    server.stop()


def told(client):
    """Return the spans of requests, and Sentry's events, once there are those of two requests."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        found = json.loads(client.get("/told", headers=[("te", "trailers")]).text)
        servers = [span for span in found["spans"] if span["kind"] == "SERVER"]
        done = {event["url"].rpartition("/")[2] for event in found["events"] if event["type"] == "transaction"}
        if len(servers) >= 2 and {"page", "fail"} <= done:
            return servers, found["events"]
        assert time.monotonic() < deadline, found


def test_they_work_and_hide_nothing(server):
    with H2Client.connect(server) as client:
        fields = [("te", "trailers"), ("traceparent", f"00-{'ab' * 16}-{'cd' * 8}-01")]
        stream = client.post("/page", b"body", headers=fields)
        assert (stream.status, stream.text) == (200, "one,two:body")
        assert [dict(hint)["link"] for hint in stream.informational] == ["</style.css>; rel=preload; as=style"]
        assert dict(stream.trailers) == {"x-checksum": "abc"}
        assert client.get("/fail").status == 500
        servers, events = told(client)

    # They may end in another order than they began, and so may the requests by which the test asks.
    servers = [span for span in servers if not span["attributes"]["http.target"].startswith("/told")]
    servers.sort(key=lambda span: span["status"] == "ERROR")
    assert [span["attributes"]["http.target"] for span in servers] == ["/page", "/fail"]
    assert [span["status"] for span in servers] == ["UNSET", "ERROR"]
    assert servers[0]["attributes"]["http.status_code"] == 200
    assert servers[0]["attributes"]["http.flavor"] in ("2", "2.0")
    assert all(span["attributes"]["http.scheme"] == "https" for span in servers)

    transactions = {event["url"] for event in events if event["type"] == "transaction"}
    assert {f"https://{server.authority}{path}" for path in ("/page", "/fail")} <= transactions
    (error,) = [event for event in events if event["errors"]]
    assert error["errors"] == ["DeliberateError"]
