"""The observers of requests and responses: Gunicorn's hooks and its access log.

Gunicorn's Request object, the duration of a request and the like are made only if there is an observer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from gunicorn.glogging import Logger

__all__ = ["active_hook", "logs_access"]


def active_hook(worker: Any, name: str) -> Callable[..., object] | None:
    """Gunicorn's `pre_request` or `post_request` hook; None for a default that does nothing.

    The default `pre_request` logs at debug level.
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
    """Whether the access log or statsd is on."""
    if type(worker.log) is not Logger:
        return True
    cfg = worker.cfg
    return bool(cfg.accesslog or cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json or cfg.syslog)
