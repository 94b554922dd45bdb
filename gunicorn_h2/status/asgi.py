"""The status for ASGI: an application, and a middleware that puts it beside one."""

from __future__ import annotations

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


class StatusMiddleware:
    """An ASGI middleware: the status at a path, everything else by the application."""

    def __init__(
        self, application: ASGIApplication, path: str = DEFAULT_PATH, allow: str | Iterable[str] = LOOPBACK
    ) -> None:
        """`path` begins with a slash; for `allow` see `StatusApp`. Raises ValueError."""
        self._application = application
        self._place = checked_place(path)
        self._status = StatusApp(allow)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        # All requests of the application come here: those to other paths must cost next to nothing.
        if scope["type"] == "http" and self._place in scope["path"]:
            below = path_below(_local_path(scope), self._place)
            if below is not None:
                await self._status.serve(scope, send, below)
                return
        await self._application(scope, receive, send)


def _local_path(scope: Scope) -> str:
    """The path below the place where an application is mounted."""
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    below = path_below(path, root) if root else None
    return path if below is None else below
