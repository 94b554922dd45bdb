"""The buffer between a connection and its application: order, joined pieces, a reader in another thread."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.protocol.stream import BodyBuffer


def drain(buffer):
    """Everything that is in a buffer, piece by piece."""
    return list(iter(buffer.take, b""))


def test_tiny_pieces_take_little_more_than_their_room():
    """30 000 pieces of two octets are held as some sixty, not as 30 000 objects."""
    buffer = BodyBuffer(ended=False)
    for number in range(30_000):
        buffer.append(b"%02d" % (number % 100))
    pieces = drain(buffer)
    assert b"".join(pieces) == b"".join(b"%02d" % (number % 100) for number in range(30_000))
    assert len(pieces) < 70


@given(st.lists(st.binary(min_size=1, max_size=3_000)))
def test_octets_keep_their_order(pieces):
    buffer = BodyBuffer(ended=False)
    for piece in pieces:
        buffer.append(piece)
    assert bool(buffer) == bool(pieces)
    assert b"".join(drain(buffer)) == b"".join(pieces)
    assert not buffer


@given(st.lists(st.binary(min_size=1, max_size=3_000)), st.integers(1, 5_000))
def test_pieces_are_taken_together_up_to_a_size(pieces, size):
    buffer = BodyBuffer(ended=False)
    for piece in pieces:
        buffer.append(piece)
    taken = list(iter(lambda: buffer.take_up_to(size), b""))
    assert b"".join(taken) == b"".join(pieces)
    largest = max(map(len, pieces), default=0)
    assert all(len(piece) <= max(size, largest + 1_023) for piece in taken)


def test_an_application_takes_whole_pieces_within_a_size():
    """One that is larger alone is taken as it is."""
    buffer = BodyBuffer(ended=False)
    for size in (2_000, 1_500, 5_000, 1_200):
        buffer.append(bytes(size))
    assert [len(buffer.take_up_to(4_000)) for _ in range(4)] == [3_500, 5_000, 1_200, 0]


def test_one_thread_appends_while_another_takes():
    buffer, taken = BodyBuffer(ended=False), []

    def read():
        while not buffer.ended or buffer:
            taken.append(buffer.take())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(20_000):
        buffer.append(b"%05d" % number)
    buffer.ended = True
    reader.join(10)
    assert b"".join(taken) == b"".join(b"%05d" % number for number in range(20_000))
