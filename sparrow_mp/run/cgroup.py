"""A cgroup (version 2) for each run, where the cgroup of the zygote has been handed to us: another way to end its tree.

It is no promise, since a process can leave its cgroup where it may write elsewhere, and most machines hand us none. But it is
quick, and works also where both the monitor and the zygote are dead, so that what they left belongs to init.

Handed to us is a cgroup that is ours and not the root of the hierarchy. To root all of them belong, so for root it must also
bear the mark that systemd gives where a unit says ``Delegate=yes``: the attribute trusted.delegate or user.delegate.
"""

from __future__ import annotations

import logging
import os
import stat
from functools import cache
from pathlib import Path

from sparrow_mp.regular import read_regular

_log = logging.getLogger(__name__)

_FILE = "cgroup"
"""In a run's folder: the path of its cgroup."""
_LONGEST_PATH = 4096
_UNIT = "sparrow-runs.service"
_ZYGOTES = "zygote"
"""The cgroup that zygotes and monitors move to: what has limits for those below it may have no process in itself."""
_MARKS = ("trusted.delegate", "user.delegate")


@cache
def delegated() -> Path | None:
    """The cgroup of this process, where it is handed to us; asked once, and inherited by what is forked."""
    place = _own_place()
    if place is not None and place.name == _ZYGOTES:
        place = place.parent  # an earlier zygote has taken it over
    try:
        if place is None or place.stat().st_uid != os.geteuid() or not (place / "cgroup.kill").exists():
            return None  # the root of the hierarchy has no cgroup.kill; nor has Linux before 5.14
        usable = os.access(place, os.W_OK) and os.access(place / "cgroup.procs", os.W_OK)
        return place if usable and (os.geteuid() != 0 or _is_marked(place)) else None
    except OSError:
        return None


def _own_place() -> Path | None:
    """Where the cgroup of this process is mounted."""
    try:
        own = [line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    for line in mounts:
        fields, _, kind = line.partition(" - ")
        if own and kind.startswith("cgroup2 "):
            root, point = fields.split()[3:5]
            return Path(point) / os.path.relpath(own[0], root)
    return None


def _is_marked(place: Path) -> bool:
    if place.name == _UNIT:
        return True  # root's own `systemd --user` leaves no mark; the unit is ours and says Delegate=yes
    for mark in _MARKS:
        try:
            if os.getxattr(place, mark) == b"1":
                return True
        except OSError:
            continue
    return False


def take_over() -> None:
    """Where a cgroup is handed to us and to nobody else: move this process out of the way, and let the runs' have limits.

    What is forked later begins in the cgroup that this process moves to.
    """
    place = delegated()
    if place is None:
        return
    try:
        leaf = place / _ZYGOTES
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text("0")
        controllers = (place / "cgroup.controllers").read_text().split()
    except OSError as error:
        _log.warning("%s cannot be taken over, so that runs have no limits there: %s", place, error)
        return
    for controller in controllers:
        try:
            (place / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError as error:
            _log.warning("runs have no limits by the controller %s: %s", controller, error)


def make(folder: Path) -> Path | None:
    """Make the cgroup of the run with this folder, and note it there; None where we may not."""
    place = delegated()
    if place is None:
        return None
    leaf = place / f"sparrow-{folder.name}"
    try:
        (folder / _FILE).write_text(str(leaf))  # first, so that none is made that nobody knows of
        leaf.mkdir()
    except OSError as error:
        _log.warning("run %s: it gets no cgroup: %s", folder.name, error)
        return None
    return leaf


def enter(leaf: Path) -> None:
    """Move this process there. That it cannot be is no fault: the tree is ended without as well."""
    try:
        (leaf / "cgroup.procs").write_text("0")
    except OSError as error:
        _log.warning("%s cannot be entered: %s", leaf.name, error)


def kill(folder: Path) -> None:
    """SIGKILL to all that is in the cgroup of the run with this folder, where it has one."""
    leaf = _leaf(folder)
    if leaf is not None:
        try:
            (leaf / "cgroup.kill").write_text("1")
        except OSError as error:
            _log.warning("run %s: its cgroup cannot be killed: %s", folder.name, error)


def remove(folder: Path) -> bool:
    """Remove the cgroup of the run with this folder, and those that the run has made in it; False where someone is in it."""
    leaf = _leaf(folder)
    if leaf is None:
        return True
    try:
        for inner, _, _ in os.walk(leaf, topdown=False):
            os.rmdir(inner)
    except OSError:
        return not leaf.exists()
    return True


def remove_empty() -> None:
    """Remove what is left of cgroups whose runs had ended before all of their processes could be."""
    place = delegated()
    for leaf in place.glob("sparrow-*") if place is not None else ():
        try:
            leaf.rmdir()
        except OSError:
            continue  # a run's


def _leaf(folder: Path) -> Path | None:
    """The run can write what it likes into that file, so it counts only where it names a cgroup, and that run's."""
    try:
        leaf = Path(os.fsdecode(read_regular(folder / _FILE, _LONGEST_PATH)))
        found = leaf.lstat()
    except (OSError, ValueError):
        return None
    ours = leaf.name == f"sparrow-{folder.name}" and stat.S_ISDIR(found.st_mode) and found.st_dev == _device()
    return leaf if ours else None


@cache
def _device() -> int:
    """The device of the file system of cgroups; -1 where there is none."""
    place = _own_place()
    try:
        return -1 if place is None else place.stat().st_dev
    except OSError:
        return -1
