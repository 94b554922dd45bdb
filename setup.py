"""The description that package indexes show; everything else is in setup.cfg.

It is README.md. An index shows that file alone, so its relative links would lead nowhere there: they become links to
the documentation's site where setup.cfg names one among its project_urls, and else the names of files, which are in
the source distribution.
"""

import configparser
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
NAMES = """\
The files that are named in parentheses are in the [source distribution](https://pypi.org/project/gunicorn-h2/#files).

"""
_RELATIVE_IMAGE = re.compile(r"!\[[^\]]*\]\((?!\w+:)[^)]+\)\n*")
_RELATIVE_LINK = re.compile(r"\[([^\]]+)\]\((?!\w+:)([^)\s#]*)(#[^)\s]*)?\)")
_FIRST_HEADING = re.compile(r"^## ", re.M)


def description(readme: str, site: str = "") -> str:
    """README.md for an index; `site` is the address of the documentation, if it has one, with a slash at the end.

    mkdocs makes a page of each Markdown file, and docs/ is the root of the site.
    """

    def replace(match: re.Match[str]) -> str:
        text, path, anchor = match[1], match[2], match[3] or ""
        if site and path.endswith(".md"):
            return f"[{text}]({site}{path.removeprefix('docs/').removesuffix('.md')}.html{anchor})"
        return f"{text} (`{path}`)" if path not in ("", text) else text

    if site:
        readme = re.sub(r"(!\[[^\]]*\]\()docs/", rf"\g<1>{site}", readme)
    else:
        readme = _FIRST_HEADING.sub(NAMES + "## ", readme, count=1)
    return _RELATIVE_LINK.sub(replace, _RELATIVE_IMAGE.sub("", readme))


def site() -> str:
    """The address of the documentation, from setup.cfg; empty if it has none."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    urls = config.get("metadata", "project_urls", fallback="")
    found = re.search(r"^Documentation *= *(\S+?)/?$", urls, re.M)
    return f"{found[1]}/" if found else ""


if __name__ == "__main__":
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    setup(long_description=description(readme, site()), long_description_content_type="text/markdown")
