"""What the application sees is what was sent, or it sees nothing: through each protocol, and through real proxies.

The requests are drawn at random (`requests.py`). Whoever takes the end of one for somewhere else finds another in its
body, whose arrival is noticed.
"""

import http.client
import json
import re
import socket

from tests.protocol.hpack_blocks import literal
from tests.support.h2client import DATA, END_HEADERS, END_STREAM, HEADERS, H2Client, raw_frame

from .http1 import ODD_HTTP1
from .requests import DOUBTFUL_H2, ODD, ODD_H2, WRONG_H2, each_alone, requests

PATIENCE = 10
ADDED = {"HOST", "X_FORWARDED_FOR", "CONNECTION", "TE", "USER_AGENT", "CONTENT_LENGTH", "TRANSFER_ENCODING"}
"""Fields that a request may get on its way."""
ENDS_WITH_A_PROXY = {b"te", b"connection", b"expect", b"host"}
"""Fields that a proxy acts on, and need not pass on."""


# -- sending -----------------------------------------------------------------------------------------------------------


def connect(path):
    """Connect to a Unix socket."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(path)
    return sock


def sender(path):
    """What sends requests over HTTP/2 to a Unix socket."""
    return lambda request: send_http2(connect(path), request)


def send_http2(sock, request):
    """Send a request over a new HTTP/2 connection; return the status and what the application saw, if anything."""
    client = H2Client(sock, scheme="http")
    client.send_preface()
    stream = client.open()
    try:
        client.send_raw(http2_frames(stream.stream_id, request))
        client.wait_for(lambda: stream.done or client.goaways or client.closed, "an answer", PATIENCE)
    except (OSError, AssertionError):
        assert client.closed, f"neither served nor refused: {request}"
    finally:
        client.close()
    return (stream.status, bytes(stream.body)) if stream.ended else (None, b"")


def http2_frames(stream_id, request):
    """The frames of a request, whatever is wrong with it."""
    block = b"".join(literal(0, name, value) for name, value in request.section())
    last_head = END_STREAM if request.body is None and not request.trailers else 0
    frames = [raw_frame(HEADERS, END_HEADERS | last_head, stream_id, block)]
    if request.body is not None:
        half = len(request.body) // 2
        frames += [raw_frame(DATA, 0, stream_id, request.body[:half]), raw_frame(DATA, 0, stream_id, b""),
                   raw_frame(DATA, 0 if request.trailers else END_STREAM, stream_id, request.body[half:])]
    if request.trailers:
        block = b"".join(literal(0, name, value) for name, value in request.trailers)
        frames.append(raw_frame(HEADERS, END_HEADERS | END_STREAM, stream_id, block))
    return b"".join(frames)


def send_http1(sock, octets):
    """Send the octets of a request; return the status and what the application saw, if anything."""
    with sock:
        try:
            sock.sendall(octets)
            response = http.client.HTTPResponse(sock)
            response.begin()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return None, b""


# -- comparing ---------------------------------------------------------------------------------------------------------


def assert_equal(request, dump, through_proxy):
    """What the application has seen is the request, but for what a proxy has to do with it.

    What a proxy makes of a wrong request it answers for itself, but for its end.
    """
    seen = dict(dump["fields"])
    assert dump["body"].encode("latin-1") == (request.body or b"")
    assert seen.pop("X_ID") == str(request.number)
    if request.legal is False:
        return
    assert (dump["method"], dump["target"]) == (request.method.decode(), request.path.decode("latin-1"))
    assert_same_host(request.authority.decode("latin-1"), seen.pop("HOST", ""), through_proxy)
    sent = {}
    for name, value in request.fields:
        sent.setdefault(name, []).append(value.decode("latin-1"))
    for name, values in sent.items():
        key = name.decode().upper().replace("-", "_")
        found = seen.pop(key, None)
        if found is None and (b"_" in name or (through_proxy and name in ENDS_WITH_A_PROXY)):
            continue
        if name == b"x-forwarded-for" or not through_proxy:
            assert found in (",".join(values), "; ".join(values)), (key, found, values)
        else:
            assert re.split(r"[,;] ?", found) == re.split(r"[,;] ?", ",".join(values)), (key, found, values)
    assert set(seen) <= ADDED, seen
    assert int(seen.get("CONTENT_LENGTH", 0)) in (0, len(request.body or b""))


def assert_same_host(sent, seen, through_proxy):
    """The host is the same; a proxy may leave out the port that is the default."""
    wanted = [sent.lower(), *([re.sub(r":(80)?$", "", sent.lower())] if through_proxy else [])]
    assert seen.lower() in wanted


def check(request, status, body, through_proxy):
    """A legal request is served, a wrong one is not, and what is served is what was sent.

    A proxy may refuse what it does not like, and put right what it does not mind.
    """
    if request.legal is not None and not through_proxy:
        assert (status == 200) is request.legal, body
    if status == 200:
        assert_equal(request, json.loads(body), through_proxy)


def check_all(drawn, send, through_proxy=False):
    """Send and check requests; fail with all that is wrong. Return the numbers of those that were not served."""
    failures, refused = [], []
    for request in drawn:
        status, body = send(request)
        try:
            check(request, status, body, through_proxy)
        except (AssertionError, KeyError) as error:
            failures.append(f"{request}\n    {status}: {error}")
        # Through a proxy the body may have come whole before wrong trailers do.
        if status != 200 and not (through_proxy and request.trailers):
            refused.append(request.number)
    assert not failures, "\n".join(failures)
    return refused


def assert_unseen(server, refused):
    """The application has seen neither what was refused nor what stood in a body."""
    seen = b"GET /seen HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    _, body = send_http1(connect(server.socket_path), seen)
    found = {*map(str, refused), "smuggled"} & set(json.loads(body))
    assert found == set()
    assert "SMUGGLED" not in server.log


# -- the tests ---------------------------------------------------------------------------------------------------------


def test_directly(ours, http1):
    """Over HTTP/2, and compared with Gunicorn's own HTTP/1."""
    what_is_legal_is_served(ours)
    each_wrong_thing_alone_is_refused(ours)
    http1_sees_the_same(ours, http1)


