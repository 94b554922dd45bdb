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


class WebSocketStream(ClientEnd):
    """A WebSocket on a stream of an `H2Client`."""

    def __init__(self, client, path, *headers, wait=True, **pseudo):
        super().__init__()
        self.client = client
        fields = connect_fields(path, *headers, **{"authority": client.authority, "scheme": client.scheme, **pseudo})
        self.stream = client.open(self._take_octets)
        client.send_raw(client.header_frames(self.stream.stream_id, fields))
        self.replies = []
        self.body = b""
        if wait:
            self.wait_head()

    def wait_head(self):
        """Wait for the response's head."""
        self.client.wait_headers(self.stream)
        if self.stream.status == 200:
            self.use_extensions(self.stream.header("sec-websocket-extensions"))
        return self

    def _take_octets(self, octets):
        if self.stream.status == 200:
            reply = self.feed(bytes(octets))
            if reply:
                self.replies.append(reply)
        else:
            self.body += octets

    def send(self, octets, timeout=10):
        """Send octets, within the windows."""
        self.client.send_body(self.stream, octets, end=False, timeout=timeout)

    def answer(self):
        """Send what the framing has to say by itself: pongs, and the answer to a Close."""
        replies, self.replies = self.replies, []
        for reply in replies:
            if not self.stream.done:
                self.send(reply)

    def receive(self, timeout=10):
        """Wait for a message and return it."""
        self.client.wait_for(lambda: self.messages or self.closed or self.stream.done, "a message", timeout)
        self.answer()
        return self.messages.pop(0) if self.messages else None

    def say(self, message, timeout=30):
        """Send a message and return the one that answers it."""
        self.send(self.octets(message))
        return self.receive(timeout)

    def wait_closed(self, timeout=10):
        """Wait for the server's Close and return its code and reason."""
        self.client.wait_for(lambda: self.closed or self.stream.done, "a Close", timeout)
        self.answer()
        return self.closed

    def wait_end(self, timeout=10):
        """Wait for the end of the stream."""
        self.client.response(self.stream, timeout)
        return self.closed
