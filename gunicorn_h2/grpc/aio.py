"""Calls of asynchronous servicers, by the interface of grpc.aio, in the tasks of an ASGI server."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable
from functools import lru_cache, partial
from typing import Any, NoReturn, Protocol

import grpc
from grpc import StatusCode, aio

from .call import CallState, CallStream
from .messages import Message
from .metadata import Fields, RequestFields
from .services import Handler, Services
from .status import Abort, Failure

__all__ = ["AsyncCallStream", "AsyncContext", "is_asynchronous"]


class AsyncCallStream(CallStream, Protocol):
    """The stream below a call. What waits raises StreamAborted, or another OSError, once the client is gone."""

    async def read_message(self, limit: int) -> Message | None:
        """See `BlockingStream.read_message`."""

    async def send_head(self, fields: Fields, data: bytes) -> None:
        """See `BlockingStream.send_head`."""

    async def send(self, data: bytes) -> None:
        """See `BlockingStream.send`."""


class AsyncContext(CallState, aio.ServicerContext):  # type: ignore[misc]
    """A call, and the context of its servicer. Everything happens in the event loop."""

    _stream: AsyncCallStream

    def __init__(
        self, services: Services, method: str, request: RequestFields, stream: AsyncCallStream, handler: Handler
    ) -> None:
        super().__init__(services, method, request, stream)
        self._handler = handler

    # grpc.aio.ServicerContext

    async def read(self) -> Any:
        """Return the next request; `grpc.aio.EOF` at the end. Raises Failure, and StreamAborted."""
        try:
            message = await self._stream.read_message(self._services.max_receive_message_length)
            return aio.EOF if message is None else self.decode(message, self._handler.request_deserializer)
        except Failure as failure:
            self.failure = failure
            raise

    async def write(self, message: Any) -> None:
        """Send a response."""
        data = self.encode(message, self._handler.response_serializer)
        if self.head_sent:
            await self._stream.send(data)
        else:
            await self._stream.send_head(self.head(), data)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send the initial metadata now. Raises ValueError after the first response."""
        self.set_initial_metadata(initial_metadata)
        await self._stream.send_head(self.head(), b"")

    async def abort(self, code: StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with a status other than OK, by an exception."""
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        self.note_abort(code, details)
        raise Abort

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a rich status, as `grpc_status.rpc_status.to_status` makes one."""
        await self.abort(status.code, status.details, status.trailing_metadata)

    def add_done_callback(self, callback: Callable[[AsyncContext], object]) -> None:
        """Have `callback(context)` called when the call ends."""
        self.add_callback(partial(callback, self))

    def cancelled(self) -> bool:
        """Whether the call ended before its servicer did."""
        return self.ended_early

    def done(self) -> bool:
        """Whether the call has ended."""
        return self.ended

    # How the call goes

    async def serve(self) -> bytes:
        """Call the servicer; return a last message to send with the status, b"" for none.

        Nothing is raised but CancelledError, and what is no `Exception`.
        """
        try:
            message = await self._call(self._handler)
            return message if self.succeeded else b""
        except Exception as error:  # Servicers may raise anything.
            self.note_error(error)
        return b""

    async def _call(self, handler: Handler) -> bytes:
        request: Any
        if handler.request_streaming:
            request = self._requests()
            call = handler.stream_stream if handler.response_streaming else handler.stream_unary
        else:
            request = await self.read()
            if request is aio.EOF:
                raise Failure(StatusCode.UNIMPLEMENTED, "the method requires exactly one request message")
            call = handler.unary_stream if handler.response_streaming else handler.unary_unary
        response = call(request, self)
        if not handler.response_streaming:
            response = await response
            return self.encode(response, handler.response_serializer) if self.succeeded else b""
        if isinstance(response, AsyncIterable):
            await self._send_all(response)
        else:
            # The servicer sends its responses by `write`.
            await response
        return b""

    async def _requests(self) -> AsyncIterator[Any]:
        while (request := await self.read()) is not aio.EOF:
            yield request

    async def _send_all(self, responses: AsyncIterable[Any]) -> None:
        try:
            async for response in responses:
                if self.failure is not None:
                    return
                await self.write(response)
        finally:
            close = getattr(responses, "aclose", None)
            if close is not None:
                await close()


def is_asynchronous(handler: Handler) -> bool:
    """Whether a method is for the event loop, not for a thread."""
    call = handler.stream_stream or handler.stream_unary or handler.unary_stream or handler.unary_unary
    # A bound method is made anew each time; looking at a function takes longer than a small call.
    return _is_asynchronous(getattr(call, "__func__", call))


@lru_cache(maxsize=1024)
def _is_asynchronous(call: Any) -> bool:
    if not inspect.isroutine(call) and not isinstance(call, partial):
        # An object that can be called.
        call = type(call).__call__
    return inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)
