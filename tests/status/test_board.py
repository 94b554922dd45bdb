"""The board in shared memory: what one process writes others read whole, whatever becomes of the writer."""

import os
import signal

import pytest

from gunicorn_h2.workers.board import BUFFER_SIZE, Board, is_alive

WRITES = 500


class Worker:
    """A worker as the board knows it."""

    def __init__(self, pid="[booting]"):
        self.pid = pid


class Child:
    """A forked process that calls something, and is waited for at the end."""

    def __init__(self, call):
        self.pid = os.fork()
        if not self.pid:
            try:
                call()
            finally:
                os._exit(0)

    def kill(self):
        """Kill it, and wait for its end."""
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def wait(self):
        """Wait for its end; return its status."""
        return os.waitpid(self.pid, 0)[1]


@pytest.fixture
def board():
    return Board(slots=4)


@pytest.fixture
def slot(board):
    board.owner = Worker()
    return board.take(board.owner)


def test_what_was_written_last_is_read(slot):
    assert slot.read() is None
    for number in range(5):
        slot.write(b"%d" % number)
        assert slot.read() == b"%d" % number


def test_a_slot_can_be_full_or_empty_but_holds_no_more(slot):
    largest = b"x" * (BUFFER_SIZE - 16)
    for data in (largest, b"", largest):
        slot.write(data)
        assert slot.read() == data
    with pytest.raises(ValueError, match="8177 octets"):
        slot.write(largest + b"x")
    assert slot.read() == largest


def test_slots_do_not_touch_each_other(board):
    workers = [Worker() for _ in range(4)]
    slots = [board.take(worker) for worker in workers]
    for number, slot in enumerate(slots):
        for _ in range(2):
            slot.write(b"%d" % number * (BUFFER_SIZE - 16))
    assert list(board.read()) == [b"%d" % number * (BUFFER_SIZE - 16) for number in range(4)]


@pytest.mark.parametrize("position", [0, 8, 12, 16, 40])
def test_a_buffer_that_is_being_written_is_not_read(board, slot, position):
    """Wherever the writer was killed: the octets of the newer buffer are wrong, and the older one counts."""
    slot.write(b"a" * 100)
    slot.write(b"b" * 100)
    start = slot._start + position
    board._memory[start:start + 1] = bytes([board._memory[start] ^ 0xFF])
    assert slot.read() == b"a" * 100
    slot.write(b"c" * 10)
    assert slot.read() == b"c" * 10
    slot.write(b"d" * 10)
    assert slot.read() == b"d" * 10


def test_another_process_reads_what_one_has_written(board, slot):
    assert Child(lambda: slot.write(b"from the child")).wait() == 0
    assert list(board.read()) == [b"from the child"]


def test_reads_are_never_torn(board, slot):
    """A writer is at it without a pause: each read is one of its writes, and none is older than the one before."""
    def write():
        number = 0
        while True:
            number += 1
            slot.write(b"%06d" % number * 1000)

    slot.write(b"%06d" % 0 * 1000)
    child, latest, found = Child(write), 0, set()
    try:
        while len(found) < WRITES:
            data = slot.read()
            if data is not None:
                assert data == data[:6] * 1000
                assert int(data[:6]) >= latest
                latest = int(data[:6])
                found.add(latest)
    finally:
        child.kill()
    assert slot.read() is not None


def test_a_writer_that_is_killed_again_and_again(board, slot):
    """What was written survives: the next writer finds it, and goes on from there."""
    for _ in range(20):
        reached = int(slot.read() or 0)
        reading, writing = os.pipe()

        def write(begin=reached, ready=writing):
            number = begin
            while True:
                number += 1
                slot.write(b"%d" % number)
                if number == begin + 10:
                    os.write(ready, b"!")

        child = Child(write)
        os.read(reading, 1)
        child.kill()
        os.close(reading)
        os.close(writing)
        assert int(slot.read()) >= reached + 10


# -- who has which slot ------------------------------------------------------------------------------------------------


def number_of(board, slot):
    """Which of the board's slots it is."""
    return board._slots.index(slot)


def test_a_worker_that_boots_or_lives_keeps_its_slot(board):
    booting, living = Worker(), Worker(os.getpid())
    assert [number_of(board, board.take(worker)) for worker in (booting, living)] == [0, 1]
    third = Worker()
    assert number_of(board, board.take(third)) == 2


def test_the_slot_of_a_worker_that_has_ended_is_another_ones(board):
    child = Child(lambda: None)
    first, second = Worker(child.pid), Worker(os.getpid())
    board.take(first).write(b"counted")
    board.take(second)
    child.wait()
    third = Worker()
    slot = board.take(third)
    assert number_of(board, slot) == 0
    assert slot.read() == b"counted"


def test_so_is_that_of_a_worker_which_the_master_has_forgotten(board):
    worker = Worker()
    board.take(worker)
    del worker
    other = Worker()
    assert number_of(board, board.take(other)) == 0


def test_there_may_be_none_left(board):
    workers = [Worker() for _ in range(5)]
    assert [board.take(worker) is None for worker in workers] == [False] * 4 + [True]


def test_only_slots_that_were_used_are_looked_at():
    """The others would cost memory as soon as they are read."""
    board = Board()
    before = shared_memory()
    assert list(board.read()) == []
    worker = Worker()
    board.take(worker).write(b"x")
    assert list(board.read()) == [b"x"]
    assert shared_memory() - before < 256 * 1024


def shared_memory():
    """The octets of shared memory that this process has touched."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssShmem:"))


def test_processes():
    child = Child(lambda: None)
    assert is_alive(os.getpid())
    assert is_alive(1)
    child.wait()
    assert not is_alive(child.pid)
