"""The order of DATA frames that a client sees while its own window is all that holds responses back.

Every response is queued whole before the window opens, so that nothing but priorities decides: time does not matter.
"""

import re
import signal
import subprocess
from collections import Counter
from contextlib import ExitStack

import pytest
from hyperframe.frame import DataFrame

from tests.support.h2client import PRIORITY, H2Client, raw_frame
from tests.support.kinds import KINDS, make_server
from tests.support.nghttp2 import Nghttp2Client
from tests.support.tools import require_tool

FRAME = 16_384
WINDOW = 4 * FRAME
INITIAL = 65_535
"""The connection's window, until WINDOW_UPDATE opens it (RFC 9113 section 6.9.2)."""

SIZE = 3 * WINDOW
APP = "tests.apps.priorities:{}"
BUFFER = 2_000_000
"""What the server queues for a response before its application waits: more than any of these has."""


@pytest.fixture(scope="module")
def servers(certs, tmp_path_factory):
    """A function that returns the running server of a kind, booted when it is first asked for."""
    running = {}
    with ExitStack() as stack:
        def get(kind):
            if kind not in running:
                folder = tmp_path_factory.mktemp(kind)
                running[kind] = make_server(kind, folder, certs, APP, http2_stream_buffer_size=BUFFER).start()
                stack.callback(running[kind].stop)
            return running[kind]

        yield get


class Responses:
    """The responses of one connection whose window is shut, until `octets` opens it a little."""

    def __init__(self, client):
        self.client = client
        client.wait_settings()
        self.ask(None, INITIAL)
        self._wait_for_data(INITIAL)

    def ask(self, priority, size=SIZE, own=None):
        """Make a request; return the stream's identifier once the server has queued all of the response."""
        path = f"/filler?n={size}" + (f"&priority={own.replace(' ', '%20')}" if own else "")
        headers = [("priority", priority)] if priority else []
        stream = self.client.request(path=path, headers=headers)
        # What has the length is handed to the connection together with the head.
        self.client.wait_headers(stream)
        assert stream.status == 200
        assert stream.header("priority") == own
        return stream.stream_id

    def octets(self, size=WINDOW):
        """Open the window by so much; return how many octets each stream sends by that."""
        self.client.grant(size)
        return self._wait_for_data(size)

    def windows(self, count):
        """The same for some windows of the usual size."""
        return [self.octets() for _ in range(count)]

    def _wait_for_data(self, size):
        self.client.wait_for(lambda: self._data().total() >= size, "the data that the window allows")
        # Anything beyond the window would come before the answer.
        self.client.ping()
        found = self._data()
        assert found.total() == size
        self.client.frames.clear()
        return found

    def _data(self):
        found = Counter()
        for frame in self.client.frames:
            if isinstance(frame, DataFrame) and frame.data:
                found[frame.stream_id] += len(frame.data)
        return found


@pytest.fixture(params=KINDS)
def responses(request, servers):
    """Responses that wait for the window of a client, of every kind of server."""
    with H2Client.connect(servers(request.param), settings={4: 2**30}, auto_window=False) as client:
        yield Responses(client)


def test_an_urgent_response_gets_the_next_windows_alone(responses):
    first, second = responses.ask("u=7"), responses.ask("u=7")
    assert responses.windows(2) == [{first: WINDOW}] * 2
    urgent = responses.ask("u=0")
    assert responses.windows(3) == [{urgent: WINDOW}] * 3
    assert responses.windows(4) == [{first: WINDOW}] + [{second: WINDOW}] * 3


def test_one_response_goes_after_another(responses):
    streams = [responses.ask("u=3", 2 * WINDOW + FRAME) for _ in range(3)]
    found = [*responses.windows(6), responses.octets(3 * FRAME)]
    first, second, third = streams
    assert found == [
        {first: WINDOW}, {first: WINDOW}, {first: FRAME, second: 3 * FRAME},
        {second: WINDOW}, {second: 2 * FRAME, third: 2 * FRAME}, {third: WINDOW}, {third: 3 * FRAME}]


