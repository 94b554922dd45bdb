"""The status as a WSGI and as an ASGI application, and as a middleware of each."""

import asyncio
import json
import re
import warnings

import pytest

from gunicorn_h2.status import StatusApp, StatusMiddleware, asgi
from gunicorn_h2.status.answers import path_below
from gunicorn_h2.workers import reports


def application(environ, start_response):
    """The application beside the status, for WSGI."""
    start_response("200 OK", [])
    return [f"application: {environ['PATH_INFO']}".encode()]


async def asgi_application(scope, receive, send):
    """The same for ASGI."""
    if scope["type"] != "http":
        await send({"type": scope["type"]})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"application: {scope['path']}".encode()})


def ask_wsgi(app, path="/", method="GET", peer="127.0.0.1", root="", headers=()):
    """Make a request; return the status, the headers and the body."""
    environ = {"REQUEST_METHOD": method, "SCRIPT_NAME": root, "PATH_INFO": path, "REMOTE_ADDR": peer,
               **{"HTTP_" + name.upper().replace("-", "_"): value for name, value in headers}}
    answer = []
    body = b"".join(app(environ, lambda status, fields: answer.extend((status, dict(fields)))))
    return int(answer[0].split()[0]), {name.lower(): value for name, value in answer[1].items()}, body


def ask_asgi(app, path="/", method="GET", peer="127.0.0.1", root="", headers=()):
    """See `ask_wsgi`."""
    messages = []

    async def send(message):
        messages.append(message)

    scope = {"type": "http", "method": method, "path": root + path, "root_path": root,
             "client": (peer, 1234) if peer else None,
             "headers": [(name.lower().encode(), value.encode()) for name, value in headers]}
    asyncio.run(app(scope, None, send))
    start, body = messages
    fields = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], fields, body["body"]


class Kind:
    """One of the two interfaces."""

    def __init__(self, ask, app, middleware, application):
        self.ask, self.app, self.middleware, self.application = ask, app, middleware, application


@pytest.fixture(params=["wsgi", "asgi"])
def kind(request):
    """Each interface."""
    if request.param == "wsgi":
        return Kind(ask_wsgi, StatusApp, StatusMiddleware, application)
    return Kind(ask_asgi, asgi.StatusApp, asgi.StatusMiddleware, asgi_application)


