"""The status for ASGI: an application, and a middleware that puts it beside one."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from .access import LOOPBACK, Client
from .answers import DEFAULT_PATH, Answers, checked_place, path_below

__all__ = ["StatusApp", "StatusMiddleware"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApplication = Callable[[Scope, Receive, Send], Awaitable[None]]

_TELL_OF_PROXIES = {b"forwarded", b"via", b"x-real-ip"}


class StatusApp:
    """An ASGI application: the page at its root, and below it `/json` and `/metrics`."""

    def __init__(self, allow: str | Iterable[str] = LOOPBACK) -> None:
        """`allow` names the addresses and networks of clients that may see it; others are answered 403.

        Raises ValueError for what is neither.
        """
        self._answers = Answers(allow)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. Raises NotImplementedError for what is none, as applications do that know nothing of it."""
        if scope["type"] != "http":
            raise NotImplementedError(f"the status has no {scope['type']}")
        await self.serve(scope, send, _local_path(scope))

    async def serve(self, scope: Scope, send: Send, path: str) -> None:
        """Answer a request for a path below the status."""
        fields = [(name.lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        forwarded_for = [value for name, value in fields if name == b"x-forwarded-for"]
        client = Client(
            (scope.get("client") or ("",))[0],
            ",".join(forwarded_for) if forwarded_for else None,
            any(name in _TELL_OF_PROXIES for name, _ in fields),
        )
        answer = self._answers.answer(scope["method"], path, client)
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status.value, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})


def StatusMiddleware(
    application: ASGIApplication, path: str = DEFAULT_PATH, allow: str | Iterable[str] = LOOPBACK
) -> ASGIApplication:
    """Return an ASGI middleware: the status at a path, everything else by the application.

    `path` begins with a slash; for `allow` see `StatusApp`. Raises ValueError.
    """
    place, status = checked_place(path), StatusApp(allow)

    # All requests of the application come here. This returns a coroutine without being one: that saves half.
    def answer_or_pass_on(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and place in scope["path"]:
            below = path_below(_local_path(scope), place)
            if below is not None:
                return status.serve(scope, send, below)
        return application(scope, receive, send)

    return _marked_as_coroutine_function(answer_or_pass_on)


def _marked_as_coroutine_function(function: ASGIApplication) -> ASGIApplication:
    """Mark a function that returns a coroutine: servers that ask take it for an application of ASGI 2 otherwise."""
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        vars(function)["_is_coroutine"] = vars(asyncio.coroutines)["_is_coroutine"]
    return function


def _local_path(scope: Scope) -> str:
    """The path below the place where an application is mounted."""
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    below = path_below(path, root) if root else None
    return path if below is None else below
