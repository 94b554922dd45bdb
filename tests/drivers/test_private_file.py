"""The files of `http2_trace` and `http2_keylog`: whose they must be, and what is refused."""

import os
import socket
import stat

import pytest

from gunicorn_h2.drivers.private_file import open_private

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "secrets.log"


def refusal(path, error=OSError):
    """What is said of a path, which must be refused without a descriptor left open."""
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(error) as caught:
        open_private("http2_setting", str(path))
    assert len(os.listdir("/dev/fd")) == before
    assert caught.value.filename == str(path)
    setting, reason = caught.value.strerror.split(": ")
    assert setting == "http2_setting"
    return reason


def test_it_is_made_for_its_owner_alone_and_appended_to(path):
    umask = os.umask(0)
    try:
        for _ in range(2):
            fd = open_private("http2_setting", str(path))
            os.write(fd, b"line\n")
            assert not os.get_inheritable(fd)
            os.close(fd)
    finally:
        os.umask(umask)
    assert path.read_text() == "line\nline\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link(path, tmp_path, exists):
    target = tmp_path / "target"
    if exists:
        target.touch(0o600)
    path.symlink_to(target)
    assert refusal(path) == "is a symbolic link"
    assert target.exists() == exists


def test_a_hard_link(path, tmp_path):
    (tmp_path / "target").touch(0o600)
    path.hardlink_to(tmp_path / "target")
    assert refusal(path, PermissionError) == "has other names (hard links)"


def test_a_fifo_that_nobody_reads(path):
    os.mkfifo(path, 0o600)
    assert refusal(path) == "is not a regular file"


def test_a_fifo_that_somebody_reads(path):
    os.mkfifo(path, 0o600)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert refusal(path, PermissionError) == "is not a regular file"
    finally:
        os.close(reader)


def test_a_device():
    assert refusal("/dev/null", PermissionError) == "is not a regular file"


def test_a_socket(path, monkeypatch):
    # The path of a socket must be short.
    monkeypatch.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path.name)
        assert refusal(path) == "is not a regular file"


def test_a_directory(path):
    path.mkdir()
    assert refusal(path, IsADirectoryError) == "Is a directory"


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o640, 0o620, 0o644])
def test_rights_of_others(path, mode):
    path.touch()
    path.chmod(mode)
    assert refusal(path, PermissionError) == f"must have mode 0600, not {mode:04o}"


@root_only
def test_a_file_of_another_user(path):
    path.touch(0o600)
    os.chown(path, 12_345, -1)
    assert refusal(path, PermissionError) == "belongs to another user (uid 12345)"
