"""The picture of priorities in the documentation."""

from pathlib import Path

from bench.priorities import PAGE, draw, trace

PICTURE = Path(__file__).parents[2] / "docs" / "priorities.svg"


def test_the_picture_is_what_the_scheduler_does():
    assert PICTURE.read_text() == draw(PAGE)


def test_what_the_picture_shows():
    names = [request.name for request in trace(PAGE)]
    assert names[:8] == ["picture 1", "picture 2"] * 4
    assert names[8:20] == ["script 1"] * 4 + ["style sheet"] * 4 + ["script 2"] * 4
    assert names[20:28] == ["picture 1", "picture 2"] * 4
    assert names[28:] == ["archive"] * 12
