"""Draw which responses a slow link carries when, by the priorities of their requests.

    python -m bench.priorities > docs/priorities.svg

A `ServerConnection` answers requests in memory; its output leaves in DATA frames of 16 KiB, which is what the picture
counts time in. Nothing in it depends on the machine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.attacks import LARGEST_WINDOW, headers
from bench.charts import STYLE
from gunicorn_h2.protocol import frames
from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.connection import ServerConnection
from gunicorn_h2.protocol.events import RequestReceived
from gunicorn_h2.protocol.headers import ResponseHead

FRAME = frames.DEFAULT_MAX_FRAME_SIZE
WIDTH, LEFT, ROW, TOP, UNIT = 760, 190, 26, 62, 13


@dataclass(frozen=True)
class Request:
    """A request: when it comes, in frames sent before; its `priority` field; the length of its response in frames."""

    name: str
    at: int
    priority: str
    frames: int


PAGE = (
    Request("archive", 0, "u=7", 12),
    Request("picture 1", 0, "u=5, i", 8),
    Request("picture 2", 0, "u=5, i", 8),
    Request("script 1", 8, "u=1", 4),
    Request("script 2", 8, "u=1", 4),
    Request("style sheet", 12, "u=0", 4),
)
"""Requests as browsers state them: what is found late may be what is needed first."""


def trace(requests: Sequence[Request]) -> list[Request]:
    """Return whose frame each of the DATA frames is, in the order in which they are sent."""
    core = ServerConnection(ConnectionConfig(), 0.0)
    settings = frames.settings([(frames.INITIAL_WINDOW_SIZE, LARGEST_WINDOW)])
    window = frames.window_update(0, LARGEST_WINDOW - frames.DEFAULT_WINDOW_SIZE)
    core.receive_data(frames.PREFACE + settings + window, 0.0)
    core.data_to_send(0.0)
    core.output_limit = 1
    sent: list[Request] = []
    streams: dict[int, Request] = {}
    while len(sent) < sum(request.frames for request in requests):
        for request in requests:
            if request.at <= len(sent) and request not in streams.values():
                stream_id = 2 * len(streams) + 1
                streams[stream_id] = request
                _ask(core, stream_id, request)
        sent.extend(streams[stream_id] for stream_id in _data_frames(core.data_to_send(0.0)))
    return sent


def _ask(core: ServerConnection, stream_id: int, request: Request) -> None:
    field = request.priority.encode()
    block = b"\x82\x87\x84\x41\x01a\x00\x08priority" + bytes([len(field)]) + field
    core.receive_data(headers(stream_id, block), 0.0)
    for event in core.events():
        if isinstance(event, RequestReceived):
            core.send_headers(event.stream, ResponseHead(200, []), False)
            core.send_data(event.stream, bytes(FRAME * request.frames), True)


def _data_frames(octets: bytes) -> Iterator[int]:
    position = 0
    while position < len(octets):
        length, kind = int.from_bytes(octets[position : position + 3], "big"), octets[position + 3]
        if kind == frames.DATA and length:
            yield int.from_bytes(octets[position + 5 : position + 9], "big")
        position += 9 + length


def draw(requests: Sequence[Request]) -> str:
    """Return the picture of a trace as SVG: a row for each request, a box for each frame, a line where it was made."""
    height = TOP + ROW * len(requests) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-label="Responses on a slow link">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>',
        '<text class="title" x="16" y="28">Responses on a slow link, by priority</text>',
        '<text class="faint" x="16" y="48">a box is a DATA frame of 16 KiB, a line the moment of the request</text>',
    ]
    order = trace(requests)
    for row, request in enumerate(requests):
        top = TOP + ROW * row
        x = LEFT + UNIT * request.at
        parts.append(f'<text x="16" y="{top + 17}">{escape(request.name)}</text>')
        parts.append(f'<text class="faint" x="110" y="{top + 17}">{escape(request.priority)}</text>')
        parts.append(f'<line class="range" x1="{x}" y1="{top + 2}" x2="{x}" y2="{top + 24}"/>')
        for number, sent in enumerate(order):
            if sent is request:
                left = LEFT + UNIT * number + 1
                parts.append(f'<rect class="ours" x="{left}" y="{top + 5}" width="{UNIT - 2}" height="16" rx="2"/>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Print the picture."""
    sys.stdout.write(draw(PAGE))


if __name__ == "__main__":
    main()
