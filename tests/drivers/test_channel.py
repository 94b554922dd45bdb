"""A channel between an application's thread and an owner that does what the test says."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.drivers import waiting
from gunicorn_h2.drivers.channel import SPOOLED_SIZE, STALL_CHECK_SECONDS, Channel, StreamAborted
from gunicorn_h2.drivers.spool import Spool
from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.headers import RequestHead, ResponseHead
from gunicorn_h2.protocol.stream import State, Stream

from .rig import wait_until

TIMEOUT = 10


class Owner:
    """Keeps what was submitted; `accepting` owners take data over at once, as if all of it had been sent."""

    def __init__(self, stream_buffer_size=100, read_timeout=TIMEOUT, accepting=True, thread_count=None):
        self.thread_count = thread_count
        self.stream_buffer_size, self.read_timeout = stream_buffer_size, read_timeout
        self.window_size = 65_535
        self.response_spool_size, self.spool = 1 << 24, Spool(0, None)
        self.stalled = self.stalled_in_a_hurry = False
        self.accepting, self.done = accepting, []
        self.submitted = threading.Semaphore(0)

    def submit(self, owner, do, *arguments):
        """Run a command at once, in the caller's thread."""
        do(*arguments)
        self.submitted.release()

    submit_last = submit

    def submit_reply(self, owner, do, *arguments):
        """The same, noted."""
        self.done.append("reply")
        self.submit(owner, do, *arguments)

    def do_send_headers(self, stream, head):
        """Note a head."""
        self.done.append(("headers", head.status, head.fields))

    def prepare_wait(self, ready):
        """There is nothing more to do: waiting is in order."""
        return False

    def do_send_response(self, channel, stream, head, data, end_stream):
        """Note a whole response, or a head and data."""
        if not end_stream:
            self.do_send_headers(stream, head)
            self.do_send_data(channel, stream, data, False)
            return
        self.done.append(("response", head.status, head.fields, data))
        self.take(channel, data)

    def do_send_data(self, channel, stream, data, end_stream):
        """Note data."""
        self.done.append(("data", data, end_stream))
        self.take(channel, data)

    def take(self, channel, data):
        """Take data over."""
        if self.accepting:
            channel.accept(len(data))

    def act_now(self, owner):
        """There is nothing to do."""

    def is_stalled(self, stream, in_a_hurry=False):
        """Whether the test says so."""
        return self.stalled or (in_a_hurry and self.stalled_in_a_hurry)

    def do_send_source(self, channel, stream, source, end_stream):
        """Note the data of a source."""
        channel.accept_source(len(source))
        self.done.append(("source", source.read(len(source)), end_stream))
        source.close()

    def do_withdraw(self, channel, stream):
        """Give back what the test has queued."""
        channel.take_withdrawn(*stream.withdraw(self.stream_buffer_size))

    def do_await_empty(self, channel, stream):
        """Note that the application waits."""
        self.done.append(("await empty",))

    def do_send_trailers(self, stream, fields):
        """Note trailers."""
        self.done.append(("trailers", tuple(fields)))

    def do_send_with_trailers(self, channel, stream, head, data, fields):
        """Note a whole response."""
        self.done.append(("whole", head.status, data, tuple(fields)))
        self.take(channel, data)

    def do_acknowledge(self, stream, octets):
        """Note credit."""
        self.done.append(("acknowledge", octets))

    def do_reset(self, stream, code):
        """Note a reset."""
        self.done.append(("reset", code))

    def do_give_up(self, stream):
        """Note that the client has stopped."""
        self.done.append(("give up",))

    def do_finish(self, stream):
        """Note the end."""
        self.done.append(("finish",))


def make(owner=None, ended=False, expects=False, window=1_000):
    """A channel of stream 1."""
    head = RequestHead(b"POST", b"https", b"example.org", b"/", [], None, expects)
    stream = Stream(1, head, State.OPEN, 65_535, window)
    return Channel(owner or Owner(), stream, ended)


