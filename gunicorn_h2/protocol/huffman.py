"""Decoding of Huffman-coded strings (RFC 7541 section 5.2), one octet at a time.

A state machine reads whole octets. A state stands for the bits left over from earlier octets, which begin a
code. It is a list with an entry for each octet: the text that the octet completes, and the next state. All 257
states would take 5 MB and most text needs a third of them, so a state's list is built on first use.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

from .hpack_tables import HUFFMAN_CODE_LENGTHS

__all__ = ["decode"]

_State = list["_Cell"]
_Cell = tuple[bytes, _State]

_END = 256
_LONGEST_PADDING = "1" * 7


def _codes() -> list[str]:
    """The code of each symbol, as a string of binary digits."""
    codes = [""] * len(HUFFMAN_CODE_LENGTHS)
    code = length = 0
    for symbol in sorted(range(len(codes)), key=HUFFMAN_CODE_LENGTHS.__getitem__):
        code <<= HUFFMAN_CODE_LENGTHS[symbol] - length
        length = HUFFMAN_CODE_LENGTHS[symbol]
        codes[symbol] = f"{code:0{length}b}"
        code += 1
    return codes


_CODES = _codes()
_SYMBOLS = {code: symbol for symbol, code in enumerate(_CODES)}
_EOS = _CODES[256]
# States by the bits left over: each proper prefix of a code, and EOS, which has no way out.
_STATES: dict[str, _State] = {code[:length]: [] for code in _CODES for length in range(len(code))}
_STATES[_EOS] = []
_ROOT = _STATES[""]


def decode(data: bytes) -> bytes:
    """Decode a string. Raises ValueError for EOS in the data and for invalid padding."""
    state = _ROOT
    pieces: list[bytes] = []
    append = pieces.append
    octets = iter(data)
    while True:
        try:
            for octet in octets:
                piece, state = state[octet]
                append(piece)
            break
        except IndexError:
            _build(state)
            piece, state = state[octet]
            append(piece)
    if not state:
        _build(state)
    if state[_END][1] is not _ROOT:
        raise ValueError("EOS in a Huffman-coded string, or wrong padding")
    return b"".join(pieces)


def _build(state: _State) -> None:
    """Fill a state's list: a cell for each octet, and a last one that leads to the root if a string may end here.

    The list is filled in one step, so other threads find it empty or complete.
    """
    pending = next(bits for bits, known in _STATES.items() if known is state)
    end = _ROOT if pending in _LONGEST_PADDING else _STATES[_EOS]
    state[:] = [*_cells(pending, b"", 8), (b"", end)]


def _cells(pending: str, text: bytes, bits: int) -> Iterator[_Cell]:
    """The cells for all values of the next `bits` bits, in order."""
    if pending == _EOS:
        yield from repeat((b"", _STATES[_EOS]), 1 << bits)
    elif pending in _SYMBOLS:
        yield from _cells("", text + bytes((_SYMBOLS[pending],)), bits)
    elif bits:
        yield from _cells(pending + "0", text, bits - 1)
        yield from _cells(pending + "1", text, bits - 1)
    else:
        yield text, _STATES[pending]
