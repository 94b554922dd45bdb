"""Other revisions of the package, so that two of them can be measured in the same run."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.running import ROOT
from bench.servers import OURS, Server

PACKAGE = "gunicorn_h2"
WORKING_TREE = "."
"""Names the files as they are, committed or not."""


@contextmanager
def exported(revisions: Sequence[str]) -> Iterator[dict[str, str]]:
    """Write the package as of each revision into a folder of its own; yields the folders by revision.

    Only the package is taken: the applications and the bench are this tree's for all revisions. Raises `ValueError` for
    a revision that git does not know.
    """
    with TemporaryDirectory(prefix="bench-revisions-") as folder:
        sources = {}
        for number, revision in enumerate(revisions):
            target = Path(folder, str(number))
            target.mkdir()
            _export(revision, target)
            sources[revision] = str(target)
        yield sources


def _export(revision: str, target: Path) -> None:
    if revision == WORKING_TREE:
        (target / PACKAGE).symlink_to(ROOT / PACKAGE)
        return
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", "--format=tar", revision, PACKAGE], stdout=subprocess.PIPE, text=False
    )
    if archive.returncode:
        raise ValueError(f"git has no {PACKAGE} at {revision!r}")
    subprocess.run(["tar", "-x", "-C", str(target)], input=archive.stdout, check=True)


def at_revisions(servers: Sequence[Server], sources: dict[str, str]) -> list[Server]:
    """Return our servers once for each revision, side by side, and all others as they are."""
    return [
        variant
        for server in servers
        for variant in (
            [server.at(revision, source) for revision, source in sources.items()]
            if server.family == OURS and sources
            else [server]
        )
    ]
