"""Files of the workspace, for an agent: read, listed, searched, written and edited, and nothing outside of it, by no link."""

from __future__ import annotations

import importlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sparrow_mp.autonomy import forbidden
from sparrow_mp.regular import read_regular

LARGEST_FILE = 10 << 20
_MOST_FOUND = 500
_MOST_LOOKED_AT = 50_000
_LONGEST_LINE = 500
_LONGEST_MATCHING_S = 5.0


class ToolError(Exception):
    """A tool cannot do what it was asked to; the message is for the model."""


class Workspace:
    """The folder that a run works in. Paths are relative to it, or absolute and inside."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))

    def inside(self, path: str) -> Path:
        """Where the path leads to. Raises ToolError where that is outside, or out of bounds."""
        if "\0" in path:
            raise ToolError("a path cannot have a NUL in it")
        real = os.path.realpath(os.path.join(self.root, path))
        reason = forbidden(real, str(self.root))
        if reason:
            raise ToolError(f"not permitted: {reason}")
        return Path(real)

    def name(self, path: Path) -> str:
        """As it is called in here."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    # ── reading ──

    def text(self, path: str) -> str:
        """A file's text. Raises ToolError."""
        real = self.inside(path)
        try:
            data = read_regular(real, LARGEST_FILE)
        except FileNotFoundError:
            raise ToolError(f"there is no file {path}") from None
        except OSError as error:
            raise ToolError(f"{path} cannot be read: {error.strerror or error}") from None
        if b"\0" in data[:8192]:
            raise ToolError(f"{path} is no text: it has {len(data)} bytes")
        return data.decode("utf-8", "replace")

    def lines(self, path: str, first: int, count: int) -> str:
        """Some lines of a file with their numbers, and how many there are. Raises ToolError."""
        lines = self.text(path).splitlines()
        shown = lines[max(0, first - 1) :][:count]
        if not shown:
            return f"({path} has {len(lines)} lines)"
        numbered = [f"{n:>5}  {line[: 4 * _LONGEST_LINE]}" for n, line in enumerate(shown, max(1, first))]
        end = max(1, first) + len(shown) - 1
        return "\n".join(numbered) + (f"\n({path} has {len(lines)} lines)" if end < len(lines) or first > 1 else "")

    def files(self, folder: str, pattern: str) -> list[str]:
        """The files below a folder whose name or path matches the pattern (`*.py`, `src/**/*.py`). Raises ToolError."""
        top = self._folder(folder)
        wanted = _glob(pattern)
        found = []
        for path in self._walk(top):
            relative = str(path.relative_to(top))
            if wanted.is_all_of(relative) or ("/" not in pattern and fnmatchcase(path.name, pattern)):
                found.append(self.name(path))
                if len(found) >= _MOST_FOUND:
                    return [*found, f"(more than {_MOST_FOUND}: say which with a narrower pattern)"]
        return found

    def entries(self, folder: str) -> list[str]:
        """What is in a folder; folders end with `/`. Raises ToolError."""
        top = self._folder(folder)
        found = [
            entry.name + ("/" if entry.is_dir() else "")
            for entry in sorted(os.scandir(top), key=lambda entry: entry.name)
            if not forbidden(os.path.realpath(entry.path), str(self.root))
        ]
        return found[:_MOST_FOUND] + ([f"({len(found)} in all)"] if len(found) > _MOST_FOUND else [])

    def search(self, folder: str, regex: str, pattern: str) -> list[str]:
        """`path:line: text` of each line that matches, in the files whose names match the pattern. Raises ToolError."""
        wanted = Pattern(regex)
        start = self.inside(folder)
        names = _glob(pattern)
        found: list[str] = []
        for path in [start] if start.is_file() else self._walk(self._folder(folder)):
            relative = path.name if path == start else str(path.relative_to(start))
            if not (names.is_all_of(relative) or fnmatchcase(path.name, pattern)):
                continue
            for number, line in enumerate(self._quiet(path).splitlines(), 1):
                if wanted.is_in(line[: 20 * _LONGEST_LINE]):
                    found.append(f"{self.name(path)}:{number}: {line[:_LONGEST_LINE]}")
                    if len(found) >= _MOST_FOUND:
                        return [*found, f"(more than {_MOST_FOUND}: search for something rarer)"]
        return found

    def _quiet(self, path: Path) -> str:
        """A file's text; none where it is no text, or cannot be read."""
        try:
            data = read_regular(path, LARGEST_FILE)
        except OSError:
            return ""
        return "" if b"\0" in data[:8192] else data.decode("utf-8", "replace")

    def _folder(self, folder: str) -> Path:
        real = self.inside(folder)
        if not real.is_dir():
            raise ToolError(f"there is no folder {folder}")
        return real

    def _walk(self, top: Path) -> Iterator[Path]:
        """The plain files below, without links and without what is out of bounds, in the order of their names."""
        looked_at = 0
        for folder, folders, files in os.walk(top):
            folders[:] = sorted(name for name in folders if name not in _NOT_ENTERED and self._free(folder, name))
            for name in sorted(files):
                looked_at += 1
                if looked_at > _MOST_LOOKED_AT:
                    return
                if self._free(folder, name) and _is_plain(os.path.join(folder, name)):
                    yield Path(folder, name)

    def _free(self, folder: str, name: str) -> bool:
        return not forbidden(os.path.join(folder, name), str(self.root))

    # ── writing ──

    def write(self, path: str, text: str) -> None:
        """Make the file have this text, and its mode stay. Raises ToolError."""
        real = self.inside(path)
        try:
            real.parent.mkdir(parents=True, exist_ok=True)
            # The path has no link in it any more: should its last part have become one since, it is not followed.
            fd = os.open(
                real, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666
            )
            with open(fd, "w", encoding="utf-8", newline="") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise ToolError(f"{path} is no plain file")
                file.write(text)
        except OSError as error:
            raise ToolError(f"{path} cannot be written: {error.strerror or error}") from None
        except UnicodeEncodeError:
            raise ToolError("the text is not Unicode") from None

    def before(self, path: str) -> str | None:
        """The text that a file has before it is written; None where there is no file. Raises ToolError."""
        return self.text(path) if self.inside(path).exists() else None


