"""What a conf file says: its names, which of them are unknown, and whether the HTTP versions were chosen by anyone."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["SettingsError", "are_protocols_named", "conf_location", "conf_names", "refuse_unknown"]


class SettingsError(ValueError, RuntimeError):
    """A setting has a wrong value or an unknown name; the message names it and says what is allowed.

    It is a `RuntimeError` as well: for one from a worker's `check_config`, Gunicorn's master prints the message
    without a traceback and exits with status 1.
    """


def conf_names(cfg: Any) -> Mapping[str, object]:
    """Return the namespace of the conf file or module that `cfg` was read from."""
    location = cfg.config or ""
    module = location[len("python:") :] if location.startswith("python:") else "__config__"
    return vars(sys.modules[module]) if module in sys.modules else {}


def conf_location(cfg: Any) -> str:
    """Name the conf file or module that `cfg` was read from, for messages."""
    location = cfg.config or ""
    if location.startswith("python:"):
        return f"conf module {location[len('python:') :]}"
    return f"conf file {location.removeprefix('file:')}"


def refuse_unknown(names: Mapping[str, object], known: list[str]) -> None:
    """Refuse an `http2_*` value of an unknown name; modules, functions and classes in a conf file are ignored.

    Raises `SettingsError`, with a suggestion.
    """
    for name, value in names.items():
        if not name.startswith("http2_") or name in known:
            continue
        if inspect.ismodule(value) or inspect.isroutine(value) or inspect.isclass(value):
            continue
        raise SettingsError(f"{name} = {value!r}: there is no such setting; {_hint(name, known)}")


def _hint(name: str, known: list[str]) -> str:
    """Suggest the known name that is closest, without the common prefix; else list all names."""
    bare = {other.removeprefix("http2_"): other for other in known}
    close = difflib.get_close_matches(name.removeprefix("http2_"), bare, n=1)
    return f"did you mean {bare[close[0]]}?" if close else "the settings are " + ", ".join(sorted(known))


def are_protocols_named(cfg: Any, names: Mapping[str, object]) -> bool:
    """Whether the user has set `http_protocols`: Gunicorn's default is `h1`, too, and looks the same in `cfg`."""
    if cfg.http_protocols != ["h1"] or names.get("http_protocols"):
        return True
    # argparse accepts an unambiguous prefix of a flag.
    flags = [argument.partition("=")[0] for argument in (*sys.argv[1:], *cfg.get_cmd_args_from_env())]
    return any(len(flag) > len("--http-") and "--http-protocols".startswith(flag) for flag in flags)
