"""What the pages of the documentation name is there: pages and anchors, tests, files, settings, options, log lines."""

import ast
import configparser
import importlib
import re

import pytest
from gunicorn.config import KNOWN_SETTINGS, Config
from gunicorn.workers import SUPPORTED_WORKERS

from gunicorn_h2.protocol.trace import SECRET_WORDS, URI_FIELDS
from gunicorn_h2.workers.settings import TABLE
from tests.support.pages import PAGES, ROOT, Page
from tests.support.tools import run

NAMES_OF_OTHERS = {"http2_max_framesize", "http2_protocol_options", "http2_features"}
"""A misspelt setting, Envoy's field, and an example's folder."""
OPTIONS = {flag for setting in KNOWN_SETTINGS for flag in setting.cli or ()}
PACKAGE = importlib.import_module("gunicorn_h2")
BLOCKS = [block for page in PAGES for block in page.blocks]
SPECS = {spec.name: spec for spec in TABLE}
every_page = pytest.mark.parametrize("page", PAGES, ids=str)


def blocks_in(*languages):
    """Parametrize a test by the blocks in some languages."""
    return pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in languages], ids=str)


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


# -- links -------------------------------------------------------------------------------------------------------------


@every_page
def test_links_lead_somewhere(page):
    for target in page.links:
        path, _, anchor = target.partition("#")
        linked = page.path.parent / path if path else page.path
        assert linked.exists(), target
        assert not anchor or anchor in Page(linked.resolve()).anchors, target


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
    for code in page.inline_code + page.indented:
        quoted = re.search(r"\b(too many|(a|the) client|the client's|client and server) [\w' ]+", code)
        if quoted:
            assert any(quoted[0].strip() in text for text in strings), code


# -- code --------------------------------------------------------------------------------------------------------------


def settings_in(names):
    """Return what a conf file sets."""
    return {name: value for name, value in names.items() if name in SPECS or name in Config().settings}


@blocks_in("python")
def test_python_is_right(block, monkeypatch):
    """Blocks compile, conf files set what exists to what is allowed, applications answer."""
    code = compile(block.code, str(block), "exec")
    if "worker_class" in block.code:
        conf = {}
        exec(code, conf)
        settings = settings_in(conf)
        assert conf.keys() - settings.keys() <= {"__builtins__", "os"}
        for name, value in settings.items():
            if name in SPECS:
                SPECS[name].parse(value)
            else:
                Config().set(name, value)
    elif "start_response" in block.code:
        names = {}
        exec(code, names)
        for application in [value for value in names.values() if getattr(value, "__code__", None)]:
            assert answer(application) == "200 OK"


def answer(application):
    """Call an application that needs nothing but its protocol; return the status."""
    started, hints, trailers = [], [], []
    environ = {"SERVER_PROTOCOL": "HTTP/2.0", "wsgi.early_hints": hints.append,
               "gunicorn.http2.send_trailers": trailers.append}
    body = b"".join(application(environ, lambda *start: started.append(start)))
    [(status, headers)] = started
    assert dict(headers).get("Content-Length", str(len(body))) == str(len(body))
    for fields in (headers, *hints, *trailers):
        assert all(isinstance(text, str) for field in fields for text in field)
    return status


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


@blocks_in("haproxy")
def test_haproxy_takes_its_configuration(block, tmp_path):
    conf = tmp_path / "haproxy.cfg"
    conf.write_text(block.code)
    run("haproxy", "-c", "-f", conf)
