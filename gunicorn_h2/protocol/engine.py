"""The engines: which header codec a connection uses, and whether a referee watches it.

`fast` is our own codec. `h2` is the hpack library's, with an h2 connection beside the core that is shown
every frame which the core lets pass; where it objects, the connection ends.
"""

from __future__ import annotations

from .codec import HeaderCodec
from .codec_fast import FastCodec
from .config import ConnectionConfig
from .outbox import Outbox
from .reader import Referee

__all__ = ["make_engine"]

# Beyond this factor of the advertised list size a section is not even decoded to answer 431.
_OVERSIZE_FACTOR = 4


def make_engine(config: ConnectionConfig, outbox: Outbox) -> tuple[HeaderCodec, Referee | None]:
    """The codec and the referee of a new connection whose output is in `outbox`."""
    limit = config.max_header_list_size * _OVERSIZE_FACTOR
    if config.engine == "fast":
        return FastCodec(limit), None
    # Only those who choose it pay for the import.
    from .referee import H2Referee, RecordingCodec

    codec = RecordingCodec(limit)
    return codec, H2Referee(config, codec, outbox)
