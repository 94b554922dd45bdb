"""What the applications of the acceptance suite have in common; none of it knows a framework."""

import asyncio
import hashlib

PATTERN = bytes(range(256)) * 256
ITEMS = [{"id": 1, "name": "one"}, {"id": 2, "name": "zwei"}, {"id": 3, "name": "três"}]
TEXT = "All work and no play makes Jack a dull boy.\n" * 500
CZECH = "žluťoučký kůň"
ORIGIN = "https://example.org"
SECRET = "only for tests"
LARGE_HEADERS = {f"X-Large-{number}": str(number) * 500 for number in range(20)}
WAIT = 10


def lines():
    """Ten lines."""
    return [f"line {number}\n" for number in range(10)]


def pattern(size):
    """Yield ``size`` bytes of a fixed pattern."""
    while size > 0:
        yield PATTERN[:size]
        size -= len(PATTERN)


def event(number):
    """A server-sent event."""
    return f"id: {number}\ndata: event {number}\n\n"


class Counted:
    """Counts octets and digests them."""

    def __init__(self):
        self._digest, self.length = hashlib.sha256(), 0

    def add(self, piece):
        """Take a piece."""
        self._digest.update(piece)
        self.length += len(piece)

    @property
    def result(self):
        """What came together."""
        return {"length": self.length, "sha256": self._digest.hexdigest()}


class Events:
    """Events of asyncio by name, made on first use."""

    def __init__(self):
        self._events = {}

    def get(self, *key):
        """Return the event of that name."""
        return self._events.setdefault(key, asyncio.Event())

    async def wait(self, *key):
        """Wait for it; say whether it came in time."""
        try:
            await asyncio.wait_for(self.get(*key).wait(), WAIT)
        except asyncio.TimeoutError:
            return False
        return True


async def pieces(size):
    """Yield ``size`` bytes of the pattern, for those that stream asynchronously."""
    for piece in pattern(size):
        yield piece


async def text_lines():
    """Ten lines, asynchronously."""
    for line in lines():
        yield line


async def server_sent(events, key, count):
    """Server-sent events; each but the first waits until the client has asked for it."""
    for number in range(count):
        if number and not await events.wait("next", key, number):
            return
        yield event(number)


async def without_end(events, key):
    """Octets without an end; that it was made to end is noted."""
    try:
        while True:
            yield PATTERN
    finally:
        events.get("ended", key).set()