def in_thread(call, *arguments):
    """Call something in a thread; return a function that waits for what it returned or raised."""
    results = []

    def run():
        try:
            results.append(call(*arguments))
        except StreamAborted as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result():
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "still waiting"
        return results[0]

    result.thread = thread
    return result


# -- reading -----------------------------------------------------------------------------------------------------------


def test_pieces_are_read_as_they_came():
    channel = make()
    channel.deliver(b"1" * 1024, False)
    channel.deliver(b"", False)
    channel.deliver(b"2" * 1024, True)
    assert [channel.read() for _ in range(4)] == [b"1" * 1024, b"2" * 1024, b"", b""]


def test_small_pieces_are_joined():
    channel = make()
    for _ in range(3000):
        channel.deliver(b"x", False)
    channel.deliver(b"", True)
    pieces = list(iter(channel.read, b""))
    assert (len(pieces), b"".join(pieces)) == (3, b"x" * 3000)


def test_a_request_without_a_body_has_its_end_at_once():
    assert make(ended=True).read() == b""


def test_a_read_waits_for_the_next_piece():
    channel = make()
    result = in_thread(channel.read)
    channel.deliver(b"late", False)
    assert result() == b"late"


def test_a_read_waits_for_the_end():
    channel = make()
    result = in_thread(channel.read)
    channel.deliver_trailers([(b"x-sum", b"1")])
    assert result() == b""
    assert channel.trailers == [(b"x-sum", b"1")]


def test_a_wake_up_that_brings_nothing_is_waited_through():
    channel = make()
    result = in_thread(channel.read)
    for _ in range(100):
        channel.wake()
    channel.deliver(b"late", False)
    assert result() == b"late"


def test_a_read_ends_with_the_stream():
    channel = make()
    result = in_thread(channel.read)
    channel.abort(5, "for a reason")
    error = result()
    assert (error.stream_id, error.code) == (1, 5)
    assert "for a reason" in str(error)
    assert isinstance(error, OSError)
    assert channel.aborted


def test_what_came_before_the_abort_may_be_read():
    channel = make()
    channel.deliver(b"came", False)
    channel.abort(8, "gone")
    assert channel.read() == b"came"
    for _ in range(2):
        with pytest.raises(StreamAborted):
            channel.read()


def test_a_complete_body_may_be_read_after_the_abort():
    channel = make()
    channel.deliver(b"all", True)
    channel.abort(8, "gone")
    assert [channel.read(), channel.read()] == [b"all", b""]


def test_a_client_that_stops_sending_is_not_waited_for():
    owner = Owner(read_timeout=0.01)
    channel = make(owner)
    with pytest.raises(StreamAborted, match="stopped sending"):
        channel.read()
    assert owner.done == [("give up",)]
    with pytest.raises(StreamAborted):
        channel.send(b"x", True)


def test_without_a_limit_a_read_waits_on():
    channel = make(Owner(read_timeout=None))
    result = in_thread(channel.read)
    channel.deliver(b"late", False)
    assert result() == b"late"


def test_credit_goes_back_in_halves_of_the_window_and_before_waiting():
    owner = Owner()
    channel = make(owner, window=10_000)
    for _ in range(3):
        channel.deliver(b"x" * 3000, False)
    channel.read()
    assert owner.done == []
    channel.read()
    assert owner.done == [("acknowledge", 6000)]
    channel.read()
    result = in_thread(channel.read)
    assert owner.submitted.acquire(timeout=TIMEOUT)
    assert owner.submitted.acquire(timeout=TIMEOUT)
    assert owner.done == [("acknowledge", 6000), ("acknowledge", 3000)]
    channel.deliver(b"", True)
    assert result() == b""


def test_what_is_sent_first_after_a_read_is_a_reply():
    owner = Owner()
    channel = make(owner)
    channel.respond(ResponseHead(200, []), b"", False)
    channel.send(b"welcome", False)
    for _ in range(2):
        channel.deliver(b"question", False)
        channel.read()
        channel.send(b"answer", False)
        channel.send(b"more", False)
    turn = ["reply", ("data", b"answer", False), ("data", b"more", False)]
    assert owner.done[-7:] == [("data", b"welcome", False), *turn, *turn]


