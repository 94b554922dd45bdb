"""One call: what its client asked for, what its servicer has set, what is sent of it, and how it ends. No I/O."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote

from grpc import Compression, RpcError, StatusCode

from gunicorn_h2.drivers.channel import StreamAborted

from .messages import ACCEPTED, ENCODINGS, Message, check_encoding, decode, encode
from .metadata import Fields, Metadatum, RequestFields, encode_metadata
from .services import CONTENT_TYPE, Handler, Services
from .status import Abort, Failure, encode_message

__all__ = ["CallState", "CallStream", "log", "peer_name", "status_fields"]

log = logging.getLogger("gunicorn_h2.grpc")

_HEAD: Fields = [("content-type", CONTENT_TYPE), ("grpc-accept-encoding", ACCEPTED)]
_OK: Fields = [("grpc-status", "0")]
_FAILED = "Exception calling application"
_SENDABLE = {code: str(code.value[0]) for code in StatusCode}


class CallStream(Protocol):
    """The HTTP/2 stream of a call, in the terms of gRPC."""

    def cut_short(self, code: StatusCode, details: str) -> None:
        """Have the client see this status, although the servicer goes on; from any thread, without waiting."""

    def run_callbacks(self, callbacks: Iterable[Callable[[], object]]) -> None:
        """Have callbacks called soon; from any thread, without waiting."""

    def peer(self) -> str:
        """The client's address as grpcio writes it."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What is known of the client by TLS, by grpcio's names."""


class CallState:
    """The part of a servicer's context that needs no waiting, for both kinds of contexts; list before grpcio's class.

    Whoever ends the call first settles its outcome: the servicer, the deadline, or the client that is gone.

    What most calls do not need is a default of the class.
    """

    head_sent = False
    ended = False
    """Whether the outcome is settled: the status is on its way, or no one waits for it."""
    ended_early = False
    """Whether that was so before the servicer returned."""
    failure: Failure | None = None
    """What ends the call, whatever the servicer returns or raises."""
    _code: StatusCode | None = None
    _details = ""
    _initial: Sequence[tuple[str, str]] = ()
    _trailing: Sequence[tuple[str, str]] = ()
    _trailing_metadata: Any = ()
    _plain_next = False
    _callbacks: Sequence[Callable[[], object]] = ()

    def __init__(self, services: Services, method: str, request: RequestFields, stream: CallStream) -> None:
        self._services = services
        self._stream = stream
        self._ending = threading.Lock()
        self.method = method
        self.request = request
        self.deadline = math.inf if request.timeout is None else time.monotonic() + request.timeout
        """When the client stops waiting, on the monotonic clock."""
        self._compression = services.compression
        self.encoding = "identity"
        """Of the messages sent; settled with the head of the response."""

    # What a context offers

    def invocation_metadata(self) -> tuple[Metadatum, ...]:
        """The client's metadata."""
        return self.request.metadata

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, not less than 0; None without a deadline."""
        return None if self.deadline == math.inf else max(self.deadline - time.monotonic(), 0.0)

    def peer(self) -> str:
        """The client's address: see `peer_name`."""
        return self._stream.peer()

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """See `CallStream.auth_context`."""
        return self._stream.auth_context()

    def peer_identity_key(self) -> None:
        """None: which name of a certificate identifies its owner is for the servicer to say."""

    def peer_identities(self) -> None:
        """None; see `peer_identity_key`."""

    def is_active(self) -> bool:
        """Whether someone still waits for the outcome."""
        return not self.ended and self.failure is None

    def add_callback(self, callback: Callable[[], object]) -> bool:
        """Have `callback()` called when the call ends; return False if it has.

        Another thread may call it; it should not wait.
        """
        with self._ending:
            if self.ended:
                return False
            self._callbacks = [*self._callbacks, callback]
            return True

    def set_compression(self, compression: Compression) -> None:
        """Choose the compression of the responses, before the first of them; a client must accept it."""
        self._compression = compression

    def disable_next_message_compression(self) -> None:
        """Send the next response uncompressed."""
        self._plain_next = True

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Set the metadata that follows the responses. Raises ValueError for what cannot be sent."""
        self._trailing = encode_metadata(trailing_metadata)
        self._trailing_metadata = trailing_metadata

    def trailing_metadata(self) -> Any:
        """The metadata that was set."""
        return self._trailing_metadata

    def set_code(self, code: StatusCode) -> None:
        """Set the status code, for a servicer that returns or raises something else than `abort` does."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Set the status message."""
        self._details = details

    def code(self) -> StatusCode | None:
        """The status code that was set."""
        return self._code

    def details(self) -> str:
        """The status message that was set."""
        return self._details

    def note_abort(self, code: StatusCode, details: str) -> None:
        """Set the status of a call that its servicer aborts."""
        if code not in _SENDABLE or code is StatusCode.OK:
            log.error("abort() called with %r; the client sees UNKNOWN", code)
            code, details = StatusCode.UNKNOWN, ""
        self._code, self._details = code, details

    # How the call goes

    def begin(self, handler: Handler | None) -> Handler:
        """Check what can be checked before the servicer is called. Raises Failure."""
        if self.request.malformed:
            raise Failure(StatusCode.INTERNAL, self.request.malformed)
        if handler is None:
            raise Failure(StatusCode.UNIMPLEMENTED, "Method not found!")
        check_encoding(self.request.encoding)
        if self.deadline <= time.monotonic():
            raise Failure(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        return handler

    def decode(self, message: Message, deserializer: Callable[[bytes], Any] | None) -> Any:
        """Make a request of a message. Raises Failure."""
        compressed, data = message
        if compressed:
            data = decode(data, self.request.encoding, self._services.max_receive_message_length)
        if deserializer is None:
            return data
        try:
            return deserializer(data)
        except Exception:  # The application's; a message may be malformed in any way.
            log.debug("%s: a message cannot be deserialized", self.method, exc_info=True)
            raise Failure(StatusCode.INTERNAL, "Exception deserializing request!") from None

    def encode(self, response: Any, serializer: Callable[[Any], bytes] | None) -> bytes:
        """Make a message of a response, with its prefix. Raises Failure."""
        if not self.head_sent:
            self._settle_encoding()
        if serializer is not None:
            try:
                response = serializer(response)
            except Exception:  # As above: the servicer may have returned anything.
                log.exception("%s: a response cannot be serialized", self.method)
                raise Failure(StatusCode.INTERNAL, "Failed to serialize response!") from None
        encoding, self._plain_next = "identity" if self._plain_next else self.encoding, False
        return encode(response, encoding, self._services.max_send_message_length)

    def _settle_encoding(self) -> None:
        encoding = ENCODINGS.get(self._compression, "identity")
        if encoding != "identity" and encoding in self.request.accepted.replace(" ", "").split(","):
            self.encoding = encoding

    def set_initial_metadata(self, metadata: Any) -> None:
        """Add to the metadata of the response's head. Raises ValueError if that has been sent."""
        if self.head_sent:
            raise ValueError("Initial metadata no longer allowed!")
        self._initial = [*self._initial, *encode_metadata(metadata)]

    def head(self) -> Fields:
        """The fields of the response's head, which is sent now."""
        self._settle_encoding()
        self.head_sent = True
        if self.encoding == "identity":
            return [*_HEAD, *self._initial]
        return [*_HEAD, ("grpc-encoding", self.encoding), *self._initial]

    def note_error(self, error: Exception) -> None:
        """Turn an exception of the call, the servicer's included, into its status."""
        if isinstance(error, StreamAborted):
            self.note_cancelled()
        elif isinstance(error, Failure):
            self.failure = self.failure or error
        elif isinstance(error, Abort) or (isinstance(error, RpcError) and (self.ended or self.failure is not None)):
            log.debug("%s has ended early", self.method, exc_info=True)
        elif isinstance(error, NotImplementedError) and self._code is StatusCode.UNIMPLEMENTED:
            # What generated code does for a method that the servicer does not have.
            log.debug("%s is not implemented", self.method)
        else:
            log.exception("Error handling call %s", self.method)
            if self._code in (None, StatusCode.OK):
                self._code, self._details = StatusCode.UNKNOWN, self._details or _FAILED

    # How the call ends

    def settle(self) -> bool:
        """Settle the outcome; return False if it was settled already."""
        with self._ending:
            if self.ended:
                return False
            self.ended = True
        if self._callbacks:
            self._stream.run_callbacks(self._callbacks)
        return True

    def note_cancelled(self) -> None:
        """Note that the client is gone. Any thread may call this; it does not wait."""
        self.ended_early = self.settle() or self.ended_early

    def end_early(self, code: StatusCode, details: str) -> None:
        """End the call before its servicer does. Any thread may call this; it does not wait."""
        if self.settle():
            self.ended_early = True
            self._stream.cut_short(code, details)

    def expire(self) -> None:
        """End the call at its deadline."""
        self.end_early(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    @property
    def succeeded(self) -> bool:
        """Whether the status is OK so far."""
        return self.failure is None and self._code in (None, StatusCode.OK)

    def trailers(self) -> Fields:
        """The fields that end the response: the status, and the trailing metadata."""
        if self.failure is not None:
            return status_fields(self.failure.code, self.failure.details)
        if self._code is None and not self._details and not self._trailing:
            return _OK
        return [*status_fields(self._code or StatusCode.OK, self._details), *self._trailing]


def status_fields(code: StatusCode, details: str) -> Fields:
    """The fields of a status."""
    fields = [("grpc-status", _SENDABLE.get(code, "2"))]
    if details:
        fields.append(("grpc-message", encode_message(details)))
    return fields


def peer_name(host: str, port: object) -> str:
    """A client's address as grpcio writes it: "ipv4:127.0.0.1:50051", "ipv6:%5B::1%5D:50051", "unix:"."""
    if not host:
        return "unix:"
    return f"ipv6:{quote(f'[{host}]', safe=':')}:{port}" if ":" in host else f"ipv4:{host}:{port}"
