"""All attacks of `make attack` in turn, a moment each, until the input ends.

    python -m tests.soak.attacker PORT SECONDS     so many seconds for each, half of them quiet
"""

import itertools
import os
import select
import sys
from dataclasses import replace

from bench.attack.assault import NICENESS, Assault
from bench.attack.attacks import ATTACKS
from bench.attack.link import STAYED

FEW, RARE = 12, 200.0
"""Connections at a time, and new ones a second: others are to be served meanwhile."""
HOLD_SECONDS = 1.5
ATTACKS_IN_TURN = [
    replace(attack, connections=min(attack.connections, FEW), rate=min(attack.rate, RARE))
    for attack in ATTACKS.values()
]


def main():
    """Attack."""
    port, seconds = int(sys.argv[1]), float(sys.argv[2])
    os.nice(NICENESS)
    for attack in ATTACKS_IN_TURN:
        attack.prepare()
    print("ready", flush=True)
    # Connections that hold memory are shared out among the workers by chance. At first each worker has more of them,
    # and for longer, than it will have later.
    for attack in ATTACKS_IN_TURN:
        if STAYED in attack.ends:
            Assault(replace(attack, connections=3 * FEW), port).run(HOLD_SECONDS)
    for attack in itertools.cycle(ATTACKS_IN_TURN):
        Assault(attack, port).run(seconds / 2)
        if select.select([sys.stdin], [], [], seconds / 2)[0]:
            return


if __name__ == "__main__":
    main()