@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(1, 200))
def test_a_read_that_waits_keeps_less_than_a_quarter_of_the_window(pieces, window):
    """The client can go on sending; credit for each small message would be work for the owner."""
    owner = Owner()
    channel = make(owner, window=window)
    for piece in pieces:
        channel.deliver(piece, False)
    body = b"".join(pieces)
    read = b""
    while len(read) < len(body):
        read += channel.read()
    result = in_thread(channel.read)
    while channel._reader is None:
        assert result.thread.is_alive()
    assert all(command[0] == "acknowledge" for command in owner.done)
    assert (len(body) - sum(command[1] for command in owner.done)) * 4 < window
    channel.deliver(b"", True)
    assert (result(), read) == (b"", body)


def test_a_body_that_is_complete_needs_no_credit():
    owner = Owner()
    channel = make(owner, window=10)
    channel.deliver(b"x" * 3000, True)
    assert [channel.read(), channel.read()] == [b"x" * 3000, b""]
    assert owner.done == []


@pytest.mark.parametrize(("pieces", "ended", "taken"), [
    ([b"all"], True, b"all"), ([b"a" * 2000, b"b" * 2000], True, None), ([b"all"], False, None), ([], True, None)])
def test_a_body_of_one_piece_is_taken_at_once(pieces, ended, taken):
    channel = make()
    for piece in pieces:
        channel.deliver(piece, False)
    channel.deliver(b"", ended)
    assert channel.take_complete_body() == taken


def test_a_body_with_trailers_is_read_as_it_came():
    channel = make()
    channel.deliver(b"all", False)
    channel.deliver_trailers([(b"x-sum", b"1")])
    assert channel.take_complete_body() is None
    assert [channel.read(), channel.read()] == [b"all", b""]


def test_an_expectation_is_answered_by_the_first_read_that_waits():
    owner = Owner()
    channel = make(owner, expects=True)
    result = in_thread(channel.read)
    assert owner.submitted.acquire(timeout=TIMEOUT)
    assert owner.done == [("headers", 100, ())]
    channel.deliver(b"body" * 1024, False)
    channel.deliver(b"more" * 1024, True)
    assert result() + channel.read() == b"body" * 1024 + b"more" * 1024
    assert channel.read() == b""
    assert [command[0] for command in owner.done if command[0] != "acknowledge"] == ["headers"]


def test_an_expectation_is_not_answered_where_the_body_came_or_the_response_began():
    owner = Owner()
    channel = make(owner, expects=True)
    channel.deliver(b"body", True)
    assert [channel.read(), channel.read()] == [b"body", b""]
    assert owner.done == []
    assert not make(expects=True, ended=True).expects_continue
    channel = make(expects=True)
    channel.respond(ResponseHead(200, ()), b"", False)
    assert not channel.expects_continue


# -- writing -----------------------------------------------------------------------------------------------------------


def test_a_response_is_submitted_in_order():
    owner = Owner()
    channel = make(owner)
    channel.send_interim(ResponseHead(103, ((b"link", b"x"),)))
    assert not channel.responded
    channel.respond(ResponseHead(200, ((b"x-a", b"1"),)), b"one", False)
    channel.send_interim(ResponseHead(103, ()))
    channel.send(b"two", False)
    channel.send_trailers(((b"x-sum", b"1"),))
    channel.finish()
    assert channel.responded
    assert owner.done == [
        ("headers", 103, ((b"link", b"x"),)), ("headers", 200, ((b"x-a", b"1"),)), ("data", b"one", False),
        ("data", b"two", False), ("trailers", ((b"x-sum", b"1"),)), ("finish",)]


