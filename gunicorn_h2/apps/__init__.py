"""The applications' side: one stream is one call of a WSGI (or ASGI) application."""
