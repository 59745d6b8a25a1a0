"""How a process ended that is nobody's here, from its pidfd: PIDFD_GET_INFO with PIDFD_INFO_EXIT (Linux 6.15 and later).

The layout is that of ``struct pidfd_info`` in linux/pidfd.h, whose first published size is 64 bytes.
"""

from __future__ import annotations

import errno
import fcntl
import struct

_INFO = struct.Struct("=QQ11Ii")
"""mask, cgroup id; pid, tgid, ppid, real, effective, saved and file-system uid and gid; the exit code."""
_EXIT = 1 << 3
_PIDFD_GET_INFO = 0xC000FF0B | _INFO.size << 16
"""_IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)."""


def wait_status(pidfd: int) -> int | None:
    """The wait status of a process that its parent has reaped; None where the kernel cannot say, or cannot say yet."""
    asked = _INFO.pack(_EXIT, 0, *(0,) * 11, 0)
    try:
        told = fcntl.ioctl(pidfd, _PIDFD_GET_INFO, asked)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.ESRCH):
            return None  # an older kernel, or a process that is not reaped yet
        raise
    mask, *_, status = _INFO.unpack(told)
    return status if mask & _EXIT else None
