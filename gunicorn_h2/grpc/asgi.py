"""gRPC services as an ASGI middleware: asynchronous servicers in the event loop, others in threads."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, TypeVar

from grpc import StatusCode

from gunicorn_h2.drivers.channel import StreamAborted

from .aio import AsyncContext, is_asynchronous
from .call import CallState, log, peer_name, status_fields
from .messages import PREFIX_SIZE, Message, check_length, parse_prefix
from .metadata import Fields, parse_fields
from .services import CONTENT_TYPE, STREAM, CallDetails, Handler, Services, refusal, wants_grpc
from .status import Failure
from .sync import SyncContext

__all__ = ["GrpcASGI"]

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_CANCEL = 8

_T = TypeVar("_T")


class GrpcASGI(Services):
    """Serves calls of gRPC, and passes all else to the ASGI application that it wraps.

    The methods of asynchronous servicers get a `grpc.aio.ServicerContext`, and are cancelled at the deadline or if the
    client goes. All others get a `grpc.ServicerContext`, and a thread of the event loop's default executor.
    """

    def __init__(self, application: Callable[..., Awaitable[object]] | None = None, **options: Any) -> None:
        """See `Services`; interceptors are all asynchronous, or all synchronous ones that do not wait."""
        super().__init__(application, **options)
        kinds = {inspect.iscoroutinefunction(each.intercept_service) for each in self.interceptors}
        if len(kinds) > 1:
            raise TypeError("interceptors must be all asynchronous or all synchronous")
        self._awaits_interceptors = True in kinds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http" and self._application is None:
            # What the specification has applications do that know nothing of lifespan or WebSocket.
            raise RuntimeError(f"there is no application for {scope['type']!r}")
        types = [value for name, value in scope.get("headers", ()) if name == b"content-type"]
        content_type = types[0].decode("latin-1") if types else ""
        if self._application is not None and (scope["type"] != "http" or not wants_grpc(content_type)):
            await self._application(scope, receive, send)
            return
        refused = refusal(scope["method"], content_type)
        if refused is None and "http.response.trailers" not in (scope.get("extensions") or ()):
            refused = 505, "", ()
        if refused is None:
            await _Exchange(self, scope, receive, send).serve()
            return
        status, _, fields = refused
        headers = _octets([*fields, ("content-length", "0")])
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def handler(self, details: CallDetails) -> Handler | None:
        """Return the handler of a method as the interceptors would have it."""
        if self._awaits_interceptors:
            return await self.intercept(self._find)(details)
        return self.intercept(self.find)(details)

    async def _find(self, details: CallDetails) -> Handler | None:
        return self.find(details)


class _Exchange:
    """One call: its stream (see `AsyncCallStream`), its deadline, and who ends it."""

    _head_begun = False
    _in_thread = False
    _is_cut_short = False
    """Whether a call ends early, with a status of ours."""

    def __init__(self, services: GrpcASGI, scope: Scope, receive: Receive, send: Send) -> None:
        self._services = services
        self._scope = scope
        self._receive = receive
        self._send = send
        self._buffer = bytearray()
        self._read_all = False
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._status_sent = asyncio.Event()
        """Set when the status of a call that was cut short has been sent."""

    # The call

    async def serve(self) -> None:
        """Serve the call to its end."""
        services, stream = self._services, self._scope.get(STREAM)
        request = parse_fields(self._scope["headers"] if stream is None else stream.request_fields)
        if stream is not None:
            stream.lift_read_timeout()
        details = CallDetails(self._scope["path"], request.metadata)
        state = CallState(services, details.method, request, self)
        try:
            handler = state.begin(await services.handler(details))
        except Exception as error:  # Interceptors may raise anything.
            state.note_error(error)
            await self._finish(state, b"")
            return
        if is_asynchronous(handler):
            context = AsyncContext(services, details.method, request, self, handler)
            await self._run(context, context.serve())
        else:
            bridge = _Bridge(self)
            sync_context = SyncContext(services, details.method, request, bridge)
            await self._run(sync_context, self._work_in_thread(sync_context, bridge, handler))

    async def _run(self, context: CallState, work: Awaitable[bytes]) -> None:
        """Await the servicer's work, but no longer than the client waits for it; then send what is left to send."""
        stream, remaining = self._scope.get(STREAM), context.time_remaining()
        if stream is not None:
            stream.on_abort(partial(self._end, context, context.note_cancelled))
        timer = None if remaining is None else self._loop.call_later(remaining, self._end, context, context.expire)
        try:
            message = await work
        except asyncio.CancelledError:
            if not context.ended:
                context.note_cancelled()
                raise
            _uncancel(self._task)
            message = b""
        finally:
            if timer is not None:
                timer.cancel()
        if context.settle():
            await self._finish(context, message)
        elif self._is_cut_short:
            await self._status_sent.wait()

    def _end(self, context: CallState, end: Callable[[], None]) -> None:
        """End the call before its servicer does, and interrupt that unless a thread has begun it."""
        if not context.ended:
            end()
            if not self._in_thread and self._task is not None:
                self._task.cancel()

    async def _work_in_thread(self, context: SyncContext, bridge: _Bridge, handler: Handler) -> bytes:
        """Call a synchronous method in a thread, once a single request is there."""
        try:
            if not handler.request_streaming:
                bridge.first = await self.read_message(self._services.max_receive_message_length)
        except (Failure, StreamAborted) as error:
            context.note_error(error)
            return b""
        self._in_thread = True
        return await asyncio.to_thread(context.serve, lambda _: handler)

    # The response

    async def _finish(self, context: CallState, message: bytes) -> None:
        """Send what is left of the response."""
        try:
            if message and not context.head_sent:
                await self.send_head(context.head(), message)
            elif message:
                await self.send(message)
            elif not context.head_sent:
                await self._send_status([*context.head(), *context.trailers()])
                return
            await self._send_trailers(context.trailers())
        except OSError:
            log.debug("The client of %s is gone", context.method, exc_info=True)

    def cut_short(self, code: StatusCode, details: str) -> None:
        """See `CallStream.cut_short`."""
        self._is_cut_short = True
        asyncio.run_coroutine_threadsafe(self._send_early(code, details), self._loop)

    def run_callbacks(self, callbacks: Iterable[Callable[[], object]]) -> None:
        """See `CallStream.run_callbacks`."""
        for callback in callbacks:
            self._loop.call_soon_threadsafe(callback)

    async def _send_early(self, code: StatusCode, details: str) -> None:
        fields = status_fields(code, details)
        try:
            if self._head_begun:
                await self._send_trailers(fields)
            else:
                await self._send_status([("content-type", CONTENT_TYPE), *fields])
        except OSError:
            log.debug("The client of %s is gone", self._scope["path"], exc_info=True)
        finally:
            self._status_sent.set()

    async def _send_status(self, fields: Fields) -> None:
        """Send a response that is a head and nothing else."""
        self._head_begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": _octets(fields)})
        await self._send({"type": "http.response.body", "body": b""})

    async def _send_trailers(self, fields: Fields) -> None:
        await self._send({"type": "http.response.body", "body": b""})
        await self._send({"type": "http.response.trailers", "headers": _octets(fields)})

    async def send_head(self, fields: Fields, data: bytes) -> None:
        """See `AsyncCallStream.send_head`."""
        self._raise_if_over()
        self._head_begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": _octets(fields), "trailers": True})
        await self.send(data)

    async def send(self, data: bytes) -> None:
        """See `AsyncCallStream.send`."""
        self._raise_if_over()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    def _raise_if_over(self) -> None:
        if self._is_cut_short:
            raise StreamAborted(0, _CANCEL, "the call has ended")

    # The request

    async def read_message(self, limit: int) -> Message | None:
        """See `AsyncCallStream.read_message`."""
        prefix = await self._read(PREFIX_SIZE)
        if not prefix:
            return None
        compressed, length = parse_prefix(prefix, limit)
        return compressed, check_length(await self._read(length), length)

    async def _read(self, size: int) -> bytes:
        """Return `size` octets of the request, fewer only at its end."""
        while len(self._buffer) < size and not self._read_all:
            message = await self._receive()
            if message["type"] != "http.request":
                raise StreamAborted(0, _CANCEL, "the client is gone")
            self._buffer += message.get("body", b"")
            self._read_all = not message.get("more_body", False)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    # The client

    def peer(self) -> str:
        """See `CallStream.peer`."""
        client = self._scope.get("client")
        return peer_name(*client) if client else peer_name("", "")

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """See `CallStream.auth_context`."""
        return {"transport_security_type": [b"ssl"]} if self._scope.get("scheme") == "https" else {}

    # For threads

    def wait_for(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine of this exchange, for another thread."""
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
        except (OSError, CancelledError):
            raise StreamAborted(0, _CANCEL, "the client is gone") from None


class _Bridge:
    """See `BlockingStream`: the stream of an exchange, for a servicer in another thread."""

    first: Message | None = None
    """A message that has been read already."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange
        self.cut_short, self.run_callbacks = exchange.cut_short, exchange.run_callbacks
        self.peer, self.auth_context = exchange.peer, exchange.auth_context

    def read_message(self, limit: int) -> Message | None:
        """See `BlockingStream.read_message`."""
        message, self.first = self.first, None
        return message or self._exchange.wait_for(self._exchange.read_message(limit))

    def send_head(self, fields: Fields, data: bytes) -> None:
        """See `BlockingStream.send_head`."""
        self._exchange.wait_for(self._exchange.send_head(fields, data))

    def send(self, data: bytes) -> None:
        """See `BlockingStream.send`."""
        self._exchange.wait_for(self._exchange.send(data))


def _octets(fields: Fields) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]


def _uncancel(task: asyncio.Task[Any] | None) -> None:
    """Take back a cancellation of our own (Python 3.11 counts them)."""
    uncancel = getattr(task, "uncancel", None)
    if uncancel is not None:
        uncancel()
