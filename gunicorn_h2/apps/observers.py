"""Who looks at requests and responses besides the application: Gunicorn's hooks and its access log.

Gunicorn's Request object, the time a request took and the like are made when someone looks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from gunicorn.glogging import Logger

__all__ = ["active_hook", "logs_access"]


def active_hook(worker: Any, name: str) -> Callable[..., object] | None:
    """Gunicorn's `pre_request` or `post_request`; None where it is the default, which does nothing.

    The default of pre_request has something to say at debug level.
    """
    setting = worker.cfg.settings[name]
    hook: Callable[..., object] = setting.get()
    if hook is not setting.default:
        return hook
    if name != "pre_request":
        return None
    silent = isinstance(worker.log, Logger) and not worker.log.error_log.isEnabledFor(logging.DEBUG)
    return None if silent else hook


def logs_access(worker: Any) -> bool:
    """Whether the access log, or statsd, has any use for a request."""
    if type(worker.log) is not Logger:
        return True
    cfg = worker.cfg
    return bool(cfg.accesslog or cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json or cfg.syslog)
