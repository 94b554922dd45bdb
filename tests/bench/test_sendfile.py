"""The ways to send a file that are compared: they send the same."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench import sendfile


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A small file's descriptor: not a multiple of what is gathered, but of a frame."""
    monkeypatch.setattr(sendfile, "SIZE", 11 * sendfile.FRAME)
    path = tmp_path / "file"
    path.write_bytes(os.urandom(sendfile.SIZE))
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def sent(send, file):
    """What comes over a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        client = socket.create_connection(listener.getsockname())
        received = pool.submit(lambda: b"".join(iter(lambda: client.recv(65_536), b"")))
        with listener.accept()[0] as sock:
            send(sock, file)
            sock.shutdown(socket.SHUT_WR)
            octets = received.result(10)
        client.close()
        return octets


def test_all_of_them_send_the_file(file):
    data = os.pread(file, sendfile.SIZE, 0)
    frames = b"".join(sendfile.HEAD + data[start:start + sendfile.FRAME]
                      for start in range(0, sendfile.SIZE, sendfile.FRAME))
    assert sent(sendfile.copied, file) == sent(sendfile.by_frames, file) == frames
    assert sent(sendfile.whole, file) == data
