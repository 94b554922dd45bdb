"""Every block of code in the documentation is run, or stands in `unrun` with the reason and a rule that checks it."""

import pytest

from tests.docs.reader import CLIENTS, FILES, HOW_TO_FOLLOW, MODULES, STARTS, Reader, is_conf
from tests.docs.served import CONF_PROBES, SERVED
from tests.docs.unrun import BLOCKS, COMMANDS, exception_for
from tests.support.pages import PAGES, split

BLOCKS_OF_PAGES = {str(block): block for page in PAGES for block in page.blocks}
LINES = [line.removeprefix("$ ") for block in BLOCKS_OF_PAGES.values() for line in block.lines
         if block.language == "sh" or line.startswith("$ ")]
QUICK = {"README.md"}
"""The pages that `make test` reads; `make thorough` reads the others."""


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_no_code_is_without_a_fence(page):
    assert page.indented == []


@pytest.mark.parametrize("block", BLOCKS_OF_PAGES.values(), ids=str)
def test_every_block_is_run_or_an_exception(block):
    if exception_for(block) is None and str(block) not in FILES:
        assert block.language in HOW_TO_FOLLOW
        if block.language == "python":
            assert is_conf(block) != (str(block) in SERVED)


@pytest.mark.parametrize("line", LINES)
def test_every_command_is_run_or_an_exception(line):
    program = split(line)[0]
    assert (program in CLIENTS or program in MODULES) != (exception_for(line) is not None)


def test_no_entry_is_stale():
    assert {*BLOCKS, *SERVED, *CONF_PROBES, *FILES, *STARTS} <= BLOCKS_OF_PAGES.keys()


def test_no_exception_for_a_command_is_stale():
    assert [words for words in COMMANDS if not any(line.startswith(words) for line in LINES)] == []


@pytest.mark.timeout(150)
@pytest.mark.parametrize("page", [pytest.param(page, marks=[] if page.name in QUICK else pytest.mark.thorough)
                                  for page in PAGES if page.blocks], ids=str)
def test_a_reader_of_the_page_gets_what_it_says(page, tmp_path, certs):
    Reader(tmp_path, certs).read(page)