def test_a_write_waits_while_too_much_is_on_its_way():
    owner = Owner(stream_buffer_size=100, accepting=False)
    channel = make(owner)
    channel.respond(ResponseHead(200, ()), b"x" * 100, False)
    result = in_thread(channel.send, b"x", False)
    assert owner.submitted.acquire(timeout=TIMEOUT)
    assert owner.submitted.acquire(timeout=TIMEOUT)
    channel.wake()
    assert result.thread.is_alive()
    channel.accept(100)
    assert result() is None


def test_a_write_waits_while_too_much_is_queued():
    owner = Owner(stream_buffer_size=100)
    channel = make(owner)
    channel.stream.queued = 101
    result = in_thread(channel.respond, ResponseHead(200, ()), b"x", False)
    assert owner.submitted.acquire(timeout=TIMEOUT)
    channel.wake()
    assert result.thread.is_alive()
    channel.stream.queued = 50
    channel.wake()
    assert result() is None


def test_a_write_that_waits_ends_with_the_stream():
    channel = make(Owner(accepting=False))
    result = in_thread(channel.respond, ResponseHead(200, ()), b"x" * 101, False)
    channel.abort(2, "gone")
    assert result().code == 2


def test_nothing_is_submitted_to_a_stream_that_is_gone():
    owner = Owner()
    channel = make(owner)
    channel.abort(8, "gone")
    for act in (lambda: channel.respond(ResponseHead(200, ()), b"", True), lambda: channel.send(b"", True),
                lambda: channel.send_trailers(()), lambda: channel.send_interim(ResponseHead(103, ()))):
        with pytest.raises(StreamAborted):
            act()
    assert owner.done == []
    channel.reset(ErrorCode.INTERNAL_ERROR)
    channel.finish()
    assert owner.done == [("reset", ErrorCode.INTERNAL_ERROR), ("finish",)]


def test_reader_and_owner_never_miss_each_other():
    """A body in very many small pieces, delivered as fast as it is read."""
    channel = make()
    result = in_thread(lambda: sum(len(piece) for piece in iter(channel.read, b"")))
    for _ in range(20_000):
        channel.deliver(b"ab", False)
    channel.deliver(b"", True)
    assert result() == 40_000


# -- clients that stall ------------------------------------------------------------------------------------------------


class StallingOwner(Owner):
    """Queues data in the stream, and sends nothing; its client has stalled."""

    def __init__(self, spool_size=1 << 24, **options):
        super().__init__(**options)
        self.spool, self.stalled = Spool(spool_size, None), True

    def do_send_response(self, channel, stream, head, data, end_stream):
        """Queue the body."""
        self.do_send_data(channel, stream, data, end_stream)

    def do_send_data(self, channel, stream, data, end_stream):
        """Queue data."""
        if data:
            stream.queue.append(data)
            stream.queued += len(data)
        stream.end_queued = end_stream
        channel.accept(len(data))

    def do_send_source(self, channel, stream, source, end_stream):
        """Queue a source."""
        channel.accept_source(len(source))
        stream.queue.append(source)
        stream.queued += len(source)
        stream.stored += len(source)
        stream.end_queued = end_stream


def octets_of(stream):
    """All that is queued."""
    octets = b""
    while stream.queued:
        octets += stream.take_piece(stream.queued) if stream.stored else stream.take(stream.queued)
    return octets


LARGE = bytes(range(256)) * 12_000
HEAD = ResponseHead(200, [])


@pytest.mark.parametrize("end", [False, True])
def test_a_stalled_client_does_not_hold_a_large_response_in_memory(end):
    owner = StallingOwner()
    channel = make(owner)
    channel.respond(HEAD, LARGE, end)
    stream = channel.stream
    assert (stream.queued, stream.queued - stream.stored, stream.end_queued) == (len(LARGE), 100, end)
    assert owner.spool.octets >= len(LARGE) - 100
    assert octets_of(stream) == LARGE
    assert owner.spool.octets == 0


def test_a_little_more_than_the_buffer_is_not_worth_a_write():
    owner = StallingOwner()
    channel = make(owner)
    channel.respond(HEAD, bytes(100 + SPOOLED_SIZE), True)
    assert channel.stream.stored == 0


