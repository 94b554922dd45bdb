"""Logging of requests that never reach the application: Gunicorn's warning, access log and statsd."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from gunicorn.http import wsgi

from gunicorn_h2.protocol.events import RequestRefused
from gunicorn_h2.protocol.headers import RequestHead

from .request import StreamRequest, log_environ, peer_ip
from .responses import REASONS

__all__ = ["RefusalLog"]


class RefusalLog:
    """Logs refused requests; one for each worker."""

    def __init__(self, cfg: Any, log: Any) -> None:
        self._cfg = cfg
        self._log = log
        self._blank = StreamRequest(cfg)

    def note(self, head: RequestHead, peer: Any, stream_id: int, status: int, reason: str, sent: int = 0) -> None:
        """Log a request that was answered with `status` and a body of `sent` octets; the client never sees `reason`."""
        self._log.warning("Invalid request from ip=%s: %s", peer_ip(peer), reason)
        try:
            request = self._blank.for_log(head, peer, stream_id)
            response = wsgi.Response(request, None, self._cfg)
            response.status = f"{status} {REASONS[status]}"
            response.sent = sent
            environ = {**wsgi.default_environ(request, None, self._cfg), **log_environ(request)}
            self._log.access(response, request, environ, timedelta(0))
        except Exception:  # A logger of the configuration: application code.
            self._log.exception("Error in the access log of a refused request")

    def note_answered(self, connection: Any, refusal: RequestRefused) -> None:
        """Log a request that the core has answered itself."""
        assert refusal.head is not None
        self.note(refusal.head, connection.peer, refusal.stream_id, refusal.status, refusal.reason)
