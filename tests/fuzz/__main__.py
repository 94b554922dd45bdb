"""Runs the targets one after another, each for its share of the time, and says what they have found."""

import argparse
import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CORPUS, CRASHES, FOUND = HERE / "corpus", HERE / "crashes", ROOT / ".fuzz"
SHARES = {"fast": 4, "h2": 2, "engines": 3, "decode": 2, "encode": 1, "huffman": 1, "opening": 1, "proxy": 1,
          "upgrade": 1}
"""How the time is divided."""
FOLDERS = dict.fromkeys(("fast", "h2", "engines"), "session")
"""Where the inputs of targets are that do not have a folder of their own."""
NEEDED = """atheris is not installed, which fuzzing needs: pip install '.[fuzz]'.
It has wheels for CPython 3.10 to 3.14 on Linux (x86-64); elsewhere it must be built, with LLVM's clang.
`pytest tests/fuzz` plays the corpus without it."""


def main():
    """Parse the arguments, run the targets, return how many failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="targets that run at a time (default: %(default)s)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(SHARES))
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(SHARES):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(SHARES)}")
    if not importlib.util.find_spec("atheris"):
        print(NEEDED, file=sys.stderr)
        return 2
    CRASHES.mkdir(exist_ok=True)
    names = arguments.targets or list(SHARES)
    total = sum(SHARES[name] for name in names)
    runs = [Run(name, max(2, arguments.seconds * arguments.jobs * SHARES[name] // total)) for name in names]
    waiting, running, failed = runs[:], [], []
    while waiting or running:
        while waiting and len(running) < arguments.jobs:
            running.append(waiting.pop(0).start())
        done = running.pop(0)
        if not done.finish():
            failed.append(done.name)
    print(f"failed: {', '.join(failed)}; see {CRASHES.relative_to(ROOT)}" if failed else "nothing failed")
    return len(failed)


class Run:
    """One target for some time, in a process of its own."""

    def __init__(self, name, seconds):
        self.name, self.seconds = name, seconds
        self._found = FOUND / name
        self._log = FOUND / f"{name}.log"

    def start(self):
        """Begin with the corpus, and with what earlier runs have found."""
        self._found.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, "-m", "tests.fuzz.run", self.name, f"-max_total_time={self.seconds}", "-timeout=20",
            "-rss_limit_mb=2048", "-max_len=4096", f"-dict={HERE / 'http2.dict'}", "-print_final_stats=1",
            f"-artifact_prefix={CRASHES}/{self.name}-", str(self._found),
            str(CORPUS / FOLDERS.get(self.name, self.name))]
        self._started = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        return self

    def finish(self):
        """Wait for the end; return whether nothing was found."""
        status = self._process.wait()
        took = time.monotonic() - self._started
        log = self._log.read_text("utf-8", "backslashreplace")
        executions = int((re.findall(r"stat::number_of_executed_units:\s+(\d+)", log) or ["0"])[-1])
        coverage = (re.findall(r"cov: (\d+)", log) or ["?"])[-1]
        inputs = sum(1 for _ in self._found.iterdir())
        print(f"{self.name:8} {'failed' if status else 'ok':6} {executions:10,} executions in {took:5.0f} s, "
              f"coverage {coverage}, {inputs} inputs found", flush=True)
        if status:
            print(log[log.find(" === Uncaught"):][-4_000:], flush=True)
        return not status


if __name__ == "__main__":
    sys.exit(main())