def test_pieces_follow_into_the_spool_in_their_order():
    owner = StallingOwner()
    channel = make(owner)
    channel.respond(HEAD, b"", False)
    sizes, position = [1, 70_000, 16_384, 5, 40_000, 16_383, 100_000, 7], 0
    for size in sizes * 3:
        channel._wrote_at = 0.0
        channel.send(LARGE[position:position + size], False)
        position += size
        assert channel.stream.queued - channel.stream.stored <= 100 + SPOOLED_SIZE
    channel.send(b"", True)
    assert octets_of(channel.stream) == LARGE[:position]
    assert channel.stream.end_queued


@pytest.mark.parametrize("limits", [{"spool_size": 1_000_000}, {}], ids=["worker", "response"])
def test_a_full_spool_makes_the_application_wait(limits):
    """It keeps within its bounds, and nothing is lost."""
    owner = StallingOwner(**limits)
    owner.response_spool_size = 1_000_000
    channel = make(owner)
    channel.respond(HEAD, b"", False)
    position = 0
    while channel.stream.stored <= 600_000:
        channel._wrote_at = 0.0
        channel.send(LARGE[position:position + 50_000], False)
        position += 50_000
    channel._wrote_at = 0.0
    result = in_thread(channel.send, LARGE[position:position + 500_000], True)
    wait_until(lambda: channel.stream.queued == position + 500_000)
    assert channel.stream.stored <= 1_000_000
    assert octets_of(channel.stream) == LARGE[:position + 500_000]
    channel.wake()
    assert result() is None


def test_a_spool_that_fails_while_it_writes(monkeypatch):
    """What was taken back is queued again."""
    owner, calls = StallingOwner(), []
    store = owner.spool.store

    def store_once(data):
        calls.append(data)
        return store(data) if len(calls) == 1 else None

    monkeypatch.setattr(owner.spool, "store", store_once)
    channel = make(owner)
    result = in_thread(channel.respond, HEAD, LARGE, True)
    wait_until(lambda: len(calls) >= 2 and channel.stream.end_queued)
    assert (channel.stream.stored, owner.spool.octets) == (0, 0)
    assert octets_of(channel.stream) == LARGE
    channel.wake()
    result()


@pytest.mark.parametrize("size", [100_000, 3_000_000])
def test_a_stream_that_is_reset_while_its_rest_is_taken_back(size):
    class Resetting(StallingOwner):
        """Aborts the stream instead of giving anything back."""

        def do_withdraw(self, channel, stream):
            channel.abort(ErrorCode.CANCEL, "a test")

    channel = make(Resetting())
    with pytest.raises(StreamAborted):
        channel.respond(HEAD, LARGE[:size], True)


def test_an_exception_while_the_rest_is_taken_back_resets_the_stream():
    """gevent raises its Timeout wherever a greenlet waits."""
    class Interrupting(StallingOwner):
        """Raises when the application is about to wait for what it takes back."""

        def do_withdraw(self, channel, stream):
            self.withdrawing = True

        def act_now(self, owner):
            if hasattr(self, "withdrawing"):
                raise KeyboardInterrupt

    owner = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        make(owner).respond(HEAD, LARGE, True)
    assert owner.done == [("reset", ErrorCode.INTERNAL_ERROR)]


def test_a_slow_application_waits_for_a_stalled_client():
    """An event stream: what it had written before goes out first, and it is told when that has happened."""
    owner = StallingOwner()
    channel = make(owner)
    channel.respond(HEAD, b"", False)
    channel.send(b"event", False)
    channel._wrote_at -= 2 * STALL_CHECK_SECONDS
    result = in_thread(channel.send, b"another", False)
    wait_until(lambda: owner.done == [("await empty",)])
    assert channel.stream.queued == 5
    assert octets_of(channel.stream) == b"event"
    channel.wake()
    assert (result(), octets_of(channel.stream)) == (None, b"another")


