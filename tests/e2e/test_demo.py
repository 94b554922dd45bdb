"""The demo of `make demo`, in Chromium: every panel shows what is so, and its figures are the browser's own."""

import ast
import hashlib
import re
import socket
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.chromium import FLAGS, chromium
from tests.support.demo import FOLDER, OFFLINE, Demo

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

TILES = 180
TRIES = 6
TIMINGS = """performance.getEntriesByType("resource").filter(entry => entry.name.startsWith("%s")).map(entry => ({
  tile: Number(entry.name.match(/(\\d+)\\.png/)[1]), protocol: entry.nextHopProtocol, start: entry.startTime,
  sent: entry.requestStart, first: entry.responseStart, end: entry.responseEnd}))"""
ROWS = """[...document.querySelectorAll("#timings-body tr")].map(row =>
  [...row.children].map(cell => cell.textContent))"""
SETTLED = ("done", "failed")
NAMELESS_ROLES = {"button", "textbox", "slider", "combobox", "image", "link", "progressbar", "region"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo, running."""
    demo = Demo(tmp_path_factory.mktemp("demo")).start()
    yield demo
    demo.stop()


@pytest.fixture(scope="module")
def browser(demo, tmp_path_factory):
    """A browser without a page."""
    with demo.browse(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(demo, browser):
    """The demo's page, new, with its tiles loaded once; in the end nothing must have gone wrong in it."""
    browser.events.clear()
    browser.open(demo.page)
    browser.wait_state("tiles", *SETTLED)
    yield browser
    browser.call("Network.setBlockedURLs", urls=[])
    demo.check_log()


@pytest.fixture
def faultless(page):
    """The page, which must not have had any error in the end."""
    yield page
    assert page.errors == []


def other(page):
    """The origin of the side of HTTP/1.1."""
    return page.evaluate("document.body.dataset.other")


def milliseconds(text):
    """What a duration in the page says, in milliseconds, and how far it may be off."""
    number, unit = re.match(r"([\d.,]+) (ms|s)\b", text).groups()
    digits = len(number.partition(".")[2])
    scale = 1_000 if unit == "s" else 1
    return float(number.replace(",", "")) * scale, 0.5001 * scale / 10**digits


# -- the command -------------------------------------------------------------------------------------------------------


def test_it_ends_as_a_whole(tmp_path):
    demo = Demo(tmp_path).start()
    with httpx.Client(verify=False) as client:
        ports = [demo.port, int(re.search(r'data-other="https://localhost:(\d+)"', client.get(demo.page).text)[1])]
    demo.stop()
    assert demo.has_ended
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_what_it_imports_is_what_make_installs():
    trees = [ast.parse(path.read_text()) for path in FOLDER.glob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    needed = {name.replace("_", "-") for name in modules if name.startswith("flask")}
    installed = re.findall(r"^([\w-]+)", (FOLDER / "requirements.txt").read_text(), re.M)
    assert {*needed, "gunicorn-h2"} == set(installed)


# -- the panels --------------------------------------------------------------------------------------------------------


def test_the_page_says_how_it_came(faultless):
    assert faultless.text("badge-protocol") == "h2"
    faultless.wait_state("connection", "done")
    assert faultless.text("connection-hop") == "h2"
    assert faultless.text("connection-protocol") == "HTTP/2"
    assert faultless.text("connection-tls").startswith("TLSv1.3, TLS_")
    assert faultless.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"


def test_all_tiles_come_by_either_protocol(faultless):
    assert faultless.evaluate("document.getElementById('tiles').dataset.state") == "done"
    for side, origin, protocol in (("h1", other(faultless), "http/1.1"), ("h2", faultless.evaluate("origin"), "h2")):
        timings = faultless.evaluate(TIMINGS % f"{origin}/tiles/1/")
        assert sorted(timing["tile"] for timing in timings) == list(range(TILES))
        assert {timing["protocol"] for timing in timings} == {protocol}
        assert faultless.text(f"{side}-protocol") == protocol
        pictures = faultless.evaluate(f"[...document.querySelectorAll('#{side}-mosaic img')].map(i => i.naturalWidth)")
        assert pictures == [40] * TILES
    assert faultless.text("h2-connections") == "1"
    assert 2 <= int(faultless.text("h1-connections")) <= 6


def test_the_figures_are_those_of_the_browser(faultless):
    rows = {int(tile): cells for tile, *cells in faultless.evaluate(ROWS)}
    assert rows.keys() == set(range(TILES))
    totals = []
    for column, side, origin in ((0, "h1", other(faultless)), (4, "h2", faultless.evaluate("origin"))):
        timings = faultless.evaluate(TIMINGS % f"{origin}/tiles/1/")
        start = min(timing["start"] for timing in timings)
        for timing in timings:
            shown = [float(text.replace(",", "")) for text in rows[timing["tile"]][column:column + 4]]
            measured = [timing["start"] - start, timing["sent"] - timing["start"], timing["first"] - timing["sent"],
                        timing["end"] - timing["first"]]
            assert shown == pytest.approx(measured, abs=0.0501)
            assert min(measured) >= 0
        totals.append(max(timing["end"] for timing in timings) - start)
        shown, tolerance = milliseconds(faultless.text(f"{side}-total"))
        assert shown == pytest.approx(totals[-1], abs=tolerance)
    verdict, ratio = faultless.text("verdict"), totals[0] / totals[1]
    if shown := re.search(r", ([\d.,]+) times as long", verdict):
        assert float(shown[1]) == pytest.approx(ratio, abs=0.0501)
    else:
        # On a busy machine.
        assert ratio < 1.11
        assert "no difference" in verdict or "it was faster" in verdict


def test_the_wait_is_set_and_the_tiles_are_loaded_by_the_keyboard(faultless):
    faultless.evaluate("document.getElementById('wait').focus()")
    for _ in range(4):
        faultless.press("ArrowRight", 39)
    assert faultless.text("wait-output") == "40 ms"
    faultless.press("Tab", 9)
    assert faultless.evaluate("document.activeElement.id") == "run"
    faultless.press("Enter", 13, "\r")
    faultless.wait_state("tiles", *SETTLED)
    for origin in (other(faultless), faultless.evaluate("origin")):
        timings = faultless.evaluate(TIMINGS % f"{origin}/tiles/2/")
        assert len(timings) == TILES
        # The browser rounds to a tenth of a millisecond.
        assert min(timing["first"] - timing["sent"] for timing in timings) >= 39.8


def open_until_hinted(demo, page):
    """Open the page until its hint is acted on: Chromium may drop one that comes while it is busy starting."""
    for _ in range(TRIES):
        page.open(demo.page)
        page.wait_state("hints", *SETTLED)
        if page.evaluate("document.getElementById('hints').dataset.state") == "done":
            break
    assert page.evaluate("performance.getEntriesByType('navigation')[0].firstInterimResponseStart") > 0
    rows = page.evaluate("[...document.querySelectorAll('#hints-timeline .row')].map(row => row.textContent)")
    assert any(row.startswith("103 arrives") for row in rows)
    assert sum("asked for" in row for row in rows) == 2
    return page.text("hints-status")


def test_early_hints(demo, browser):
    assert "before the page was sent, and had them when it came" in open_until_hinted(demo, browser)
    parts = browser.evaluate("performance.getEntriesByType('resource').filter(entry => entry.name.includes('/parts/'))"
                             ".map(entry => entry.initiatorType)")
    assert parts == ["early-hints"] * 2


def test_early_hints_with_a_certificate_that_is_not_trusted(demo, tmp_path):
    """As for those who proceed past the warning: Chromium acts on the hint, but keeps nothing."""
    with chromium(tmp_path, OFFLINE, *FLAGS) as page:
        assert "before the page was sent, and once more for the page" in open_until_hinted(demo, page)


def test_server_sent_events(faultless):
    faultless.wait_for("Number(document.getElementById('events-count').textContent) >= 3")
    status = faultless.text("events-status")
    assert re.fullmatch(r"Open: stream \d+, on this page's connection\.", status)
    answered = int(faultless.text("events-answered").replace(",", ""))
    assert answered >= TILES
    assert milliseconds(faultless.text("events-gap"))[0] > 100
    faultless.click("events-toggle")
    assert faultless.text("events-status").startswith("Stopped")
    faultless.click("events-toggle")
    faultless.wait_state("events", "open")
    faultless.wait_for(f"document.getElementById('events-answered').textContent.replace(',', '') > {answered}")
    assert faultless.text("events-status") != status


def test_a_file_is_uploaded(faultless, tmp_path):
    octets = bytes(range(256)) * 12_345
    (tmp_path / "file.bin").write_bytes(octets)
    faultless.choose_file("file", tmp_path / "file.bin")
    assert faultless.text("file-name") == "file.bin"
    faultless.evaluate("document.getElementById('rate').value = '0'")
    faultless.click("upload-start")
    faultless.wait_state("upload", *SETTLED)
    assert faultless.text("upload-status") == "Complete, over HTTP/2. The page has computed the same hash."
    assert faultless.text("upload-hash") == hashlib.sha256(octets).hexdigest()
    assert faultless.text("upload-size") == f"{len(octets):,} octets"
    assert faultless.evaluate("document.getElementById('upload-progress').value") == 1


def test_an_upload_shows_its_progress_and_can_be_cancelled(faultless):
    """By keyboard; what is sent is random."""
    faultless.evaluate("document.getElementById('rate').value = '2000000'")
    faultless.evaluate("document.getElementById('upload-start').focus()")
    faultless.press("Enter", 13, "\r")
    faultless.wait_for("/handed over, [1-9]/.test(document.getElementById('upload-status').textContent)")
    assert 0 < faultless.evaluate("document.getElementById('upload-progress').value") <= 1
    faultless.click("upload-cancel")
    faultless.wait_state("upload", "failed")
    assert faultless.text("upload-status") == "Cancelled."
    assert not faultless.evaluate("document.getElementById('upload-start').disabled")


def test_a_websocket_on_the_connection_of_the_page(faultless):
    faultless.wait_state("socket", "open")
    assert re.fullmatch(r"Open over HTTP/2: stream \d+, on this page's connection\.", faultless.text("socket-status"))
    faultless.evaluate("document.getElementById('socket-text').select()")
    faultless.call("Input.insertText", text="žluťoučký <b>kůň</b>")
    faultless.press("Enter", 13, "\r")
    faultless.wait_for("document.getElementById('socket-log').lastElementChild?.textContent.startsWith('žluť')")
    text, took = faultless.evaluate("[...document.getElementById('socket-log').lastElementChild.children]"
                                    ".map(span => span.textContent)")
    assert text == "žluťoučký <b>kůň</b>"
    assert milliseconds(took)[0] > 0


# -- the page as a whole -----------------------------------------------------------------------------------------------


def test_nothing_comes_from_elsewhere(faultless, demo):
    ports = {demo.port, urlsplit(other(faultless)).port}
    assert {(urlsplit(url).hostname, urlsplit(url).port) for url in faultless.requests} == {
        ("localhost", port) for port in ports}
    sources = [path for folder in ("static", "templates") for path in (FOLDER / folder).iterdir()]
    named = {url for path in sources for url in re.findall(r"\b(?:https?:)?//[\w.]+", path.read_text())}
    # The name of a language, which nobody asks for.
    assert {url for url in named if url.startswith("http")} == {"http://www.w3.org"}
    with httpx.Client(verify=False) as client:
        assert client.get(demo.page).headers["content-security-policy"].startswith("default-src 'none'; ")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_into_windows_of_any_width(page, dark):
    for width in (320, 390, 768, 1_280, 1_920):
        page.emulate(width, 800, dark=dark)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == dark


def test_everything_has_a_name(faultless):
    nodes = faultless.call("Accessibility.getFullAXTree")["nodes"]
    named = [(node["role"]["value"], node.get("name", {}).get("value")) for node in nodes if not node["ignored"]]
    assert sum(role == "button" for role, _ in named) >= 6
    assert [role for role, name in named if role in NAMELESS_ROLES and not name] == []


# -- when something fails ----------------------------------------------------------------------------------------------


def test_a_side_that_is_not_reached_is_explained(page):
    origin = other(page)
    page.call("Network.setBlockedURLs", urls=[f"{origin}/*"])
    page.click("run")
    page.wait_state("tiles", *SETTLED)
    assert page.evaluate("document.getElementById('hint').hidden") is False
    assert page.evaluate("document.getElementById('hint-link').href") == f"{origin}/"
    assert "could not be reached" in page.text("verdict")
    assert (page.text("h1-total"), page.text("h2-protocol")) == ("\N{EN DASH}", "h2")
    page.call("Network.setBlockedURLs", urls=[])
    page.click("run")
    page.wait_state("tiles", *SETTLED)
    assert page.evaluate("document.getElementById('hint').hidden") is True


def test_the_link_of_the_explanation_leads_somewhere(demo, browser, page):
    browser.open(other(page) + "/")
    assert "Your browser reaches the HTTP/1.1 side now." in browser.evaluate("document.body.textContent")


def test_an_upload_that_fails_says_so(page):
    page.call("Network.setBlockedURLs", urls=["*/upload?*"])
    page.click("upload-start")
    page.wait_state("upload", *SETTLED)
    assert page.text("upload-status") == "The connection was lost."


def test_a_browser_without_http2(demo, tmp_path):
    """It is told so, and everything else works."""
    with demo.browse(tmp_path, "--disable-http2") as page:
        page.open(demo.page)
        page.wait_state("tiles", *SETTLED)
        assert (page.text("badge-protocol"), page.text("h2-protocol")) == ("http/1.1", "http/1.1")
        assert page.text("hints-status") == "Browsers act on hints over HTTP/2 only."
        page.wait_state("socket", "open")
        assert page.text("socket-status") == "Open over HTTP/1.1, on a connection of its own."
        page.wait_state("events", "open")
        assert page.text("events-status") == "Open, over HTTP/1.1."
