"""A house on a disk that loses its power: what was not forced to the disk is gone. Needs root, to mount it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support import processes
from tests.support.house import House
from tests.support.waiting import eventually

_SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN, which the kernel's own tests of file systems use for this."""

_AT_ONCE = 2
"""EXT4_GOING_FLAGS_NOLOGFLUSH: nothing more is written, neither data nor the journal."""


class Disk:
    """An ext4 in a file. Nothing reaches it by the kernel's own doing in the time that a test takes."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.folder = house.top / "s"
        self._image = house.top / "disk"

    def make(self) -> None:
        """Make and mount it; skips the test where that cannot be."""
        if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
            pytest.skip("needs root and mkfs.ext4, to mount a disk")
        with self._image.open("wb") as file:
            file.truncate(400 << 20)  # sparse; `sparrow doctor` wants 200 MiB of it free
        subprocess.run(["mkfs.ext4", "-q", "-F", self._image], check=True, timeout=30)
        self.folder.mkdir(mode=0o700)
        if not self.mount():
            pytest.skip("cannot mount a disk here")

    def mount(self) -> bool:
        """Mount it; its journal is played back."""
        argv = ["mount", "-o", "loop,commit=300", str(self._image), str(self.folder)]
        done = subprocess.run(argv, capture_output=True, timeout=30)
        if done.returncode == 0:
            self.folder.chmod(0o700)
        return done.returncode == 0

    def lose_power(self) -> float:
        """Stop the disk and every process of the house; the moment at which the disk stopped."""
        fd = os.open(self.folder, os.O_RDONLY)
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _AT_ONCE))
        moment = time.time()
        os.close(fd)
        self._house.may_complain = True  # whoever writes to a dead disk says so
        eventually(self._all_dead, what="the end of all processes")
        # A copy is what comes back, as the old disk may live on where somebody has copied our mounts (unshare).
        copy = self._image.with_name("copy")
        subprocess.run(["cp", "--sparse=always", self._image, copy], check=True, timeout=60)
        subprocess.run(["umount", "--lazy", self.folder], check=True, timeout=30)
        self._image = copy
        return moment

    def _all_dead(self) -> bool:
        for pid in self._house.processes():
            with contextlib.suppress(ProcessLookupError):
                processes.kill(pid)
        return not self._house.processes()


@contextmanager
def house_with_a_plug() -> Iterator[tuple[House, Disk]]:
    """A house whose state folder is on such a disk."""
    house = House()
    disk = Disk(house)
    try:
        disk.make()
        yield house, disk
        house.close()
    finally:
        subprocess.run(["umount", "--lazy", disk.folder], capture_output=True)
        shutil.rmtree(house.top, ignore_errors=True)
