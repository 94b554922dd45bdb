"""Continuous load from clients that obey GOAWAY, and an account of every request they made."""

import threading

from tests.support.h2client import REFUSED_STREAM, H2Client

PAUSE = 0.01
"""Seconds between one batch of requests and the next."""


class LoadClient(threading.Thread):
    """Keeps a few streams going on one connection at a time, and moves to a new one when told GOAWAY.

    A request on a stream beyond the last one a GOAWAY names, or one refused, was not processed: it is made again.
    Anything else that does not end in a 200 is a lost request.
    """

    def __init__(self, server, path="/version", streams=4, settings=None):
        super().__init__(daemon=True)
        self.server, self.path, self.streams, self.settings = server, path, streams, settings
        self.answered, self.retried, self.connections, self.lost = 0, 0, 0, []
        self.versions = set()
        self._stop_now, self._progress = threading.Event(), threading.Condition()

    def run(self):
        """Work until told to stop; an error of the client itself counts as lost, too."""
        try:
            while not self._stop_now.is_set():
                self._one_connection()
        except Exception as error:
            self.lost.append(f"{type(error).__name__}: {error}")
        with self._progress:
            self._progress.notify_all()

    def _one_connection(self):
        self.connections += 1
        with H2Client.connect(self.server, self.settings) as client:
            client.keep_frames = False
            client.wait_for(lambda: client.settings_frames or client.goaways, "the server's SETTINGS")
            while not (client.goaways or client.closed or self._stop_now.is_set()):
                batch = self._send_batch(client)
                self._finish(client, batch)
                # A processor is shared with those who are tested.
                self._stop_now.wait(PAUSE)

    def _send_batch(self, client):
        batch = []
        try:
            for _ in range(self.streams):
                batch.append(client.request("GET", self.path))
        except OSError as error:
            client.error = client.error or error
            client._receive_rest()
        return batch

    def _finish(self, client, batch):
        try:
            client.wait_for(lambda: all(s.done or self._beyond(client, s) for s in batch), "a batch of responses")
        except AssertionError as error:
            if not client.closed:
                self.lost.append(f"stuck: {error}")
                return
        for stream in batch:
            self._account(client, stream)
            # A connection may last for hours.
            del client.streams[stream.stream_id]

    @staticmethod
    def _beyond(client, stream):
        return bool(client.goaways) and stream.stream_id > client.goaways[-1][0]

    def _account(self, client, stream):
        if stream.ended and stream.status == 200:
            self.versions.add(bytes(stream.body))
            with self._progress:
                self.answered += 1
                self._progress.notify_all()
        elif self._beyond(client, stream) or stream.reset == REFUSED_STREAM:
            self.retried += 1
        else:
            self.lost.append(f"stream {stream.stream_id} status={stream.status} reset={stream.reset} "
                             f"ended={stream.ended} goaways={client.goaways} error={client.error!r}")

    def wait_answered(self, more=1, timeout=30):
        """Wait until ``more`` further requests have been answered."""
        with self._progress:
            target = self.answered + more
            done = self._progress.wait_for(lambda: self.answered >= target or not self.is_alive(), timeout)
        assert not self.lost, self.lost
        assert done, f"no {more} answers within {timeout} s"

    def finish(self):
        """Stop after the present batch."""
        self._stop_now.set()
        self.join(timeout=30)
        assert not self.is_alive()


class Load:
    """Several load clients, started and stopped together."""

    def __init__(self, server, clients=3, **options):
        self.clients = [LoadClient(server, **options) for _ in range(clients)]

    def __enter__(self):
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *exc_info):
        for client in self.clients:
            client.finish()

    def wait_answered(self, more=1):
        """Wait until each client has had ``more`` further answers."""
        for client in self.clients:
            client.wait_answered(more)

    @property
    def lost(self):
        """What was lost, in words."""
        return [text for client in self.clients for text in client.lost]

    @property
    def answered(self):
        """How many requests were answered."""
        return sum(client.answered for client in self.clients)

    @property
    def connections(self):
        """How many connections were made."""
        return sum(client.connections for client in self.clients)
