"""Certificates that are renewed while a worker runs: it looks at their files now and then, and takes up what is new.

Files are compared by what is in them: symbolic links may lead to others (as those of Let's Encrypt's `live` do), and
neither a new date nor a new owner is a new certificate. Whoever renews a certificate writes two files, one after the
other: what does not fit together is tried again, and is an error only if it stays so.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence

from gunicorn_h2.drivers.log import Log

__all__ = ["Renewal"]

_State = list["bytes | str"]


class Renewal:
    """Looks after the certificates of one worker; used by one thread."""

    def __init__(
        self,
        files: Sequence[str],
        renew: Callable[[], object],
        interval: float,
        log: Log,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`renew()` loads the files for new connections, or raises and changes nothing.

        Make this object before they are loaded for the first time. `interval` is in seconds; 0: they are not looked at.
        """
        self._files = files
        self._renew = renew
        self._interval = interval
        self._log = log
        self._clock = clock
        self._next_check = clock() + interval
        self._loaded = self._state() if interval else []
        self._failed: _State | None = None
        """What could not be loaded at the last check."""
        self._is_reported = False

    def begin(self) -> None:
        """Give up if the files cannot be read, now that the worker has dropped its privileges."""
        for file in self._files if self._interval else ():
            try:
                with open(file, "rb"):
                    pass
            except OSError as error:
                self._interval = 0
                self._log.info(
                    "http2_certificate_reload is off, because this worker may not read %s (%s): "
                    "a renewed certificate is taken up at SIGHUP",
                    file,
                    error.strerror,
                )
                return

    def check(self) -> None:
        """Load the files if they have changed and it is time to look."""
        now = self._clock()
        if not self._interval or now < self._next_check:
            return
        self._next_check = now + self._interval
        state = self._state()
        if state == self._loaded:
            self._failed = None
            return
        try:
            self._renew()
        except Exception as error:  # The `ssl_context` hook is the application's.
            self._note_failure(state, error)
        else:
            self._loaded, self._failed = state, None
            self._log.info("Certificates have changed: new connections get those in %s", ", ".join(self._files))

    def _note_failure(self, state: _State, error: Exception) -> None:
        if state != self._failed:
            # The rest may be about to be written.
            self._failed, self._is_reported = state, False
            self._log.debug("Certificates have changed, but cannot be loaded yet: %s", error)
        elif not self._is_reported:
            self._is_reported = True
            self._log.error(
                "Certificates have changed, but cannot be loaded: %s. New connections still get the old ones", error
            )

    def _state(self) -> _State:
        """What is in the files, or why that cannot be told."""
        return [_digest(file) for file in self._files]


def _digest(file: str) -> bytes | str:
    try:
        with open(file, "rb") as opened:
            return hashlib.sha256(opened.read()).digest()
    except OSError as error:
        return str(error)