_NOT_ENTERED = frozenset({"node_modules", "__pycache__", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache"})
"""Folders that others made, and that hide what one is looking for."""


def replaced(text: str, old: str, new: str, *, everywhere: bool) -> str:
    """The text with an exact piece of it replaced. Raises ToolError where it is not there, or not clear which is meant."""
    if not old:
        raise ToolError("`old` is empty: say which text is to be replaced, or write the whole file")
    if old == new:
        raise ToolError("`old` and `new` are the same")
    count = text.count(old)
    if not count:
        hint = "; its white space differs" if " ".join(old.split()) in " ".join(text.split()) else ""
        raise ToolError(f"the file does not have that text{hint}: read it again, and copy the text exactly")
    if count > 1 and not everywhere:
        raise ToolError(f"the file has that text {count} times: give more of what is around it, or say `everywhere`")
    return text.replace(old, new)


class Pattern:
    """A regular expression that somebody else has written: all that is matched with it takes a few seconds at most."""

    def __init__(self, words: str) -> None:
        """Raises ToolError where it is none."""
        regex: Any = importlib.import_module("regex")  # as `re` is, with a time limit, and others may run meanwhile
        try:
            self._compiled: Any = regex.compile(words)
        except regex.error as error:
            raise ToolError(f"`{words}` is no regular expression: {error}") from None
        self._left = _LONGEST_MATCHING_S

    def is_in(self, text: str) -> bool:
        """Whether it matches somewhere. Raises ToolError where all that was matched takes too long."""
        return self._timed(self._compiled.search, text)

    def is_all_of(self, text: str) -> bool:
        """Whether it matches the whole. Raises ToolError likewise."""
        return self._timed(self._compiled.fullmatch, text)

    def _timed(self, match: Callable[..., object], text: str) -> bool:
        began = time.thread_time()
        try:
            return match(text, timeout=max(self._left, 0.01), concurrent=True) is not None
        except TimeoutError:
            raise ToolError("to match that takes too long: use a simpler pattern") from None
        finally:
            self._left -= time.thread_time() - began


def _glob(pattern: str) -> Pattern:
    """A pattern of paths: `**/` is any folders or none, `*` and `?` do not cross a `/`."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    meanings = {"**/": "(?:[^/]+/)*", "**": "(?s:.*)", "*": "[^/]*", "?": "[^/]"}
    return Pattern("".join(meanings.get(part, re.escape(part)) for part in parts))


def _is_plain(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
