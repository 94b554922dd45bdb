"""A client's end of a WebSocket, without a socket: the websockets library does the framing, tests pass octets on."""

from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Opcode
from websockets.headers import parse_extension
from websockets.protocol import Protocol, Side, State

VERSION = ("sec-websocket-version", "13")
DEFLATE = "permessage-deflate; client_max_window_bits"


def connect_fields(path, *extra, authority="example.org", scheme="https", protocol="websocket", version="13"):
    """The section of an extended CONNECT (RFC 8441 section 4)."""
    return [(":method", "CONNECT"), (":protocol", protocol), (":scheme", scheme), (":path", path),
            (":authority", authority), ("sec-websocket-version", version), *extra]


class ClientEnd:
    """What a client sends, as octets, and what has come of the octets that it was given.

    `messages` holds what has come (str or bytes, and Opcode.PING or PONG with the payload); `closed` is the code and
    the reason that the server has closed with, None before.
    """

    def __init__(self):
        self.protocol = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
        self.messages, self.closed = [], None
        self._parts, self._is_text = b"", False

    def use_extensions(self, field):
        """Use what the server has accepted; `field` is None if it has accepted nothing."""
        for _, parameters in parse_extension(field) if field else ():
            extension = ClientPerMessageDeflateFactory(client_max_window_bits=True).process_response_params(
                parameters, [])
            self.protocol.extensions.append(extension)

    def feed(self, octets):
        """Take octets from the server; return the answer to them."""
        self.protocol.receive_data(octets)
        assert self.protocol.parser_exc is None, self.protocol.parser_exc
        for frame in self.protocol.events_received():
            self._take(frame)
        return b"".join(self.protocol.data_to_send())

    def _take(self, frame):
        if frame.opcode is Opcode.CLOSE:
            close = self.protocol.close_rcvd
            self.closed = (close.code, close.reason)
        elif frame.opcode in (Opcode.PING, Opcode.PONG):
            self.messages.append((frame.opcode, bytes(frame.data)))
        else:
            if frame.opcode is not Opcode.CONT:
                self._is_text, self._parts = frame.opcode is Opcode.TEXT, b""
            self._parts += frame.data
            if frame.fin:
                self.messages.append(self._parts.decode() if self._is_text else self._parts)

    def octets(self, message):
        """A message, as octets on the wire."""
        if isinstance(message, str):
            self.protocol.send_text(message.encode())
        else:
            self.protocol.send_binary(message)
        return b"".join(self.protocol.data_to_send())

    def pieces(self, *parts):
        """A message of some fragments."""
        self.protocol.send_binary(parts[0], fin=len(parts) == 1)
        for number, part in enumerate(parts[1:], 2):
            self.protocol.send_continuation(part, fin=number == len(parts))
        return b"".join(self.protocol.data_to_send())

    def ping(self, payload=b""):
        """A ping."""
        self.protocol.send_ping(payload)
        return b"".join(self.protocol.data_to_send())

    def close(self, code=None, reason=""):
        """A Close."""
        self.protocol.send_close(code, reason)
        return b"".join(self.protocol.data_to_send())
