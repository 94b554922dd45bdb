"""An exchange over a wire: where octets and time meet."""

from __future__ import annotations

import time
from typing import NamedTuple

from . import judge
from .exchange import Http1Exchange, Http2Exchange
from .wire import Wire

__all__ = ["Outcome", "converse"]


class Outcome(NamedTuple):
    """How an exchange went as far as the connection is concerned."""

    seconds: float
    """From the request to the head of the response; 0 if there is none."""

    failure: str | None
    """Why the connection did not last until the end of the exchange; None if it did."""

    timed_out: bool = False


def _send(wire: Wire, data: bytes) -> None:
    """Send octets; a broken connection is left to be found by reading.

    What the peer has said before it closed, such as an alert (RFC 8446 section 6.2), can still be read, and says why.
    """
    try:
        wire.send(data)
    except TimeoutError:
        raise
    except OSError:
        pass


def converse(wire: Wire, exchange: Http1Exchange | Http2Exchange) -> Outcome:
    """Drive an exchange, which has been started, to its end or to the deadline of the wire."""
    requested: float | None = None
    seconds = 0.0
    try:
        while True:
            _send(wire, exchange.data_to_send())
            if requested is None and exchange.requested:
                requested = time.monotonic()
            if exchange.done:
                return Outcome(seconds, None)
            data = wire.receive()
            if data:
                exchange.receive_data(data)
            else:
                exchange.receive_eof()
            if not seconds and requested is not None and exchange.response is not None:
                seconds = time.monotonic() - requested
    except OSError as error:
        failure = None if exchange.done else judge.exchange_error(error)
        return Outcome(seconds, failure, isinstance(error, TimeoutError))
