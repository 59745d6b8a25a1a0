"""A house on a small disk of its own, which a test fills and empties. Needs root, to mount it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.house import House


def mount(folder: Path, size: str) -> None:
    """Mount an empty disk of this size; skips the test where that cannot be."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    folder.mkdir(mode=0o700, exist_ok=True)
    options = f"size={size},mode=0700"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "sparrow-test", folder], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")


@contextmanager
def small_house(size: str) -> Iterator[House]:
    """A house whose state folder is a disk of this size."""
    house = House()
    mount(house.top / "s", size)
    try:
        try:
            yield house
        finally:
            make_room(house)
            house.close()
    finally:
        subprocess.run(["umount", "--lazy", house.top / "s"], check=False, capture_output=True)


def fill(house: House) -> None:
    """Leave not a byte on the house's disk."""
    with (house.top / "s" / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 16, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass


def make_room(house: House) -> None:
    """Take away what ``fill`` wrote."""
    (house.top / "s" / "filler").unlink(missing_ok=True)


def free(house: House) -> int:
    """How many bytes are free."""
    found = os.statvfs(house.top / "s")
    return found.f_bavail * found.f_frsize
