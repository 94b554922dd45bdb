"""What /proc says of processes."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from bench import processes
from tests.bench.waiting import wait_for

SPIN = "while True: pass"


@pytest.fixture
def spinning():
    """A shell with a child that takes all the processor time it can get."""
    shell = subprocess.Popen(["sh", "-c", f"{sys.executable} -c '{SPIN}'; true"], start_new_session=True)
    yield shell
    os.killpg(shell.pid, signal.SIGKILL)
    shell.wait()


def test_time_and_memory_are_those_of_the_whole_tree(spinning):
    wait_for(lambda: processes.cpu_seconds([spinning.pid]) > 0.1)
    shell, child = processes.tree(spinning.pid)
    assert shell.pid == spinning.pid
    assert child.parent == shell.pid
    assert child.cpu >= 0.1 > shell.cpu
    assert processes.resident_octets([spinning.pid]) > child.rss > 1_000_000


def test_a_tree_that_is_gone_is_empty():
    done = subprocess.Popen(["true"])
    done.wait()
    assert processes.tree(done.pid) == []
    assert processes.cpu_seconds([done.pid]) == 0


def test_what_we_have_started_is_no_stranger(spinning):
    wait_for(lambda: processes.cpu_seconds([spinning.pid]) > 0.05)
    pids = {process.pid for process in processes.tree(spinning.pid)}
    assert not any(f"(pid {pid})" in text for pid in pids for text in processes.busy_strangers(0.3))


def test_a_busy_stranger_is_named():
    """A process whose parent has gone is no child of ours any more."""
    command = f"{sys.executable} -c '{SPIN}' >/dev/null 2>&1 & echo $!"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=10)
    pid = int(done.stdout)
    try:
        wait_for(lambda: any(f"(pid {pid}) takes" in text for text in processes.busy_strangers(0.3)))
    finally:
        os.kill(pid, signal.SIGKILL)


def test_who_listens_on_a_port(spinning):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert processes.listens([os.getpid()], port)
        assert not processes.listens([spinning.pid], port)
    assert not processes.listens([os.getpid()], port)


def test_a_process_started_on_a_core_stays_there_and_we_do_not():
    ours = os.sched_getaffinity(0)
    core = max(ours)
    with processes.on_core(core):
        child = subprocess.Popen(["sleep", "60"])
    try:
        assert os.sched_getaffinity(child.pid) == {core}
        assert os.sched_getaffinity(0) == ours
    finally:
        child.kill()
        child.wait()


def test_no_core_changes_nothing():
    with processes.on_core(None):
        assert len(os.sched_getaffinity(0)) == len(os.sched_getaffinity(os.getpid()))
