"""A gate: where an application call waits until the test lets it go. It works in any worker, by way of a socket."""

import socket


class Gate:
    """Listens for application calls; each is held until ``release``."""

    def __init__(self, timeout=15):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(timeout)
        self._inside = []

    @property
    def port(self):
        """The port an application connects to."""
        return self._listener.getsockname()[1]

    def path(self, route, **fields):
        """Return the path of a route that waits here."""
        more = "".join(f"&{name}={value}" for name, value in fields.items())
        return f"{route}?gate={self.port}{more}"

    def wait_inside(self, count=1):
        """Wait until ``count`` more application calls are at the gate."""
        for _ in range(count):
            sock, _ = self._listener.accept()
            sock.settimeout(15)
            assert sock.recv(1) == b"x"
            self._inside.append(sock)

    def release(self):
        """Let every call go that is waiting."""
        for sock in self._inside:
            sock.close()
        self._inside.clear()

    def close(self):
        """Let every call go, now and later."""
        self.release()
        self._listener.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()
