"""The services as an ASGI application, in memory: who ends a call, and what the client sees of it."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from gunicorn_h2.grpc import GrpcASGI
from tests.apps_unit.conftest import loop  # noqa: F401 - a fixture
from tests.apps_unit.test_asgi import serve  # noqa: F401 - a fixture
from tests.protocol.peer import data, rst_stream

from .test_services import CALL, Denying, message

TIMEOUT = 10
X = message(b"x")


class Method:
    """An asynchronous method that a test controls, and what became of its calls."""

    def __init__(self, stubborn=False):
        self.go_on, self.notes, self.stubborn = asyncio.Event(), [], stubborn

    async def __call__(self, request, context):
        """Wait for the test, and answer with the request."""
        context.add_done_callback(lambda context: self.notes.append(("done", context.done(), context.cancelled())))
        self.notes.append("began")
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.notes.append("cancelled")
            if not self.stubborn:
                raise
            await self.go_on.wait()
        return request

    async def stream(self, request, context):
        """Answer with the request, then wait."""
        yield request
        yield await self(request, context)


@pytest.fixture
def start(serve, loop):  # noqa: F811
    """A function that starts a call of an asynchronous or synchronous method; it returns peer and answer."""
    def start(handler, *extra, body=X, end=True, **options):
        services = GrpcASGI(**options)
        services.add_registered_method_handlers("a.B", {"Call": handler})
        peer = serve(services)
        peer.services = services
        return peer, call_on(peer, *extra, body=body, end=end)

    return start


def call_on(peer, *extra, body=X, end=True):
    """Start a call."""
    return peer.request(*CALL, *extra, method=b"POST", path=b"/a.B/Call", body=body, end=end)


def until(loop, peer, condition):  # noqa: F811
    """Let the loop run until a thread has done its part."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        loop.turns(1)
        peer.collect()


def status_of(answer):
    """The status of a call, and the data before it."""
    section = answer.trailers if answer.trailers is not None else answer.head
    return dict(section)[b"grpc-status"], answer.body


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_an_answer(start, loop, kind):  # noqa: F811
    method = Method()
    handler = {"unary": grpc.unary_unary_rpc_method_handler(method),
               "stream": grpc.unary_stream_rpc_method_handler(method.stream)}[kind]
    peer, answer = start(handler)
    method.go_on.set()
    loop.turns()
    peer.collect()
    assert status_of(answer) == (b"0", message(b"x") * (1 if kind == "unary" else 2))
    assert method.notes == ["began", ("done", True, False)]


@pytest.mark.parametrize("stubborn", [True, False])
@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_the_deadline(start, loop, kind, stubborn):  # noqa: F811
    """On time, even where the method does not let itself be cancelled."""
    method = Method(stubborn)
    handler = {"unary": grpc.unary_unary_rpc_method_handler(method),
               "stream": grpc.unary_stream_rpc_method_handler(method.stream)}[kind]
    peer, answer = start(handler, (b"grpc-timeout", b"3S"))
    loop.wait(2.0)
    assert not answer.ended
    loop.wait(2.0)
    peer.collect()
    assert status_of(answer) == (b"4", b"" if kind == "unary" else message(b"x"))
    assert sorted(method.notes, key=str) == [("done", True, True), "began", "cancelled"]
    method.go_on.set()
    loop.turns()
    peer.collect()
    assert answer.reset is None
    assert "Error" not in peer.worker.log.text


def test_the_client_goes(start, loop):  # noqa: F811
    method = Method()
    peer, _ = start(grpc.stream_unary_rpc_method_handler(method), body=message(b"unread"), end=False)
    peer.send(rst_stream(1))
    assert sorted(method.notes, key=str) == [("done", True, True), "began", "cancelled"]


def test_the_client_goes_while_its_message_is_awaited(start, loop):  # noqa: F811
    seen = []

    async def method(requests, context):
        try:
            async for _ in requests:
                seen.append("message")
        finally:
            seen.append("ended")

    peer, _ = start(grpc.stream_unary_rpc_method_handler(method), body=message(b"x") + b"\0\0", end=False)
    peer.send(rst_stream(1))
    assert seen == ["message", "ended"]


def test_a_message_in_pieces(start, loop):  # noqa: F811
    async def method(requests, context):
        return b"".join([request async for request in requests])

    whole = message(b"one") + message(b"") + message(b"x" * 300)
    peer, answer = start(grpc.stream_unary_rpc_method_handler(method), body=b"", end=False)
    peer.send(*[data(1, whole[at : at + 1], at == len(whole) - 1) for at in range(len(whole))])
    assert status_of(answer) == (b"0", message(b"one" + b"x" * 300))


def test_a_request_that_ends_too_early(start):
    _, answer = start(grpc.unary_unary_rpc_method_handler(Method()), body=message(b"cut")[:-1])
    assert status_of(answer) == (b"13", b"")


def test_a_failure_that_the_method_hides(start):
    """The stream of requests cannot be understood from there on."""
    async def method(requests, context):
        try:
            async for _ in requests:
                pass
        except Exception:
            return b"fine"

    _, answer = start(grpc.stream_unary_rpc_method_handler(method), body=message(b"x", flag=9))
    assert status_of(answer) == (b"13", b"")


def test_trailing_metadata_of_an_abort(start):
    async def method(request, context):
        await context.abort(grpc.StatusCode.ABORTED, "no", [("x-a", "1")])

    _, answer = start(grpc.unary_unary_rpc_method_handler(method))
    assert {(b"grpc-status", b"10"), (b"grpc-message", b"no"), (b"x-a", b"1")} <= set(answer.head)


# -- synchronous methods in threads ------------------------------------------------------------------------------------