def test_the_end_of_a_response_waits_for_no_one():
    channel = make(StallingOwner())
    channel.respond(HEAD, b"event", False)
    channel._wrote_at -= 2 * STALL_CHECK_SECONDS
    channel.send(b"", True)
    assert channel.complete


def test_a_client_that_reads_is_awaited_in_memory():
    """As long as it takes something, and the more rarely looked at the longer it goes on."""
    owner = StallingOwner()
    owner.stalled = False
    channel = make(owner)
    result = in_thread(channel.respond, HEAD, LARGE, True)
    threading.Event().wait(5 * STALL_CHECK_SECONDS)
    assert channel.stream.stored == 0
    owner.stalled = True
    result()
    assert channel.stream.stored > 0
    assert octets_of(channel.stream) == LARGE


@pytest.mark.parametrize("media_type", [b"text/event-stream; charset=utf-8", b"application/grpc+proto"])
def test_a_response_that_may_be_endless_is_not_spooled(media_type):
    """Its thread waits, and announces that at once."""
    count = ThreadCount()
    owner = StallingOwner(thread_count=count)
    channel = make(owner)
    result = in_thread(channel.respond, ResponseHead(200, [(b"content-type", media_type)]), LARGE, False)
    assert count.begun.wait(TIMEOUT)
    assert (channel.stream.stored, owner.spool.octets) == (0, 0)
    assert octets_of(channel.stream) == LARGE
    channel.wake()
    assert (result(), count.notes) == (None, ["begin", "aside", "end"])


def test_a_response_that_may_be_endless_can_be_aborted():
    channel = make(StallingOwner())
    result = in_thread(channel.respond, ResponseHead(200, [(b"content-type", b"text/event-stream")]), LARGE, False)
    wait_until(lambda: channel.stream.queued)
    channel.abort(8, "gone")
    assert isinstance(result(), StreamAborted)


def test_a_thread_that_others_wait_for_judges_sooner():
    count = ThreadCount(is_short=True)
    owner = StallingOwner(thread_count=count)
    owner.stalled, owner.stalled_in_a_hurry = False, True
    channel = make(owner)
    channel.respond(HEAD, LARGE, True)
    assert channel.stream.stored > 0
    assert octets_of(channel.stream) == LARGE


def test_a_thread_that_others_wait_for_stands_aside_where_the_spool_has_no_room():
    count = ThreadCount(is_short=True)
    channel = make(StallingOwner(spool_size=0, thread_count=count))
    result = in_thread(channel.respond, HEAD, LARGE, True)
    wait_until(lambda: "aside" in count.notes)
    channel.stream.drop_queue()
    channel.wake()
    assert (result(), count.notes[-1]) == (None, "end")


# -- waits that last ---------------------------------------------------------------------------------------------------


class ThreadCount:
    """Notes the waits that threads announce; `idle`: there are threads to spare; `is_short`: requests wait for one."""

    def __init__(self, idle=False, is_short=False):
        self.notes, self.begun, self.idle, self.is_short = [], threading.Event(), idle, is_short

    def begin_wait(self):
        """A wait begins."""
        self.notes.append("begin")
        if self.idle:
            self.begun.set()
        return self.idle

    def stand_aside(self):
        """It lasts."""
        self.notes.append("aside")
        self.begun.set()

    def end_wait(self):
        """It has ended."""
        self.notes.append("end")


@pytest.mark.parametrize("idle", [True, False])
@pytest.mark.parametrize("wake", ["data", "abort"])
def test_a_read_that_lasts_is_announced(wake, idle):
    count = ThreadCount(idle)
    channel = make(Owner(thread_count=count))
    result = in_thread(channel.read)
    assert count.begun.wait(TIMEOUT)
    if wake == "data":
        channel.deliver(b"late", False)
        assert result() == b"late"
    else:
        channel.abort(8, "gone")
        assert isinstance(result(), StreamAborted)
    assert count.notes == (["begin", "end"] if idle else ["begin", "aside", "end"])


