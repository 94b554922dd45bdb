"""A way to make a selector return."""

from __future__ import annotations

import os

__all__ = ["Waker"]


class Waker:
    """Makes a selector return, from any thread. An eventfd where there is one, else a pipe."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self._reader = self._writer = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._reader, False)
            os.set_blocking(self._writer, False)
        self.pending = False

    def fileno(self) -> int:
        return self._reader

    def wake(self) -> None:
        """Call where none is `pending`; where two threads do at once, one is in vain."""
        self.pending = True
        # Eight octets, as an eventfd wants them.
        os.write(self._writer, b"\x01\0\0\0\0\0\0\0")

    def clear(self) -> None:
        """Call before looking at the work: what is added later must find `pending` false."""
        try:
            os.read(self._reader, 4096)
        except BlockingIOError:
            pass
        self.pending = False

    def __del__(self) -> None:
        # Not before the last thread has let go of it: what it writes to must not be another's file by then.
        os.close(self._reader)
        if self._writer != self._reader:
            os.close(self._writer)
