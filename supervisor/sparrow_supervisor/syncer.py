"""Forces what was written to the disk, within 50 ms, in a thread of its own: it decides nothing, and the loop never waits for it.

What a sealed part holds is forced before what the next one holds, and files before the folders that name them. So what a
power cut takes is the end of a record, and never its middle.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_log = logging.getLogger(__name__)

SYNC_WITHIN_S = 0.05
_GATHER_MOST_S = 0.02
"""The rest is for the sync itself, of which nobody knows how long it takes: 2 ms for the most part, 30 at times."""
_GATHER_LEAST_S = 0.01
"""However slow the disk is: else it would be asked for nothing but syncs."""
_MANY = 64
"""From so many files on, one ``syncfs`` is quicker than an ``fsync`` of each."""


class Syncer(threading.Thread):
    """Takes descriptors and paths from the loop. ``state`` is a folder of the file system that they are on."""

    def __init__(self, state: Path) -> None:
        super().__init__(name="syncer", daemon=True)
        self._state = state
        self._lock = threading.Lock()
        self._dirty: set[int] = set()
        self._closing: dict[int, None] = {}
        self._paths: dict[Path, None] = {}
        self._ending = threading.Event()
        self._work = threading.Event()
        self.start()

    def soon(self, fd: int) -> None:
        """Have a descriptor synced."""
        if fd not in self._dirty:
            with self._lock:
                self._dirty.add(fd)
            self._work.set()

    def finish(self, fd: int) -> None:
        """Have a descriptor synced and closed."""
        with self._lock:
            self._closing[fd] = None
        self._work.set()

    def settle(self, *paths: Path) -> None:
        """Have files and folders synced, in this order. One that is gone by then is no matter."""
        with self._lock:
            self._paths.update(dict.fromkeys(paths))
        self._work.set()

    def stop(self) -> None:
        """Sync what is left, and end."""
        self._ending.set()
        self._work.set()
        self.join()

    def run(self) -> None:
        """The thread: sleep until there is something, gather, sync it all. What it gathers for and what a sync takes are to be
        50 ms together; how long the next one takes is not known, so twice as long as the last one is left for it.
        """
        took_s = 0.0
        while True:
            self._work.wait()
            self._ending.wait(max(_GATHER_LEAST_S, min(_GATHER_MOST_S, SYNC_WITHIN_S - 2 * took_s)))
            began = time.monotonic()
            self._work.clear()
            with self._lock:
                dirty, self._dirty = self._dirty, set()
                closing, self._closing = self._closing, {}
                paths, self._paths = self._paths, {}
            if len(dirty) + len(closing) + len(paths) > _MANY:
                _quietly(sync_file_system, self._state)
            else:
                for fd in [*closing, *(dirty - closing.keys())]:
                    _quietly(os.fdatasync, fd)
                for path in paths:
                    _quietly(sync_path, path)
            took_s = time.monotonic() - began
            for fd in closing:
                os.close(fd)
            if self._ending.is_set() and not (self._dirty or self._closing or self._paths):
                return


def sync_path(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk. Raises OSError, but not where it is gone."""
    try:
        fd = os.open(
            path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        )  # a run may have put a pipe there
    except FileNotFoundError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file_system(folder: Path) -> None:
    """Force everything on the folder's file system to the disk. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)


def _quietly(action: Callable[[T], None], what: T) -> None:
    try:
        action(what)
    except OSError as error:
        _log.error("a transcript cannot be forced to the disk: %s", error.strerror)