def test_the_three_forms(serving, kind):
    app = kind.app()
    status, fields, page = kind.ask(app, "/")
    assert (status, fields["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.startswith(b"<!doctype html>")
    status, fields, body = kind.ask(app, "/json")
    assert (status, fields["content-type"]) == (200, "application/json")
    assert json.loads(body)["counters"]["requests"]["h2"] == 2468
    status, fields, body = kind.ask(app, "/metrics")
    assert (status, fields["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"gunicorn_h2_requests_total{" in body
    assert fields["cache-control"] == "no-store"
    assert int(fields["content-length"]) == len(body)


def test_head(serving, kind):
    _, with_body, body = kind.ask(kind.app(), "/metrics")
    status, fields, nothing = kind.ask(kind.app(), "/metrics", "HEAD")
    assert (status, nothing) == (200, b"")
    assert fields == with_body
    assert int(fields["content-length"]) == len(body)


def test_what_is_not_there(serving, kind):
    assert kind.ask(kind.app(), "/nothing")[0] == 404
    assert kind.ask(kind.app(), "/json/")[0] == 404
    status, fields, _ = kind.ask(kind.app(), "/json", "POST")
    assert (status, fields["allow"]) == (405, "GET, HEAD")


def test_others_are_told_nothing(serving, kind):
    for path in ("/", "/json", "/metrics", "/nothing"):
        assert kind.ask(kind.app(), path, peer="203.0.113.7")[::2] == (403, b"Forbidden\n")
    assert kind.ask(kind.app("203.0.113.0/24"), peer="203.0.113.7")[0] == 200


@pytest.mark.parametrize(("headers", "status"), [
    ([("X-Forwarded-For", "203.0.113.7")], 403),
    ([("X-Forwarded-For", "127.0.0.1")], 200),
    ([("X-Forwarded-For", "127.0.0.1, 203.0.113.7")], 403),
    ([("X-Real-IP", "127.0.0.1")], 403),
    ([("Forwarded", "for=127.0.0.1")], 403),
    ([("Via", "2.0 proxy")], 403),
    ([("Via", "2.0 proxy"), ("X-Forwarded-For", "127.0.0.1")], 200),
])
def test_behind_a_proxy(serving, kind, headers, status):
    assert kind.ask(kind.app(), "/json", headers=headers)[0] == status


def test_fields_of_several_lines_are_one_list(serving):
    """Each proxy may add a line of its own: the last one is that of the nearest."""
    app = asgi.StatusApp()
    lines = [("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-For", "203.0.113.7")]
    assert ask_asgi(app, "/json", headers=lines)[0] == 403
    assert ask_asgi(app, "/json", headers=[*lines, ("X-Forwarded-For", "127.0.0.1")])[0] == 403


def test_a_unix_socket(serving, kind):
    assert kind.ask(kind.app(), "/json", peer="")[0] == 200


def test_a_process_that_is_no_worker(kind, monkeypatch):
    monkeypatch.setattr(reports, "_current", None)
    status, _, body = kind.ask(kind.app(), "/json")
    assert status == 503
    assert b"choose one of its worker classes" in body
    assert kind.ask(kind.app(), "/json", peer="203.0.113.7")[0] == 403


def test_beside_an_application(serving, kind):
    app = kind.middleware(kind.application)
    for path in ("/", "/statusquo", "/status.json", "/json", ""):
        assert kind.ask(app, path)[::2] == (200, f"application: {path}".encode())
    assert kind.ask(app, "/status")[1]["content-type"].startswith("text/html")
    assert kind.ask(app, "/status/")[1]["content-type"].startswith("text/html")
    assert kind.ask(app, "/status/json")[1]["content-type"] == "application/json"
    assert kind.ask(app, "/status/json", peer="203.0.113.7")[0] == 403
    assert kind.ask(app, "/page", peer="203.0.113.7")[0] == 200


def test_at_another_path_and_below_a_mount(serving, kind):
    app = kind.middleware(kind.application, path="/-/h2/", allow=["::1"])
    assert kind.ask(app, "/-/h2/json", peer="::1", root="/shop")[0] == 200
    assert kind.ask(app, "/-/h2/json", root="/shop")[0] == 403
    assert kind.ask(app, "/status")[2] == b"application: /status"


@pytest.mark.parametrize("path", ["", "/", "//", "status"])
def test_paths_that_leave_nothing_to_the_application(kind, path):
    with pytest.raises(ValueError, match="must begin with a slash"):
        kind.middleware(kind.application, path=path)


def test_wrong_networks_are_found_at_the_start(kind):
    with pytest.raises(ValueError, match="localhost"):
        kind.app(["localhost"])


def test_what_is_no_request(serving):
    """Lifespan and WebSocket are the application's; alone, the status knows neither."""
    sent = []

    async def send(message):
        sent.append(message)

    for scope in ({"type": "lifespan"}, {"type": "websocket", "path": "/status"}):
        asyncio.run(asgi.StatusMiddleware(asgi_application)(scope, None, send))
        with pytest.raises(NotImplementedError, match=scope["type"]):
            asyncio.run(asgi.StatusApp()(scope, None, send))
    assert [message["type"] for message in sent] == ["lifespan", "websocket"]


def test_servers_recognize_the_middleware_as_an_application_of_asgi_3():
    """uvicorn and hypercorn ask so, and call what is none with the scope alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert asyncio.iscoroutinefunction(asgi.StatusMiddleware(asgi_application))


def test_the_page_needs_nothing_from_elsewhere(serving):
    """Its policy allows its own style and script by their hashes, and to ask this server."""
    _, fields, page = ask_wsgi(StatusApp(), "/")
    text = page.decode()
    urls = set(re.findall(r"https?://[^\"'\s]+", text))
    assert urls == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}
    policy = fields["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    # No attribute that the policy would forbid.
    assert not re.search(r"\s(style|on\w+)=\"", text)


def test_paths():
    assert path_below("/status", "/status") == ""
    assert path_below("/status/json", "/status") == "/json"
    assert path_below("/statusjson", "/status") is None
    assert path_below("/", "/status") is None
