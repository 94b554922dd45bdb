"""The temporary file of a worker: what is stored comes back, within its bounds, and the disk is free again."""

import contextlib
import errno
import os
import resource
import tempfile
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gunicorn_h2.drivers.spool import BLOCK_SIZE, Spool

from .rig import Log

LIMIT = 8 * BLOCK_SIZE
SIZES = st.integers(1, 3 * BLOCK_SIZE) | st.sampled_from([1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, LIMIT])


class Clock:
    """A clock in a test's hand."""

    now = 100.0

    def __call__(self):
        return self.now


def octets(size, seed=0):
    """Data in which each place is different from its neighbours."""
    return bytes((seed + place * 7 + place // 251) % 251 for place in range(size))


def file_size(spool):
    """The size of the file, and the blocks that it has on the disk."""
    status = os.fstat(spool._file.fileno())
    return status.st_size, status.st_blocks


@pytest.fixture
def spool():
    """A file of eight blocks."""
    spool = Spool(LIMIT, Log(), Clock())
    yield spool
    spool.close()


class Storing(RuleBasedStateMachine):
    """Random use beside a model: a list of what must come back."""

    def __init__(self):
        super().__init__()
        self.spool, self.stored, self.seed = Spool(LIMIT, Log(), Clock()), [], 0

    def teardown(self):
        while self.stored:
            self.stored.pop()[0].close()
        assert (self.spool.octets, self.spool._file) == (0, None)
        self.spool.close()

    @rule(size=SIZES)
    def store(self, size):
        self.seed += 1
        data = octets(size, self.seed)
        blocks = -(-size // BLOCK_SIZE)
        had_room = self.spool.octets + blocks * BLOCK_SIZE <= LIMIT
        stored = self.spool.store(memoryview(data) if self.seed % 2 else data)
        assert (stored is not None) == had_room
        if stored is not None:
            self.stored.append([stored, data])

    @precondition(lambda self: self.stored)
    @rule(place=st.integers(0, 9), size=SIZES)
    def read(self, place, size):
        entry = self.stored[place % len(self.stored)]
        size = min(size, len(entry[0]))
        if size:
            assert entry[0].read(size) == entry[1][:size]
            entry[1] = entry[1][size:]

    @precondition(lambda self: self.stored)
    @rule(place=st.integers(0, 9))
    def close(self, place):
        stored, _ = self.stored.pop(place % len(self.stored))
        stored.close()
        stored.close()
        assert len(stored) == 0

    @invariant()
    def is_bounded(self):
        """No more is in use than what is left, and a block for the beginning and the end of each."""
        needed = sum(-(-len(data) // BLOCK_SIZE) for _, data in self.stored)
        assert [len(stored) for stored, _ in self.stored] == [len(data) for _, data in self.stored]
        assert needed * BLOCK_SIZE <= self.spool.octets <= LIMIT
        if self.spool._file is not None:
            assert file_size(self.spool)[0] <= LIMIT


TestStoring = Storing.TestCase
TestStoring.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


def test_there_is_a_file_only_while_it_is_needed(spool):
    assert spool._file is None
    stored = spool.store(b"x")
    assert file_size(spool)[0] == 1
    stored.close()
    assert spool._file is None


def test_the_file_has_no_name(spool, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stored = spool.store(b"x")
    assert os.listdir(tmp_path) == []
    assert stored.read(1) == b"x"


def test_what_has_been_read_is_free(spool):
    """Of a piece in several runs, each as it is read."""
    pieces = [spool.store(bytes(BLOCK_SIZE)) for _ in range(8)]
    for piece in pieces[::2]:
        piece.close()
    data = octets(4 * BLOCK_SIZE)
    stored = spool.store(data)
    assert spool.octets == LIMIT
    assert stored.read(BLOCK_SIZE + 1) == data[:BLOCK_SIZE + 1]
    assert spool.octets == LIMIT - BLOCK_SIZE
    assert spool.store(b"again") is not None


def test_the_free_end_is_cut_off():
    """One piece that stays at the beginning does not keep what was behind it on the disk."""
    spool = Spool(1 << 30, Log())
    first = spool.store(b"x")
    rest = [spool.store(bytes(1 << 20)) for _ in range(40)]
    for piece in rest:
        piece.close()
    size, _ = file_size(spool)
    assert size <= 17 << 20
    first.close()
    assert spool._file is None


@pytest.mark.parametrize("limit", [0, BLOCK_SIZE - 1])
def test_without_a_block_there_is_no_file(limit):
    spool = Spool(limit, Log())
    assert (spool.has_room, spool.store(b"x"), spool._file) == (False, None, None)
    spool.close()


def test_threads_get_blocks_of_their_own():
    spool, wrong = Spool(1 << 24, Log()), []

    def work(seed):
        for number in range(50):
            data = octets(40_000, seed * 50 + number)
            stored = spool.store(data)
            if stored.read(40_000) != data:
                wrong.append(seed)
            stored.close()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (wrong, spool.octets) == ([], 0)
    spool.close()


# -- a disk that fails -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def file_size_limit(octets):
    """What the system lets this process's files grow to, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk(spool):
    """The line in the log comes once a minute, the next trial after a second; nothing is lost of what was stored."""
    data = octets(3 * BLOCK_SIZE)
    with file_size_limit(5 * BLOCK_SIZE + 100):
        first = spool.store(data)
        assert spool.store(data) is None
        assert (spool.octets, spool.has_room) == (3 * BLOCK_SIZE, False)
        assert spool.store(b"x") is None
        spool._clock.now += 1
        assert spool.store(data) is None
        assert len(spool._log.warnings) == 1
        assert os.strerror(errno.EFBIG) in spool._log.warnings[0]
    spool._clock.now += 1
    assert spool.store(data).read(len(data)) == data
    assert first.read(len(data)) == data
    with file_size_limit(0):
        spool._clock.now += 60
        assert spool.store(data) is None
    assert len(spool._log.warnings) == 2


def test_a_directory_that_is_gone(spool, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert (spool.store(b"x"), spool.octets) == (None, 0)
    assert "cannot be written" in spool._log.warnings[0]


def test_no_descriptor_is_left(spool):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        assert spool.store(b"x") is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert os.strerror(errno.EMFILE) in spool._log.warnings[0]


def test_a_file_that_cannot_be_read(spool):
    """It is as if its end were missing; see `Source.read`."""
    data = bytes(2 * BLOCK_SIZE)
    stored = spool.store(data)
    os.ftruncate(spool._file.fileno(), BLOCK_SIZE)
    assert len(stored.read(2 * BLOCK_SIZE)) < 2 * BLOCK_SIZE
    other = spool.store(data)
    os.close(spool._file.fileno())
    assert other.read(1) == b""
    assert "cannot be read" in spool._log.warnings[0]
    other.close()
    stored.close()
    assert spool._file is None
