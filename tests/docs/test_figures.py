"""The figures of speed in the pages are those of the published report, and the charts are of the same run."""

import re

import pytest

from tests.support.pages import PAGES, ROOT, Page, tables

PERFORMANCE = Page(ROOT / "docs" / "performance.md")
REPORT = Page(ROOT / "docs" / "benchmarks" / "report.md")
COLUMNS = {
    "ThreadWorker": "ThreadWorker, fast", "GeventWorker": "GeventWorker, fast", "ASGIWorker": "ASGIWorker, fast",
    "granian 2.8, WSGI": "granian, WSGI", "`http2_engine = h2`": "ThreadWorker, h2",
    "Gunicorn's gthread": "Gunicorn gthread", "granian 2.8, ASGI": "granian, ASGI", "uvicorn 0.54": "uvicorn",
    "Gunicorn's asgi": "Gunicorn asgi",
}
"""The servers of the page's tables, as the report calls them."""
ROWS = {
    "hello, 10 x 10": "hello-10x10", "hello, 1 x 100": "hello-1x100", "hello, 1 x 1": "hello-1x1",
    "hello, 100 x 1": "hello-100x1", "browser headers, new paths, 10 x 10": "browser",
    "POST of 1 KiB, 10 x 10": "post-1k", "response of 100 KiB, 4 x 1": "100k",
}
"""Their workloads."""
HANDSHAKES = {"handshakes, 1000 at once": "handshakes"}
"""That of the second table alone."""


def figures():
    """The report's overview: the figure and the ratio by workload and server."""
    found = {}
    for head, *rows in tables(REPORT.text.partition("## Details")[0]):
        for server, *cells in rows:
            for title, cell in zip(head[1:], cells, strict=True):
                rate, ratio = re.fullmatch(r"([\d\s]+?) \(([\d.]+)\)", cell).groups()
                found[title.partition(",")[0], server] = int(re.sub(r"\s", "", rate)), ratio
    return found


def rounded(figure):
    """A figure as the pages have it: in hundreds, with spaces between thousands."""
    return f"{(figure + 50) // 100 * 100:,}".replace(",", " ")


@pytest.mark.parametrize(("number", "workloads"), [(0, ROWS), (1, {**ROWS, **HANDSHAKES})], ids=["WSGI", "ASGI"])
def test_the_table_is_the_reports(number, workloads):
    reported = figures()
    head, *rows = tables(PERFORMANCE.text)[number]
    for workload, *cells in rows:
        for title, cell in zip(head[1:], cells, strict=True):
            rate, ratio = reported[workloads[workload], COLUMNS[title]]
            assert cell in (rounded(rate), f"{rounded(rate)} ({ratio})"), (workload, title)
    assert {row[0] for row in rows} == workloads.keys()


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_figures_elsewhere_are_the_reports(page):
    if page.name != REPORT.name:
        known = {rounded(rate) for rate, _ in figures().values()}
        named = re.findall(r"(\d+(?: \d{3})+) requests/s", page.prose)
        assert [figure for figure in named if figure not in known] == []


@pytest.mark.parametrize("chart", sorted(REPORT.path.parent.glob("*.svg")), ids=lambda path: path.stem)
def test_charts_are_of_the_same_run(chart):
    assert re.match(r".*\n\n(\d{4}-\d\d-\d\d \d\d:\d\d UTC)", REPORT.text)[1] in chart.read_text()
    assert f"benchmarks/{chart.name}" in PERFORMANCE.text
