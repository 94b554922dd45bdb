"""The profile of a real worker."""

import pytest

from bench import profile
from bench.callcount import Calls, Function
from tests.support.tools import require_tool


def test_a_profile_of_a_real_worker(capsys):
    require_tool("h2load")
    assert profile.main(["--servers", "thread-h2", "--requests", "200", "--functions", "3"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("## thread-h2: ")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    layers = {row[0].removeprefix("| "): float(row[1]) for row in rows if len(row) == 5 and row[1][0].isdigit()}
    assert {"core", "driver", "WSGI and ASGI", "application"} <= set(layers)
    total = float(text.split(": ")[1].split(" us")[0])
    assert sum(layers.values()) == pytest.approx(total, rel=0.05, abs=1)


def test_what_is_missing_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert profile.main(["--servers", "thread-h2", "--requests", "20"]) == 1
    assert "thread-h2 is not available: h2load is not installed" in capsys.readouterr().err


def test_an_unknown_server_is_refused():
    with pytest.raises(SystemExit, match="granian"):
        profile.main(["--servers", "granian-wsgi"])


def test_a_profile_as_text():
    functions = [Function("hpack.table", "get, line 1", 2.0, 3.0), Function("gunicorn_h2.protocol", "f", 1.0, 0.0)]
    measured = profile.Profile("thread", 40.0, {"HPACK": 0.75, "core": 0.25}, Calls(3.0, 3.0, functions))
    shown = profile.render(measured, functions=1)
    assert "## thread: 40.0 us of processor time a request, 3 Python and 3 C calls" in shown
    assert "| HPACK | 30.0 | 75% | 2.0 | 3.0 |" in shown
    assert "| core | 10.0 | 25% | 1.0 | 0.0 |" in shown
    assert "| get, line 1 | hpack.table | 2.0 | 3.0 |" in shown
    assert "| f |" not in shown
