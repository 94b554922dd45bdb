"""Response data that waits for slow clients, in one temporary file of the worker.

The file has no name, so that nothing is left of it when the worker ends, however that happens. It is made when it is
first needed, and consists of blocks. A piece of data gets the lowest free blocks, so that most pieces are one run of
them, written by one system call. The end of the file is cut off when it is free, and the file is closed when no data
waits.
"""

from __future__ import annotations

import heapq
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from .log import Log, Throttle

__all__ = ["BLOCK_SIZE", "Spool", "SpooledData"]

BLOCK_SIZE = 16_384
"""Octets of a block: the data of a frame."""
# The free end of the file may be this many blocks long. Cutting them off takes the kernel a few milliseconds at most.
_FREE_BLOCKS = 1_024
# Seconds for which a file that failed is not tried again, and from one line in the log to the next.
_PAUSE = 1.0
_LOG_INTERVAL = 60.0

_Run = tuple[int, int]
"""The number of the first block of several, and of the one behind the last."""


class Spool:
    """The file of a worker; any thread may call it."""

    def __init__(self, limit: int, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        """The file has at most `limit` octets; 0: there is none. `clock` returns seconds."""
        self._limit = limit // BLOCK_SIZE
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._free: list[int] = []
        """Blocks to be used again, in a heap; also some that have been cut off or used since."""
        self._in_use = bytearray()
        """A 1 for each block that is in use, up to the last one that is."""
        self._size = 0
        """The number of blocks of the file, at least."""
        self._used = 0
        self._retry_at = -_PAUSE
        self._throttle = Throttle(_LOG_INTERVAL)

    @property
    def octets(self) -> int:
        """The octets of all blocks that are in use."""
        return self._used * BLOCK_SIZE

    @property
    def has_room(self) -> bool:
        """Whether `store` may succeed."""
        return self._used < self._limit and self._clock() >= self._retry_at

    def store(self, data: bytes | memoryview) -> SpooledData | None:
        """Write data to the file; return None if there is no room for it, or the file system fails, which is logged."""
        if not self.has_room:
            return None
        try:
            runs = self._allocate(-(-len(data) // BLOCK_SIZE))
            if not runs:
                return None
            stored = SpooledData(self, runs, len(data))
            try:
                self._write(runs, memoryview(data))
            except OSError:
                stored.close()
                raise
        except OSError as error:
            self._fail("written", error)
            return None
        return stored

    def read(self, octets: int, position: int) -> bytes:
        """Read from a position in the file; b"" if that fails, which is logged."""
        assert self._file is not None
        try:
            return os.pread(self._file.fileno(), octets, position)
        except OSError as error:
            self._fail("read", error)
            return b""

    def free(self, runs: list[_Run]) -> None:
        """Free blocks."""
        with self._lock:
            in_use = self._in_use
            for begin, end in runs:
                in_use[begin:end] = bytes(end - begin)
                self._used -= end - begin
                for block in range(begin, end):
                    heapq.heappush(self._free, block)
            last = in_use.rfind(1)
            del in_use[last + 1 :]
            if not in_use:
                self._close_file()
            elif self._size - len(in_use) > _FREE_BLOCKS:
                self._truncate()

    def close(self) -> None:
        """Close the file; nothing may be stored or read after that."""
        with self._lock:
            self._limit = 0
            if self._file is not None:
                self._file.close()

    def _close_file(self) -> None:
        """Close a file without data: neither disk nor descriptor is held for no one."""
        assert self._file is not None
        file, self._file = self._file, None
        with suppress(OSError):
            file.close()
        self._free.clear()
        self._size = 0

    def _allocate(self, count: int) -> list[_Run]:
        """Take blocks, the lowest first; none if there are not as many. Raises OSError."""
        with self._lock:
            if self._used + count > self._limit:
                return []
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            blocks: list[int] = []
            in_use = self._in_use
            while len(blocks) < count and self._free:
                block = heapq.heappop(self._free)
                if block < len(in_use) and not in_use[block]:
                    in_use[block] = 1
                    blocks.append(block)
            missing = count - len(blocks)
            blocks.extend(range(len(in_use), len(in_use) + missing))
            in_use.extend(b"\1" * missing)
            self._size = max(self._size, len(in_use))
            self._used += count
        return _runs(blocks)

    def _write(self, runs: list[_Run], data: memoryview) -> None:
        assert self._file is not None
        fd = self._file.fileno()
        for begin, end in runs:
            position = begin * BLOCK_SIZE
            piece = data[: (end - begin) * BLOCK_SIZE]
            data = data[len(piece) :]
            while piece:
                written = os.pwrite(fd, piece, position)
                position += written
                piece = piece[written:]

    def _truncate(self) -> None:
        assert self._file is not None
        self._size = len(self._in_use)
        try:
            os.ftruncate(self._file.fileno(), self._size * BLOCK_SIZE)
        except (OSError, ValueError) as error:
            # Its blocks are free all the same. A closed file has none.
            self._log.debug("Cannot truncate the file for responses: %s", error)

    def _fail(self, what: str, error: OSError) -> None:
        now = self._clock()
        self._retry_at = now + _PAUSE
        if self._throttle.admit(now) is not None:
            self._log.warning("The temporary file for responses to slow clients cannot be %s: %s", what, error)


class SpooledData:
    """Octets in the file of a worker: a `Source`. It has one owner at a time."""

    __slots__ = ("_left", "_position", "_runs", "_spool")

    def __init__(self, spool: Spool, runs: list[_Run], octets: int) -> None:
        self._spool = spool
        self._runs = runs
        self._left = octets
        self._position = 0
        """The position of the next octet in the first run."""

    def __len__(self) -> int:
        """See `Source.__len__`."""
        return self._left

    def read(self, octets: int) -> bytes:
        """See `Source.read`."""
        data = self._read_run(octets)
        while 0 < len(data) < octets:
            more = self._read_run(octets - len(data))
            if not more:
                return b""
            data += more
        return data

    def _read_run(self, octets: int) -> bytes:
        begin, end = self._runs[0]
        size = min(octets, (end - begin) * BLOCK_SIZE - self._position)
        data = self._spool.read(size, begin * BLOCK_SIZE + self._position)
        self._position += len(data)
        self._left -= len(data)
        if self._position == (end - begin) * BLOCK_SIZE:
            self._spool.free([self._runs.pop(0)])
            self._position = 0
        return data

    def close(self) -> None:
        """See `Source.close`."""
        runs, self._runs, self._left = self._runs, [], 0
        if runs:
            self._spool.free(runs)


def _runs(blocks: list[int]) -> list[_Run]:
    """Join numbers of blocks, in order, to runs."""
    runs: list[_Run] = []
    for block in blocks:
        if runs and runs[-1][1] == block:
            runs[-1] = (runs[-1][0], block + 1)
        else:
            runs.append((block, block + 1))
    return runs
