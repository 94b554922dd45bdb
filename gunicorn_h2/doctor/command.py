"""The command line of `gunicorn-h2 doctor`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import NoReturn

from .diagnosis import Diagnosis, Options
from .report import Verdict
from .target import TargetError, parse_address, parse_url
from .wire import make_context

__all__ = ["main"]

EPILOG = f"""\
exit status:
  {Verdict.HTTP2:d}  HTTP/2 works: a response came over it, whatever its status
  {Verdict.HTTP1:d}  only HTTP/1.1 works
  {Verdict.NO_CONNECTION:d}  no connection: the name, the port, the TLS handshake, the certificate (but for --insecure),
     or http:// on the port of https:// and the other way round
  {Verdict.PROTOCOL_ERROR:d}  a connection, but no valid HTTP response: silence, something else, a protocol error
  {Verdict.USAGE:d}  wrong arguments
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with a status that no verdict has."""
        self.print_usage(sys.stderr)
        self.exit(Verdict.USAGE, f"{self.prog}: error: {message}\n")


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status. Raises `SystemExit` for --help and wrong arguments."""
    parser = _make_parser()
    options = parser.parse_args(arguments)
    try:
        target = parse_url(options.url)
        connect_to = parse_address(options.connect_to) if options.connect_to else None
    except TargetError as error:
        parser.error(str(error))
    if options.cacert is not None:
        try:
            make_context((), options.cacert, verify=True)
        except OSError as error:
            parser.error(f"--cacert {options.cacert}: {error}")
    diagnosis = Diagnosis(target, options.url, Options(options.cacert, options.insecure, options.timeout, connect_to))
    report = diagnosis.run()
    print(report.as_json() if options.json else report.as_text())
    return int(report.verdict)


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gunicorn-h2 doctor",
        description="Connect to a server as a client, make one GET, and say what is negotiated, and why not HTTP/2.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("url", metavar="URL", help="https:// or http://")
    parser.add_argument("--cacert", metavar="FILE", help="trust the certificates in this file instead of the system's")
    parser.add_argument("--insecure", action="store_true", help="take a wrong certificate as a warning")
    parser.add_argument(
        "--timeout", type=_seconds, default=10.0, metavar="SECONDS", help="for each of the few connections [10]"
    )
    parser.add_argument("--connect-to", metavar="HOST:PORT", help="connect there; the request names the URL's host")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not math.isfinite(seconds) or not 0 < seconds <= 3600:
        raise ValueError(text)
    return seconds
