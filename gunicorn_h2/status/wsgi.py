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


def StatusMiddleware(
    application: WSGIApplication, path: str = DEFAULT_PATH, allow: str | Iterable[str] = LOOPBACK
) -> WSGIApplication:
    """Return a WSGI middleware: the status at a path, everything else by the application.

    `path` begins with a slash; for `allow` see `StatusApp`. Raises ValueError.
    """
    place, status = checked_place(path), StatusApp(allow)

    # All requests of the application come here, and a function costs half of what an object's `__call__` does.
    def answer_or_pass_on(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if place in path:
            below = path_below(path, place)
            if below is not None:
                return status.serve(environ, start_response, below)
        return application(environ, start_response)

    return answer_or_pass_on
