"""An attacker: keeps the connections of an attack going, or opens new ones at its rate, until its time is over.

    python -m bench.attack.assault ATTACK PORT SECONDS

A process of its own: it writes a line when it is ready, begins when it reads one, and ends with its tally as JSON.
"""

from __future__ import annotations

import heapq
import json
import math
import os
import select
import sys
import time

from bench.attack.attacks import ATTACKS, Attack
from bench.attack.link import NO_HANDSHAKE, REFUSED, Link, Tally

POLL_SECONDS = 0.05
RETRY_SECONDS = 0.05
"""Before the next attempt after one that the server has not accepted."""
OPENED_AT_ONCE = 200
NICENESS = 10
STRANGER = "127.0.0.2" if sys.platform == "linux" else ""
"""Where attackers connect from. Gunicorn trusts 127.0.0.1 to be a proxy, which limits by address spare."""


class Assault:
    """One attack on a port, from a local address if one is given."""

    def __init__(self, attack: Attack, port: int, source: str = "") -> None:
        attack.prepare()
        self.attack, self.port, self.source, self.tally = attack, port, source, Tally()
        self._links: dict[int, Link] = {}
        self._watched: dict[int, int] = {}
        self._epoll = select.epoll()
        self._timers: list[tuple[float, int, Link]] = []
        self._not_before = 0.0

    def run(self, seconds: float, enough: float = math.inf) -> Tally:
        """Attack for so long, or until enough connections have ended."""
        started = now = time.monotonic()
        while now < started + seconds and self.tally.ends.total() < enough:
            self._open(now, now - started)
            for descriptor, events in self._epoll.poll(self._patience(now), max(64, len(self._links))):
                if link := self._links.get(descriptor):
                    link.handle(events)
                    self._settle(descriptor, link)
            now = time.monotonic()
            self._wake(now)
        for link in self._links.values():
            link.close()
        self._epoll.close()
        return self.tally

    def _open(self, now: float, elapsed: float) -> None:
        """Open the connections that are due: as many as are missing, or as the rate asks for."""
        attack = self.attack
        if attack.rate:
            missing = min(int(elapsed * attack.rate) - self.tally.connections, OPENED_AT_ONCE)
        else:
            missing = 0 if now < self._not_before else attack.connections - len(self._links)
        for _ in range(missing):
            link = Link(self.port, attack.tls, attack.script, self.tally, self.source)
            self.tally.connections += 1
            if link.closed:
                self._not_before = now + RETRY_SECONDS
                return
            descriptor = link.socket.fileno()
            self._links[descriptor] = link
            self._watched[descriptor] = link.wanted
            self._epoll.register(descriptor, link.wanted)

    def _settle(self, descriptor: int, link: Link) -> None:
        """Watch for what a connection wants now, or forget it."""
        if link.closed:
            # The kernel has taken a closed descriptor out of the epoll set.
            del self._links[descriptor], self._watched[descriptor]
            if link.end in (REFUSED, NO_HANDSHAKE):
                self._not_before = time.monotonic() + RETRY_SECONDS
        elif (wanted := link.wanted) != self._watched[descriptor]:
            self._watched[descriptor] = wanted
            self._epoll.modify(descriptor, wanted)
        if link.wake_at is not None and not link.closed and not link.has_timer:
            link.has_timer = True
            heapq.heappush(self._timers, (link.wake_at, id(link), link))

    def _patience(self, now: float) -> float:
        """Return how long to wait for events."""
        if self.attack.rate:
            return min(POLL_SECONDS, 1 / self.attack.rate)
        return max(0.0, min(POLL_SECONDS, self._timers[0][0] - now)) if self._timers else POLL_SECONDS

    def _wake(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            link = heapq.heappop(self._timers)[2]
            link.has_timer = False
            if not link.closed:
                descriptor = link.socket.fileno()
                link.wake()
                self._settle(descriptor, link)


def main() -> None:
    """Carry out one attack."""
    name, port, seconds = sys.argv[1:]
    assault = Assault(ATTACKS[name], int(port), STRANGER)
    os.nice(NICENESS)
    print("ready", flush=True)
    if sys.stdin.readline():
        print(json.dumps(vars(assault.run(float(seconds)))))


if __name__ == "__main__":
    main()
