"""ASGI's `websocket` scope over a stream (RFC 8441): the events of an application, and what a client may cost.

The websockets library does the framing (RFC 6455) and permessage-deflate (RFC 7692). What a client sends is parsed as
it comes, so that pings are answered and a Close is noticed while the application does something else. When a few
messages wait for the application, or output for the client, parsing waits as well: then the stream's window bounds the
rest.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, ProtocolError
from websockets.extensions.permessage_deflate import enable_server_permessage_deflate
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.server import ServerProtocol

from gunicorn_h2.drivers.asyncio_channel import AsyncChannel
from gunicorn_h2.drivers.asyncio_driver import AsyncHttp2Connection
from gunicorn_h2.drivers.channel import StreamAborted
from gunicorn_h2.drivers.tunnel import Tunnel
from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.guard import SMALL_DATA, TokenBucket
from gunicorn_h2.protocol.headers import RequestHead
from gunicorn_h2.protocol.stream import BodyBuffer

from .asgi import ASGIHandler, Exchange, Message, lower_fields
from .responses import ResponseHeads, log_headers
from .scope import websocket_scope

__all__ = ["MAX_MESSAGE_SIZE", "WebSocket", "WebSocketASGIHandler"]

MAX_MESSAGE_SIZE = 16_777_216
"""Octets of a message, after decompression (uvicorn, hypercorn: the same)."""
_MAX_QUEUED = 32
_MAX_QUEUED_OCTETS = 65_536
# Octets given to the parser at a time. The more frames there are in them, the fewer: a frame of two octets costs as
# much time as one of a kilobyte.
_LEAST_PARSED, _MOST_PARSED = 1_024, 65_536
_FEW_FRAMES = 8
# RFC 6455 section 7.4.1, and its registry for the last one.
_NORMAL, _GOING_AWAY, _NO_STATUS, _ABNORMAL = 1000, 1001, 1005, 1006
_INVALID_DATA, _POLICY, _INTERNAL, _TRY_LATER = 1007, 1008, 1011, 1013


class WebSocketTerms(NamedTuple):
    """What all WebSockets of a worker share."""

    max_message_size: int
    """Octets of a message, after decompression."""
    heads: ResponseHeads
    negotiator: ServerProtocol
    """Is asked for extensions only, and keeps nothing of what it is asked."""


class WebSocket(Tunnel):
    """One WebSocket: `receive` and `send` are what the application is given."""

    def __init__(
        self,
        connection: AsyncHttp2Connection,
        channel: AsyncChannel,
        exchange: Exchange,
        terms: WebSocketTerms,
    ) -> None:
        """`exchange` sends the response of a request that is denied, and keeps what is logged."""
        super().__init__(channel)
        self._connection = connection
        self._channel = channel
        self._exchange = exchange
        self._terms = terms
        self._protocol: Protocol | None = None
        """None until the application has accepted."""
        self._connected = False
        """Whether the application knows of the request."""
        self._denied = False
        self._closing = False
        """Whether no more messages can be sent."""
        self._input, ended = channel.take_over()
        self._input_ended = ended
        self._piece = memoryview(b"")
        """What is left of the piece of input that the parser has begun."""
        self._parsed_at_once = _LEAST_PARSED
        self._message = bytearray()
        """The payload of a message that is not complete."""
        self._is_text = False
        self._queue: deque[tuple[Message, int]] = deque()
        """Messages for the application, with their sizes in octets."""
        self._queued = 0
        self._unparsed = 0
        """Octets that the parser has taken since its last frame."""
        self._taken = 0
        """Octets taken from the worker's budget."""
        self._disconnect: Message | None = None
        self._news = asyncio.Event()
        budget = connection.core.config.small_data_budget
        self._small_frames = TokenBucket(budget, 1.0, connection.now())
        channel.stream.context = self

    # The connection's side

    def deliver(self, data: bytes, ended: bool) -> None:
        """See `Tunnel.deliver`."""
        if data:
            self._input.append(data)
        self._input_ended = self._input_ended or ended
        self._parse()

    def wake(self) -> None:
        """See `Tunnel.wake`."""
        super().wake()
        self._parse()

    def abort(self, code: int, reason: str) -> bool:
        """See `Tunnel.abort`."""
        self._end(_ABNORMAL, "")
        self._drop_input()
        return super().abort(code, reason)

    def go_away(self) -> None:
        """See `Tunnel.go_away`."""
        if self._protocol is not None and not self._closing:
            self._protocol.send_close(_GOING_AWAY)
            self._end(_GOING_AWAY, "")
            self._write()

    # Receiving

    async def receive(self) -> Message:
        """See the ASGI specification."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        while not self._queue:
            if self._disconnect is not None:
                return self._disconnect
            self._news.clear()
            await self._news.wait()
        message, size = self._queue.popleft()
        self._queued -= size
        self._parse()
        return message

    def _parse(self) -> None:
        """Parse input until enough of it waits for the application."""
        protocol, stream = self._protocol, self._channel.stream
        if protocol is None:
            return
        octets = 0
        while self._has_input() and self._may_parse() and not stream.above_high_mark:
            size = min(self._parsed_at_once, len(self._piece))
            protocol.receive_data(bytes(self._piece[:size]))
            self._piece = self._piece[size:]
            octets += size
            self._unparsed += size
            self._take_frames(protocol, protocol.events_received())
            self._charge(protocol)
            self._write()
        if self._input_ended and not self._input and not self._piece and self._disconnect is None:
            self._end(_ABNORMAL, "")
            self._finish()
        if octets and not self._channel.aborted:
            self._connection.core.acknowledge(stream, octets, self._connection.now())
            self._connection.schedule_flush()

    def _has_input(self) -> bool:
        if not self._piece:
            self._piece = memoryview(self._input.take())
        return len(self._piece) > 0

    def _may_parse(self) -> bool:
        # Behind a Close there is nothing to parse, but much to drop.
        return self._disconnect is not None or (len(self._queue) < _MAX_QUEUED and self._queued < _MAX_QUEUED_OCTETS)

    def _take_frames(self, protocol: Protocol, frames: list[Any]) -> None:
        if not frames:
            self._parsed_at_once = min(4 * self._parsed_at_once, _MOST_PARSED)
            if protocol.parser_exc is not None:
                self._note_failure(protocol)
            return
        self._unparsed = 0
        self._parsed_at_once = _LEAST_PARSED if len(frames) > _FEW_FRAMES else 4 * self._parsed_at_once
        self._parsed_at_once = min(self._parsed_at_once, _MOST_PARSED)
        now = self._connection.now()
        for frame in frames:
            size = len(frame.data)
            if size < SMALL_DATA and not self._small_frames.spend(now, cost=1.0 - size / SMALL_DATA):
                self._fail(protocol, _POLICY, "too many small frames")
            if self._disconnect is None:
                self._take_frame(protocol, frame)
        if protocol.parser_exc is not None:
            self._note_failure(protocol)

    def _take_frame(self, protocol: Protocol, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            close = protocol.close_rcvd
            self._end(_NO_STATUS if close is None else close.code, "" if close is None else close.reason)
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            if frame.opcode is not Opcode.CONT:
                self._is_text = frame.opcode is Opcode.TEXT
            if frame.fin and not self._message:
                self._take_message(protocol, frame.data)
            else:
                self._message += frame.data
                if frame.fin:
                    data, self._message = self._message, bytearray()
                    self._take_message(protocol, data)

    def _take_message(self, protocol: Protocol, data: Any) -> None:
        message: Message = {"type": "websocket.receive"}
        if self._is_text:
            try:
                message["text"] = bytes(data).decode()
            except UnicodeDecodeError:
                self._fail(protocol, _INVALID_DATA, "not UTF-8")
                return
        else:
            message["bytes"] = bytes(data)
        self._queue.append((message, len(data)))
        self._queued += len(data)
        self._news.set()

    def _charge(self, protocol: Protocol) -> None:
        """Take what is in memory beyond the least from the worker's budget, which large messages share."""
        held = max(0, self._queued + self._unparsed + len(self._message) - _MAX_QUEUED_OCTETS)
        budget = self._connection.window_budget
        if held > self._taken:
            budget.take(held - self._taken)
        elif held < self._taken:
            budget.give_back(self._taken - held)
        self._taken = held
        if held and budget.left < 0 and self._disconnect is None:
            self._fail(protocol, _TRY_LATER, "no memory for large messages")

    def _fail(self, protocol: Protocol, code: int, reason: str) -> None:
        """Close the WebSocket because of what the client has sent."""
        protocol.fail(code, reason)
        self._end(code, reason)

    def _note_failure(self, protocol: Protocol) -> None:
        close = protocol.close_sent
        self._end(_ABNORMAL if close is None else close.code, "" if close is None else close.reason)

    def _end(self, code: int, reason: str) -> None:
        """Note that no more messages come or go, and tell the application."""
        self._closing = True
        if self._disconnect is None:
            self._disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self._message = bytearray()
        self._news.set()

    def _drop_input(self) -> None:
        """Forget what was not parsed, and give the budget back."""
        self._input, self._piece = BodyBuffer(ended=True), memoryview(b"")
        self._message = bytearray()
        self._connection.window_budget.give_back(self._taken)
        self._taken = 0

    # Sending

    async def send(self, message: Mapping[str, Any]) -> None:
        """See the ASGI specification.

        Raises StreamAborted, an OSError, if the WebSocket is closed; RuntimeError for a message out of order;
        ValueError for fields, a close code or a reason that must not be sent.
        """
        take = _MESSAGES.get(message["type"])
        if take is None:
            if not message["type"].startswith("websocket.http.response."):
                raise RuntimeError(f"{message['type']!r} is no ASGI message for WebSockets")
            await self._deny(message)
            return
        self._channel.raise_if_aborted()
        take(self, message)
        if self._channel.stream.above_high_mark:
            await self._channel.drain()

    def _accept(self, message: Mapping[str, Any]) -> None:
        if self._protocol is not None or self._denied:
            raise RuntimeError("websocket.accept after the WebSocket was accepted or denied")
        fields = lower_fields(message.get("headers") or ())
        if any(name in (b"sec-websocket-protocol", b"sec-websocket-extensions") for name, _ in fields):
            raise ValueError("websocket.accept names the subprotocol by `subprotocol`, and has no extensions")
        if message.get("subprotocol"):
            fields.append((b"sec-websocket-protocol", message["subprotocol"].encode("latin-1")))
        self._protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=self._terms.max_message_size)
        accepted, self._protocol.extensions = self._negotiate(self._channel.stream.head)
        if accepted is not None:
            fields.append((b"sec-websocket-extensions", accepted.encode("latin-1")))
        # RFC 9110 section 9.3.6.
        head = self._terms.heads.make(200, [field for field in fields if field[0] != b"content-length"])
        self._exchange.status, self._exchange.headers = 200, log_headers(head)
        self._channel.respond(head, b"", False)
        self._parse()
        if self._connection.leaving:
            self.go_away()

    def _negotiate(self, head: RequestHead) -> tuple[str | None, list[Any]]:
        """Return the extensions to use, as a field and as the library's objects."""
        offers = [value.decode("latin-1") for name, value in head.fields if name == b"sec-websocket-extensions"]
        try:
            return self._terms.negotiator.process_extensions(
                Headers([("Sec-WebSocket-Extensions", offer) for offer in offers])
            )
        except InvalidHandshake:
            # Without an extension the client may go on or not (RFC 6455 section 9.1).
            return None, []

    def _send(self, message: Mapping[str, Any]) -> None:
        protocol = self._open_protocol()
        data, text = message.get("bytes"), message.get("text")
        if (data is None) == (text is None):
            raise ValueError("websocket.send has either bytes or text")
        if text is not None:
            data = text.encode()
            protocol.send_text(data)
        else:
            assert data is not None
            protocol.send_binary(data)
        self._exchange.sent += len(data)
        self._write()

    def _close(self, message: Mapping[str, Any]) -> None:
        code, reason = message.get("code") or _NORMAL, message.get("reason") or ""
        if self._protocol is None and not self._denied:
            self._denied = True
            self._exchange.fail(403)
            self._end(_ABNORMAL, "")
            return
        protocol = self._open_protocol()
        try:
            protocol.send_close(code, reason)
        except ProtocolError as error:
            raise ValueError(f"websocket.close: {error}") from error
        self._end(code, reason)
        self._finish()

    def _open_protocol(self) -> Protocol:
        if self._protocol is None:
            raise RuntimeError("the WebSocket was not accepted")
        if self._closing:
            raise StreamAborted(self._channel.stream.stream_id, ErrorCode.NO_ERROR, "the WebSocket is closed")
        return self._protocol

    async def _deny(self, message: Mapping[str, Any]) -> None:
        if self._protocol is not None:
            raise RuntimeError(f"{message['type']} after websocket.accept")
        if 200 <= message.get("status", 403) < 300:
            # It would accept (RFC 9110 section 9.3.6).
            raise ValueError(f"{message['status']} denies nothing")
        self._denied = True
        await self._exchange.send({**message, "type": message["type"].removeprefix("websocket.")})
        if self._channel.complete or self._exchange.held is not None:
            self._end(_ABNORMAL, "")

    def _write(self) -> None:
        """Send what the protocol has to say."""
        assert self._protocol is not None
        writes = self._protocol.data_to_send()
        if writes and not self._channel.aborted and not self._channel.complete:
            # An empty one stands for the end.
            self._channel.send(writes[0] if len(writes) == 1 else b"".join(writes), writes[-1] == b"")

    def _finish(self) -> None:
        """End our side behind all that is to be said."""
        self._write()
        if not self._channel.aborted and not self._channel.complete:
            self._channel.send(b"", True)

    # The end

    @property
    def closed(self) -> bool:
        """Whether no more messages can be sent: either side has closed the WebSocket, or it was denied."""
        return self._closing

    def leave(self) -> None:
        """Close what the application has left open, when it has returned. Raises RuntimeError if it never answered."""
        if self._protocol is None and not self._denied:
            self._channel.raise_if_aborted()
            raise RuntimeError("the application returned without accepting or denying the WebSocket")
        if self._denied and not self._channel.complete and self._exchange.held is None:
            raise RuntimeError("the application returned without completing its response")
        self._leave(_NORMAL)

    def fail(self) -> None:
        """Close the WebSocket because the application has failed; its client learns nothing about why."""
        if self._protocol is None:
            self._exchange.fail(500)
        self._leave(_INTERNAL)

    def cancel(self) -> None:
        """Close the WebSocket because the worker is to end."""
        self._leave(_GOING_AWAY)

    def _leave(self, code: int) -> None:
        if self._protocol is not None:
            if not self._closing:
                self._protocol.send_close(code)
                self._closing = True
            self._finish()
        self._exchange.flush()
        self._drop_input()


