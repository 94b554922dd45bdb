"""A board in shared memory, on which the workers of a master write what they have counted.

The master makes it before it forks the first worker, and gives each worker a slot, which is another's when the worker
has ended. Nothing but the worker writes to its slot, in turns to two buffers with a checksum each. So a reader always
finds one that is complete, even if the writer is killed at its work, and no one waits for a lock.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any
from weakref import ReferenceType, ref

__all__ = ["BUFFER_SIZE", "SLOTS", "Board", "Slot", "birth", "is_alive"]

SLOTS = 512
"""Workers that have a slot: those that serve, and those that still end. Memory that is not used costs nothing."""
BUFFER_SIZE = 8_192
_HEADER = struct.Struct("=QLL")
"""Generation, length and checksum of what follows; a generation of 0: nothing."""
_USED = struct.Struct("=L")
_TRIALS = 10


class Slot:
    """The part of the board that belongs to one worker."""

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        self._memory = memory
        self._start = start

    def write(self, data: bytes) -> None:
        """Replace what the slot holds. Raises ValueError for more than it can hold; only the owner may call it."""
        if len(data) > BUFFER_SIZE - _HEADER.size:
            raise ValueError(f"{len(data)} octets for a slot of {BUFFER_SIZE}")
        generation = max(self._read_buffer(0)[0], self._read_buffer(1)[0]) + 1
        start = self._start + generation % 2 * BUFFER_SIZE
        checksum = zlib.crc32(data, generation & 0xFFFF_FFFF)
        self._memory[start + _HEADER.size : start + _HEADER.size + len(data)] = data
        self._memory[start : start + _HEADER.size] = _HEADER.pack(generation, len(data), checksum)

    def read(self) -> bytes | None:
        """Return what was written last, whole; None if nothing was. Any process may call it."""
        best: tuple[int, bytes | None] = (0, None)
        for _ in range(_TRIALS):
            newest = max(self._generation(0), self._generation(1))
            best = max(best, self._read_buffer(0), self._read_buffer(1))
            if best[0] >= newest:
                break
            # The owner has written to both buffers meanwhile, or was killed between two octets of a header.
        return best[1]

    def _generation(self, number: int) -> int:
        return int(_HEADER.unpack_from(self._memory, self._start + number * BUFFER_SIZE)[0])

    def _read_buffer(self, number: int) -> tuple[int, bytes | None]:
        """The generation and the content of a buffer; 0 and None if it is empty or being written."""
        start = self._start + number * BUFFER_SIZE
        buffer = self._memory[start : start + BUFFER_SIZE]
        generation, length, checksum = _HEADER.unpack_from(buffer)
        data = buffer[_HEADER.size : _HEADER.size + length]
        if generation and zlib.crc32(data, generation & 0xFFFF_FFFF) == checksum:
            return generation, data
        return 0, None


class Board:
    """All slots; made by the master, and inherited by its workers."""

    def __init__(self, slots: int = SLOTS) -> None:
        self.master = os.getpid()
        """The process that made it."""
        self._memory = mmap.mmap(-1, mmap.PAGESIZE + slots * 2 * BUFFER_SIZE)
        self._slots = [Slot(self._memory, mmap.PAGESIZE + number * 2 * BUFFER_SIZE) for number in range(slots)]
        self._owners: list[ReferenceType[Any] | None] = [None] * slots

    def take(self, worker: Any) -> Slot | None:
        """Give a worker that is about to be forked a slot of its own; None if there is none left.

        The slot keeps what the worker before has written. `worker.pid` is a number once the process is there.
        """
        for number, owner in enumerate(self._owners):
            before = None if owner is None else owner()
            if before is None or (isinstance(before.pid, int) and not is_alive(before.pid)):
                self._owners[number] = ref(worker)
                self._used = max(self._used, number + 1)
                return self._slots[number]
        return None

    @property
    def _used(self) -> int:
        """How many slots have been given to workers; to look at the others would have the system provide the memory."""
        return int(_USED.unpack_from(self._memory)[0])

    @_used.setter
    def _used(self, count: int) -> None:
        _USED.pack_into(self._memory, 0, count)

    def read(self) -> Iterator[bytes]:
        """Yield what is in the slots, those of workers that have ended included."""
        for slot in self._slots[: self._used]:
            data = slot.read()
            if data is not None:
                yield data


def is_alive(pid: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def birth(pid: int) -> int:
    """When a process was started, in the kernel's ticks: with its number, what no other process has.

    0 if there is no such process, or no /proc.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # Its name, in parentheses, may hold anything. proc(5): starttime is the field number 22.
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError):
        return 0
