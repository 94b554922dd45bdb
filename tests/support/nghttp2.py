"""A client on the library nghttp2 (the Debian package libnghttp2-14, on which curl and nghttp depend), by ctypes.

It sends PRIORITY_UPDATE, which no command-line client does, and only to servers that announce
SETTINGS_NO_RFC7540_PRIORITIES: so that is put into the server's SETTINGS before nghttp2 sees them. The frames that the
server gets are nghttp2's.
"""

import ctypes
import ctypes.util
from ctypes import CFUNCTYPE, POINTER, Structure, byref, c_char_p, c_int, c_int32, c_size_t, c_uint8, c_void_p

from tests.support.h2client import TIMEOUT, open_socket
from tests.support.tools import missing

NO_RFC7540_PRIORITIES = bytes.fromhex("0009 00000001")
HEADERS, SETTINGS = 1, 4
INITIAL_WINDOW_SIZE = 4
_DATA_CHUNK = CFUNCTYPE(c_int, c_void_p, c_uint8, c_int32, POINTER(c_uint8), c_size_t, c_void_p)
_FRAME = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p)


class _Field(Structure):
    _fields_ = (("name", c_char_p), ("value", c_char_p), ("name_length", c_size_t), ("value_length", c_size_t),
                ("flags", c_uint8))


class _FrameHeader(Structure):
    _fields_ = (("length", c_size_t), ("stream_id", c_int32), ("type", c_uint8), ("flags", c_uint8))


class _Setting(Structure):
    _fields_ = (("name", c_int32), ("value", ctypes.c_uint32))


def _library():
    name = ctypes.util.find_library("nghttp2")
    if name is None:
        missing("libnghttp2 is not installed; install the package libnghttp2-14")
    library = ctypes.CDLL(name)
    library.nghttp2_session_mem_send.restype = library.nghttp2_session_mem_recv.restype = ctypes.c_ssize_t
    return library


class Nghttp2Client:
    """One connection. `data` has the (stream, length) of what has come, `headers` the streams whose responses began."""

    def __init__(self, server, window):
        self._library, self._session = _library(), c_void_p()
        self.data, self.headers = [], set()
        self._callbacks = _DATA_CHUNK(self._take_data), _FRAME(self._take_frame)
        table = c_void_p()
        self._call("session_callbacks_new", byref(table))
        for name, callback in zip(("data_chunk", "frame"), self._callbacks, strict=True):
            self._call(f"session_callbacks_set_on_{name}_recv_callback", table, callback)
        self._call("session_client_new", byref(self._session), table, None)
        self._call("session_callbacks_del", table)
        self._socket = open_socket(server)
        self._socket.settimeout(TIMEOUT)
        self._server = server
        self.set_window(window)
        self._receive_settings()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()
        self._call("session_del", self._session)

    def set_window(self, window):
        """Send SETTINGS_INITIAL_WINDOW_SIZE."""
        setting = _Setting(INITIAL_WINDOW_SIZE, window)
        self._call("submit_settings", self._session, c_uint8(0), byref(setting), c_size_t(1))
        self._send()

    def request(self, path):
        """Make a request; return its stream."""
        fields = ((":method", "GET"), (":scheme", self._server.scheme), (":authority", self._server.authority),
                  (":path", path))
        array = (_Field * len(fields))(*(_Field(name.encode(), value.encode(), len(name), len(value), 0)
                                         for name, value in fields))
        stream_id = self._call("submit_request", self._session, None, array, c_size_t(len(fields)), None, None)
        self._send()
        return stream_id

    def update_priority(self, stream_id, value):
        """Send PRIORITY_UPDATE for a stream, which need not be open yet."""
        self._call("submit_priority_update", self._session, c_uint8(0), c_int32(stream_id), value, c_size_t(len(value)))
        assert self._send() > 0

    def _receive_settings(self):
        """Take the server's first frame, with the parameter that it does not have."""
        data = b""
        while len(data) < 9 or len(data) < 9 + data[2]:
            data += self._read()
        assert data[:2] + data[3:4] == bytes([0, 0, SETTINGS])
        end = 9 + data[2]
        self._receive(bytes([0, 0, data[2] + 6]) + data[3:end] + NO_RFC7540_PRIORITIES + data[end:])
        self._send()

    def wait_for(self, condition):
        """Read until the condition holds."""
        while not condition():
            self._receive(self._read())
            self._send()

    def _call(self, name, *arguments):
        result = getattr(self._library, "nghttp2_" + name)(*arguments)
        assert result >= 0, f"nghttp2_{name} returns {result}"
        return result

    def _send(self):
        """Send what there is to send; return how many octets it was."""
        total, start = 0, POINTER(c_uint8)()
        while (length := self._call("session_mem_send", self._session, byref(start))) > 0:
            self._socket.sendall(ctypes.string_at(start, length))
            total += length
        return total

    def _read(self):
        data = self._socket.recv(65_536)
        assert data, "the server has closed the connection"
        return data

    def _receive(self, data):
        assert self._call("session_mem_recv", self._session, data, c_size_t(len(data))) == len(data)

    def _take_data(self, session, flags, stream_id, data, length, context):
        self.data.append((stream_id, length))
        return 0

    def _take_frame(self, session, frame, context):
        header = ctypes.cast(frame, POINTER(_FrameHeader)).contents
        if header.type == HEADERS:
            self.headers.add(header.stream_id)
        return 0
