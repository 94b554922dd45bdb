"""Chromium: it fetches what a 103 names while the response is still in the making, and has what is urgent first."""

import re
from contextlib import ExitStack

import pytest

from bench.link import Link, delayed
from tests.apps.priorities import PICTURES
from tests.support.chromium import FLAGS
from tests.support.kinds import ASGI_KINDS, WSGI_KINDS
from tests.support.server import Server
from tests.support.tools import require_tool, run

KINDS = {**WSGI_KINDS, **ASGI_KINDS}
TRIES = 4
LINK = Link(round_trip=0.02, rate=400_000, buffer=16_384)
"""Over which the pictures of the page take more than two seconds."""


@pytest.mark.browser
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
def test_chromium_preloads_on_early_hints(kind, certs, tmp_path):
    """The page waits for the request of its style sheet, which only the hint has named by then."""
    require_tool("chromium")
    app = f"tests.apps.features:{'asgi' if kind in ASGI_KINDS else 'wsgi'}"
    server = Server(tmp_path, KINDS[kind], certs, app).start()
    with ExitStack() as stack:
        stack.callback(server.stop)
        # A hint that comes while Chromium is still busy starting may be dropped by it: it has more than one try.
        tries = (visit(server, f"{kind}{number}", tmp_path / f"profile{number}") for number in range(TRIES))
        assert any(tries)
        server.wait_log(r"ACCESS \S+ GET /style.css\S+ HTTP/2.0 200")
        server.wait_log(r"ACCESS \S+ GET /page\S+ HTTP/2.0 200")


def visit(server, key, profile):
    """Have Chromium show the page; say whether its style sheet was asked for before there was a page."""
    page = run("chromium", *FLAGS, f"--user-data-dir={profile}", "--dump-dom", f"{server.url}/page?key={key}").stdout
    assert "preloaded</p>" in page
    return "<p>preloaded</p>" in page


@pytest.mark.browser
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
def test_a_style_sheet_overtakes_pictures_on_a_slow_link(kind, certs, tmp_path):
    """It is as large as each of them, and asked for when they are on their way."""
    require_tool("chromium")
    app = f"tests.apps.priorities:{'asgi' if kind in ASGI_KINDS else 'wsgi'}"
    server = Server(tmp_path, KINDS[kind], certs, app).start()
    with ExitStack() as stack:
        stack.callback(server.stop)
        url = f"https://127.0.0.1:{stack.enter_context(delayed(server.port, LINK))}/"
        page = run("chromium", *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", url).stdout
        seen = re.findall(r"^(/\S+) (\S+) (\S+) h2", page, re.MULTILINE)
        began, ended = ({path: float(entry[index]) for path, *entry in seen} for index in (0, 1))
        pictures = [path for path in began if path.endswith(".svg")]
        assert len(pictures) == PICTURES, page
        assert began["/style.css"] > max(began[path] for path in pictures)
        # One or two may have been all but complete by then.
        assert sum(ended[path] > ended["/style.css"] for path in pictures) >= PICTURES - 2, seen
