"""Links that lead elsewhere: `python -m tests.docs.links` asks each for its page, which needs a network.

The tests see to their form alone, and to their hosts: a page that is to last links to few of them.
"""

import re
import sys
import urllib.request

from tests.support.pages import PAGES

HOSTS = {"github.com", "keepachangelog.com", "semver.org"}
"""The hosts that pages may link to."""


def external_links():
    """All links that lead elsewhere."""
    found = [pair for page in PAGES for pair in re.findall(r"\]\((\w+:[^)\s]+)\)|<(\w+:[^>\s]+)>", page.prose)]
    return {link for pair in found for link in pair if link}


def fault(link):
    """What is wrong with the answer; None if there is a page."""
    request = urllib.request.Request(link, headers={"User-Agent": "gunicorn_h2's links"})
    try:
        with urllib.request.urlopen(request, timeout=20):
            return None
    except OSError as error:
        return error


def main():
    """Ask for each page once; return the exit status."""
    faults = {link: fault(link) for link in sorted(external_links())}
    for link, error in faults.items():
        print(link, error or "ok")
    return int(any(faults.values()))


if __name__ == "__main__":
    sys.exit(main())
