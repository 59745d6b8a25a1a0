"""Loading modules before a zygote forks, so that its forks have them."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_log = logging.getLogger(__name__)

_LOAD_LIMIT_S = 120
"""After this the kernel ends a process that still loads: a module may wait for something that never comes."""
UNFIT = 3
"""The exit code where something cannot be loaded, or not by a process that forks."""


class Warm(NamedTuple):
    """What a zygote is told that loads modules beforehand."""

    path: Path
    """What its socket is named once it is ready."""
    idle_s: float
    """After how many seconds without a run it ends."""
    modules: Sequence[str]


def load(modules: Sequence[str]) -> None:
    """Import them all. Raises SystemExit where one cannot be, or leaves what forks must not share: a thread, a descriptor."""
    signal.alarm(_LOAD_LIMIT_S)
    before = _descriptors()
    for name in modules:
        try:
            importlib.import_module(name)
        except BaseException as error:  # a foreign module may raise anything while it is imported
            _log.info("%s cannot be loaded beforehand: %s: %s", name, type(error).__name__, error)
            sys.exit(UNFIT)
        threads = len(os.listdir("/proc/self/task")) - 1
        if threads or _descriptors() - before:
            what = f"{threads} threads" if threads else f"descriptors {sorted(_descriptors() - before)}"
            _log.warning("%s cannot be loaded beforehand: it leaves %s, which forks cannot share", name, what)
            sys.exit(UNFIT)
    signal.alarm(0)


def _descriptors() -> set[tuple[str, str]]:
    """What this process has open, by number and by what it is."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
        except FileNotFoundError:
            pass  # the listing's own
    return found
