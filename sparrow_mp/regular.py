"""Opening files that something else may have replaced: by a pipe that nobody writes to, by a link, by a folder.

A run may do in its own folder what it likes. Whoever opens a file there by name neither waits for it nor follows it elsewhere,
and reads no more than makes sense.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""O_NONBLOCK means nothing for a regular file; a pipe would else be waited for in ``open`` itself."""


def open_regular(path: Path | str, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """A descriptor of a regular file. Raises OSError, also for whatever else has that name."""
    fd = os.open(path, flags | _SAFELY, mode)
    kind = os.fstat(fd).st_mode
    if not stat.S_ISREG(kind):
        os.close(fd)
        raise OSError(errno.EISDIR if stat.S_ISDIR(kind) else errno.EINVAL, "not a regular file", os.fspath(path))
    return fd


def read_regular(path: Path, most: int) -> bytes:
    """What a regular file holds. Raises OSError, also where that is more than ``most`` bytes."""
    fd = open_regular(path)
    with open(fd, "rb", buffering=0) as file:
        if os.fstat(fd).st_size > most:
            raise OSError(errno.EFBIG, f"more than {most} bytes", os.fspath(path))
        return file.read(most) or b""


def write_regular(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Have the file hold this, wholly or not at all, whatever had its name (a folder stays: OSError). Raises OSError."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    fd = open_regular(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with open(fd, "wb", buffering=0) as file:
        os.fchmod(fd, mode)
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(new))
    new.replace(path)


def remove_tree(path: Path) -> None:
    """Remove a folder and what is in it, or whatever has its name. What cannot be removed stays.

    ``rmtree`` alone would open a pipe that has the folder's name, and wait.
    """
    try:
        if stat.S_ISDIR(path.lstat().st_mode):
            import shutil  # here, since few who open a file remove any

            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    except OSError:
        pass  # it is gone, or not ours to remove
