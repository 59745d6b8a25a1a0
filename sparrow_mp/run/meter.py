"""How much memory the tree below this process uses: what the kernel cannot take back without writing it elsewhere.

That is anonymous and shared memory, swapped out or not. Mapped files are left out (a model of 4 GB that is mapped is no more
than the page cache), and what several processes share counts once, as in the kernel's own accounting of a cgroup. To share
it out takes the kernel long, 15 ms for 1 GiB, where a sum in which each counts all that it shares takes 16 µs a process. The
sum is never less, so it is asked first, and the exact figure only where that is over the limit.

Processes are asked one after another. Who ends meanwhile leaves its share to the others, and so what all of them share can be
counted more than once: a sum over the limit counts only where the next one is over it as well.
"""

from __future__ import annotations

import os

from sparrow_mp.run.tree import descendants

_ROUGH = (b"RssAnon:", b"RssShmem:", b"VmSwap:")
_EXACT = (b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")
_PART = 1 << 13
"""Bytes that are read at once. These files have some 1,500 and are handed over whole; only a user of thousands of groups has
a status that is longer.
"""


def measure(limit: int | None, most: int | None = None) -> tuple[int, int]:
    """Bytes of memory and number of processes below this process; no memory where there is no ``limit`` to compare it with,
    and no processes where the whole machine has no more than ``most``.

    Under the limit the figure may be more than is used, by what is shared.
    """
    if limit is None and most is not None and _everybody() <= most:
        return 0, 0
    pids = descendants(os.getpid())
    if limit is None:
        return 0, len(pids)
    if (total := sum(map(_rough, pids))) > limit and (total := sum(map(_exact, pids))) > limit:
        total = sum(map(_exact, pids))
    return total, len(pids)


def _everybody() -> int:
    """How many processes and threads the machine has; more than there can be where it does not say."""
    try:
        return int(_content("/proc/loadavg").split()[3].partition(b"/")[2])
    except (OSError, ValueError, IndexError):
        return 1 << 62


def _rough(pid: int) -> int:
    """The memory of a process with all that it shares. One that has ended has none."""
    return _sum(f"/proc/{pid}/status", _ROUGH) or 0


def _exact(pid: int) -> int:
    """The part of the memory that is this process's. Another user's (sudo) cannot be asked: all that it shares, then."""
    found = _sum(f"/proc/{pid}/smaps_rollup", _EXACT)
    return _rough(pid) if found is None else found


def _sum(path: str, names: tuple[bytes, ...]) -> int | None:
    """These lines of a file, which are in KiB, in bytes; None where it cannot be read or has none of them."""
    try:
        lines = _content(path).splitlines()
    except OSError:
        return None
    sizes = [int(line.split()[1]) << 10 for line in lines if line.startswith(names)]
    return sum(sizes) if sizes else None


def _content(path: str) -> bytes:
    """A small file of the kernel's, in three system calls where a file object takes nine. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = part = os.read(fd, _PART)
        while len(part) == _PART:
            part = os.read(fd, _PART)
            content += part
        return content
    finally:
        os.close(fd)
