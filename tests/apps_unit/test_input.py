"""`wsgi.input` over a stream reads as `io.BytesIO` does, however the body is cut."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gunicorn_h2.apps.input import StreamInput

sizes = st.one_of(st.none(), st.integers(-2, 30))
lines = st.sampled_from([b"\n", b"\n\n", b"a\n", b"no end", b"x" * 9])
chunks = st.lists(st.one_of(lines, st.binary(min_size=1, max_size=12)), max_size=12)
calls = st.lists(st.tuples(st.sampled_from(["read", "readline", "readlines", "next", "read()", "list"]), sizes),
                 max_size=15)


class Pieces:
    """In the place of a channel: pieces, then the end, over and over."""

    def __init__(self, pieces):
        self.pieces, self.trailers = list(pieces), []

    def read(self):
        """The next piece."""
        return self.pieces.pop(0) if self.pieces else b""


def do(file, name, size):
    """Call one of the ways to read."""
    if name == "next":
        return next(file, None)
    if name == "list":
        return list(file)
    if name == "read()":
        return file.read()
    return getattr(file, name)(size)


@given(chunks, calls)
@settings(max_examples=400, deadline=None, database=None)
def test_reads_as_a_file_does(pieces, calls):
    file, reference = StreamInput(Pieces(pieces)), io.BytesIO(b"".join(pieces))
    for name, size in calls:
        assert do(file, name, size) == do(reference, name, size)
    assert file.read() == reference.read()
    assert (file.read(), file.read(5), file.readline(), file.readlines(), list(file)) == (b"", b"", b"", [], [])


@given(chunks)
@settings(max_examples=50, deadline=None, database=None)
def test_iterates_as_a_file_does(pieces):
    assert list(StreamInput(Pieces(pieces))) == list(io.BytesIO(b"".join(pieces)))


def test_reading_takes_no_more_pieces_than_it_needs():
    """What was not taken is not acknowledged, and reading on would wait for the client."""
    pieces = Pieces([b"one\n", b"two\n", b"three"])
    file = StreamInput(pieces)
    assert (file.read(2), file.read(2), len(pieces.pieces)) == (b"on", b"e\n", 2)
    assert (file.read(0), file.readline(0), len(pieces.pieces)) == (b"", b"", 2)
    assert (file.readline(), len(pieces.pieces)) == (b"two\n", 1)


@pytest.mark.parametrize("name", ["read", "readline", "readlines", "next", "list"])
def test_a_closed_input_is_closed(name):
    file = StreamInput(Pieces([b"one\ntwo"]))
    file.read(1)
    file.close()
    file.close()
    with pytest.raises(ValueError, match="closed"):
        do(file, name, None)


def test_an_error_comes_through_and_loses_nothing():
    class Broken(Pieces):
        def read(self):
            if not self.pieces:
                raise ConnectionAbortedError("gone")
            return super().read()

    file = StreamInput(Broken([b"half a line"]))
    with pytest.raises(ConnectionAbortedError):
        file.readline()
    assert StreamInput(Broken([b"some"])).read(4) == b"some"


class CountingBytes(bytes):
    """Octets that count how many of them are copied, and how many searched."""

    copied = searched = 0

    def __getitem__(self, key):
        """A slice, counted."""
        part = super().__getitem__(key)
        self.copied += len(part)
        return part

    def find(self, what, start, end):
        """The place of something, what was looked at counted."""
        found = super().find(what, start, end)
        self.searched += (end if found < 0 else found) - start
        return found


@pytest.mark.parametrize(("name", "size"), [
    ("read", 7), ("read", None), ("readline", 7), ("readline", None), ("next", 0)])
@pytest.mark.parametrize("line", [b"x" * 100_000, b"a line of some length\n" * 5_000], ids=["one line", "lines"])
def test_every_octet_is_copied_once(name, size, line):
    """However small the reads and however large the piece: the work is linear in the octets."""
    piece = CountingBytes(line)
    file = StreamInput(Pieces([piece]))
    body = b"".join(iter(lambda: do(file, name, size) or b"", b""))
    assert body == line
    assert piece.copied == len(line)
    assert piece.searched <= len(line)
