"""The report: tables in Markdown, charts in SVG."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from bench import charts
from bench.report import markdown
from bench.results import Sample, ServerInfo
from bench.servers import OURS, WSGI

SVG = "{http://www.w3.org/2000/svg}"


def rows(text, heading):
    """Return the table below a heading as lists of cells, thin spaces as commas."""
    section = re.split(r"^#+ ", text.split(heading, 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip().replace("\u202f", ",") for cell in line.strip("|").split(" |")] for line in lines]


def test_a_summary_has_figures_and_ratios(results):
    assert rows(markdown(results), "## Small requests") == [
        ["server", "hello, req/s"],
        ["---", "---:"],
        ["ThreadWorker, <fast>", "120,000 (1.50)"],
        ["gthread", "4,500 (0.04)"],
        ["granian", "100,000 (1.00)"],
        ["the floor", "300,000 (3.00)"],
    ]


def test_less_is_better_is_said(results):
    assert rows(markdown(results), "## Connections")[0] == ["server", "idle, KiB/connection ↓"]


def test_details_have_ranges_and_a_ratio_to_each_reference(results):
    table = rows(markdown(results), "### hello: ")
    assert table[0] == ["server", "rate, req/s", "cpu, us/req ↓", "to granian", "to builtin"]
    assert table[2] == ["thread", "120,000 (90,000 to 210,000)", "9.0 (8.0 to 10.0)",
                        "1.50 (1.20 to 2.10), cpu 0.75", "30.00 (18.00 to 46.67), cpu 0.04"]
    assert [row[0] for row in table[2:]] == ["thread", "builtin", "granian", "floor"]


def test_failures_have_a_table(results):
    assert rows(markdown(results), "## Failures")[2:] == [["builtin", "idle", "4984 of 5000", "closed / too soon"]]
    results.samples = [sample for sample in results.samples if not sample.failed]
    assert "## Failures" not in markdown(results)


def test_what_spoils_the_figures_is_said(results):
    text = markdown(results)
    assert "- Before the start python (pid 7) takes 99% of a core." in text
    assert "- During 1 of 15 measurements other processes took more than 15% of a core." in text
    assert text.count("no such module") == 1
    assert "- broken is not available: no such module" in text
    assert "- builtin is not available for hello: slow to boot" in text


def test_the_machine_and_the_versions_are_named(results):
    text = markdown(results)
    for words in ("2026-01-02", "revision abc", "A <fast> & quiet one", "CPython 3.11", "h2 4.4", "h2load 1.52"):
        assert words in text
    assert "Medians of 3 rounds" in text


def test_a_run_without_references_has_no_ratios(results):
    results.options["references"] = []
    text = markdown(results)
    assert rows(text, "## Small requests")[2] == ["ThreadWorker, <fast>", "120,000"]
    assert rows(text, "### hello: ")[0] == ["server", "rate, req/s", "cpu, us/req ↓"]


def parsed(results, number=0):
    """Return the chart of a workload as an element tree."""
    return ElementTree.fromstring(charts.chart(results, results.workloads[number]))


def texts(svg, kind):
    """Return the texts of a class."""
    return [element.text.replace("\u202f", ",") for element in svg.iter(SVG + "text") if element.get("class") == kind]


def bars(svg):
    """Return class and width of each bar, from top to bottom."""
    return [(rect.get("class"), float(rect.get("width"))) for rect in svg.iter(SVG + "rect")
            if rect.get("height") == str(charts.BAR)]


def test_a_chart_has_a_bar_a_server_the_best_on_top(results):
    svg = parsed(results)
    assert texts(svg, "name") == ["ThreadWorker, <fast>", "granian", "gthread"]
    assert texts(svg, "value") == ["120,000", "100,000", "4,500"]
    kinds, widths = zip(*bars(svg), strict=True)
    assert kinds == ("ours", "other", "built-in")
    assert widths[1] / widths[0] == pytest.approx(100 / 120, rel=0.01)


def test_where_less_is_better_the_least_is_on_top(results):
    svg = parsed(results, 1)
    assert texts(svg, "value") == ["20.0", "40.0"]
    assert "less is better" in texts(svg, "faint")[0]


def test_a_chart_fits_into_its_picture(results):
    results.servers += [ServerInfo(f"s{n}", "n" * 30, OURS, WSGI) for n in range(9)]
    results.samples += [Sample(f"s{n}", "hello", 1, {"rate": 10.0**n}) for n in range(9)]
    svg = parsed(results)
    width, height = float(svg.get("width")), float(svg.get("height"))
    for rect in svg.iter(SVG + "rect"):
        assert float(rect.get("x", 0)) + float(rect.get("width")) <= width
        assert float(rect.get("y", 0)) + float(rect.get("height")) <= height


def test_a_chart_follows_the_colour_scheme(results):
    style = parsed(results).find(SVG + "style").text
    assert "@media (prefers-color-scheme: dark)" in style


def test_no_figures_no_chart(results):
    results.samples = []
    assert charts.chart(results, results.workloads[0]) is None


def test_figures_of_nothing_can_be_drawn(results):
    results.samples = [Sample("thread", "hello", 1, {"rate": 0.0})]
    assert bars(parsed(results)) == [("ours", 1.0)]
