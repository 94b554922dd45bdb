"""The fuzzer's corpus as tests, without atheris: every input that is kept, beginnings of it, and what it must be."""

import random

import pytest

from gunicorn_h2.protocol.heads import HeadCache
from gunicorn_h2.protocol.stream import CLOSED
from tests.protocol.observers import held

from . import __main__ as runner
from .script import CONFIGS, Input, Player, instruction, play, send
from .targets import CORPORA, TARGETS

pytestmark = pytest.mark.uncovered

BEGINNINGS = 6
LARGEST_CORPUS = 200_000
KEPT = 150_000


def inputs(target):
    """The inputs of a target."""
    return sorted(path for path in (runner.CORPUS / CORPORA[target]).iterdir() if path.is_file())


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_of_the_corpus_fails(target):
    """Whole, cut short at a few places, and with an octet changed."""
    places = random.Random(target)
    for path in inputs(target):
        octets = path.read_bytes()
        TARGETS[target](octets)
        for _ in range(BEGINNINGS):
            place = places.randrange(len(octets))
            TARGETS[target](octets[:place])
            TARGETS[target](octets[:place] + bytes((octets[place] ^ 1 << place % 8,)) + octets[place + 1:])


def test_the_corpus_is_small():
    sizes = [path.stat().st_size for path in runner.CORPUS.rglob("*") if path.is_file()]
    assert sum(sizes) < LARGEST_CORPUS


def test_every_target_has_its_share_and_its_corpus():
    assert set(runner.SHARES) == set(TARGETS) == set(CORPORA)
    assert {path.name for path in runner.CORPUS.iterdir()} == set(CORPORA.values())
    assert all(runner.FOLDERS.get(target, target) == folder for target, folder in CORPORA.items())
    assert all(inputs(target) for target in TARGETS)


@pytest.mark.parametrize("name", ["curl-0", "httpx-0", "chromium-0", "grpc-0", "nghttp-0"])
def test_a_recorded_session_reaches_the_application(name):
    """What is replayed is a session that was answered, not octets that fail at once."""
    script = Input((runner.CORPUS / "session" / name).read_bytes())
    player = Player("fast", CONFIGS[script.number()])
    player.follow(script)
    assert player.calls
    assert not any(code for _, code in player.wire.goaways)
    assert all(seen.head[b":status"] == b"200" for seen in player.wire.streams.values())


@pytest.mark.parametrize("engine", ["fast", "h2"])
@pytest.mark.parametrize("name", ["curl-0", "curl-2", "nghttp-0", "grpc-0", "chromium-0"])
def test_a_recorded_session_cut_at_every_octet(engine, name):
    """In memory: each application that was called learns that its stream is over, and nothing else is kept."""
    octets, heads = (runner.CORPUS / "session" / name).read_bytes(), HeadCache.total
    for place in range(1, len(octets)):
        player = play(octets[:place], engine)
        for stream in player.calls:
            seen, request = player.wire.streams[stream.stream_id], player.told.requests[stream.stream_id]
            assert stream.state is CLOSED
            # Whose response is complete need not be told what becomes of the request.
            assert request.reset is not None or seen.ended
        assert held(player.core) < KEPT
        assert HeadCache.total == heads


def test_a_check_that_fails_is_found():
    """A player that is shown a frame which no server may write fails."""
    player = Player("fast", CONFIGS[0])
    player.follow(Input(instruction(13, 15)))
    with pytest.raises(AssertionError, match="idle stream 1"):
        player.wire.wrote(b"\0\0\1\0\0\0\0\0\1x")


def test_octets_longer_than_an_instruction_are_sent_in_several():
    player = Player("fast", CONFIGS[0])
    player.follow(Input(send(bytes(100_000))))
    assert player.core.closed
