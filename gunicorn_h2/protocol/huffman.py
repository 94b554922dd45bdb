"""Huffman coding of strings (RFC 7541 section 5.2).

Decoding runs through a state machine, an octet at a time. A state stands for the bits that are left
of the octets before: the beginning of a code, the empty beginning among them. It is a list with a
cell for each octet, of what that octet completes and the state behind it. Text needs a quarter of
the 257 states, at some 20 KB each, so a state's list stays empty until an octet meets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

from .hpack_tables import HUFFMAN_CODE_LENGTHS

__all__ = ["decode", "encode"]

_State = list["_Cell"]
_Cell = tuple[bytes, _State]

_EOS = 256
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
_states: dict[str, _State] = {}


def encode(text: bytes) -> bytes:
    """Encode a string, padded with ones to whole octets."""
    bits = "".join([_CODES[octet] for octet in text])
    bits += "1" * (-len(bits) % 8)
    return int(bits or "0", 2).to_bytes(len(bits) // 8, "big")


def decode(data: bytes) -> bytes:
    """Decode a string. Raises ValueError for EOS in the data and for wrong padding."""
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


def _state(pending: str) -> _State:
    """The state in which the bits `pending` wait for more."""
    return _states.setdefault(pending, [])


def _build(state: _State) -> None:
    """Fill the list of a state; the cell behind those of the octets says whether a string may end here.

    The list grows in one step, so that a thread finds it empty or whole.
    """
    pending = next(bits for bits, known in _states.items() if known is state)
    padding = pending in _LONGEST_PADDING
    state[:] = [*_cells(pending, b"", 8), (b"", _state("" if padding else _CODES[_EOS]))]


def _cells(pending: str, text: bytes, bits: int) -> Iterator[_Cell]:
    """The cells for each value of the next `bits` bits, in order.

    No bit leads out of EOS: it is an error wherever it stands.
    """
    symbol = _SYMBOLS.get(pending)
    if symbol == _EOS:
        yield from repeat((b"", _state(pending)), 1 << bits)
    elif symbol is not None:
        yield from _cells("", text + bytes((symbol,)), bits)
    elif bits:
        yield from _cells(pending + "0", text, bits - 1)
        yield from _cells(pending + "1", text, bits - 1)
    else:
        yield text, _state(pending)


_ROOT = _state("")
_build(_ROOT)
