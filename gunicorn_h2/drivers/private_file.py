"""Files with secrets, which nobody else may read, or choose where they are written."""

from __future__ import annotations

import errno
import os
import stat

__all__ = ["open_private"]

# Without O_NONBLOCK, opening a FIFO would wait for a reader.
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_REASONS = {
    errno.ELOOP: "is a symbolic link",
    errno.EMLINK: "is a symbolic link",  # On FreeBSD.
    errno.ENXIO: "is not a regular file",
}


def open_private(setting: str, path: str) -> int:
    """Open the file of a setting to append to it, and return its descriptor.

    It is made if there is none, with mode 0600. One that is there must be a regular file without other names, of this
    process's user or root, with no rights for group and others; symbolic links are not followed. Whoever may write to
    the directory could have prepared anything else there, to read the secrets, or to have root write to another file.

    Raises `OSError`, which names setting and path, if the file is another's or cannot be opened.
    """
    try:
        fd = os.open(path, _FLAGS, 0o600)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror)
        raise OSError(error.errno, f"{setting}: {reason}", path) from error
    objection = _objection(os.fstat(fd))
    if objection is not None:
        os.close(fd)
        raise PermissionError(errno.EPERM, f"{setting}: {objection}", path)
    return fd


def _objection(status: os.stat_result) -> str | None:
    """Say why secrets do not belong in a file; None if they do."""
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if status.st_uid not in (os.geteuid(), 0):
        return f"belongs to another user (uid {status.st_uid})"
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return f"must have mode 0600, not {stat.S_IMODE(status.st_mode):04o}"
    if status.st_nlink > 1:
        return "has other names (hard links)"
    return None
