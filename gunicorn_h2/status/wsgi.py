"""The status for WSGI: an application, and a middleware that puts it beside one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .access import LOOPBACK, Client
from .answers import DEFAULT_PATH, Answers, checked_place, path_below

__all__ = ["StatusApp", "StatusMiddleware"]

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApplication = Callable[[Environ, StartResponse], Iterable[bytes]]

_TELL_OF_PROXIES = ("HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP")


class StatusApp:
    """A WSGI application: the page at its root, and below it `/json` and `/metrics`."""

    def __init__(self, allow: str | Iterable[str] = LOOPBACK) -> None:
        """`allow` names the addresses and networks of clients that may see it; others are answered 403.

        Raises ValueError for what is neither.
        """
        self._answers = Answers(allow)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        return self.serve(environ, start_response, environ.get("PATH_INFO", ""))

    def serve(self, environ: Environ, start_response: StartResponse, path: str) -> Iterable[bytes]:
        """Answer a request for a path below the status."""
        client = Client(
            environ.get("REMOTE_ADDR", ""),
            environ.get("HTTP_X_FORWARDED_FOR"),
            any(name in environ for name in _TELL_OF_PROXIES),
        )
        answer = self._answers.answer(environ["REQUEST_METHOD"], path, client)
        start_response(f"{answer.status.value} {answer.status.phrase}", answer.headers)
        return [answer.body]


class StatusMiddleware:
    """A WSGI middleware: the status at a path, everything else by the application."""

    def __init__(
        self, application: WSGIApplication, path: str = DEFAULT_PATH, allow: str | Iterable[str] = LOOPBACK
    ) -> None:
        """`path` begins with a slash; for `allow` see `StatusApp`. Raises ValueError."""
        self._application = application
        self._place = checked_place(path)
        self._status = StatusApp(allow)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, or pass it on."""
        path = environ.get("PATH_INFO", "")
        # All requests of the application come here: those to other paths must cost next to nothing.
        if self._place in path:
            below = path_below(path, self._place)
            if below is not None:
                return self._status.serve(environ, start_response, below)
        return self._application(environ, start_response)
