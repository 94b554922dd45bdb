"""Running `graceful_client.js`: continuous load from a client that is not of this package's making."""

import json
import subprocess
from pathlib import Path

from tests.support.tools import require_tool

SCRIPT = Path(__file__).with_name("graceful_client.js")
TIMEOUT = 30


class NodeClient:
    """Node's http2, with requests of every kind under way for as long as the block lasts."""

    def __init__(self, server, chains=8, prefix=""):
        self._command = [require_tool("node"), str(SCRIPT), server.url, server.certs.ca, str(chains), prefix,
                         server.socket_path or ""]
        self.seen = {}

    def __enter__(self):
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *exc_info):
        try:
            output, _ = self._process.communicate(timeout=TIMEOUT)
            self.seen = json.loads(output.splitlines()[-1])
        finally:
            self._process.kill()
            self._process.wait()

    def wait_for(self, **counts):
        """Wait until so many requests of each kind have been answered in all; fail if one has been lost."""
        self._process.stdin.write(json.dumps(counts) + "\n")
        self._process.stdin.flush()
        self.seen = json.loads(self._process.stdout.readline())
        assert self.seen["lost"] == [], self.seen

    def wait_for_more(self, **counts):
        """Wait until so many more requests of each kind have been answered; fail if one has been lost."""
        self.wait_for()
        self.wait_for(**{name: self.seen[name] + count for name, count in counts.items()})
