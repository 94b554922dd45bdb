"""The application layer: one stream is one call of a WSGI or ASGI application."""