def what_is_legal_is_served(ours):
    """Everything that is legal is served as it was sent; nothing that is malformed is seen."""
    refused = check_all(requests(1, 400, ODD_H2, DOUBTFUL_H2, WRONG_H2, WRONG_H2), sender(ours.socket_path))
    assert len(refused) >= 150
    assert_unseen(ours, refused)


def each_wrong_thing_alone_is_refused(ours):
    """So that nothing else is the reason for the refusal: every entry of the table, several times."""
    drawn = list(each_alone(9, 8, WRONG_H2))
    refused = check_all(drawn, sender(ours.socket_path))
    assert len(refused) == len(drawn)
    assert_unseen(ours, refused)


def http1_sees_the_same(ours, http1):
    """Gunicorn's own HTTP/1, in its own worker, sees the same request."""
    send = sender(ours.socket_path)
    for request in requests(8, 150, ODD):
        over1, over2 = send_http1(connect(http1.socket_path), request.http1()), send(request)
        assert (over1[0], over2[0]) == (200, 200), request
        assert json.loads(over2[1]) == json.loads(over1[1]), request


def test_through_proxies(servers, kind, ours, http1, nginx, haproxy):
    """nginx and HAProxy before the worker, nginx and Gunicorn's HTTP/1 behind it.

    nginx speaks HTTP/1 to the worker, or HTTP/2 by its gRPC module; HAProxy either. Both keep their connections to the
    worker. The application before nginx passes on what it gets as HTTP/1, unchecked: clients have to put up with its
    manners, but cannot make it pass on anything else.
    """
    behind(ours, f"{nginx}/h2-h1", 2)
    behind(ours, f"{nginx}/h1-h2", 3)
    behind(ours, f"{haproxy}/h2-h1", 4)
    behind(ours, f"{haproxy}/h1-h2", 5)
    behind(ours, f"{haproxy}/h2-h2", 6)
    forwarding = servers(kind, "forward", env={"UPSTREAM": f"{nginx}/behind"})
    refused = check_all(requests(7, 150, ODD_H2, DOUBTFUL_H2, WRONG_H2), sender(forwarding.socket_path), True)
    assert_unseen(http1, refused)


def behind(ours, path, seed):
    """Send requests through a proxy, over HTTP/2 or HTTP/1."""
    if "/h2-" in path:
        refused = check_all(requests(seed, 120, ODD_H2, DOUBTFUL_H2, WRONG_H2), sender(path), True)
    else:
        refused = check_all(requests(seed, 60, ODD), lambda request: send_http1(connect(path), request.http1()), True)
        refused += check_all(requests(10 * seed, 60, ODD),
                             lambda request: send_http1(connect(path), request.http1("chunked")), True)
        for number, octets in enumerate(ODD_HTTP1.values()):
            status, body = send_http1(connect(path), octets % (b"%d" % (1000 * seed + number)))
            assert status != 200 or json.loads(body)["body"] in ("", "12345")
    assert_unseen(ours, refused)
