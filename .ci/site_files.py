"""Hooks of mkdocs: files beside docs/ that pages link to are parts of the site, at the same relative place."""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
FILES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE")
FOLDERS = ("conf_examples", "examples")
SUFFIXES = {".cfg", ".conf", ".md", ".proto", ".py", ".service", ".socket", ".txt", ".yaml", ""}


def on_files(files, config):
    """Add the files; the site's root is docs/."""
    paths = [ROOT / name for name in FILES]
    for folder in FOLDERS:
        paths += [path for path in sorted((ROOT / folder).rglob("*")) if path.is_file() and path.suffix in SUFFIXES]
    for path in paths:
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Have links lead to where things are in the site: docs/ is its root, and so is the repository's."""
    if "/" not in page.file.src_uri:
        markdown = re.sub(r"\]\(\.\./", "](", markdown)
    return re.sub(r"\]\(docs/", "](", markdown)
