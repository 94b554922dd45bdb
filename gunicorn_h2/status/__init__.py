"""What the workers of this master do: a page, JSON, and Prometheus text, for those whom an allow-list admits.

    from gunicorn_h2.status import StatusMiddleware

    application = StatusMiddleware(application)          # WSGI: /status, /status/json, /status/metrics

`gunicorn_h2.status.asgi` has the same for ASGI. Nothing is served unless an application asks for it.
"""

from .figures import NotServing, figures
from .metrics import Collector
from .wsgi import StatusApp, StatusMiddleware

__all__ = ["Collector", "NotServing", "StatusApp", "StatusMiddleware", "figures"]
