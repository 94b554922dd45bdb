"""The answers to requests for the status, for WSGI and ASGI."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from gunicorn_h2.workers import reports

from .access import LOOPBACK, AllowList, Client
from .figures import NotServing, figures
from .metrics import CONTENT_TYPE, render

__all__ = ["DEFAULT_PATH", "LOOPBACK", "Answer", "Answers", "checked_place", "path_below"]

DEFAULT_PATH = "/status"
_PAGE = Path(__file__).with_name("page.html")


class Answer(NamedTuple):
    """A response."""

    status: HTTPStatus
    headers: list[tuple[str, str]]
    body: bytes

    @classmethod
    def make(cls, status: HTTPStatus, content_type: str, body: bytes, *more: tuple[str, str]) -> Answer:
        """Make a response that no one keeps."""
        headers = [
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            *more,
        ]
        return cls(status, headers, body)

    @classmethod
    def error(cls, status: HTTPStatus, text: str = "", *more: tuple[str, str]) -> Answer:
        """Make a response that says why there is no other."""
        return cls.make(status, "text/plain; charset=utf-8", f"{text or status.phrase}\n".encode(), *more)


class Answers:
    """Answers GET and HEAD of the page (""), "/json" and "/metrics"."""

    def __init__(self, allow: str | Iterable[str]) -> None:
        """See `AllowList`."""
        self._allowed = AllowList(allow)
        self._page = _PAGE.read_bytes()
        self._policy = _content_security_policy(self._page.decode())

    def answer(self, method: str, path: str, client: Client) -> Answer:
        """Return the response to a request; `path` is what follows the place where the status was put."""
        reporter = reports.current()
        proxies = [] if reporter is None else reporter.cfg.forwarded_allow_ips
        if not self._allowed.admits(client, proxies):
            return Answer.error(HTTPStatus.FORBIDDEN)
        if path not in ("", "/", "/json", "/metrics"):
            return Answer.error(HTTPStatus.NOT_FOUND)
        if method not in ("GET", "HEAD"):
            return Answer.error(HTTPStatus.METHOD_NOT_ALLOWED, "", ("Allow", "GET, HEAD"))
        try:
            answer = self._answer(path)
        except NotServing as error:
            return Answer.error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        return answer if method == "GET" else answer._replace(body=b"")

    def _answer(self, path: str) -> Answer:
        if path == "/json":
            body = json.dumps(figures()).encode() + b"\n"
            return Answer.make(HTTPStatus.OK, "application/json", body)
        if path == "/metrics":
            return Answer.make(HTTPStatus.OK, CONTENT_TYPE, render(figures()).encode())
        policy = ("Content-Security-Policy", self._policy)
        return Answer.make(
            HTTPStatus.OK, "text/html; charset=utf-8", self._page, policy, ("Referrer-Policy", "no-referrer")
        )


def checked_place(path: str) -> str:
    """A path for the status, without a slash at its end. Raises ValueError for one that leaves nothing of the rest."""
    place = path.rstrip("/")
    if not place.startswith("/"):
        raise ValueError(f"{path!r} is no path for the status: it must begin with a slash, and have a name behind it")
    return place


def path_below(path: str, place: str) -> str | None:
    """What follows `place`, without a slash at its end, in a path; None if the path is not below it."""
    rest = path.removeprefix(place)
    return rest if path.startswith(place) and rest[:1] in ("", "/") else None


def _content_security_policy(page: str) -> str:
    """Allow the page its own style and script, and to fetch the figures."""
    hashes = {}
    for element in ("style", "script"):
        (text,) = re.findall(f"<{element}>(.*?)</{element}>", page, re.DOTALL)
        hashes[element] = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
