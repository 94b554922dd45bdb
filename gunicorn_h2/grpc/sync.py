"""Calls of synchronous servicers, each in a thread (or greenlet) of its own, over any stream that can block."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, Protocol

import grpc
from grpc import StatusCode

from gunicorn_h2.drivers.channel import StreamAborted

from .call import CallState, CallStream
from .messages import Message
from .metadata import Fields, RequestFields
from .services import CallDetails, Handler, Services
from .status import Abort, Failure

__all__ = ["BlockingStream", "SyncContext"]


class BlockingStream(CallStream, Protocol):
    """The stream below a call. What waits raises StreamAborted once the client is gone."""

    def read_message(self, limit: int) -> Message | None:
        """Return the next message of the request, None at the end. Raises Failure; see `parse_prefix`."""

    def send_head(self, fields: Fields, data: bytes) -> None:
        """Send the head of the response, with its first data if there is any."""

    def send(self, data: bytes) -> None:
        """Send data, after the head."""


class SyncContext(CallState, grpc.ServicerContext):  # type: ignore[misc]
    """A call, and the context of its servicer."""

    timer: list[Any] | None = None
    """See `DeadlineThread`."""
    _stream: BlockingStream

    def __init__(self, services: Services, method: str, request: RequestFields, stream: BlockingStream) -> None:
        super().__init__(services, method, request, stream)
        self._reading = threading.Lock()

    # grpc.ServicerContext

    def cancel(self) -> None:
        """End the call: the client sees CANCELLED."""
        self.end_early(StatusCode.CANCELLED, "Cancelled on the server side")

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send the initial metadata now. Raises ValueError after the first response."""
        if self.ended:
            raise grpc.RpcError
        self.set_initial_metadata(initial_metadata)
        try:
            self._stream.send_head(self.head(), b"")
        except StreamAborted:
            self.note_cancelled()

    def abort(self, code: StatusCode, details: str) -> NoReturn:
        """End the call with a status other than OK, by an exception."""
        self.note_abort(code, details)
        raise Abort

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a rich status, as `grpc_status.rpc_status.to_status` makes one."""
        self.set_trailing_metadata(status.trailing_metadata)
        self.abort(status.code, status.details)

    # How the call goes

    def serve(self, find: Callable[[CallDetails], Handler | None]) -> bytes:
        """Call the servicer; return a last message to send with the status, b"" for none.

        Nothing is raised but what is no `Exception`. Interceptors and servicer share a context of their own for
        context variables, which the thread's next call does not see.
        """
        return contextvars.copy_context().run(self._serve, find)

    def _serve(self, find: Callable[[CallDetails], Handler | None]) -> bytes:
        try:
            handler = self.begin(find(CallDetails(self.method, self.request.metadata)))
            message = self._call(handler)
            return message if self.succeeded else b""
        except Exception as error:  # Interceptors and servicers may raise anything.
            self.note_error(error)
        return b""

    def _call(self, handler: Handler) -> bytes:
        request: Any
        if handler.request_streaming:
            request = _Requests(self, handler.request_deserializer)
            call = handler.stream_stream if handler.response_streaming else handler.stream_unary
        else:
            message = self._read()
            if message is None:
                raise Failure(StatusCode.UNIMPLEMENTED, "the method requires exactly one request message")
            request = self.decode(message, handler.request_deserializer)
            call = handler.unary_stream if handler.response_streaming else handler.unary_unary
        if self.ended:
            return b""
        response = call(request, self)
        if handler.response_streaming:
            self._send_all(response, handler)
            return b""
        return self.encode(response, handler.response_serializer) if self.succeeded and not self.ended else b""

    def _send_all(self, responses: Iterable[Any], handler: Handler) -> None:
        try:
            for response in responses:
                if not self.is_active():
                    return
                message = self.encode(response, handler.response_serializer)
                if self.head_sent:
                    self._stream.send(message)
                else:
                    self._stream.send_head(self.head(), message)
        finally:
            close = getattr(responses, "close", None)
            if close is not None:
                close()

    def _read(self) -> Message | None:
        return self._stream.read_message(self._services.max_receive_message_length)

    def next_request(self, deserializer: Callable[[bytes], Any] | None) -> Any:
        """The next request of a stream, for any thread. Raises StopIteration, or RpcError for a call that has ended."""
        with self._reading:
            if self.is_active():
                try:
                    message = self._read()
                    if message is None:
                        raise StopIteration
                    return self.decode(message, deserializer)
                except (Failure, StreamAborted) as error:
                    self.note_error(error)
            raise grpc.RpcError


class _Requests:
    """The requests of a stream, read one by one as the servicer asks for them."""

    def __init__(self, context: SyncContext, deserializer: Callable[[bytes], Any] | None) -> None:
        self._context = context
        self._deserializer = deserializer

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._context.next_request(self._deserializer)

    next = __next__