class Blocking:
    """A synchronous method that a test controls."""

    def __init__(self):
        self.go_on, self.began, self.notes = threading.Event(), threading.Semaphore(0), []

    def __call__(self, request, context):
        """Wait for the test, and answer with the request."""
        self.notes.append(request)
        context.add_callback(lambda: self.notes.append("callback"))
        self.began.release()
        assert self.go_on.wait(TIMEOUT)
        return request


@pytest.fixture
def blocking():
    """A method; its threads end with the test."""
    blocking = Blocking()
    yield blocking
    blocking.go_on.set()


def test_the_deadline_of_a_method_in_a_thread(start, loop, blocking):  # noqa: F811
    peer, answer = start(grpc.unary_unary_rpc_method_handler(blocking), (b"grpc-timeout", b"3S"))
    until(loop, peer, lambda: blocking.began.acquire(blocking=False))
    loop.wait(4.0)
    peer.collect()
    assert status_of(answer) == (b"4", b"")
    assert blocking.notes == [b"x", "callback"]
    blocking.go_on.set()
    until(loop, peer, lambda: not peer.connection.channels)
    assert answer.reset is None


def test_calls_that_wait_for_a_thread(start, loop, blocking):  # noqa: F811
    """They end at their deadline, or with their client, and the method is never called."""
    loop.set_default_executor(ThreadPoolExecutor(1))
    peer, first = start(grpc.unary_unary_rpc_method_handler(blocking))
    until(loop, peer, lambda: blocking.began.acquire(blocking=False))
    late = call_on(peer, (b"grpc-timeout", b"3S"), body=message(b"late"))
    gone = call_on(peer, body=message(b"gone"))
    waiting = call_on(peer, body=message(b"waiting"))
    peer.send(rst_stream(gone.stream_id))
    loop.wait(4.0)
    peer.collect()
    assert status_of(late) == (b"4", b"")
    blocking.go_on.set()
    until(loop, peer, lambda: waiting.ended)
    assert (status_of(first), status_of(waiting)) == ((b"0", message(b"x")), (b"0", message(b"waiting")))
    until(loop, peer, lambda: blocking.notes.count("callback") == 2)
    assert [note for note in blocking.notes if note != "callback"] == [b"x", b"waiting"]


def test_the_client_of_a_method_in_a_thread_goes(start, loop):  # noqa: F811
    seen = []

    def method(requests, context):
        yield b"first"
        try:
            next(requests)
        except grpc.RpcError:
            seen.append(context.is_active())

    peer, answer = start(grpc.stream_stream_rpc_method_handler(method), body=b"", end=False)
    until(loop, peer, lambda: answer.body)
    peer.send(rst_stream(1))
    until(loop, peer, lambda: seen)
    assert seen == [False]
    until(loop, peer, lambda: not peer.connection.channels)


# -- what is no call ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("content_type", "method", "status"), [
    (b"application/grpc-web", b"POST", b"415"), (b"application/json", b"POST", b"415"),
    (b"application/grpc", b"GET", b"405")])
def test_requests_that_are_refused(serve, content_type, method, status):  # noqa: F811
    answer = serve(GrpcASGI()).request((b"content-type", content_type), method=method)
    assert answer.head[0] == (b":status", status)
    assert ((b"allow", b"POST") in answer.head) is (status == b"405")


def run(coroutine):
    """Run a coroutine that waits for nothing."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


def test_a_server_without_trailers():
    said = []

    async def send(message):
        said.append(message)

    scope = {"type": "http", "method": "POST", "path": "/a.B/C", "headers": [(b"content-type", b"application/grpc")]}
    run(GrpcASGI()(scope, None, send))
    assert [message.get("status") for message in said] == [505, None]


def test_what_is_passed_on():
    seen = []

    async def application(scope, receive, send):
        seen.append(scope["type"])

    run(GrpcASGI(application)({"type": "websocket"}, None, None))
    run(GrpcASGI(application)({"type": "http", "headers": []}, None, None))
    assert seen == ["websocket", "http"]
    for kind in ("websocket", "lifespan"):
        with pytest.raises(RuntimeError, match=kind):
            GrpcASGI()({"type": kind}, None, None).send(None)


def test_malformed_fields(start):
    _, answer = start(grpc.unary_unary_rpc_method_handler(Method()), (b"grpc-timeout", b"soon"))
    assert status_of(answer) == (b"13", b"")


# -- interceptors ------------------------------------------------------------------------------------------------------


class Asynchronous:
    """Notes its name, and passes a call on."""

    def __init__(self, name, notes):
        self.name, self.notes = name, notes

    async def intercept_service(self, continuation, handler_call_details):
        """See `grpc.aio.ServerInterceptor`."""
        self.notes.append((self.name, handler_call_details.method))
        return await continuation(handler_call_details)


def test_asynchronous_interceptors_in_order(start):
    async def method(request, context):
        return request

    notes = []
    _, answer = start(grpc.unary_unary_rpc_method_handler(method),
                      interceptors=[Asynchronous("outer", notes), Asynchronous("inner", notes)])
    assert status_of(answer) == (b"0", message(b"x"))
    assert notes == [("outer", "/a.B/Call"), ("inner", "/a.B/Call")]


def test_a_synchronous_interceptor_before_an_asynchronous_method(start, loop):  # noqa: F811
    peer, answer = start(grpc.unary_unary_rpc_method_handler(Method()), interceptors=[Denying()])
    until(loop, peer, lambda: answer.ended)
    assert status_of(answer) == (b"16", b"")


def test_an_interceptor_that_fails(start, caplog):
    class Failing:
        async def intercept_service(self, continuation, handler_call_details):
            raise RuntimeError("secret")

    _, answer = start(grpc.unary_unary_rpc_method_handler(Method()), interceptors=[Failing()])
    assert status_of(answer) == (b"2", b"")
    assert "secret" in caplog.text
