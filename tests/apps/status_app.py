"""The test applications with the status beside them."""

from gunicorn_h2.status import StatusMiddleware, asgi
from tests.apps import asgi_app, wsgi_app

wsgi = StatusMiddleware(wsgi_app.app)
asgi = asgi.StatusMiddleware(asgi_app.app)
