"""Which files a connection may read by itself, and how it reads them."""

import contextlib
import gzip
import io
import os
import socket
import tempfile

import pytest
from django.core.files import File as DjangoFile

from gunicorn_h2.drivers.files import FilePart, FileSource

from .rig import Log

DATA = b"0123456789"


@pytest.fixture
def path(tmp_path):
    """A file of ten octets."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("buffering", [-1, 0])
@pytest.mark.parametrize("mode", ["rb", "r+b"])
def test_a_regular_file(path, mode, buffering):
    with path.open(mode, buffering=buffering) as file:
        assert FilePart.of(file, None) == (file, 0, 10)
        assert file.read(4) == b"0123"
        assert FilePart.of(file, None) == (file, 4, 6)
        assert FilePart.of(file, 2) == (file, 4, 2)
        assert FilePart.of(file, 7) == (file, 4, 6)
        file.seek(20)
        assert FilePart.of(file, None) == (file, 20, 0)


def test_files_behind_wrappers_that_pass_read_on(path):
    with path.open("rb") as file:
        assert FilePart.of(DjangoFile(file), None) == (file, 0, 10)
    with tempfile.NamedTemporaryFile() as file:
        file.write(DATA)
        file.seek(3)
        assert FilePart.of(file, None) == (file.file, 3, 7)


def test_what_was_written_and_not_flushed_is_there():
    with tempfile.TemporaryFile() as file:
        file.write(DATA)
        part = FilePart.of(file, None)
        assert (part.position, part.octets) == (10, 0)
        assert os.fstat(file.fileno()).st_size == 10


class Upper(io.FileIO):
    """A file that reads something else than what is on the disk."""

    def read(self, size=-1):
        return super().read(size).upper()


class Decoding:
    """A file-like object with a descriptor, whose `read` is its own."""

    def __init__(self, file):
        self.file, self.fileno = file, file.fileno

    def read(self, size=-1):
        return self.file.read(size)[::-1]


def test_what_does_not_simply_read_a_file(path):
    with gzip.open(path, "wb") as file:
        file.write(DATA)
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(file) for file in (
            gzip.open(path), Upper(path), io.BufferedReader(Upper(path)), path.open(), io.BytesIO(DATA),  # noqa: SIM115
            ours.makefile("rb"), open(reading, "rb"), tempfile.SpooledTemporaryFile())]  # noqa: SIM115
        files += [Decoding(files[0]), Decoding(files[1]), object()]
        assert [FilePart.of(file, None) for file in files] == [None] * len(files)
    for sock in (ours, theirs):
        sock.close()
    os.close(writing)


def test_a_closed_file_is_left_to_the_application(path):
    file = path.open("rb")
    file.close()
    assert FilePart.of(file, None) is None


@pytest.fixture
def source(path):
    """The octets 2 to 8 of the file, the file, what was logged, and what `on_close` was called with."""
    with path.open("rb") as file:
        closes, log = [], Log()
        yield FileSource(FilePart(file, 2, 6), closes.append, log), file, log, closes


def test_a_part_is_read(source):
    source, file, log, closes = source
    assert len(source) == 6
    assert (source.read(4), len(source), file.tell()) == (b"2345", 2, 0)
    assert (source.read(2), len(source), closes) == (b"67", 0, [])
    source.close()
    source.close()
    assert (closes, log.warnings) == ([0], [])


def test_a_part_that_is_not_needed(source):
    source, _, _, closes = source
    source.read(1)
    source.close()
    assert closes == [5]


def test_a_file_that_shrinks(source, path):
    source, _, log, _ = source
    os.truncate(path, 4)
    assert source.read(6) == b"23"
    assert "4 octets are missing" in log.warnings[0]


def test_a_file_that_is_closed_too_early(source, path):
    """Its descriptor may belong to another file: nothing of that is read."""
    source, file, log, _ = source
    descriptor = file.fileno()
    file.close()
    other = os.open(path, os.O_RDONLY)
    assert other == descriptor
    assert source.read(6) == b""
    assert "cannot be read" in log.warnings[0]
    os.close(other)
