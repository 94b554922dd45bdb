"""The engines: which header codec a connection uses, and whether a referee checks its frames.

`fast` is our own codec. `h2` is the hpack library's, with an h2 connection that checks every frame the core
accepts or sends, and ends the connection if it objects.
"""

from __future__ import annotations

from .codec import HeaderCodec
from .codec_fast import FastCodec
from .config import ConnectionConfig
from .outbox import Outbox
from .reader import Referee

__all__ = ["make_engine"]

# A section up to this factor of the advertised list size is decoded, to answer 431; a larger one is not.
_OVERSIZE_FACTOR = 4


def make_engine(config: ConnectionConfig, outbox: Outbox) -> tuple[HeaderCodec, Referee | None]:
    """The codec and the referee of a new connection whose output is in `outbox`."""
    limit = config.max_header_list_size * _OVERSIZE_FACTOR
    if config.engine == "fast":
        return FastCodec(limit), None
    # Imported here, so that `fast` does not load h2.
    from .referee import H2Referee, RecordingCodec

    codec = RecordingCodec(limit)
    return codec, H2Referee(config, codec, outbox)