def test_a_write_that_lasts_is_announced():
    count = ThreadCount()
    channel = make(Owner(accepting=False, thread_count=count))
    result = in_thread(channel.respond, ResponseHead(200, []), bytes(101), False)
    assert count.begun.wait(TIMEOUT)
    channel.accept(101)
    assert result() is None
    assert count.notes == ["begin", "aside", "end"]


def test_a_read_that_times_out_is_over():
    count = ThreadCount()
    channel = make(Owner(read_timeout=0.01, thread_count=count))
    with pytest.raises(StreamAborted):
        channel.read()
    assert count.notes == ["begin", "aside", "end"]


def test_a_timeout_within_a_moment_holds():
    channel = make(Owner(read_timeout=0.0001, thread_count=ThreadCount()))
    with pytest.raises(StreamAborted, match="stopped sending"):
        channel.read()


def test_a_thread_whose_read_ends_within_a_moment_does_not_stand_aside(monkeypatch):
    monkeypatch.setattr(waiting, "_MOMENT", TIMEOUT)
    count = ThreadCount()
    channel = make(Owner(thread_count=count))
    result = in_thread(channel.read)
    while channel._reader is None:
        assert result.thread.is_alive()
    channel.deliver(b"soon", False)
    assert result() == b"soon"
    assert count.notes == ["begin", "end"]


# -- threads beside the application's ----------------------------------------------------------------------------------


def test_one_thread_reads_while_another_one_writes():
    owner = Owner(stream_buffer_size=10, accepting=False)
    channel = make(owner)
    reading = in_thread(channel.read)
    writing = in_thread(channel.respond, ResponseHead(200, ()), b"x" * 11, False)
    assert owner.submitted.acquire(timeout=TIMEOUT)
    channel.accept(11)
    writing()
    assert reading.thread.is_alive()
    channel.deliver(b"data", False)
    assert reading() == b"data"


def test_a_thread_that_still_reads_when_the_call_returns():
    channel = make(Owner(read_timeout=None))
    reading = in_thread(channel.read)
    wait_until(lambda: channel._reader is not None)
    channel.finish()
    assert isinstance(reading(), StreamAborted)
    with pytest.raises(StreamAborted):
        channel.read()


def test_a_read_without_a_limit():
    owner = Owner(read_timeout=0.001)
    channel = make(owner)
    channel.limits_reads = False
    reading = in_thread(channel.read)
    wait_until(lambda: channel._reader is not None)
    channel.deliver(b"late", True)
    assert reading() == b"late"
    assert owner.done == []


@pytest.mark.parametrize("late", [True, False])
def test_an_abort_is_announced_once(late):
    channel, told = make(), []
    if late:
        channel.abort(ErrorCode.CANCEL, "gone")
    channel.on_abort(lambda: told.append(channel.aborted))
    channel.abort(ErrorCode.CANCEL, "gone")
    channel.abort(ErrorCode.CANCEL, "gone")
    assert told == [True]


def test_a_response_with_trailers_in_one_step():
    owner = Owner(stream_buffer_size=10, accepting=False)
    channel = make(owner, ended=True)
    channel.respond_with_trailers(ResponseHead(200, ()), b"body", [(b"x-a", b"1")])
    assert owner.done == [("whole", 200, b"body", ((b"x-a", b"1"),))]
    assert channel.complete
    channel.finish()
    assert len(owner.done) == 1
    with pytest.raises(ValueError, match="content-length"):
        make(owner, ended=True).respond_with_trailers(ResponseHead(200, ()), b"", [(b"content-length", b"1")])


def test_a_large_response_with_trailers_waits_for_room():
    owner = Owner(stream_buffer_size=10, accepting=False)
    channel = make(owner, ended=True)
    sending = in_thread(channel.respond_with_trailers, ResponseHead(200, ()), b"x" * 11, [(b"x-a", b"1")])
    assert owner.submitted.acquire(timeout=TIMEOUT)
    assert sending.thread.is_alive()
    channel.accept(11)
    sending()
