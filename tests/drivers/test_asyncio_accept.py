"""Accepting connections in an event loop: while there is room, and while there are descriptors."""

import asyncio
import errno
import socket

import pytest

from gunicorn_h2.drivers.asyncio_accept import Acceptor
from tests.drivers.asyncio_wire import Log, Loop


class Listener(socket.socket):
    """A listening socket that runs into the errors that a test has put into `errors`."""

    def __init__(self):
        super().__init__()
        self.bind(("127.0.0.1", 0))
        self.listen()
        self.errors, self.attempts = [], 0

    def accept(self):
        """Accept, or fail."""
        self.attempts += 1
        if self.errors:
            raise OSError(self.errors[0], "deliberate")
        return super().accept()


class Rig:
    """An acceptor, the clients that have come, and those that were taken."""

    def __init__(self):
        self.loop, self.listener, self.log = Loop(), Listener(), Log()
        self.clients, self.taken, self.room, self.busy = [], [], None, False
        self.acceptor = Acceptor(self.loop, self.listener, self._take, lambda: self.busy, self.log)

    def _take(self, sock, peer):
        self.taken.append((sock, peer))
        if len(self.taken) == self.room:
            self.acceptor.pause()

    def connect(self, count=1):
        """Let clients come, and the loop turn."""
        self.clients += [socket.create_connection(self.listener.getsockname()) for _ in range(count)]
        self.loop.turns()

    def close(self):
        """Close everything."""
        self.acceptor.close()
        for sock in (*self.clients, *(sock for sock, _ in self.taken), self.listener):
            sock.close()
        assert not self.loop.errors
        self.loop.close()


@pytest.fixture
def rig():
    """A listening socket and its acceptor."""
    rig = Rig()
    yield rig
    rig.close()


def test_connections_are_taken_with_their_peers(rig):
    rig.connect(3)
    assert [peer for _, peer in rig.taken] == [client.getsockname() for client in rig.clients]


def test_one_at_a_time(rig):
    """Another worker may share the socket."""
    rig.acceptor.pause()
    rig.connect(3)
    rig.acceptor.resume()
    rig.loop.turns(1)
    assert len(rig.taken) == 1


def test_no_more_than_there_is_room_for(rig):
    rig.room = 2
    rig.connect(4)
    assert len(rig.taken) == 2
    rig.acceptor.resume()
    rig.acceptor.resume()
    rig.loop.turns()
    assert len(rig.taken) == 4


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_descriptors_it_waits(rig, code):
    """The loop must not spin, nor the log fill."""
    rig.listener.errors.append(code)
    rig.connect()
    assert rig.listener.attempts == 1
    rig.loop.wait(3)
    assert 3 <= rig.listener.attempts <= 4
    assert len(rig.log.lines) == rig.listener.attempts
    assert "Cannot accept connections" in rig.log.lines[0]
    rig.listener.errors.clear()
    rig.loop.wait(1.1)
    assert len(rig.taken) == 1


@pytest.mark.parametrize("then", ["pause", "close"])
def test_what_ends_the_wait_for_descriptors(rig, then):
    rig.listener.errors.append(errno.EMFILE)
    rig.connect()
    rig.listener.errors.clear()
    getattr(rig.acceptor, then)()
    rig.loop.wait(2)
    assert rig.taken == []


@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.EPROTO, errno.EAGAIN])
def test_a_client_that_is_gone_again_is_no_error(rig, code):
    rig.listener.errors.append(code)
    rig.connect()
    assert rig.listener.attempts > 1
    rig.listener.errors.clear()
    rig.loop.turns()
    assert len(rig.taken) == 1
    assert rig.log.lines == []


def test_a_closed_acceptor_takes_no_one(rig):
    rig.acceptor.close()
    rig.acceptor.close()
    rig.acceptor.resume()
    rig.loop.run_until_complete(asyncio.wait_for(rig.acceptor.wait_closed(), 1))
    rig.connect()
    assert rig.taken == []
