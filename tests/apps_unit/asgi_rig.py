"""What the tests of ASGI applications have Gunicorn's part replaced by."""

from tests.drivers.asyncio_wire import Log


class AccessLog(Log):
    """A log with the method that Gunicorn's has besides."""

    def __init__(self):
        super().__init__()
        self.entries = []

    def access(self, resp, req, environ, request_time):
        """Keep what the access log would be made of."""
        self.entries.append((resp, req, environ, request_time))
