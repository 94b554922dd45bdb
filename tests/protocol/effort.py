"""How many random examples to try: few in `make test`, more where there is time.

`FUZZ_EFFORT` multiplies them; `make fuzz` sets it.
"""

import os

from hypothesis import settings

EFFORT = float(os.environ.get("FUZZ_EFFORT", "1"))


def examples(count, **more):
    """Settings for so many examples, times the effort."""
    return settings(max_examples=max(1, int(count * EFFORT)), **more)
