"""The files that jobs watch: a thread with watchfiles in it, which tells the loop which job's files have changed, and when.

What changes within a fifth of a second is told as one, and what never rests at least every 1.6 s.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sparrow_supervisor.aside import Bell

_log = logging.getLogger(__name__)

_REST_MS = 200
_LONGEST_MS = 1600
_LOOK_UP_MS = 500
_IGNORED = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        "__pycache__",
        "node_modules",
        ".venv",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".idea",
    }
)


class Watched(NamedTuple):
    """What one job watches: ``folder`` is whole, without links; the patterns are relative to it."""

    folder: str
    patterns: tuple[str, ...]


def pattern_to_regex(pattern: str) -> re.Pattern[str]:
    """A pattern as in ``.gitignore``'s cousins: ``**`` is any number of folders, ``*`` and ``?`` stay within one."""
    out = []
    at = 0
    pattern = pattern.removeprefix("./")
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**/", at):
            out.append("(?:[^/]+/)*")
            at += 3
            continue
        if pattern.startswith("**", at):
            out.append(".*")
            at += 2
            continue
        closing = pattern.find("]", at + 2) if char == "[" else -1
        if closing > 0:
            inner = pattern[at + 1 : closing].replace("\\", "\\\\")
            out.append(f"[{'^' + inner[1:] if inner.startswith('!') else inner}]")
            at = closing + 1
            continue
        out.append({"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char)))
        at += 1
    try:
        return re.compile("".join(out) + r"\Z", re.DOTALL)
    except re.error:
        return re.compile(re.escape(pattern) + r"\Z")


def root_of(watched: Watched, pattern: str) -> str:
    """The folder that has to be looked at for a pattern: as far down as it is the same for all that fits, and exists."""
    folder = watched.folder
    for part in pattern.removeprefix("./").split("/")[:-1]:
        below = os.path.join(folder, part)
        if any(char in part for char in "*?[") or not os.path.isdir(below) or os.path.islink(below):
            break
        folder = below
    return folder


def changed_at(path: str) -> float:
    """When a file was last changed; where it is gone, when the folder that had it was."""
    while True:
        try:
            return os.lstat(path).st_ctime
        except OSError:
            above = os.path.dirname(path)
            if above == path:
                return time.time()
            path = above


class Watching:
    """Tells of changes: ``changed(job, at)`` is called in the loop. ``faults`` are the jobs whose folder cannot be watched."""

    def __init__(self, bell: Bell, own: Path, changed: Callable[[str, float], None]) -> None:
        """``own`` is a folder in which everything is passed over: ours."""
        self._bell = bell
        self._own = os.path.realpath(own)
        self._changed = changed
        self._look: _Look | None = None
        self._wanted: dict[str, Watched] = {}
        self._told: dict[str, float] = {}
        self.faults: dict[str, str] = {}

    def watch(self, wanted: Mapping[str, Watched]) -> None:
        """Watch this from now on, and nothing else."""
        if dict(wanted) == self._wanted and (self._look is not None or not wanted):
            return
        if not wanted:
            self.close()
            return
        self._wanted = dict(wanted)
        self._told = {job: at for job, at in self._told.items() if job in wanted}
        self.faults = {}
        self._look = _Look(self, self._wanted, self._look)

    def look_again(self) -> None:
        """Try again where a folder could not be watched, and is there now."""
        if any(os.path.isdir(self._wanted[job].folder) for job in self.faults):
            wanted, self._wanted = self._wanted, {}
            self.watch(wanted)

    def close(self) -> None:
        """Watch no more. The thread ends by itself within half a second: nobody waits for it."""
        if self._look is not None:
            self._look.stop()
        self._look = None
        self._wanted = {}
        self.faults = {}

    # ── from a look's thread ──

    def call(self, what: Callable[[], None]) -> None:
        """Have this called in the loop."""
        self._bell.call(what)

    def is_own(self, path: str) -> bool:
        """Whether the file is one of ours."""
        return path.startswith(self._own + "/")

    # ── in the loop ──

    def tell(self, job: str, watched: Watched, at: float) -> None:
        """Files of a job have changed. Two looks that relieve one another may both have seen it."""
        if self._wanted.get(job) == watched and self._told.get(job) != at:
            self._told[job] = at
            self._changed(job, at)

    def at_fault(self, look: _Look, faults: dict[str, str]) -> None:
        """The folders of these jobs cannot be watched."""
        if look is self._look:
            self.faults = faults


class _Look:
    """A thread that looks at one set of files. The ``former`` look is relieved, once this one sees, and has told what it saw."""

    def __init__(self, watching: Watching, wanted: Mapping[str, Watched], former: _Look | None) -> None:
        self._watching = watching
        self._wanted = wanted
        self._former = former
        self._stopped = threading.Event()
        self._relieved = threading.Event()
        threading.Thread(target=self._run, name="watching", daemon=True).start()

    def stop(self) -> None:
        """End, whatever it has seen; so does the one that it relieves."""
        self._stopped.set()
        former = self._former
        if former is not None:
            former.stop()

    def _run(self) -> None:
        try:
            while self._look():
                pass
        except Exception as error:  # whatever the file system says: it is told, and tried again
            if not self._stopped.is_set():
                _log.warning("the files that jobs watch cannot be watched: %s", error)
                self._tell_faults(dict.fromkeys(self._wanted, str(error)))
        finally:
            self._relieve()

    def _relieve(self) -> None:
        if self._former is not None:
            self._former._relieved.set()
            self._former = None

    def _tell_faults(self, faults: dict[str, str]) -> None:
        self._watching.call(partial(self._watching.at_fault, self, faults))

    def _look(self) -> bool:
        """Tell what changes until it is to end; True where a folder that is looked at went away, and others are to be."""
        import watchfiles  # here, since only a supervisor that has something to watch needs it

        wanted = self._wanted
        watchfiles.main.logger.setLevel(logging.WARNING)  # that something has changed is no news
        faults = {
            job: f"there is no folder {each.folder}" for job, each in wanted.items() if not os.path.isdir(each.folder)
        }
        there = {job: each for job, each in wanted.items() if job not in faults}
        if faults:
            self._tell_faults(faults)
        roots = _outermost(root_of(each, pattern) for each in there.values() for pattern in each.patterns)
        if not roots:
            return False
        regexes = {job: [pattern_to_regex(p) for p in each.patterns] for job, each in there.items()}
        for changes in watchfiles.watch(
            *roots,
            watch_filter=None,
            debounce=_LONGEST_MS,
            step=_REST_MS,
            rust_timeout=_LOOK_UP_MS,
            stop_event=self._stopped,
            raise_interrupt=False,
            ignore_permission_denied=True,
            yield_on_timeout=True,
        ):
            self._relieve()
            paths = [path for _, path in changes if not self._watching.is_own(path)]
            for job, each in there.items():
                mine = [path for path in paths if _fits(path, each.folder, regexes[job])]
                if mine:
                    at = max(map(changed_at, mine))
                    self._watching.call(partial(self._watching.tell, job, each, at))
            if self._relieved.is_set():
                return False
            if any(path in roots for kind, path in changes if kind is watchfiles.Change.deleted):
                return True  # what comes back under its name is another folder, and would not be seen
        return False


def _fits(path: str, folder: str, regexes: Iterable[re.Pattern[str]]) -> bool:
    if not path.startswith(folder.rstrip("/") + "/"):
        return False
    below = path[len(folder.rstrip("/")) + 1 :]
    if not _IGNORED.isdisjoint(below.split("/")):
        return False
    return any(regex.match(below) for regex in regexes)


def _outermost(folders: Iterable[str]) -> list[str]:
    """The folders without those that are in another one."""
    found: list[str] = []
    for folder in sorted(set(folders)):
        if not any(folder == above or folder.startswith(above.rstrip("/") + "/") for above in found):
            found.append(folder)
    return found