def test_incremental_responses_share_by_octets(responses):
    streams = [responses.ask("u=3, i") for _ in range(3)]
    octets = Counter()
    # Small windows and large ones: who sends in which is not to matter.
    for number in range(24):
        octets += responses.octets(1_000 if number % 2 else WINDOW // 4)
        shares = [octets[stream] for stream in streams]
        assert max(shares) - min(shares) <= FRAME


def test_weights_share_where_no_priorities_are_stated(responses):
    light, heavy = (responses.ask(None, 30 * FRAME) for _ in range(2))
    for stream, weight in ((light, 64), (heavy, 192)):
        responses.client.send_raw(raw_frame(PRIORITY, 0, stream, bytes([0, 0, 0, 0, weight - 1])))
    octets = sum(responses.windows(8), Counter())
    assert abs(octets[light] - 8 * FRAME) <= FRAME


def test_the_urgency_that_the_application_states_comes_first(responses):
    last = responses.ask("u=0", own="u=6")
    middle = responses.ask("u=3")
    first = responses.ask("u=7", own="u=1")
    assert responses.windows(9) == [{stream: WINDOW} for stream in (first, middle, last) for _ in range(3)]


def test_what_the_application_leaves_out_is_the_clients(responses):
    """Its responses share, with the urgency of their requests."""
    late = responses.ask("u=4", own="i")
    streams = [responses.ask("u=2", own="i") for _ in range(2)]
    assert responses.windows(6) == [dict.fromkeys(streams, WINDOW // 2)] * 6
    assert responses.windows(3) == [{late: WINDOW}] * 3


# -- nghttp ------------------------------------------------------------------------------------------------------------

LARGE = 1_000_000


def run_nghttp(server, gate, *options):
    """Have nghttp ask for two large responses over a small window; return what it tells of the frames.

    It is stopped until the server has queued both, but for what fits into the window from the start.
    """
    urls = [server.url + gate.path("/held", n=LARGE, name=name) for name in "ab"]
    command = [require_tool("nghttp"), "--verbose", "--null-out", "-w24", "-W16", *options, *urls]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="latin-1")
    try:
        gate.wait_inside(2)
        process.send_signal(signal.SIGSTOP)
        gate.release()
        gate.wait_inside(2)
        gate.release()
        process.send_signal(signal.SIGCONT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, output
    return output


def frames_beyond_the_first_window(output):
    """The (stream, length) of the DATA frames, without those that were sent before both responses were queued."""
    found = re.findall(r"recv DATA frame <length=([1-9]\d*), flags=0x\w\w, stream_id=(\d+)>", output)
    trace = [(int(stream_id), int(length)) for length, stream_id in found]
    assert sum(length for _, length in trace) == 2 * LARGE
    skipped = 0
    while skipped < INITIAL:
        skipped += trace.pop(0)[1]
    assert skipped == INITIAL
    return trace


def octets_while_both_are_open(trace):
    """How many octets each stream has sent by the last frame of that which ended first."""
    last = {stream_id: number for number, (stream_id, _) in enumerate(trace)}
    octets = Counter()
    for stream_id, length in trace[:min(last.values()) + 1]:
        octets[stream_id] += length
    return octets


@pytest.mark.parametrize("kind", ["thread", "gevent", "asgi"])
@pytest.mark.parametrize("weights", [(192, 64), (64, 192), (32, 32)], ids=str)
@pytest.mark.parametrize("options", [["--no-dep"], []], ids=["no dependencies", "a tree"])
def test_the_weights_of_nghttp(servers, gate, kind, weights, options):
    """In the tree, both depend on the same idle stream."""
    output = run_nghttp(servers(kind), gate, *(f"-p{weight}" for weight in weights), *options)
    asked = re.findall(r"send HEADERS frame <.*stream_id=(\d+)>\n.*\n.*dep_stream_id=(\d+), weight=(\d+),", output)
    assert tuple(int(weight) for _, _, weight in asked) == weights
    first, second = (int(stream_id) for stream_id, _, _ in asked)
    octets = octets_while_both_are_open(frames_beyond_the_first_window(output))
    ratio = octets[first] / octets[second]
    assert 0.75 < ratio / (weights[0] / weights[1]) < 1.25, octets


@pytest.mark.parametrize("kind", ["thread", "gevent", "asgi"])
def test_nghttp_without_the_priorities_of_rfc_7540(servers, gate, kind):
    """What it sends is SETTINGS_NO_RFC7540_PRIORITIES (RFC 9218 section 2.1); its weights say nothing then."""
    output = run_nghttp(servers(kind), gate, "-p64", "-p192", "--no-rfc7540-pri")
    assert "SETTINGS_NO_RFC7540_PRIORITIES(0x09):1" in output
    streams = [stream_id for stream_id, _ in frames_beyond_the_first_window(output)]
    assert streams == sorted(streams)
    assert len(set(streams)) == 2


@pytest.mark.parametrize("kind", ["thread", "gevent", "asgi"])
@pytest.mark.parametrize("is_open", [True, False], ids=["an open stream", "a stream to come"])
def test_priority_update_of_nghttp2(servers, kind, is_open):
    """The second response comes first, and whole: less than a window, so that no WINDOW_UPDATE plays a part."""
    size = 60_000
    with Nghttp2Client(servers(kind), window=0) as client:
        first = client.request(f"/filler?n={size}")
        second = first + 2
        if not is_open:
            client.update_priority(second, b"u=0")
        assert client.request(f"/filler?n={size}") == second
        client.wait_for(lambda: client.headers == {first, second})
        if is_open:
            client.update_priority(second, b"u=0")
        client.set_window(2**20)
        client.wait_for(lambda: sum(length for _, length in client.data) == 2 * size)
    streams = [stream_id for stream_id, _ in client.data]
    assert streams == sorted(streams, reverse=True)
