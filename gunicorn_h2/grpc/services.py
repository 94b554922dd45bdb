"""The services of a server: method handlers by path, and interceptors around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from grpc import Compression

from .messages import DEFAULT_MAX_RECEIVED
from .metadata import Metadatum

__all__ = ["CONTENT_TYPE", "STREAM", "CallDetails", "Handler", "Services", "refusal", "wants_grpc"]

Handler = Any
"""A `grpc.RpcMethodHandler`."""

CONTENT_TYPE = "application/grpc"
STREAM = "gunicorn.http2.stream"
"""The key in environ and scope of what PEP 3333 and ASGI have no words for."""


class CallDetails(NamedTuple):
    """A `grpc.HandlerCallDetails`: what interceptors and generic handlers learn of a call."""

    method: str
    """The request's path: "/package.Service/Method"."""
    invocation_metadata: tuple[Metadatum, ...]


class Services:
    """What generated code and servicers need of a `grpc.Server`, and the options of the calls."""

    def __init__(
        self,
        application: Any = None,
        *,
        interceptors: Sequence[Any] = (),
        compression: Compression = Compression.NoCompression,
        max_receive_message_length: int = DEFAULT_MAX_RECEIVED,
        max_send_message_length: int = -1,
    ) -> None:
        """`application` gets the requests that are no calls; without one they are answered 415.

        `interceptors` are called in this order. `compression` is for the responses to clients that accept it, unless
        a servicer chooses another one. Lengths are in octets of a message; -1: no limit.
        """
        self._application = application
        self.interceptors = tuple(interceptors)
        self.compression = compression
        self.max_receive_message_length = max_receive_message_length
        self.max_send_message_length = max_send_message_length
        self._registered: dict[str, Handler] = {}
        self._generic: list[Any] = []

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Any]) -> None:
        """See `grpc.Server.add_generic_rpc_handlers`."""
        self._generic += generic_rpc_handlers

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        """See `grpc.Server.add_registered_method_handlers`."""
        for name, handler in method_handlers.items():
            self._registered[f"/{service_name}/{name}"] = handler

    def find(self, details: CallDetails) -> Handler | None:
        """Return the handler of a method, without interceptors; None if there is none."""
        handler = self._registered.get(details.method)
        if handler is None:
            for generic in self._generic:
                handler = generic.service(details)
                if handler is not None:
                    break
        return handler

    def intercept(self, find: Callable[[CallDetails], Any]) -> Callable[[CallDetails], Any]:
        """Return `find` as the interceptors would have it: they are its continuations, the first one outermost."""
        for interceptor in reversed(self.interceptors):
            find = partial(interceptor.intercept_service, find)
        return find


def wants_grpc(content_type: str) -> bool:
    """Whether a request's content type is that of gRPC, or begins like it."""
    return content_type[:16].lower() == CONTENT_TYPE


def refusal(method: str, content_type: str) -> tuple[int, str, Sequence[tuple[str, str]]] | None:
    """Why a request is no call: status, reason and fields of the answer; None for one that is."""
    if not wants_grpc(content_type) or content_type[16:17] not in ("", "+", ";"):
        return 415, "Unsupported Media Type", ()
    if method != "POST":
        return 405, "Method Not Allowed", [("allow", "POST")]
    return None
