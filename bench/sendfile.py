"""What sendfile(2) would save: a file in DATA frames over the loopback interface, without TLS.

    python -m bench.sendfile

A frame is 16 KiB, and each has a head of its own, so that sendfile sends no more than that at a time. "whole" is what
it would be without frames. With TLS, which Python encrypts in the process, there is no sendfile at all.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import closing

SIZE = 10 * 1024 * 1024
FRAME = 16_384
HEAD = FRAME.to_bytes(3, "big") + bytes([0, 0]) + (1).to_bytes(4, "big")
GATHERED = 8
"""Frames of a write, as a connection gathers them."""
REPEATS, ROUNDS = 30, 3


def copied(sock: socket.socket, file: int) -> None:
    """Read frames, and write several of them at a time: what this package does."""
    for start in range(0, SIZE, GATHERED * FRAME):
        pieces = []
        for position in range(start, min(start + GATHERED * FRAME, SIZE), FRAME):
            pieces += [HEAD, os.pread(file, FRAME, position)]
        sock.sendall(b"".join(pieces))


def by_frames(sock: socket.socket, file: int) -> None:
    """Write the head of a frame, and have the kernel send the rest of it."""
    for start in range(0, SIZE, FRAME):
        sock.send(HEAD, socket.MSG_MORE)
        send_part(sock, file, start, start + FRAME)


def whole(sock: socket.socket, file: int) -> None:
    """Have the kernel send everything."""
    send_part(sock, file, 0, SIZE)


def send_part(sock: socket.socket, file: int, start: int, end: int) -> None:
    """Have the kernel send a part of a file, on a socket that blocks."""
    while start < end:
        start += os.sendfile(sock.fileno(), file, start, end - start)


def drain(port: int) -> None:
    """Read until the end."""
    buffer = bytearray(1 << 20)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        while sock.recv_into(buffer):
            pass


def measure(send: Callable[[socket.socket, int], None], file: int) -> tuple[float, float]:
    """Send the file again and again; return the milliseconds of processor time for a megabyte, and the MB/s."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reader = multiprocessing.Process(target=drain, args=(listener.getsockname()[1],))
        reader.start()
        sock, _ = listener.accept()
    with closing(sock):
        cpu, started = time.process_time(), time.monotonic()
        for _ in range(REPEATS):
            send(sock, file)
        cpu, elapsed = time.process_time() - cpu, time.monotonic() - started
    reader.join()
    megabytes = REPEATS * SIZE / 1e6
    return cpu / megabytes * 1e3, megabytes / elapsed


def main() -> None:
    """Measure the ways by turns, and print what each took."""
    with tempfile.TemporaryFile() as file:
        file.write(os.urandom(SIZE))
        file.flush()
        for _ in range(ROUNDS):
            for send in (copied, by_frames, whole):
                cpu, rate = measure(send, file.fileno())
                print(f"{send.__name__:10} {cpu:.2f} ms/MB {rate:6.0f} MB/s")


if __name__ == "__main__":
    main()
