"""Modules of rules have no test names; their assertions explain themselves all the same."""

import pytest

pytest.register_assert_rewrite(
    *(f"{__name__}.{name}" for name in ("frames", "framing", "hpack", "priority", "rules", "semantics", "starting",
                                        "streams")))
