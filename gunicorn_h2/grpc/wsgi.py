"""gRPC services as a WSGI middleware."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from grpc import StatusCode

from .call import peer_name, status_fields
from .deadlines import DeadlineThread
from .messages import PREFIX_SIZE, Message, check_length, parse_prefix
from .metadata import Fields, parse_fields
from .services import CONTENT_TYPE, STREAM, Services, refusal, wants_grpc
from .sync import SyncContext

__all__ = ["GrpcWSGI"]

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]


class GrpcWSGI(Services):
    """Serves calls of gRPC, and passes all other requests to the WSGI application that it wraps.

    A call holds a thread (a greenlet) of the worker until its servicer returns, and its client sees the deadline
    on time even if that is later.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]] | None = None, **options: Any) -> None:
        """See `Services`."""
        super().__init__(application, **options)
        self._deadlines = DeadlineThread()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """See PEP 3333."""
        content_type = environ.get("CONTENT_TYPE", "")
        if self._application is not None and not wants_grpc(content_type):
            response: Iterable[bytes] = self._application(environ, start_response)
            return response
        refused = refusal(environ["REQUEST_METHOD"], content_type)
        if refused is None and STREAM not in environ:
            refused = 505, "HTTP Version Not Supported", ()
        if refused is not None:
            status, reason, fields = refused
            start_response(f"{status} {reason}", [*fields, ("content-type", "text/plain"), ("content-length", "0")])
            return []
        return self._serve(environ, start_response)

    def _serve(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        stream, deadlines = environ[STREAM], self._deadlines
        request = parse_fields(stream.request_fields)
        context = SyncContext(self, environ["PATH_INFO"], request, _Stream(environ, start_response, deadlines))
        deadlines.start()
        stream.on_abort(context.note_cancelled)
        stream.lift_read_timeout()
        if request.timeout is not None:
            deadlines.set(context, context.deadline)
        message = context.serve(self.intercept(self.find))
        context.settle()
        if request.timeout is not None:
            deadlines.cancel(context)
        return _finish(context, message, environ, start_response)


def _finish(context: SyncContext, message: bytes, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Give the worker what is left of the response; it drops that of a stream that was aborted or cut short."""
    if message or context.head_sent:
        if not context.head_sent:
            start_response("200 OK", context.head())
        environ["gunicorn.http2.send_trailers"](context.trailers())
        return [message] if message else []
    start_response("200 OK", [*context.head(), *context.trailers()])
    return []


class _Stream:
    """See `BlockingStream`: a stream of a worker of this package."""

    _write: Callable[[bytes], object]

    def __init__(self, environ: Environ, start_response: StartResponse, deadlines: DeadlineThread) -> None:
        self._read = environ["wsgi.input"].read
        self._environ = environ
        self._start_response = start_response
        self._deadlines = deadlines

    def read_message(self, limit: int) -> Message | None:
        """See `BlockingStream.read_message`."""
        prefix = self._read(PREFIX_SIZE)
        if not prefix:
            return None
        compressed, length = parse_prefix(prefix, limit)
        return compressed, check_length(self._read(length), length) if length else b""

    def send_head(self, fields: Fields, data: bytes) -> None:
        """See `BlockingStream.send_head`."""
        self._write = self._start_response("200 OK", fields)
        if data:
            self._write(data)
        else:
            self._environ[STREAM].send_head()

    def send(self, data: bytes) -> None:
        """See `BlockingStream.send`."""
        self._write(data)

    def cut_short(self, code: StatusCode, details: str) -> None:
        """See `CallStream.cut_short`."""
        fields = status_fields(code, details)
        self._environ[STREAM].cut_short([("content-type", CONTENT_TYPE), *fields], fields)

    def run_callbacks(self, callbacks: Iterable[Callable[[], object]]) -> None:
        """See `CallStream.run_callbacks`."""
        for callback in callbacks:
            self._deadlines.run(callback)

    def peer(self) -> str:
        """See `CallStream.peer`."""
        return peer_name(self._environ.get("REMOTE_ADDR", ""), self._environ.get("REMOTE_PORT", ""))

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """See `CallStream.auth_context`."""
        environ = self._environ
        if environ.get("wsgi.url_scheme") != "https":
            return {}
        context = {"transport_security_type": [b"ssl"]}
        if environ.get("SSL_CLIENT_VERIFY") == "SUCCESS":
            context["x509_pem_cert"] = [environ["SSL_CLIENT_CERT"].encode("ascii")]
            context["x509_subject"] = [environ["SSL_CLIENT_S_DN"].encode()]
        return context
