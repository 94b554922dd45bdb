"""The functions that are fuzzed, by name. Each takes octets, and fails if it finds a mistake."""

import re

import hpack
from hpack import HPACKError
from hpack.huffman_table import decode_huffman

from gunicorn_h2.protocol import huffman
from gunicorn_h2.protocol.codec_fast import FastCodec
from gunicorn_h2.protocol.codec_hpack import HpackCodec
from gunicorn_h2.protocol.events import ConnectionTerminated
from gunicorn_h2.protocol.opening import Cleartext, Opening
from gunicorn_h2.protocol.proxy_header import MAX_PROXY_HEADER_SIZE, ProxyHeaderError, ProxyHeaderReader, ProxyVersions
from gunicorn_h2.protocol.upgrade_reader import RequestLimits
from tests.protocol.observers import held
from tests.protocol.peer import PREFACE
from tests.protocol.test_codec_fast import Pair, assert_cut
from tests.protocol.test_differential import told
from tests.protocol.test_huffman import encode
from tests.test_upgrade_parity import gunicorns, ours

from .script import Input, play

_MOST_HELD = 1_500_000
_LIMITS = RequestLimits(line=100, fields=10, field_size=100)
_CLEARTEXT = (Cleartext(True), Cleartext(False, _LIMITS), Cleartext(True, _LIMITS), Cleartext(False))
_VERSIONS = (ProxyVersions(True, True), ProxyVersions(True, False), ProxyVersions(False, True))
_TABLE_SIZES = (0, 1, 31, 64, 100, 1_000, 4_095, 4_096, 4_097, 65_535, 65_536, 100_000, 2**31, 2**32 - 1)


def fast(octets):
    """A session on our own engine (`script.py`)."""
    player = play(octets, "fast")
    assert held(player.core) < _MOST_HELD


def h2(octets):
    """A session on h2's engine, whose referee has no objection to what the core lets pass."""
    player = play(octets, "h2")
    assert not player.told.terminated.reason.startswith("h2: "), player.told.terminated.reason
    assert held(player.core) < _MOST_HELD


def engines(octets):
    """A session that means the same on both: the events, what the client gets, and how it ends."""
    ours, theirs = play(octets, "fast"), play(octets, "h2")
    # Objections of the referee are what `h2` finds. Of blocks beyond a limit, hpack decodes another part than we do:
    # `decode` compares them.
    if not theirs.told.terminated.reason.startswith(("h2: ", "hpack: ")):
        assert _outcome(ours) == _outcome(theirs)


def _outcome(player):
    events = [told(event) for event in player.record if not isinstance(event, (bytes, ConnectionTerminated))]
    answers = {
        stream_id: (seen.head, seen.interim, seen.trailers, bytes(seen.body), seen.ended, seen.reset)
        for stream_id, seen in player.wire.streams.items()
    }
    return events, answers, player.wire.goaways, player.told.terminated.code


def decode(octets):
    """Field blocks, decoded as hpack does: the same fields, the same table, the same errors."""
    script = Input(octets)
    limit, blocks, pair = script.number() % 16, list(_blocks(script)), Pair()
    for block in blocks:
        if not isinstance(pair.decode(block), list):
            break
    assert_cut(blocks, limit)


def _blocks(script):
    while script:
        yield script.take(script.number())


def encoding(octets):
    """Field sections, encoded: hpack decodes what was meant, under any size of its table."""
    script = Input(octets)
    sections = []
    while script:
        count = script.number()
        size = _TABLE_SIZES[count >> 4] if count >> 4 < len(_TABLE_SIZES) else None
        sections.append((size, [(script.take(script.number() & 0x3F), script.take(script.number()))
                                for _ in range(count & 0x0F)]))
    for codec in (FastCodec(0), HpackCodec(0)):
        decoder = hpack.Decoder(2**24)
        for size, section in sections:
            if size is not None:
                codec.set_peer_table_size(size)
                decoder.max_allowed_table_size = size
            assert [tuple(field) for field in decoder.decode(codec.encode(section), raw=True)] == section


def huffman_codes(octets):
    """Huffman codes, decoded as hpack does, and encoded again."""
    try:
        theirs = decode_huffman(octets)
    except HPACKError:
        theirs = None
    try:
        text = huffman.decode(octets)
    except ValueError:
        text = None
    assert text == theirs
    if text is not None:
        assert encode(text) == octets
    assert huffman.decode(encode(octets)) == octets


def opening(octets):
    """The first octets without TLS: however they are cut, the same comes of them, and none is lost."""
    script = Input(octets)
    cleartext, size = _CLEARTEXT[script.number() % len(_CLEARTEXT)], script.number() + 1
    data = script.take(2**16)
    whole, pieces = _opened(cleartext, [data]), _opened(
        cleartext, [data[start:start + size] for start in range(0, len(data), size)])
    for result, taken in (whole, pieces):
        assert result.upgrade is None or (result.http2 and cleartext.upgrade)
        assert not result.http2 or result.upgrade or cleartext.prior_knowledge
        assert taken.endswith(result.data) if result.upgrade else taken == result.data
    assert _decision(whole[0]) == _decision(pieces[0])


def _opened(cleartext, pieces):
    """What was decided, and the octets that were taken for it."""
    result, taken = Opening(cleartext), b""
    for piece in (*filter(None, pieces), b""):
        taken += piece
        if result.feed(piece):
            return result, taken
    raise AssertionError("no decision at the end")


def _decision(result):
    upgrade = result.upgrade
    return result.http2, upgrade and (upgrade.settings, upgrade.section, upgrade.body)


def proxy(octets):
    """A PROXY header: however it is cut, the same comes of it, and no octet of what follows is taken."""
    script = Input(octets)
    versions, size = _VERSIONS[script.number() % len(_VERSIONS)], script.number() + 1
    data = script.take(2**16)
    whole = _proxied(versions, [data])
    assert _proxied(versions, [data[start:start + size] for start in range(0, len(data), size)]) == whole


def _proxied(versions, pieces):
    """What the reader has found, and the octets that it has left, as a socket shows them to it."""
    reader, waiting, rest = ProxyHeaderReader(versions), b"", list(pieces)
    try:
        while rest and not reader.ended:
            waiting += rest.pop(0)
            waiting = waiting[reader.feed(waiting):]
            assert reader.ended or not waiting
            assert len(reader.octets) <= MAX_PROXY_HEADER_SIZE
    except ProxyHeaderError:
        return "malformed"
    left = waiting + b"".join(rest)
    return (reader.ended, reader.addresses, reader.octets, left) if reader.found else reader.octets + left


def upgrade(octets):
    """A request that asks for an upgrade: Gunicorn's own parser reads the same one."""
    data = octets + PREFACE
    read = ours(data)
    # Its rules for methods and for names with an underscore are applied to the stream later.
    if read is not None and re.fullmatch(rb"[A-Z]{3,20}", read[0]) and not any(b"_" in name for name, _ in read[3]):
        assert gunicorns(data) == read


TARGETS = {
    "fast": fast, "h2": h2, "engines": engines, "decode": decode, "encode": encoding, "huffman": huffman_codes,
    "opening": opening, "proxy": proxy, "upgrade": upgrade,
}
CORPORA = {name: "session" if name in ("fast", "h2", "engines") else name for name in TARGETS}
"""The folder of each target's inputs in `corpus/`."""
