"""A client that takes little at a time, and how much of a bulk response it gets before an urgent one."""

import socket
import threading

BULK = 16_000_000
"""How much the bulk response has: more than any kernel buffers."""

SETTINGS = {4: 2 * BULK}
"""What the client is to send with its preface: a window for all of it."""

RECEIVE_BUFFER = 65_536

MOST = 500_000
"""How many octets of bulk may come before the urgent response.

They are what the client's kernel has taken, what the server's holds unsent with the segment that it fills, and what the
connection gathers at a time: some 300 000. Without a limit to what is unsent, the server's kernel holds 4 million.
"""

PAUSE = 0.005
"""Seconds between two reads: what the server has to do for the urgent response is to take no longer than a few."""


class SlowReader:
    """Reads a bulk response on one stream of a connection while it asks for another."""

    def __init__(self, client):
        """The client has sent its preface."""
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        client.grant(2 * BULK)
        client.keep_frames = False
        self.client = client

    def octets_before(self, bulk, urgent, wait_inside):
        """Ask for the path `urgent` in the middle of `bulk`; return how much of the bulk came before its response.

        `wait_inside` waits until the application has the request: until then nothing is read.
        """
        stream = self.client.request(path=bulk, sink=lambda _: None)
        self.client.wait_for(lambda: stream.received > BULK // 16, "the first part of the bulk")
        received = stream.received
        response = self.client.request(path=urgent)
        wait_inside()
        self.client.wait_for(lambda: self._is_done(response), "the urgent response")
        assert response.status == 200
        assert not stream.done
        return stream.received - received

    def _is_done(self, response):
        """Tell whether the response has come; else take a moment before the next read."""
        return response.done or threading.Event().wait(PAUSE)
