"""What the pages of the documentation name is there: pages and anchors, tests, files, settings, options, log lines."""

import ast
import configparser
import importlib
import inspect
import re
from urllib.parse import urlsplit

import pytest
from gunicorn.config import KNOWN_SETTINGS, Config
from gunicorn.workers import SUPPORTED_WORKERS

from gunicorn_h2.drivers.handshake_errors import reason_of
from gunicorn_h2.protocol.errors import Budget, EndReason, StreamLimit
from gunicorn_h2.protocol.trace import SECRET_WORDS, URI_FIELDS
from gunicorn_h2.workers.settings import TABLE
from tests.docs.links import HOSTS, external_links
from tests.docs.reader import is_conf
from tests.support.pages import PAGES, ROOT, Page

NAMES_OF_OTHERS = {"http2_max_framesize", "http2_protocol_options", "http2_features"}
"""A misspelt setting, Envoy's field, and an example's folder."""
OPTIONS = {flag for setting in KNOWN_SETTINGS for flag in setting.cli or ()}
PACKAGE = importlib.import_module("gunicorn_h2")
SPECS = {spec.name: spec for spec in TABLE}
every_page = pytest.mark.parametrize("page", PAGES, ids=str)


def setup_cfg():
    """Return the parsed setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_what_a_trace_does_not_show():
    text = (ROOT / "docs" / "security.md").read_text()
    masked = text.partition("The file has the length alone of")[2].partition("Everything else is there")[0]
    assert set(re.findall(r"`([a-z:-]{2,})`", masked)) == {
        *SECRET_WORDS, *URI_FIELDS, ":authority", "sec-websocket-protocol"}


# -- the status --------------------------------------------------------------------------------------------------------


def counted_by_name():
    """Return the reasons that drivers count by their names, and those of connections without a protocol."""
    calls = [node for path in (ROOT / "gunicorn_h2" / "drivers").glob("*.py")
             for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = [call.args[0] for call in calls if re.search(r"\bclosings\.(count|warn)$", ast.unparse(call.func))]
    returns = [node.value for node in ast.walk(ast.parse(inspect.getsource(reason_of))) if isinstance(node, ast.Return)]
    return {name.value for name in names + returns if isinstance(name, ast.Constant)}


@pytest.mark.parametrize(("column", "counters"), [
    ("reason", {reason.counter for reason in EndReason} | counted_by_name()),
    ("limit", {limit.counter for limit in StreamLimit}),
    ("budget", {budget.counter for budget in Budget}),
])
def test_reasons_of_the_status(column, counters):
    """Its tables have each reason that can be counted, and none that cannot."""
    section = (ROOT / "docs" / "status.md").read_text().partition("\n## Reasons\n")[2]
    rows = section.partition(f"\n| {column} |")[2].partition("\n\n")[0]
    cells = [cell for cell in re.findall(r"^\| ([^|]+) \|", rows, re.M) if not cell.startswith("an error code")]
    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == counters


# -- links -------------------------------------------------------------------------------------------------------------


@every_page
def test_links_lead_somewhere(page):
    for target in page.links:
        path, _, anchor = target.partition("#")
        linked = page.path.parent / path if path else page.path
        assert linked.exists(), target
        assert not anchor or anchor in Page(linked.resolve()).anchors, target


@pytest.mark.parametrize("link", sorted(external_links()))
def test_links_that_lead_elsewhere_have_the_form_of_one(link):
    """`make links` asks for their pages."""
    parts = urlsplit(link)
    assert parts.scheme == "https"
    assert parts.netloc in HOSTS
    assert parts.path.startswith("/")


def test_no_host_is_stale():
    assert {urlsplit(link).netloc for link in external_links()} == HOSTS


def test_the_site_has_every_page():
    nav = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    names = {page.name.removeprefix("docs/") for page in PAGES}
    assert nav == names - {"README.md"}


def test_the_first_page_leads_to_every_other():
    linked = {link for link in Page(ROOT / "docs" / "index.md").links if link.endswith(".md")}
    assert linked == {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}


def test_every_conf_example_is_shown():
    shown = {target for target in Page(ROOT / "docs" / "deployment.md").links if "conf_examples" in target}
    files = [path for path in (ROOT / "conf_examples").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert shown == {f"../{path.relative_to(ROOT)}" for path in files}


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tests():
    """The names of all test functions by the name of their file."""
    pattern = re.compile(r"^ *(?:async )?def (test_\w+)", re.M)
    return {path.name: set(pattern.findall(path.read_text())) for path in (ROOT / "tests").rglob("test_*.py")}


@every_page
def test_named_tests_exist(page, tests):
    everything = set().union(*tests.values())
    for file, name in re.findall(r"\b(test_\w+\.py)(?:::(\w+))?", page.text):
        assert file in tests
        assert not name or name in tests[file], name
    for code in page.inline_code:
        if re.fullmatch(r"test_\w+", code):
            assert code in everything, code


@every_page
def test_named_files_exist(page):
    for path in re.findall(r"(?<![\w/.])(?:tests|docs|examples|conf_examples|gunicorn_h2)/[\w./-]*\w", page.text):
        assert (ROOT / path).exists(), path


@every_page
def test_named_settings_exist(page):
    known = {setting.name for setting in KNOWN_SETTINGS} | SPECS.keys() | NAMES_OF_OTHERS
    named = {name for name in re.findall(r"\bhttp2_\w+", page.text) if not name.endswith("_")}
    assert named <= known


@pytest.fixture(scope="module")
def strings():
    """The strings in the package."""
    nodes = [node for path in (ROOT / "gunicorn_h2").rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@every_page
def test_quoted_log_lines_are_logged(page, strings):
    for code in page.inline_code:
        quoted = re.search(r"\b(too many|(a|the) client|the client's|client and server) [\w' ]+", code)
        if quoted:
            assert any(quoted[0].strip() in text for text in strings), code


# -- code --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [block for page in PAGES for block in page.blocks if is_conf(block)], ids=str)
def test_conf_files_are_right(block):
    """What is set exists, and the value is allowed."""
    conf = {}
    exec(compile(block.code, str(block), "exec"), conf)
    for name, value in conf.items():
        # Other tests give it files that are there.
        if name in SPECS and name != "http2_certificates":
            SPECS[name].parse(value)
        elif name in Config().settings:
            Config().set(name, value)


@every_page
def test_commands_are_right(page):
    for program, *arguments in page.commands:
        CHECKS[program](arguments)


def check_gunicorn(arguments, options=OPTIONS):
    """Options exist, and so does the worker class."""
    flags = [argument.partition("=")[0] for argument in arguments if argument.startswith("-")]
    assert set(flags) <= options
    if "-k" in arguments:
        worker = arguments[arguments.index("-k") + 1]
        ours = {f"gunicorn_h2.{name}" for name in PACKAGE.__all__}
        entry_points = re.findall(r"(\w+) =", setup_cfg()["options.entry_points"]["gunicorn.workers"])
        assert worker in {*ours, *SUPPORTED_WORKERS, *(f"egg:gunicorn-h2#{name}" for name in entry_points)}


def check_gunicorn_h2(arguments):
    """The same, with a flag for each setting."""
    check_gunicorn(arguments, OPTIONS | {spec.flag for spec in TABLE})


def check_make(arguments):
    """Targets exist."""
    targets = set(re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split())
    assert {argument for argument in arguments if "=" not in argument} <= targets


def check_pip(arguments):
    """Extras exist."""
    for extras in re.findall(r"gunicorn-h2\[([\w,]+)\]", " ".join(arguments)):
        assert set(extras.split(",")) <= setup_cfg()["options.extras_require"].keys()


CHECKS = {"gunicorn": check_gunicorn, "gunicorn-h2": check_gunicorn_h2, "make": check_make, "pip": check_pip}