_MESSAGES: dict[str, Callable[[WebSocket, Mapping[str, Any]], None]] = {
    "websocket.accept": WebSocket._accept,
    "websocket.send": WebSocket._send,
    "websocket.close": WebSocket._close,
}


class WebSocketASGIHandler(ASGIHandler):
    """As `ASGIHandler`, with WebSockets."""

    def __init__(self, worker: Any, max_message_size: int = MAX_MESSAGE_SIZE) -> None:
        """See `ASGIHandler`; `max_message_size` is in octets."""
        super().__init__(worker)
        negotiator = ServerProtocol(extensions=enable_server_permessage_deflate(None))
        self._terms = WebSocketTerms(max_message_size, self._heads, negotiator)

    async def serve_websocket(
        self, connection: AsyncHttp2Connection, channel: AsyncChannel, exchange: Exchange
    ) -> None:
        """See `ASGIHandler.serve_websocket`."""
        stream = channel.stream
        template = self.make_template(connection, channel, exchange)
        if template is None:
            return
        socket = WebSocket(connection, channel, exchange, self._terms)
        scope = websocket_scope(template, stream, self._worker.state)
        request, started = None, time.monotonic()
        try:
            if self._observed:
                request = self._blank.for_stream(stream.head, connection.peer, stream.stream_id)
                if self._pre_request is not None:
                    self._pre_request(self._worker, request)
            await self._application(scope, socket.receive, socket.send)
            socket.leave()
        except asyncio.CancelledError:
            socket.cancel()
            raise
        except GeneratorExit:
            # As in `ASGIHandler.__call__`.
            raise
        except BaseException:  # Application code may raise anything.
            self._socket_failed(channel, socket)
        finally:
            if request is not None and self._accounts:
                self._account(request, exchange, time.monotonic() - started)

    def _socket_failed(self, channel: AsyncChannel, socket: WebSocket) -> None:
        if channel.aborted:
            self._log.debug("Application ended after its stream was aborted", exc_info=True)
        elif socket.closed:
            self._log.debug("Application ended after its WebSocket was closed", exc_info=True)
        else:
            path = channel.stream.head.path.decode("latin-1")
            self._log.exception("Error handling WebSocket %s", path)
        socket.fail()
